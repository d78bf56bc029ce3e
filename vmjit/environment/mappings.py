"""Which addresses of a lane's mapping area are in use, for many lanes at once.

Mappings grow downwards from a top; what is unmapped in between is a hole, which later mappings fill. Lanes that did the
same have the same state, and a state is worked out once: a lane holds its number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

# Holes of a lane at most, as Linux bounds the number of a process's mappings: what a state takes is bounded.
MOST_HOLES = 512

# States kept until those that no lane has any more are dropped.
_MANY_STATES = 4096


@dataclass(frozen=True, slots=True)
class MappingState:
    """Everything from `low` up is mapped, but for the holes: (start, end), in the order of addresses."""

    low: int
    holes: tuple[tuple[int, int], ...] = ()

    def take(self, size: int, floor: int) -> tuple[MappingState, int] | None:
        """Map so many bytes: in the highest hole that has room, else below all; None if `floor` is in the way."""
        for i in range(len(self.holes) - 1, -1, -1):
            start, end = self.holes[i]
            if end - start >= size:
                rest = ((start, end - size),) if end - start > size else ()
                return MappingState(self.low, self.holes[:i] + rest + self.holes[i + 1 :]), end - size
        if self.low - size < floor:
            return None
        return MappingState(self.low - size, self.holes), self.low - size

    def free(self, start: int, end: int) -> MappingState:
        """Unmap what of a range is mapped."""
        start = max(start, self.low)
        if start >= end:
            return self
        joined = []
        for hole in self.holes:
            if hole[1] < start or end < hole[0]:
                joined.append(hole)
            else:
                start, end = min(start, hole[0]), max(end, hole[1])
        joined.append((start, end))
        joined.sort()
        if joined[0][0] <= self.low:
            return MappingState(joined[0][1], tuple(joined[1:]))
        return MappingState(self.low, tuple(joined))

    def use(self, start: int, end: int) -> MappingState:
        """Map a range at its place, whatever is there."""
        holes = []
        low = self.low
        if start < low:
            if end < low:
                holes.append((end, low))
            low = start
        for first, last in self.holes:
            if last <= start or end <= first:
                holes.append((first, last))
                continue
            if first < start:
                holes.append((first, start))
            if end < last:
                holes.append((end, last))
        return MappingState(low, tuple(sorted(holes)))


class Mappings:
    """The mapping areas of `lanes` lanes, below address `top`. `states` has a number for each lane."""

    def __init__(self, lanes: int, top: int) -> None:
        self.top = top
        self.states = np.zeros(lanes, np.int64)
        self._known: list[MappingState] = []
        self._numbers: dict[MappingState, int] = {}
        self.reset()

    def reset(self) -> None:
        """Nothing is mapped."""
        self._known, self._numbers = [], {}
        self.states[:] = self._number(MappingState(self.top))

    def _number(self, state: MappingState) -> int:
        number = self._numbers.get(state)
        if number is None:
            number = self._numbers[state] = len(self._known)
            self._known.append(state)
        return number

    def low(self, lanes: NDArray[np.integer]) -> NDArray[np.uint64]:
        """The lowest address that is mapped, by lane."""
        lows = np.array([state.low for state in self._known], np.uint64)
        found: NDArray[np.uint64] = lows[self.states[lanes]]
        return found

    def take(self, lanes: NDArray[np.integer], sizes: Numbers, floors: Numbers) -> Numbers:
        """Map bytes in each lane, a multiple of pages, above its floor; gives where, or -1."""
        found = np.full(len(lanes), -1, np.int64)
        for these, state, size, floor in self._alike(lanes, sizes, floors):
            taken = state.take(size, floor)
            if taken is not None:
                self.states[lanes[these]] = self._number(taken[0])
                found[these] = taken[1]
        return found

    def free(self, lanes: NDArray[np.integer], starts: Numbers, ends: Numbers) -> NDArray[np.bool_]:
        """Unmap a range in each lane; which lanes could, the others would have too many holes."""
        good = np.ones(len(lanes), bool)
        for these, state, start, end in self._alike(lanes, starts, ends):
            after = state.free(start, min(end, self.top))
            if len(after.holes) > MOST_HOLES:
                good[these] = False
            else:
                self.states[lanes[these]] = self._number(after)
        return good

    def use(self, lanes: NDArray[np.integer], starts: Numbers, ends: Numbers) -> None:
        """Map a range at its place in each lane, as far as it is in the area."""
        for these, state, start, end in self._alike(lanes, starts, ends):
            if start < self.top:
                self.states[lanes[these]] = self._number(state.use(start, min(end, self.top)))

    def _alike(
        self, lanes: NDArray[np.integer], first: Numbers, second: Numbers
    ) -> list[tuple[NDArray[np.intp], MappingState, int, int]]:
        """Lanes (by place) that are in one state and ask for the same."""
        self._drop_unused()
        keys = np.stack([self.states[lanes], first, second], axis=1)
        kinds, which = np.unique(keys, axis=0, return_inverse=True)
        which = which.reshape(-1)
        order = np.argsort(which, kind="stable")
        cuts = np.searchsorted(which[order], np.arange(1, len(kinds)))
        groups = np.split(order, cuts)
        return [
            (these, self._known[int(state)], int(a), int(b)) for these, (state, a, b) in zip(groups, kinds, strict=True)
        ]

    def _drop_unused(self) -> None:
        if len(self._known) < max(_MANY_STATES, 2 * len(self.states)):
            return
        used, self.states[:] = np.unique(self.states, return_inverse=True)
        self._known = [self._known[int(i)] for i in used]
        self._numbers = {state: i for i, state in enumerate(self._known)}

    def save(self) -> tuple[Numbers, tuple[MappingState, ...]]:
        """(each lane's number, the states with these numbers)."""
        return self.states.copy(), tuple(self._known)

    def restore(self, states: Numbers, known: tuple[MappingState, ...]) -> None:
        self.states[:], self._known = states, list(known)
        self._numbers = {state: i for i, state in enumerate(self._known)}
