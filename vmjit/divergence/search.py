"""The first instruction after which two executions differ.

Both go on in step, by windows of instructions; where their states differ at a window's end, the least count that shows
it is found by bisection from the window's start, and then the last state from which both start alike and still come to
differ. Compiled code acts by blocks: these two places are a block apart then. Single steps of the side that is trusted
say what was executed between, and code that ends within the block, for a breakpoint, where it went wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vmjit.divergence.sides import Side
from vmjit.divergence.states import lanes_unlike
from vmjit.snapshot import Snapshot

_FIRST_WINDOW = 1 << 12
# In front of a difference, states are tried one by one so far: a region is shorter.
_NEAR = 1024
# Instructions behind a common state that are followed one by one.
MOST_STEPS = 4096

Compared = tuple[Snapshot, Snapshot, NDArray[np.bool_]]


@dataclass(frozen=True, eq=False)
class Difference:
    """From `start`, which both had, `count` instructions later `lane` has `left` on one side and `right` on the other;
    after fewer instructions both were alike. `retired` is the lane's count at `start`. With more than `MOST_STEPS`, it
    was seen once and not again: what was compiled meanwhile is other code.
    """

    lane: int
    start: Snapshot
    count: int
    left: Snapshot
    right: Snapshot
    retired: int


class _Search:
    def __init__(self, left: Side, right: Side) -> None:
        self.left, self.right = left, right
        self.registers = sorted(set(left.registers) & set(right.registers))

    def compare(self) -> Compared:
        """What both have now, and which lanes differ."""
        left, right = self.left.snapshot(), self.right.snapshot()
        return left, right, lanes_unlike(left, right, self.registers)

    def _behind(self, start: Snapshot, count: int) -> Compared:
        """The same so many instructions behind a state."""
        for side in (self.left, self.right):
            side.restore(start)
            side.advance(count)
        return self.compare()

    def _differs(self, start: Snapshot, count: int) -> bool:
        return bool(self._behind(start, count)[2].any())

    def narrowed(self, start: Snapshot, count: int, seen: Compared) -> Difference:
        """The difference that was seen `count` instructions behind a state."""
        if not self._differs(start, count):
            return _difference(start, count, seen)
        count = _least(lambda n: self._differs(start, n), count)
        for distances in (_far_distances(count), range(1, _NEAR)):
            start, count = self._nearer(start, count, distances)
        again = self._behind(start, count)
        if not again[2].any():
            return _difference(start, count, seen)
        difference = _difference(start, count, again)
        lane = difference.lane
        pcs = self._trace(start, count, lane) if count <= MOST_STEPS else ()
        if len(pcs) > 1 and len(set(pcs)) == len(pcs):
            count = _least(lambda n: bool(self._cut(start, n, pcs[n])[2].any()), count)
            if count < len(pcs):
                left, right, _ = self._cut(start, count, pcs[count])
                return replace(difference, count=count, left=left, right=right)
        return difference

    def _nearer(self, start: Snapshot, count: int, distances: Iterable[int]) -> tuple[Snapshot, int]:
        """The first of these distances in front of a difference at which a state still leads to it."""
        for distance in distances:
            if distance >= count:
                break
            self.left.restore(start)
            self.left.advance(count - distance)
            nearer = self.left.snapshot()
            if self._differs(nearer, distance):
                return nearer, distance
        return start, count

    def _trace(self, start: Snapshot, count: int, lane: int) -> tuple[int, ...]:
        """The pcs of a lane's next instructions on the left side."""
        self.left.restore(start)
        pcs = []
        for _ in range(count):
            pcs.append(int(self.left.machine._state.pc[lane]))
            self.left.advance(1)
        return tuple(pcs)

    def _cut(self, start: Snapshot, count: int, pc: int) -> Compared:
        """What both have so many instructions behind a state, at `pc`, if the right side's code ends there."""
        self.left.restore(start)
        self.left.advance(count)
        for _ in range(self.right.attempts):
            self.right.restore(start)
            self.right.advance_to(pc, count)
            compared = self.compare()
            if compared[2].any():
                break
        return compared


def _difference(start: Snapshot, count: int, compared: Compared) -> Difference:
    left, right, unlike = compared
    lane = int(np.flatnonzero(unlike)[0])
    return Difference(lane, start, count, left, right, int(start.state["retired"][lane]))


def _least(test: Callable[[int], bool], last: int) -> int:
    """The least number that passes a test, if all behind it do; `last` is taken to."""
    low, high = 0, last
    while high - low > 1:
        middle = (low + high) // 2
        if test(middle):
            high = middle
        else:
            low = middle
    return high


def _far_distances(count: int) -> Iterator[int]:
    """Some in front of those that are tried one by one, each four times the one before."""
    distance = 4 * _NEAR
    while distance < count:
        yield distance
        distance *= 4


def find_difference(
    left: Side,
    right: Side,
    limit: int,
    *,
    window: int = 1 << 22,
) -> Difference | None:
    """Where the executions first differ within `limit` instructions a lane; None if they do not.

    left: the side that is trusted. Both machines have the same program, memory and inputs; the right one is given the
    left one's state. window: instructions between two comparisons at most.
    """
    search = _Search(left, right)
    start = left.snapshot()
    right.restore(start)
    done, size = 0, min(_FIRST_WINDOW, window)
    while done < limit:
        size = min(size, limit - done)
        for side in (left, right):
            side.advance(size)
        seen = search.compare()
        if seen[2].any():
            return search.narrowed(start, size, seen)
        done += size
        if left.is_over():
            return None
        start, size = seen[0], min(4 * size, window)
    return None
