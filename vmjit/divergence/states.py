"""What two executions are compared by: the whole state of their lanes, as snapshots have it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vmjit.memory_image import PAGE, Bytes
from vmjit.snapshot import STATE_ARRAYS, Snapshot

Mask = NDArray[np.bool_]

_BY_LANE = tuple(name for name in STATE_ARRAYS if name != "registers")


def lanes_unlike(left: Snapshot, right: Snapshot, registers: list[int]) -> Mask:
    """(lanes,): which lanes differ in their pc, stop, retired instructions, memory, or one of these registers."""
    unlike = np.zeros(left.lanes, bool)
    for name in _BY_LANE:
        unlike |= left.state[name] != right.state[name]
    unlike |= (left.state["registers"][registers] != right.state["registers"][registers]).any(axis=0)
    for lane, _ in pages_unlike(left, right):
        unlike[lane] = True
    return unlike


def pages_unlike(left: Snapshot, right: Snapshot) -> dict[tuple[int, int], tuple[Bytes, Bytes]]:
    """By lane and number, the pages of lanes' own memory that differ: what both have, (4096,) uint8 each."""
    first, second = _pages(left), _pages(right)
    found = {}
    for key in first.keys() | second.keys():
        a, b = (
            pages[key] if key in pages else of.base.pages(np.array([key[1]]))[0]
            for pages, of in ((first, left), (second, right))
        )
        if not np.array_equal(a, b):
            found[key] = (a, b)
    if left.base is not right.base:
        for number in np.union1d(left.base.numbers, right.base.numbers).tolist():
            a, b = (of.base.pages(np.array([number]))[0] for of in (left, right))
            if not np.array_equal(a, b):
                others = [lane for lane in range(left.lanes) if (lane, number) not in first.keys() | second.keys()]
                found |= {(lane, number): (a, b) for lane in others}
    return found


def _pages(snapshot: Snapshot) -> dict[tuple[int, int], Bytes]:
    pages = snapshot.pages
    keys = zip(pages.lanes.tolist(), pages.numbers.tolist(), strict=True)
    return dict(zip(keys, pages.contents, strict=True))


def bytes_unlike(left: Snapshot, right: Snapshot, lane: int) -> list[tuple[int, int, int]]:
    """(offset in the lane's own memory, byte on the left, byte on the right), in order."""
    found = []
    for (whose, number), (a, b) in pages_unlike(left, right).items():
        if whose == lane:
            found += [(number * PAGE + int(i), int(a[i]), int(b[i])) for i in np.flatnonzero(a != b)]
    return sorted(found)
