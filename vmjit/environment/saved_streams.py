"""The state of the lanes' standard streams at one moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]
Chunk = tuple[NDArray[np.intp], Numbers, Bytes]
"""Writes of some lanes: who, how many bytes each, and the bytes one after the other."""


@dataclass(frozen=True, eq=False)
class SavedInput:
    """Each lane's input is data[start:start + size], read from `position` on."""

    data: Bytes
    start: Numbers
    size: Numbers
    position: Numbers

    def of_lane(self, lane: int) -> SavedInput:
        start, size = int(self.start[lane]), int(self.size[lane])
        zero = np.zeros(1, np.int64)
        return SavedInput(
            self.data[start : start + size], zero, self.size[lane : lane + 1], self.position[lane : lane + 1]
        )

    def repeated(self, lanes: int) -> SavedInput:
        return SavedInput(self.data, *(np.repeat(a, lanes) for a in (self.start, self.size, self.position)))


@dataclass(frozen=True, eq=False)
class SavedOutput:
    """What all lanes have in common at first, and what each wrote behind it."""

    common: bytes
    chunks: tuple[Chunk, ...]

    def of_lane(self, lane: int) -> SavedOutput:
        parts = [self.common]
        for lanes, sizes, data in self.chunks:
            starts = np.cumsum(sizes) - sizes
            for i in np.flatnonzero(lanes == lane):
                parts.append(data[starts[i] : starts[i] + sizes[i]].tobytes())
        return SavedOutput(b"".join(parts), ())
