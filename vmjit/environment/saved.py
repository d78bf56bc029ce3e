"""The state of an environment at one moment: of all its lanes, or of one, which others can then have."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.environment.mappings import MappingState
from vmjit.environment.root_folder import GuestFile

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


@dataclass(frozen=True, eq=False)
class SavedEnvironment:
    """`by_lane` has arrays whose first axis is lanes; `mapping_states` and `files` are what numbers in them mean."""

    by_lane: dict[str, NDArray[Any]]
    stdin: SavedInput
    outputs: dict[int, SavedOutput]
    unknown_calls: dict[int, int]
    mapping_states: tuple[MappingState, ...] = ()
    files: tuple[GuestFile, ...] = field(default=())

    def of_lane(self, lane: int) -> SavedEnvironment:
        """The state of one lane alone."""
        return replace(
            self,
            by_lane={name: array[lane : lane + 1] for name, array in self.by_lane.items()},
            stdin=self.stdin.of_lane(lane),
            outputs={number: output.of_lane(lane) for number, output in self.outputs.items()},
            unknown_calls={},
        )

    def repeated(self, lanes: int) -> SavedEnvironment:
        """The state of one lane as that of many."""
        return replace(
            self,
            by_lane={name: np.repeat(array, lanes, axis=0) for name, array in self.by_lane.items()},
            stdin=self.stdin.repeated(lanes),
        )
