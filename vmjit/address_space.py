"""One address space: what is mapped, what may be done with it, and where its bytes are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vmjit.kernels.layout import PERMISSION_EXECUTE, PERMISSION_READ, PERMISSION_WRITE

Numbers = NDArray[np.int64]
Addresses = NDArray[np.uint64]
Mask = NDArray[np.bool_]

PAGE = 4096

# Mappings of a lane at most, as Linux bounds a process's: what a space takes is bounded.
MOST_MAPPINGS = 512

_READ_WRITE = PERMISSION_READ | PERMISSION_WRITE


@dataclass(frozen=True)
class AddressSpace:
    """`mappings` are (start, end, permissions) by address, whole pages, disjoint; of those that touch, permissions
    differ. Permissions may be 0: mapped, and not to be accessed.

    backing: (start, end, place) by address, of mappings far from the lane's memory: the bytes of [start, end) are those
    of its memory from `place` on.
    """

    mappings: tuple[tuple[int, int, int], ...] = ()
    backing: tuple[tuple[int, int, int], ...] = ()

    def mapped(self, start: int, end: int, permissions: int) -> AddressSpace:
        """With a mapping, whatever is there; it keeps its backing."""
        return AddressSpace(_joined([*self._outside(start, end), (start, end, permissions)]), self.backing)

    def unmapped(self, start: int, end: int) -> AddressSpace:
        return AddressSpace(tuple(self._outside(start, end)), self._backing_outside(start, end))

    def _backing_outside(self, start: int, end: int) -> tuple[tuple[int, int, int], ...]:
        found = []
        for first, last, place in self.backing:
            if first < start:
                found.append((first, min(last, start), place))
            if end < last:
                found.append((max(first, end), last, place + max(end - first, 0)))
        return tuple(found)

    def _outside(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """The parts of mappings outside a range."""
        found = []
        for first, last, permissions in self.mappings:
            if first < start:
                found.append((first, min(last, start), permissions))
            if end < last:
                found.append((max(first, end), last, permissions))
        return found

    def inside(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """The parts of mappings in a range."""
        cut = ((max(first, start), min(last, end), permissions) for first, last, permissions in self.mappings)
        return [part for part in cut if part[0] < part[1]]

    @cached_property
    def _taken(self) -> tuple[tuple[int, int], ...]:
        """What is mapped, or backs what is, (start, end) by address."""
        backing = [(place, place + last - first) for first, last, place in self.backing]
        return tuple(sorted([*((first, last) for first, last, _ in self.mappings), *backing]))

    def is_free(self, start: int, end: int) -> bool:
        return not any(first < end and start < last for first, last in self._taken)

    def is_mapped(self, start: int, end: int) -> bool:
        """Whether all of a range is, however."""
        return sum(last - first for first, last, _ in self.inside(start, end)) == end - start

    def allows(self, start: int, end: int, permissions: int) -> bool:
        """Whether all of a range has these permissions."""
        good = (last - first for first, last, given in self.inside(start, end) if given & permissions == permissions)
        return sum(good) == end - start

    def place_for(self, size: int, floor: int, top: int) -> int | None:
        """Where so many bytes fit best between two addresses: the end of the smallest hole, the highest of several.

        To take the highest hole with room, as Linux does, leaves many that fit nothing, and lanes have little memory.
        """
        hole = self.hole_for(size, floor, top)
        return None if hole is None or hole[1] < size else hole[0]

    def hole_for(self, size: int, floor: int, top: int) -> tuple[int, int] | None:
        """The same, (place, size): less than what is wanted, the largest hole, where it fits in none."""
        best: tuple[int, int] | None = None  # the end of a hole, and its size
        end = top
        for first, last in (*reversed(self._taken), (floor, floor)):
            hole = end - max(last, floor)
            if hole > 0 and (best is None or (hole < best[1] if min(hole, best[1]) >= size else hole > best[1])):
                best = end, hole
            end = min(end, first)
            if end <= floor:
                break
        if best is None:
            return None
        end, hole = best
        return end - min(hole, size), min(hole, size)

    def at(self, address: int) -> int | None:
        """The permissions at an address; None where nothing is mapped."""
        for first, last, permissions in self.mappings:
            if first <= address < last:
                return permissions
        return None

    def backed(self, start: int, end: int, place: int) -> AddressSpace:
        """With the bytes of a range from a place on."""
        return replace(self, backing=_joined_backing([*self.backing, (start, end, place)]))

    def not_backed(self, start: int, end: int) -> list[tuple[int, int]]:
        """(start, end) of the parts of a range that have no backing."""
        edges = [start, *(edge for first, last, _ in self.behind(start, end) for edge in (first, last)), end]
        return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]

    def outgrows(self, before: AddressSpace) -> bool:
        """Whether it has too many parts, and more than before."""
        pairs = ((before.mappings, self.mappings), (before.backing, self.backing))
        return any(len(new) > MOST_MAPPINGS and len(new) > len(old) for old, new in pairs)

    def behind(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """(start, end, place) of the parts of a range whose bytes are elsewhere."""
        cut = ((max(a, start), min(b, end), place + max(start - a, 0)) for a, b, place in self.backing)
        return [part for part in cut if part[0] < part[1]]

    @cached_property
    def accessible_backing(self) -> tuple[tuple[int, int, int, int], ...]:
        """(start, end, place, permissions) of what is far and can be read or written."""
        return tuple(
            (start, end, place + start - first, permissions)
            for first, last, place in self.backing
            for start, end, permissions in self.inside(first, last)
            if permissions & _READ_WRITE
        )

    @cached_property
    def executable(self) -> tuple[tuple[int, int], ...]:
        """What may be executed, (start, end) by address."""
        return self._runs(PERMISSION_EXECUTE)

    @cached_property
    def behind_code(self) -> tuple[tuple[int, int, int], ...]:
        """The backing of what may be executed."""
        return tuple(part for run in self.executable for part in self.behind(*run)) if self.backing else ()

    @cached_property
    def _accessible(self) -> dict[int, tuple[Addresses, Addresses]]:
        found = {}
        for permission in (PERMISSION_READ, PERMISSION_WRITE, PERMISSION_EXECUTE):
            runs = np.array(self._runs(permission), np.uint64).reshape(-1, 2)
            found[permission] = (runs[:, 0].copy(), runs[:, 1] - np.uint64(1))  # a run may end where addresses do
        return found

    def _runs(self, permission: int) -> tuple[tuple[int, int], ...]:
        """What has a permission, (start, end) as long as can be."""
        runs: list[tuple[int, int]] = []
        for first, last, permissions in self.mappings:
            if permissions & permission:
                touches = bool(runs) and runs[-1][1] == first
                runs.append((runs.pop()[0] if touches else first, last))
        return tuple(runs)

    def permits(self, addresses: Addresses, sizes: Numbers, permission: int) -> Mask:
        """Which ranges, each of at least one byte, have a permission as a whole."""
        starts, lasts = self._accessible[permission]
        if not len(starts):
            return np.zeros(len(addresses), bool)
        run = np.searchsorted(starts, addresses, side="right") - 1
        here = run.clip(0)
        inside = (run >= 0) & (addresses <= lasts[here])
        room = lasts[here] - np.where(inside, addresses, lasts[here])
        found: Mask = inside & ((sizes - 1).astype(np.uint64) <= room)
        return found


def _joined_backing(backing: list[tuple[int, int, int]]) -> tuple[tuple[int, int, int], ...]:
    """In the order of addresses, parts that touch here and there as one."""
    found: list[tuple[int, int, int]] = []
    for first, last, place in sorted(backing):
        if found and found[-1][1] == first and found[-1][2] + first - found[-1][0] == place:
            found[-1] = (found[-1][0], last, found[-1][2])
        else:
            found.append((first, last, place))
    return tuple(found)


def _joined(mappings: list[tuple[int, int, int]]) -> tuple[tuple[int, int, int], ...]:
    """Mappings in the order of addresses, those that touch and have the same permissions as one."""
    found: list[tuple[int, int, int]] = []
    for first, last, permissions in sorted(mappings):
        if found and found[-1][1:] == (first, permissions):
            found[-1] = (found[-1][0], last, permissions)
        else:
            found.append((first, last, permissions))
    return tuple(found)
