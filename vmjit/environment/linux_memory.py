"""Linux's system calls on memory: the break, and mappings from below the stack downwards.

Protections are accepted and not enforced, and what is unmapped can still be accessed until it is mapped again.
"""

from __future__ import annotations

import errno

import numpy as np
from numpy.typing import NDArray

from vmjit.environment.bare_metal import Handler
from vmjit.environment.call import Call, Lanes, Values
from vmjit.environment.linux_files import take_from_files
from vmjit.environment.linux_start import PAGE
from vmjit.environment.linux_state import MASK64, STANDARD, constant, linux_of, open_numbers, part_of

_MAP_FIXED, _MAP_ANONYMOUS = 0x10, 0x20


def _clear(call: Call, lanes: Lanes, starts: NDArray[np.uint64], sizes: Values) -> None:
    """Zeros into memory that was in use before."""
    some = sizes > 0
    if some.any():
        call.memory.scatter(lanes[some], starts[some], sizes[some], np.zeros(int(sizes[some].sum()), np.uint8))


def _brk(call: Call) -> Values:
    environment = linux_of(call)
    wanted, old = call.address(0), environment.brk[call.lanes]
    possible = (wanted >= np.uint64(environment.heap_start)) & (wanted <= environment.mappings.low(call.lanes))
    new = np.where(possible, wanted, old)
    used = environment.break_ever[call.lanes]
    again = np.minimum(new, used)  # what was given back is zero when it is taken again
    _clear(call, call.lanes, old, np.where(again > old, again - old, np.uint64(0)).astype(np.int64))
    environment.break_ever[call.lanes] = np.maximum(used, new)
    environment.brk[call.lanes] = new
    return new.astype(np.int64)


def _rounded(sizes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    rounded: NDArray[np.uint64] = (sizes + np.uint64(PAGE - 1)) & np.uint64(~(PAGE - 1) & MASK64)
    return rounded


def _mmap(call: Call) -> Values:
    """mmap(address, length, protection, flags, fd, offset): the address counts only with MAP_FIXED."""
    environment = linux_of(call)
    length, flags, place = call.address(1), call.signed(3), call.address(0)
    fixed = (flags & _MAP_FIXED) != 0
    bad = (length == 0) | (fixed & ((place & np.uint64(PAGE - 1)) != 0))
    # More than there is stays more than there is, and does not wrap.
    area = environment.stack_top - environment.heap_start
    size = _rounded(np.minimum(length, np.uint64(area + PAGE))).astype(np.int64)
    start = np.full(len(call.lanes), -1, np.int64)
    free = np.flatnonzero(~bad & ~fixed)
    if len(free):
        floors = _rounded(environment.brk[call.lanes[free]]).astype(np.int64)
        start[free] = environment.mappings.take(call.lanes[free], size[free], floors)
    last = np.uint64(environment.stack_top) - np.minimum(size.astype(np.uint64), np.uint64(environment.stack_top))
    fits = fixed & ~bad & (place >= np.uint64(environment.heap_start)) & (place <= last)
    start[fits] = place[fits].astype(np.int64)
    good = start >= 0
    if fits.any():
        # Below the break it is part of the heap.
        low = np.maximum(start, _rounded(environment.brk[call.lanes]).astype(np.int64))
        environment.mappings.use(call.lanes[fits], low[fits], (start + size)[fits])
    first = start.clip(0).astype(np.uint64)
    ever = environment.mapped_ever[call.lanes]
    used = np.where(fits, first, np.maximum(first, ever)).astype(np.int64)
    _clear(call, call.lanes, used.astype(np.uint64), np.where(good, start + size - used, 0).clip(0))
    environment.mapped_ever[call.lanes[good]] = np.minimum(ever, first)[good]
    result = np.where(bad, -errno.EINVAL, np.where(good, start, -errno.ENOMEM))
    files = good & ((flags & _MAP_ANONYMOUS) == 0)
    if files.any():
        result[files] = _map_file(part_of(call, files), first[files], result[files])
    return result


def _map_file(call: Call, starts: NDArray[np.uint64], result: Values) -> Values:
    """A private copy of a file's bytes."""
    _, numbers = open_numbers(call, 4)
    bad = numbers < STANDARD
    offset = call.address(5).astype(np.int64) * (PAGE if call.environment.xlen == 32 else 1)  # mmap2 counts pages
    good = np.flatnonzero(~bad)
    if len(good):
        part = part_of(call, ~bad)
        taken = take_from_files(part, numbers[good], offset[good], part.address(1).astype(np.int64), starts[good])
        result[good] = np.where(taken < 0, taken, result[good])
    result[bad] = -errno.EBADF
    return result


def _munmap(call: Call) -> Values:
    environment = linux_of(call)
    start, length = call.address(0), call.address(1)
    bad = ((start & np.uint64(PAGE - 1)) != 0) | (length == 0)
    top = np.uint64(environment.mapped_top)
    inside = ~bad & (start < top)
    result = np.where(bad, -errno.EINVAL, 0)
    if inside.any():
        first = start[inside]
        ends = first + _rounded(np.minimum(length[inside], top - first))
        freed = environment.mappings.free(call.lanes[inside], first.astype(np.int64), ends.astype(np.int64))
        result[inside] = np.where(freed, 0, -errno.ENOMEM)
    return result


MEMORY_CALLS: dict[int, Handler] = {
    214: _brk,
    215: _munmap,
    216: constant(-errno.ENOMEM),  # mremap: C libraries then copy
    222: _mmap,
    226: constant(0),  # mprotect
    227: constant(0),  # msync
    233: constant(0),  # madvise
}
"""By number."""
