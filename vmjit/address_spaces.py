"""The pages that lanes may read, write and execute, where programs change that while they run.

An address space is a list of mappings. Lanes that did the same have the same one, and it is worked out once: a lane
holds its number. For kernels each has a row (`AddressSpaceRow`): how far the lane's data reaches, which nearly all
accesses are decided by, and a bit for each page that may be read and that may be written.

Programs may map any addresses, lanes have memory near their program. What is mapped far from it lies in pages of the
lane's memory that nothing else is mapped at: its *backing*, which is taken once it can be accessed.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmjit.address_space import PAGE, Addresses, AddressSpace, Mask, Numbers
from vmjit.kernels.layout import PERMISSION_EXECUTE, PERMISSION_READ, PERMISSION_WRITE, AddressSpaceRow, Span
from vmjit.memory_layout import MemoryLayout, PagePlan

Lanes = NDArray[np.integer]

# Spaces kept until those that no lane has any more are dropped; fewer where their rows take so many bytes.
_MANY_SPACES = 4096
_MANY_BYTES = 64 << 20

_READ_WRITE = PERMISSION_READ | PERMISSION_WRITE

# Linux maps nothing below (vm.mmap_min_addr), nor above what four levels of page tables reach or, with 32 bits, where
# results of calls are errors.
_LOWEST = 1 << 16
_HIGHEST = {32: (1 << 32) - PAGE, 64: 1 << 47}
# Reservations that do not fit near the program come below this, where Linux begins with mappings, for programs of 32
# bits and with three levels of page tables.
_FAR_TOP = {32: 0x9C00_0000, 64: 0x3F_8000_0000}


Change = Callable[[AddressSpace, int, int], "AddressSpace | None"]


class CodeKind(NamedTuple):
    """What lanes may execute."""

    executable: tuple[tuple[int, int], ...]
    """(start, end) by address."""
    backing: tuple[tuple[int, int, int], ...]
    """As of an `AddressSpace`, of what is executable."""
    compiled: bool
    """Whether compiled code can run."""


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
        self._far_word = (AddressSpaceRow.PAGES + 2 * self.bitmap_bytes) // 8
        self.rows = np.zeros((1, self._far_word + 1), np.uint64)
        self.version = 0
        """Grows with each change of `rows`."""
        self.some_far = False
        """Whether some lanes' mappings are far from their memory."""
        self._known: list[AddressSpace] = []
        self._numbers: dict[AddressSpace, int] = {}
        self._kinds: dict[CodeKind, int] = {}
        self._kind_of: list[int] = []
        self._moved: Mask | None = None
        self._new_backing: list[tuple[NDArray[np.intp], int, int]] = []
        lo, size, _ = layout.private_window
        self._data_lo, self._top = lo, lo + size
        self._protected = [s for s in layout.spans if s.shared]
        """Segments that compiled code reads, or executes, without asking."""
        self._near = [(span.lo & -PAGE, -(-span.end // PAGE) * PAGE) for span in layout.spans]
        self._highest, self._far_top = _HIGHEST[self.plan.xlen], _FAR_TOP[self.plan.xlen]
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
            kind = CodeKind(space.executable, space.behind_code, self.regular(space))
            self._kind_of.append(self._kinds.setdefault(kind, len(self._kinds)))
            self._make_room(number, space)
            self._fill_row(self.rows[number], space)
            self.version += 1
        return number

    def _make_room(self, number: int, space: AddressSpace) -> None:
        """Have a row with this number, that what is far fits in."""
        count, words = self.rows.shape
        needed = self._far_word + 1 + len(space.accessible_backing) * (Span.BYTES // 8)
        if needed > words:
            words = max(needed, 2 * words - self._far_word)
        if number == count:
            count *= 2
        if (count, words) != self.rows.shape:
            rows = np.zeros((count, words), np.uint64)
            rows[: self.rows.shape[0], : self.rows.shape[1]] = self.rows
            self.rows = rows

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
        far = space.accessible_backing
        self.some_far |= bool(space.backing)
        row[self._far_word] = len(far)
        table = row[self._far_word + 1 :][: len(far) * (Span.BYTES // 8)].reshape(-1, Span.BYTES // 8)
        for entry, (start, end, place, permissions) in zip(table, far, strict=True):
            entry[:] = (start, end - 1, permissions, 0, self.offset_of(place))

    def offset_of(self, address: int) -> int:
        """Where a byte of the hull lies in a lane's memory."""
        return self.plan.hull_offset + address - self.plan.hull_lo

    # -- changes

    def change(self, lanes: Lanes, starts: Numbers, ends: Numbers, change: Change) -> Mask:
        """Have other mappings in each lane, by a range; which lanes could: not those for which `change` gives None, nor
        those that would have too many mappings."""
        good = np.ones(len(lanes), bool)
        self._drop_unused()
        numbers = np.zeros(len(lanes), np.int32)
        for these, space, start, end in self._alike(lanes, starts, ends):
            after = change(space, start, end)
            backed = None if after is None else self._with_backing(after)
            if backed is None or backed[0].outgrows(space):
                good[these] = False
            else:
                numbers[these] = self._number(backed[0])
                self._new_backing += [(np.asarray(lanes[these], np.intp), place, size) for place, size in backed[1]]
        self._give(lanes[good], numbers[good])
        return good

    def take_new_backing(self) -> list[tuple[NDArray[np.intp], int, int]]:
        """Since the last time: lanes, and the place and size of what of their memory backs more than before."""
        taken, self._new_backing = self._new_backing, []
        return taken

    def _with_backing(self, space: AddressSpace) -> tuple[AddressSpace, list[tuple[int, int]]] | None:
        """With memory behind all far mappings that can be accessed, and the (place, size) of what is new of it; None
        where there is not enough, or where something is mapped that backs them."""
        if any(space.inside(place, place + last - first) for first, last, place in space.backing):
            return None
        new = []
        for first, last, permissions in space.mappings:
            if not permissions or not self.is_far(first, last):
                continue
            for start, end in space.not_backed(first, last):
                while start < end:
                    hole = space.hole_for(end - start, self.layout.heap_start, self.plan.mapped_top)
                    if hole is None:
                        return None
                    place, size = hole
                    space = space.backed(start, start + size, place)
                    new.append((place, size))
                    start += size
        return space, new

    def is_far(self, start: int, end: int) -> bool:
        """Whether a range can be mapped, and is not where the lanes' own memory or the program is."""
        near = any(first < end and start < last for first, last in self._near)
        return _LOWEST <= start < end <= self._highest and not near

    def find(self, lanes: Lanes, sizes: Numbers, floors: Numbers) -> Numbers:
        """Where so many bytes fit above each lane's floor; -1 where there is no place."""
        return self._find(lanes, sizes, floors, self.plan.mapped_top)

    def _find(self, lanes: Lanes, sizes: Numbers, floors: Numbers, top: int) -> Numbers:
        found = np.full(len(lanes), -1, np.int64)
        for these, space, size, floor in self._alike(lanes, sizes, floors):
            place = space.place_for(size, floor, top)
            found[these] = -1 if place is None else place
        return found

    def find_far(self, lanes: Lanes, sizes: Numbers) -> Numbers:
        """Where so many bytes that nothing has to be behind fit above all that is near; -1 where there is no place."""
        floor = max(last for _, last in self._near) + PAGE
        return self._find(lanes, sizes, np.full(len(lanes), floor), max(self._far_top, floor))

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

    def are_mappable(self, addresses: Numbers) -> Mask:
        """Which addresses are of the lanes' own memory that can be mapped anew."""
        lo, end = self.mappable
        found: Mask = (lo <= addresses) & (addresses < end)
        return found

    @property
    def highest(self) -> int:
        """Nothing is mapped from there on."""
        return self._highest

    def can_map(self, start: int, end: int) -> bool:
        """Whether a range can be mapped anew."""
        lo, top = self.mappable
        return (lo <= start and end <= top) or self.is_far(start, end)

    def can_grow(self, space: AddressSpace, start: int, end: int) -> bool:
        """Whether a mapping that ends where a range starts can have it too."""
        below_gap = self.plan.hull_lo <= start and end <= self.plan.mapped_top
        return space.is_free(start, end) and (below_gap or self.is_far(start, end))

    def _can_change(self, start: int, end: int) -> bool:
        inside = self.plan.lo <= start and end <= self.plan.lo + -(-self.plan.size // PAGE) * PAGE
        return inside or self.is_far(start, end)

    def without(self, space: AddressSpace, start: int, end: int) -> AddressSpace | None:
        """With nothing mapped in a range; None where permissions cannot change."""
        parts = space.inside(start, end)
        return space.unmapped(start, end) if all(self._can_change(*part[:2]) for part in parts) else None

    def protected(self, space: AddressSpace, start: int, end: int, *, permissions: int) -> AddressSpace | None:
        """With other permissions for a range that is mapped; None where it is not, or they cannot change."""
        good = space.is_mapped(start, end) and all(self._can_change(*part[:2]) for part in space.inside(start, end))
        return space.mapped(start, end, permissions) if good else None

    def touches_shared(self, space: AddressSpace, start: int, end: int) -> bool:
        """Whether some of a range is memory that all lanes share."""
        return any(s.lo < end and start < -(-s.end // PAGE) * PAGE for s in self._protected)

    def own_and_mapped(self, space: AddressSpace, start: int, end: int) -> bool:
        return self.can_map(start, end) and space.is_mapped(start, end)

    def own_and_there(self, space: AddressSpace, start: int, end: int) -> bool:
        """The same, and there is memory behind all of it."""
        far = self.is_far(start, end)
        return self.own_and_mapped(space, start, end) and not (far and space.not_backed(start, end))

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

    def alike_in_code(self, lanes: Lanes) -> list[tuple[NDArray[np.intp], CodeKind]]:
        """Lanes that may execute the same."""
        kind_of = np.array(self._kind_of)[self.numbers[lanes]]
        kinds = list(self._kinds)
        return [(np.asarray(lanes, np.intp)[kind_of == kind], kinds[kind]) for kind in np.unique(kind_of).tolist()]

    @property
    def own_code(self) -> bool:
        """Whether lanes may execute what they can write."""
        return any(kind.executable != self._known[0].executable for kind in self._kinds)

    # -- what the host asks for lanes

    def permitted(self, lanes: Lanes, addresses: Addresses, sizes: Numbers, permission: int) -> Mask:
        """Which lanes have a permission for all of their range; for empty ranges all have it."""
        numbers = self.numbers[lanes]
        lo, reach = np.uint64(self._data_lo), self.rows[numbers, AddressSpaceRow.REACH // 8]
        wanted = sizes.clip(0).astype(np.uint64)
        good: Mask = sizes <= 0
        if permission != PERMISSION_EXECUTE:  # below REACH all can be read and written
            good = good | ((addresses - lo < reach) & (wanted <= reach - (addresses - lo)))
        if good.all():
            return good
        for number in np.unique(numbers[~good]).tolist():
            these = np.flatnonzero(~good & (numbers == number))
            good[these] = self._known[number].permits(addresses[these], sizes[these], permission)
        return good

    def nearby(self, lanes: Lanes, addresses: Addresses, sizes: Numbers) -> Addresses:
        """Addresses in the lanes' own memory for ranges whose bytes lie there in one piece; others stay as they are."""
        if not self.some_far:
            return addresses
        found: Addresses = addresses.copy()
        numbers = self.numbers[lanes]
        for number in np.unique(numbers).tolist():
            if backing := self._known[number].backing:
                these = np.flatnonzero((numbers == number) & (sizes > 0))
                starts, ends, places = (np.array(column, np.uint64) for column in zip(*backing, strict=True))
                part = np.searchsorted(starts, addresses[these], side="right") - 1
                here = part.clip(0)
                offsets = addresses[these] - starts[here]
                inside = (part >= 0) & (addresses[these] < ends[here])
                inside &= sizes[these].astype(np.uint64) <= ends[here] - starts[here] - np.where(inside, offsets, 0)
                found[these[inside]] = (places[here] + offsets)[inside]
        return found

    def parts(self, lanes: Lanes, starts: Numbers, ends: Numbers) -> tuple[Numbers, Addresses, Numbers]:
        """(lanes by place, addresses in their own memory, sizes) of the parts of ranges that there is memory for."""
        which, places, sizes = [], [], []
        for these, space, start, end in self._alike(lanes, starts, ends):
            far = self.is_far(start, end)
            for first, last, place in space.behind(start, end) if far else [(start, end, start)]:
                which.append(these)
                places.append(np.full(len(these), place, np.uint64))
                sizes.append(np.full(len(these), last - first, np.int64))
        if not which:
            return np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.int64)
        return np.concatenate(which), np.concatenate(places), np.concatenate(sizes)

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
                if part[0] < part[1] and not start.allows(*part, permissions) and not self.is_far(*part):
                    return True
            if permissions & PERMISSION_WRITE and any(s.lo < last and first < s.end for s in self._protected):
                return True
        return self._refuses_backing(space)

    def _refuses_backing(self, space: AddressSpace) -> bool:
        end = 0
        for first, last, place in space.backing:
            if first < end or last <= first or (first | last | place) % PAGE:
                return True
            fits = self.layout.heap_start <= place and place + last - first <= self.plan.mapped_top
            if not (fits and self.is_far(first, last) and space.is_mapped(first, last)):
                return True
            end = last
        places = sorted((place, place + last - first) for first, last, place in space.backing)
        twice = any(last > following for (_, last), (following, _) in pairwise(places))
        return twice or self._with_backing(space) != (space, [])
