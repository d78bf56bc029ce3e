"""The state of an environment at one moment: of all its lanes, or of one, which others can then have."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.address_space import AddressSpace
from vmjit.environment.root_folder import GuestFile
from vmjit.environment.saved_streams import SavedInput, SavedOutput


@dataclass(frozen=True, eq=False)
class SavedEnvironment:
    """`by_lane` has arrays whose first axis is lanes; `address_spaces` and `files` are what numbers in them mean."""

    by_lane: dict[str, NDArray[Any]]
    stdin: SavedInput
    outputs: dict[int, SavedOutput]
    unknown_calls: dict[int, int]
    address_spaces: tuple[AddressSpace, ...] = ()
    files: tuple[GuestFile, ...] = field(default=())
    lane_files: dict[bytes, SavedInput] = field(default_factory=dict)
    """Contents of files that are another for each lane, by path."""

    def of_lane(self, lane: int) -> SavedEnvironment:
        """The state of one lane alone."""
        return replace(
            self,
            by_lane={name: array[lane : lane + 1] for name, array in self.by_lane.items()},
            stdin=self.stdin.of_lane(lane),
            outputs={number: output.of_lane(lane) for number, output in self.outputs.items()},
            unknown_calls={},
            lane_files={path: saved.of_lane(lane) for path, saved in self.lane_files.items()},
        )

    def repeated(self, lanes: int) -> SavedEnvironment:
        """The state of one lane as that of many."""
        return replace(
            self,
            by_lane={name: np.repeat(array, lanes, axis=0) for name, array in self.by_lane.items()},
            stdin=self.stdin.repeated(lanes),
            lane_files={path: saved.repeated(lanes) for path, saved in self.lane_files.items()},
        )
