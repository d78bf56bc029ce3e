"""The pages that lanes may read, write and execute, where programs change that while they run.

An address space is a list of mappings. Lanes that did the same have the same one, and it is worked out once: a lane
holds its number. For kernels each has a row (`AddressSpaceRow`): how far the lane's data reaches, which nearly all
accesses are decided by, and a bit for each page that may be read and that may be written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vmjit.kernels.layout import PERMISSION_EXECUTE, PERMISSION_READ, PERMISSION_WRITE, AddressSpaceRow
from vmjit.memory_layout import MemoryLayout, PagePlan

PAGE = 4096

Numbers = NDArray[np.int64]
Addresses = NDArray[np.uint64]
Lanes = NDArray[np.integer]
Mask = NDArray[np.bool_]

# Mappings of a lane at most, as Linux bounds a process's: what a space takes is bounded.
MOST_MAPPINGS = 512

# Spaces kept until those that no lane has any more are dropped; fewer where their rows take so many bytes.
_MANY_SPACES = 4096
_MANY_BYTES = 64 << 20

_READ_WRITE = PERMISSION_READ | PERMISSION_WRITE


@dataclass(frozen=True)
class AddressSpace:
    """`mappings` are (start, end, permissions) by address, whole pages, disjoint; of those that touch, permissions
    differ. Permissions may be 0: mapped, and not to be accessed."""

    mappings: tuple[tuple[int, int, int], ...] = ()

    def mapped(self, start: int, end: int, permissions: int) -> AddressSpace:
        """With a mapping, whatever is there."""
        return AddressSpace(_joined([*self._outside(start, end), (start, end, permissions)]))

    def unmapped(self, start: int, end: int) -> AddressSpace:
        return AddressSpace(tuple(self._outside(start, end)))

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

    def is_free(self, start: int, end: int) -> bool:
        return not self.inside(start, end)

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
        best: tuple[int, int] | None = None
        end = top
        for first, last, _ in (*reversed(self.mappings), (floor, floor, 0)):
            hole = end - max(last, floor)
            if hole >= size and (best is None or hole < best[0]):
                best = hole, end - size
            end = min(end, first)
            if end <= floor:
                break
        return None if best is None else best[1]

    def at(self, address: int) -> int | None:
        """The permissions at an address; None where nothing is mapped."""
        for first, last, permissions in self.mappings:
            if first <= address < last:
                return permissions
        return None

    @cached_property
    def executable(self) -> tuple[tuple[int, int], ...]:
        """What may be executed, (start, end) by address."""
        return self._runs(PERMISSION_EXECUTE)

    @cached_property
    def _accessible(self) -> dict[int, tuple[Addresses, Addresses]]:
        found = {}
        for permission in (PERMISSION_READ, PERMISSION_WRITE):
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


def _joined(mappings: list[tuple[int, int, int]]) -> tuple[tuple[int, int, int], ...]:
    """Mappings in the order of addresses, those that touch and have the same permissions as one."""
    found: list[tuple[int, int, int]] = []
    for first, last, permissions in sorted(mappings):
        if found and found[-1][1:] == (first, permissions):
            found[-1] = (found[-1][0], last, permissions)
        else:
            found.append((first, last, permissions))
    return tuple(found)


Change = Callable[[AddressSpace, int, int], "AddressSpace | None"]


class AddressSpaces:
    """The address spaces of `lanes` lanes, laid out by `layout.paged`. `numbers` has each lane's, (lanes,) int32.

    rows: (spaces, n) uint64 for kernels, of which the first `len(self)` count; the same array or a longer one, with
    more rows, after lanes have changed their mappings.
    """

    def __init__(self, lanes: int, layout: MemoryLayout) -> None:
        assert layout.paged is not None
        self.layout = layout
        self.plan: PagePlan = layout.paged
        self.numbers = np.zeros(lanes, np.int32)
        self.bitmap_bytes = -(-(self.plan.lo + self.plan.size - self.plan.bits_lo) // (64 * PAGE)) * 8
        row = (AddressSpaceRow.PAGES + 2 * self.bitmap_bytes) // 8
        self.rows = np.zeros((1, row), np.uint64)
        self.version = 0
        """Grows with each change of `rows`."""
        self._known: list[AddressSpace] = []
        self._numbers: dict[AddressSpace, int] = {}
        self._kinds: dict[tuple[tuple[tuple[int, int], ...], bool], int] = {}  # what may be executed, whether compiled
        self._kind_of: list[int] = []
        self._moved: Mask | None = None
        lo, size, _ = layout.private_window
        self._data_lo, self._top = lo, lo + size
        self._protected = [s for s in layout.spans if s.shared]
        """Segments that compiled code reads, or executes, without asking."""
        self._number(self._first())

    def _first(self) -> AddressSpace:
        """The program's segments, and a stack."""
        space, end, before = AddressSpace(), 0, 0
        for span in self.layout.spans:
            if span.lo <= self.plan.stack_lo < span.end:
                continue
            first, last = span.lo & -PAGE, -(-span.end // PAGE) * PAGE
            space = space.mapped(first, last, span.permissions)
            if first < end:  # a page of two segments
                space = space.mapped(first, end, before | span.permissions)
            end, before = last, span.permissions
        return space.mapped(self.plan.stack_lo, -(-self.layout.stack_top // PAGE) * PAGE, _READ_WRITE)

    def __len__(self) -> int:
        return len(self._known)

    def reset(self) -> None:
        """Every lane has what programs start with."""
        self._give(np.arange(len(self.numbers)), np.zeros(len(self.numbers), np.int32))

    # -- spaces by number

    def of(self, lane: int) -> AddressSpace:
        return self._known[int(self.numbers[lane])]

    def _number(self, space: AddressSpace) -> int:
        number = self._numbers.get(space)
        if number is None:
            number = self._numbers[space] = len(self._known)
            self._known.append(space)
            kind = space.executable, self.regular(space)
            self._kind_of.append(self._kinds.setdefault(kind, len(self._kinds)))
            if number == len(self.rows):
                rows = np.zeros((2 * number, self.rows.shape[1]), np.uint64)
                rows[:number] = self.rows
                self.rows = rows
            self._fill_row(self.rows[number], space)
            self.version += 1
        return number

    def regular(self, space: AddressSpace) -> bool:
        """Whether compiled code can run: what it does not ask for is as it was at the start."""
        data = self.plan.data_lo, self.layout.heap_start
        stack = self.plan.stack_lo, self._top
        return (
            all(space.allows(*part, _READ_WRITE) for part in (data, stack) if part[0] < part[1])
            and all(space.allows(s.lo, s.end, s.permissions) for s in self._protected)
            and all(
                space.allows(s.lo, s.end, PERMISSION_EXECUTE)
                for s in self.layout.spans
                if s.executable and not s.shared
            )
        )

    def _fill_row(self, row: NDArray[np.uint64], space: AddressSpace) -> None:
        plan, regular = self.plan, self.regular(space)
        end = self._data_lo
        for first, last, permissions in space.inside(end, self._top) if regular else ():
            if first != end or permissions & _READ_WRITE != _READ_WRITE:
                break
            end = last
        row[AddressSpaceRow.REACH // 8] = end - self._data_lo
        row[AddressSpaceRow.REGULAR // 8] = regular
        first = AddressSpaceRow.PAGES // 8
        words = self.bitmap_bytes // 8
        for permission in (PERMISSION_READ, PERMISSION_WRITE):
            bits = np.zeros(64 * words, bool)
            for start, end, permissions in space.inside(plan.lo, plan.lo + plan.size):
                if permissions & permission:
                    bits[(start - plan.bits_lo) // PAGE : -(-(end - plan.bits_lo) // PAGE)] = True
            row[first : first + words] = np.packbits(bits, bitorder="little").view(np.uint64)
            first += words

    # -- changes

    def change(self, lanes: Lanes, starts: Numbers, ends: Numbers, change: Change) -> Mask:
        """Have other mappings in each lane, by a range; which lanes could: not those for which `change` gives None, nor
        those that would have too many mappings."""
        good = np.ones(len(lanes), bool)
        self._drop_unused()
        numbers = np.zeros(len(lanes), np.int32)
        for these, space, start, end in self._alike(lanes, starts, ends):
            after = change(space, start, end)
            if after is None or (len(after.mappings) > MOST_MAPPINGS and len(after.mappings) > len(space.mappings)):
                good[these] = False
            else:
                numbers[these] = self._number(after)
        self._give(lanes[good], numbers[good])
        return good

    def find(self, lanes: Lanes, sizes: Numbers, floors: Numbers) -> Numbers:
        """Where so many bytes fit above each lane's floor; -1 where there is no place."""
        found = np.full(len(lanes), -1, np.int64)
        for these, space, size, floor in self._alike(lanes, sizes, floors):
            place = space.place_for(size, floor, self.plan.mapped_top)
            found[these] = -1 if place is None else place
        return found

    def select(
        self, lanes: Lanes, starts: Numbers, ends: Numbers, test: Callable[[AddressSpace, int, int], bool]
    ) -> Mask:
        """The lanes whose space passes a test, of a range each."""
        found = np.zeros(len(lanes), bool)
        for these, space, start, end in self._alike(lanes, starts, ends):
            found[these] = test(space, start, end)
        return found

    def _give(self, lanes: Lanes, numbers: NDArray[np.int32]) -> None:
        before = self.numbers[lanes]
        if (before == numbers).all():
            return
        self.numbers[lanes] = numbers
        kind_of = np.array(self._kind_of)
        self.code_moved(lanes[kind_of[before] != kind_of[numbers]])

    def _alike(self, lanes: Lanes, first: Numbers, second: Numbers) -> list[tuple[Numbers, AddressSpace, int, int]]:
        """Lanes (by place) that have one space and ask for the same."""
        keys = np.stack([self.numbers[lanes], first, second], axis=1)
        if not len(keys):
            return []
        if (keys == keys[0]).all():
            return [(np.arange(len(keys)), self._known[int(keys[0, 0])], int(keys[0, 1]), int(keys[0, 2]))]
        kinds, which = np.unique(keys, axis=0, return_inverse=True)
        which = which.reshape(-1)
        order = np.argsort(which, kind="stable")
        cuts = np.searchsorted(which[order], np.arange(1, len(kinds)))
        groups = np.split(order, cuts)
        return [
            (these, self._known[int(number)], int(a), int(b))
            for these, (number, a, b) in zip(groups, kinds, strict=True)
        ]

    def _drop_unused(self) -> None:
        many = min(_MANY_SPACES, _MANY_BYTES // self.rows.strides[0])
        if len(self._known) < max(many, 2 * len(self.numbers)):
            return
        used = np.unique(np.append(self.numbers, 0))  # all begin with number 0
        known = [self._known[int(i)] for i in used]
        self.numbers[:] = np.searchsorted(used, self.numbers)
        self._known, self._numbers, self._kind_of = [], {}, []
        for space in known:
            self._number(space)

    # -- changes, and questions, for `change` and `select`

    @property
    def mappable(self) -> tuple[int, int]:
        """The addresses of the lanes' own memory that can be mapped anew: (start, end), whole pages."""
        return self.plan.hull_lo, self.plan.hull_lo + -(-(self._top - self.plan.hull_lo) // PAGE) * PAGE

    def _can_change(self, start: int, end: int) -> bool:
        return self.plan.lo <= start and end <= self.plan.lo + -(-self.plan.size // PAGE) * PAGE

    def without(self, space: AddressSpace, start: int, end: int) -> AddressSpace | None:
        """With nothing mapped in a range; None where permissions cannot change."""
        parts = space.inside(start, end)
        return space.unmapped(start, end) if all(self._can_change(*part[:2]) for part in parts) else None

    def protected(self, space: AddressSpace, start: int, end: int, *, permissions: int) -> AddressSpace | None:
        """With other permissions for a range that is mapped; None where it is not, or they cannot change."""
        good = space.is_mapped(start, end) and self._can_change(start, end)
        return space.mapped(start, end, permissions) if good else None

    def touches_shared(self, space: AddressSpace, start: int, end: int) -> bool:
        """Whether some of a range is memory that all lanes share."""
        return any(s.lo < end and start < -(-s.end // PAGE) * PAGE for s in self._protected)

    def own_and_mapped(self, space: AddressSpace, start: int, end: int) -> bool:
        lo, last = self.mappable
        return lo <= start and end <= last and space.is_mapped(start, end)

    def permissions_at(self, lanes: Lanes, addresses: Numbers) -> Numbers:
        """The permissions at an address of each lane; 0 where nothing is mapped."""
        found = np.zeros(len(lanes), np.int64)
        for these, space, address, _ in self._alike(lanes, addresses, addresses):
            found[these] = space.at(address) or 0
        return found

    # -- what may be executed

    def code_moved(self, lanes: Lanes) -> None:
        """What these lanes may execute, or what is there, has changed."""
        if len(lanes):
            if self._moved is None:
                self._moved = np.zeros(len(self.numbers), bool)
            self._moved[lanes] = True

    def take_moved(self) -> NDArray[np.intp]:
        """The lanes of which that was said since the last time."""
        moved, self._moved = self._moved, None
        return np.zeros(0, np.intp) if moved is None else np.flatnonzero(moved)

    def alike_in_code(self, lanes: Lanes) -> list[tuple[NDArray[np.intp], tuple[tuple[int, int], ...], bool]]:
        """Lanes that may execute the same: (which, what, whether it may be compiled)."""
        kind_of = np.array(self._kind_of)[self.numbers[lanes]]
        kinds = list(self._kinds)
        return [(np.asarray(lanes, np.intp)[kind_of == kind], *kinds[kind]) for kind in np.unique(kind_of).tolist()]

    @property
    def own_code(self) -> bool:
        """Whether lanes may execute what they can write."""
        return any(executable != self._known[0].executable for executable, _ in self._kinds)

    # -- what the host asks for lanes

    def permitted(self, lanes: Lanes, addresses: Addresses, sizes: Numbers, permission: int) -> Mask:
        """Which lanes have a permission for all of their range; for empty ranges all have it."""
        numbers = self.numbers[lanes]
        lo, reach = np.uint64(self._data_lo), self.rows[numbers, AddressSpaceRow.REACH // 8]
        wanted = sizes.clip(0).astype(np.uint64)
        good: Mask = (sizes <= 0) | ((addresses - lo < reach) & (wanted <= reach - (addresses - lo)))
        if good.all():
            return good
        for number in np.unique(numbers[~good]).tolist():
            these = np.flatnonzero(~good & (numbers == number))
            good[these] = self._known[number].permits(addresses[these], sizes[these], permission)
        return good

    # -- snapshots

    def save(self) -> tuple[AddressSpace, ...]:
        """The spaces that numbers mean."""
        return tuple(self._known)

    def restore(self, numbers: NDArray[np.int32], known: tuple[AddressSpace, ...]) -> None:
        """Have each lane's number of `known`."""
        used = np.unique(numbers)
        table = np.zeros(len(known), np.int32)
        for number in used.tolist():
            table[number] = self._number(known[number])
        self._give(np.arange(len(self.numbers)), table[numbers])

    def refuses(self, space: AddressSpace) -> bool:
        """Whether it is none that lanes of this layout can have."""
        start = self._known[0]
        end = 0
        for first, last, permissions in space.mappings:
            if first < end or last <= first or (first | last) % PAGE or permissions & ~7:
                return True
            end = last
        for first, last, permissions in space.mappings:
            for part in ((first, min(last, self.plan.lo)), (max(first, self.plan.lo + self.plan.size), last)):
                if part[0] < part[1] and not start.allows(*part, permissions):
                    return True
            if permissions & PERMISSION_WRITE and any(s.lo < last and first < s.end for s in self._protected):
                return True
        return False
