"""The lanes' descriptors, and the open file descriptions that they lead to.

As in POSIX (XBD 3.224, "Open File Description"): where a file is read next belongs to what `open` made, and
descriptors that `dup` and the like made of one share it. A lane has at most as many descriptions in use as descriptors;
one that no descriptor leads to any more is free, so that closing has nothing to count.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.environment.call import Lanes, Values

DESCRIPTORS = 32
STANDARD = 3
CLOSED = -1
LAST_POSITION = (1 << 63) - 1


class Descriptors:
    """Arrays (lanes, DESCRIPTORS): of each descriptor its description, of each description its file and position."""

    def __init__(self, lanes: int) -> None:
        self.descriptions = np.zeros((lanes, DESCRIPTORS), np.int64)
        # By description: 0 to 2 for the standard streams, 3 and more for what was opened; and the place in it.
        self.files = np.zeros((lanes, DESCRIPTORS), np.int64)
        self.positions = np.zeros((lanes, DESCRIPTORS), np.int64)

    def by_lane(self) -> dict[str, NDArray[Any]]:
        """What is kept for each lane; views."""
        return {"descriptors": self.descriptions, "described": self.files, "positions": self.positions}

    def reset(self) -> None:
        """The standard streams alone."""
        self.positions[:] = 0
        for table in (self.descriptions, self.files):
            table[:] = CLOSED
            table[:, :STANDARD] = np.arange(STANDARD)

    def description(self, lanes: Lanes, descriptors: Values) -> Values:
        """The description of one descriptor a lane, any number; `CLOSED` for none."""
        known = (descriptors >= 0) & (descriptors < DESCRIPTORS)
        return np.where(known, self.descriptions[lanes, np.where(known, descriptors, 0)], CLOSED)

    def file(self, lanes: Lanes, descriptors: Values) -> Values:
        """What one descriptor a lane stands for; `CLOSED` for none."""
        found = self.description(lanes, descriptors)
        return np.where(found == CLOSED, CLOSED, self.files[lanes, found])

    def open(self, lanes: Lanes, files: Values) -> Values:
        """A descriptor of each lane for a file, from its beginning on; or -EMFILE."""
        table = self.descriptions[lanes]
        used = np.zeros(table.shape, bool)
        rows, columns = np.nonzero(table != CLOSED)
        used[rows, table[rows, columns]] = True
        # With a free descriptor there is a free description; without one, what is found here is not taken.
        free = np.argmin(used, axis=1)
        result = self.add(lanes, free, np.zeros(len(lanes), np.int64))
        good = result >= 0
        self.files[lanes[good], free[good]] = files[good]
        self.positions[lanes[good], free[good]] = 0
        return result

    def add(self, lanes: Lanes, descriptions: Values, lowest: Values) -> Values:
        """The first free descriptor of each lane from `lowest` on, which now leads to a description; or -EMFILE."""
        free = (self.descriptions[lanes] == CLOSED) & (np.arange(DESCRIPTORS) >= lowest[:, None])
        first, good = np.argmax(free, axis=1), free.any(axis=1)
        self.descriptions[lanes[good], first[good]] = descriptions[good]
        return np.where(good, first, -errno.EMFILE)

    def refuses(self, saved: Mapping[str, NDArray[Any]], files: int) -> str:
        """What of saved arrays cannot be, with so many opened files; empty if all can."""
        limits = {"descriptors": DESCRIPTORS - 1, "described": STANDARD + files - 1, "positions": LAST_POSITION}
        for name, last in limits.items():
            values, first = saved[name], 0 if name == "positions" else CLOSED
            if values.size and (int(values.min()) < first or int(values.max()) > last):
                return f"its {name} have values that cannot be"
        led_to = saved["descriptors"]
        if ((np.take_along_axis(saved["described"], led_to.clip(0), axis=1) == CLOSED) & (led_to != CLOSED)).any():
            return "descriptors that lead nowhere"
        return ""
