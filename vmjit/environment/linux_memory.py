"""Linux's system calls on memory: the break, mappings below the stack, and mappings at addresses that programs ask for.

What they say of pages is kept in `AddressSpaces` and holds for every access. Memory that is mapped is zero or a file's.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial, reduce
from operator import or_

import numpy as np
from numpy.typing import NDArray

from vmjit.address_space import PAGE, AddressSpace
from vmjit.environment.bare_metal import Handler
from vmjit.environment.call import Call, Lanes, Values
from vmjit.environment.linux_files import take_from_files
from vmjit.environment.linux_state import MASK64, STANDARD, constant, linux_of, open_numbers, part_of
from vmjit.kernels.layout import PERMISSION_EXECUTE, PERMISSION_READ, PERMISSION_WRITE

Addresses = NDArray[np.uint64]
ChangeTo = Callable[..., "AddressSpace | None"]

_MAP_FIXED, _MAP_ANONYMOUS, _MAP_FIXED_NOREPLACE = 0x10, 0x20, 0x100000
_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2
_MADV_DONTNEED = 4
_PROTECTIONS = 7

# Bytes of all lanes that are cleared or moved at once.
_AT_ONCE = 16 << 20


def _rounded(sizes: Addresses) -> Addresses:
    rounded: Addresses = (sizes + np.uint64(PAGE - 1)) & np.uint64(~(PAGE - 1) & MASK64)
    return rounded


def _permissions(protection: int) -> int:
    """What PROT_ bits give: what can be written can be read too, as the privileged architecture has it."""
    kinds = ((1, PERMISSION_READ), (2, PERMISSION_READ | PERMISSION_WRITE), (4, PERMISSION_EXECUTE))
    return reduce(or_, (given for bit, given in kinds if protection & bit), 0)


_BY_PROTECTION = np.array([_permissions(protection) for protection in range(_PROTECTIONS + 1)], np.int64)


def _change_to(
    call: Call, lanes: Lanes, starts: Values, ends: Values, permissions: Values, change: ChangeTo
) -> NDArray[np.bool_]:
    """Have a range of each lane changed to permissions of its own; which lanes could."""
    spaces = linux_of(call).spaces
    good = np.zeros(len(lanes), bool)
    for kind in np.unique(permissions).tolist():
        some = np.flatnonzero(permissions == kind)
        good[some] = spaces.change(lanes[some], starts[some], ends[some], partial(change, permissions=kind))
    for these, place, size in spaces.take_new_backing():
        _take(call, these, np.full(len(these), place, np.uint64), np.full(len(these), size, np.int64))
    return good


# -- what pages hold


def _in_pieces(sizes: Values) -> list[tuple[NDArray[np.intp], int, Values]]:
    """(lanes by place, where, bytes) of ranges taken apart, so that all lanes together have few bytes."""
    pieces = []
    step = max(_AT_ONCE // max(len(sizes), 1) & -PAGE, PAGE)
    for start in range(0, int(sizes.max(initial=0)), step):
        these = np.flatnonzero(sizes > start)
        pieces.append((these, start, np.minimum(sizes[these] - start, step)))
    return pieces


def _zero(call: Call, lanes: Lanes, starts: Addresses, sizes: Values) -> None:
    for these, place, counts in _in_pieces(sizes):
        zeros = np.zeros(int(counts.sum()), np.uint8)
        call.memory.scatter(lanes[these], starts[these] + np.uint64(place), counts, zeros, by_host=True)


def _clear(call: Call, lanes: Lanes, starts: Addresses, sizes: Values) -> None:
    """Zeros into memory that is mapped now, as far as it was in use before."""
    environment = linux_of(call)
    ends = starts + sizes.astype(np.uint64)
    below, above = environment.break_ever[lanes], environment.mapped_ever[lanes]
    _zero(call, lanes, starts, np.where(starts < below, np.minimum(ends, below) - starts, 0).astype(np.int64))
    first = np.maximum(starts, np.maximum(above, below))
    _zero(call, lanes, first, np.where(first < ends, ends - first, 0).astype(np.int64))


def _take(call: Call, lanes: Lanes, starts: Addresses, sizes: Values) -> None:
    """Have zeros in what of the lanes' own memory is mapped now, or backs what is."""
    environment = linux_of(call)
    _clear(call, lanes, starts, sizes)
    environment.mapped_ever[lanes] = np.minimum(environment.mapped_ever[lanes], starts)


def _move(call: Call, lanes: Lanes, sources: Addresses, goals: Addresses, sizes: Values) -> None:
    """Copy between places that do not overlap."""
    for these, place, counts in _in_pieces(sizes):
        at = np.uint64(place)
        data, _ = call.memory.gather(lanes[these], sources[these] + at, counts, by_host=True)
        call.memory.scatter(lanes[these], goals[these] + at, counts, data, by_host=True)


# -- the break


def _brk(call: Call) -> Values:
    environment = linux_of(call)
    spaces, lanes = environment.spaces, call.lanes
    wanted, old = call.address(0), environment.brk[lanes]
    possible = (wanted >= np.uint64(environment.heap_start)) & (wanted <= np.uint64(environment.mapped_top))
    new = np.where(possible, wanted, old)
    end, new_end = _rounded(old).astype(np.int64), _rounded(new).astype(np.int64)
    grows = np.flatnonzero(new_end > end)
    taken = spaces.change(lanes[grows], end[grows], new_end[grows], _more_heap)
    new[grows[~taken]] = old[grows[~taken]]
    grown = grows[taken]
    _clear(call, lanes[grown], end[grown].astype(np.uint64), (new_end - end)[grown])
    shrinks = np.flatnonzero(new_end < end)
    spaces.change(lanes[shrinks], new_end[shrinks], end[shrinks], AddressSpace.unmapped)
    environment.break_ever[lanes] = np.maximum(environment.break_ever[lanes], _rounded(new))
    environment.brk[lanes] = new
    return new.astype(np.int64)


def _more_heap(space: AddressSpace, start: int, end: int) -> AddressSpace | None:
    return space.mapped(start, end, PERMISSION_READ | PERMISSION_WRITE) if space.is_free(start, end) else None


# -- mappings


def _mmap(call: Call) -> Values:
    """mmap(address, length, protection, flags, fd, offset): an address without MAP_FIXED counts where it is free."""
    environment = linux_of(call)
    spaces, lanes = environment.spaces, call.lanes
    length, flags, place = call.address(1), call.signed(3), call.address(0)
    fresh = (flags & _MAP_FIXED_NOREPLACE) != 0
    fixed = ((flags & _MAP_FIXED) != 0) | fresh
    aligned = (place & np.uint64(PAGE - 1)) == 0
    bad = (length == 0) | (fixed & ~aligned) | ((call.signed(2) & ~_PROTECTIONS) != 0)
    size = _fitting_size(call, length)
    there = ~bad & aligned & _can_map(call, place, size)
    ends = np.where(there, place.astype(np.int64) + size, 0)
    starts = np.where(there, place.astype(np.int64), 0)
    free = np.zeros(len(lanes), bool)
    asked = np.flatnonzero(there & (fresh | ~fixed))
    free[asked] = spaces.select(lanes[asked], starts[asked], ends[asked], AddressSpace.is_free)
    start = np.where(there & (free | (fixed & ~fresh)), starts, -1)
    anywhere = np.flatnonzero(~bad & ~fixed & (start < 0))
    floors = _rounded(environment.brk[lanes[anywhere]]).astype(np.int64)
    start[anywhere] = spaces.find(lanes[anywhere], size[anywhere], floors)
    # Addresses alone are taken from all that there are.
    reserved = np.flatnonzero(~bad & ~fixed & (start < 0) & (call.signed(2) == 0))
    start[reserved] = spaces.find_far(lanes[reserved], size[reserved])
    chosen = np.flatnonzero(start >= 0)
    permissions = _BY_PROTECTION[call.signed(2)[chosen]]
    mapped = _map(call, chosen, start[chosen], (start + size)[chosen], permissions)
    start[chosen[~mapped]] = -1
    taken = there & fresh & ~free
    result = np.select([bad, start >= 0, taken], [-errno.EINVAL, start, -errno.EEXIST], -errno.ENOMEM)
    files = (start >= 0) & ((flags & _MAP_ANONYMOUS) == 0)
    if files.any():
        result[files] = _map_file(part_of(call, files), start[files].astype(np.uint64), result[files])
    return result


def _fitting_size(call: Call, length: Addresses) -> Values:
    """A length in whole pages; more than there is stays more than there is, and does not wrap."""
    most = np.uint64(linux_of(call).spaces.highest + PAGE)
    return _rounded(np.minimum(length, most)).astype(np.int64)


def _can_map(call: Call, place: Addresses, size: Values) -> NDArray[np.bool_]:
    """Whether ranges are where lanes can have something mapped."""
    spaces = linux_of(call).spaces
    good: NDArray[np.bool_] = (place <= np.uint64(spaces.highest)) & (size <= spaces.highest)
    chosen = np.flatnonzero(good)
    start = place[chosen].astype(np.int64)
    good[chosen] = spaces.select(
        call.lanes[chosen], start, start + size[chosen], lambda _, first, last: spaces.can_map(first, last)
    )
    return good


def _map(call: Call, these: NDArray[np.intp], start: Values, end: Values, permissions: Values) -> NDArray[np.bool_]:
    """Map zeros for these lanes of a call; which of them could: the others have too many mappings or no memory."""
    lanes = call.lanes[these]
    good = _change_to(call, lanes, start, end, permissions, _mapped)
    near = np.flatnonzero(good & linux_of(call).spaces.are_mappable(start))
    _take(call, lanes[near], start[near].astype(np.uint64), (end - start)[near])
    return good


def _mapped(space: AddressSpace, start: int, end: int, *, permissions: int) -> AddressSpace:
    return space.unmapped(start, end).mapped(start, end, permissions)


def _map_file(call: Call, starts: Addresses, result: Values) -> Values:
    """A private copy of a file's bytes."""
    _, numbers = open_numbers(call, 4)
    bad = numbers < STANDARD
    offset = call.address(5).astype(np.int64) * (PAGE if call.environment.xlen == 32 else 1)  # mmap2 counts pages
    good = np.flatnonzero(~bad)
    if len(good):
        part = part_of(call, ~bad)
        length = part.address(1).astype(np.int64)
        taken = take_from_files(part, numbers[good], offset[good], length, starts[good], by_host=True)
        result[good] = np.where(taken < 0, taken, result[good])
    result[bad] = -errno.EBADF
    lost = np.flatnonzero(result < 0)
    ends = starts.astype(np.int64) + _fitting_size(call, call.address(1))
    linux_of(call).spaces.change(call.lanes[lost], starts[lost].astype(np.int64), ends[lost], AddressSpace.unmapped)
    return result


def _pages(call: Call, *, index: int = 0) -> tuple[Values, Values, NDArray[np.bool_]]:
    """(start, end, whether it can be one) of a range of whole pages given by an argument and the next."""
    start, length = call.address(index), call.address(index + 1)
    top = np.uint64((1 << min(call.environment.xlen, 63)) - PAGE)
    size = _rounded(np.minimum(length, top))
    good = ((start & np.uint64(PAGE - 1)) == 0) & (length <= top) & (start <= top) & (size <= top - start)
    first = np.where(good, start, np.uint64(0)).astype(np.int64)
    return first, first + np.where(good, size, np.uint64(0)).astype(np.int64), good


def _munmap(call: Call) -> Values:
    start, end, good = _pages(call)
    good &= end > start
    result = np.where(good, 0, -errno.EINVAL)
    chosen = np.flatnonzero(good)
    spaces = linux_of(call).spaces
    done = spaces.change(call.lanes[chosen], start[chosen], end[chosen], spaces.without)
    result[chosen[~done]] = -errno.ENOMEM
    return result


def _mprotect(call: Call) -> Values:
    """Code and constants, which all lanes share, cannot be made writable."""
    start, end, good = _pages(call)
    good &= (call.signed(2) & ~_PROTECTIONS) == 0
    result = np.where(good, 0, -errno.EINVAL)
    spaces = linux_of(call).spaces
    chosen = np.flatnonzero(good & (end > start))
    permissions = _BY_PROTECTION[call.signed(2)[chosen]]
    shared = spaces.select(call.lanes[chosen], start[chosen], end[chosen], spaces.touches_shared)
    refused = shared & ((permissions & PERMISSION_WRITE) != 0)
    result[chosen[refused]] = -errno.EACCES
    these, permissions = chosen[~refused], permissions[~refused]
    done = _change_to(call, call.lanes[these], start[these], end[these], permissions, spaces.protected)
    result[these[~done]] = -errno.ENOMEM
    return result


def _mremap(call: Call) -> Values:
    """mremap(old, old size, new size, flags, new address)."""
    environment = linux_of(call)
    spaces, lanes = environment.spaces, call.lanes
    start, end, good = _pages(call)
    flags, wanted = call.signed(3), call.address(2)
    size = _fitting_size(call, wanted)
    fixed = (flags & _MREMAP_FIXED) != 0
    goal = call.address(4)
    may_move = (flags & _MREMAP_MAYMOVE) != 0
    good &= (end > start) & (wanted > 0) & ((flags & ~(_MREMAP_MAYMOVE | _MREMAP_FIXED)) == 0) & (may_move | ~fixed)
    apart = (goal.astype(np.int64) >= end) | (goal.astype(np.int64) + size <= start)
    good &= ~fixed | (((goal & np.uint64(PAGE - 1)) == 0) & _can_map(call, goal, size) & apart)
    result = np.where(good, -errno.ENOMEM, -errno.EINVAL)
    there = np.zeros(len(lanes), bool)
    chosen = np.flatnonzero(good)
    there[chosen] = spaces.select(lanes[chosen], start[chosen], end[chosen], spaces.own_and_there)
    result[good & ~there] = -errno.EFAULT
    permissions = np.zeros(len(lanes), np.int64)
    permissions[there] = spaces.permissions_at(lanes[there], start[there])

    smaller = there & ~fixed & (size <= end - start)
    _shrink(call, smaller, start, end, size)
    result[smaller] = start[smaller]
    grown = there & ~fixed & ~smaller
    grown[grown] = _grow_in_place(call, grown, start, end, size, permissions)
    result[grown] = start[grown]

    moving = there & may_move & ~smaller & ~grown
    places = np.where(fixed, goal.astype(np.int64), -1)
    search = np.flatnonzero(moving & ~fixed)
    floors = _rounded(environment.brk[lanes[search]]).astype(np.int64)
    places[search] = spaces.find(lanes[search], size[search], floors)
    lost = ~spaces.are_mappable(places) & (permissions == 0)  # there would be no memory to move it to
    moving &= (places >= 0) & ~lost
    moving[moving] = _remap(call, moving, start, end, places, size, permissions)
    result[moving] = places[moving]
    return result


def _shrink(call: Call, chosen: NDArray[np.bool_], start: Values, end: Values, size: Values) -> None:
    these = np.flatnonzero(chosen & (size < end - start))
    linux_of(call).spaces.change(call.lanes[these], (start + size)[these], end[these], AddressSpace.unmapped)


def _grow_in_place(
    call: Call, chosen: NDArray[np.bool_], start: Values, end: Values, size: Values, permissions: Values
) -> NDArray[np.bool_]:
    """Map what follows, where it is free; which of the chosen could."""
    spaces = linux_of(call).spaces
    these = np.flatnonzero(chosen)
    goal = start[these] + size[these]
    free = spaces.select(call.lanes[these], end[these], goal, spaces.can_grow)
    some = np.flatnonzero(free)
    free[some] = _map(call, these[some], end[these[some]], goal[some], permissions[these[some]])
    return free


def _remap(
    call: Call,
    chosen: NDArray[np.bool_],
    start: Values,
    end: Values,
    places: Values,
    size: Values,
    permissions: Values,
) -> NDArray[np.bool_]:
    """Map other places, move there what pages hold, and unmap the old ones; which of the chosen could."""
    environment = linux_of(call)
    spaces = environment.spaces
    these = np.flatnonzero(chosen)
    good = _map(call, these, places[these], (places + size)[these], permissions[these])
    moved = these[good]
    lanes, goal = call.lanes[moved], places[moved].astype(np.uint64)
    _move(call, lanes, start[moved].astype(np.uint64), goal, np.minimum(end - start, size)[moved])
    spaces.change(lanes, start[moved], end[moved], AddressSpace.unmapped)
    return good


def _madvise(call: Call) -> Values:
    """Pages that are not needed are zero again; other advice changes nothing."""
    start, end, good = _pages(call)
    result = np.where(good, 0, -errno.EINVAL)
    drops = np.flatnonzero(good & (call.signed(2) == _MADV_DONTNEED) & (end > start))
    spaces = linux_of(call).spaces
    own = spaces.select(call.lanes[drops], start[drops], end[drops], spaces.own_and_mapped)
    result[drops[~own]] = -errno.ENOMEM
    these = drops[own]
    which, places, sizes = spaces.parts(call.lanes[these], start[these], end[these])
    _zero(call, call.lanes[these][which], places, sizes)
    return result


MEMORY_CALLS: dict[int, Handler] = {
    214: _brk,
    215: _munmap,
    216: _mremap,
    222: _mmap,
    226: _mprotect,
    227: constant(0),  # msync
    228: constant(0),  # mlock
    229: constant(0),  # munlock
    233: _madvise,
}
"""By number."""
