"""Linux's system calls that wait for descriptors, which never wait here: time is the lane's own, and nobody else acts.

Standard input can be read, the outputs can be written, and files and folders both, as on Linux those that cannot block.
Where nothing is ready, the time is over at once; so it is where a program would wait for ever.
"""

from __future__ import annotations

import errno

import numpy as np
from numpy.typing import NDArray

from vmjit.environment.bare_metal import Handler
from vmjit.environment.call import Call, Values
from vmjit.environment.descriptors import DESCRIPTORS, STANDARD
from vmjit.environment.linux_state import linux_of, part_of

_POLLIN, _POLLOUT, _POLLNVAL = 0x1, 0x4, 0x20
_POLLRDNORM, _POLLWRNORM = 0x40, 0x100
_READABLE, _WRITABLE = _POLLIN | _POLLRDNORM, _POLLOUT | _POLLWRNORM

_STATES = np.array([_READABLE, _WRITABLE, _WRITABLE, _READABLE | _WRITABLE, _POLLNVAL], np.int16)
"""By what a descriptor stands for: the standard streams, anything opened, and at last nothing (`CLOSED`)."""

_MOST = 1024
"""What Linux lets a process open unless told otherwise, so the most that ppoll takes; and the bits of an fd_set.

It bounds what a call of all lanes takes of the host: 8 KiB a lane.
"""
_SIGNAL_SET = 8
_SECOND = 1_000_000_000
_POLLFD = np.dtype([("fd", "<i4"), ("events", "<i2"), ("revents", "<i2")])

Mask = NDArray[np.bool_]


def _states(call: Call, rows: NDArray[np.intp], descriptors: Values) -> NDArray[np.int16]:
    """Poll bits of descriptors of the call's lanes with the indices `rows`."""
    files = linux_of(call).descriptors.file(call.lanes[rows], descriptors)
    states: NDArray[np.int16] = _STATES[np.minimum(files, STANDARD)]
    return states


def _time_error(call: Call, pointers: NDArray[np.uint64], bits: int) -> Values:
    """What is wrong with each lane's time-out, a timespec of such words or null: an error, or 0."""
    wanted = pointers != 0
    sizes = np.where(wanted, bits // 4, 0)
    data, good = call.memory.gather(call.lanes, pointers, sizes)
    pairs = np.zeros((len(call.lanes), 2), np.int64)
    pairs[wanted & good] = data.view(np.int32 if bits == 32 else np.int64).reshape(-1, 2)
    if call.environment.xlen == 32:
        pairs[:, 1] = pairs[:, 1].astype(np.int32)  # the rest is padding, as on Linux
    possible = (pairs[:, 0] >= 0) & (pairs[:, 1] >= 0) & (pairs[:, 1] < _SECOND)
    return np.where(good, np.where(possible, 0, -errno.EINVAL), -errno.EFAULT)


def _mask_error(call: Call, pointers: NDArray[np.uint64], sizes: NDArray[np.uint64]) -> Values:
    """What is wrong with each lane's signal mask, null for none: an error, or 0."""
    wanted = pointers != 0
    fits = ~wanted | (sizes == _SIGNAL_SET)
    _, good = call.memory.gather(call.lanes, pointers, np.where(wanted & fits, _SIGNAL_SET, 0))
    return np.where(fits, np.where(good, 0, -errno.EFAULT), -errno.EINVAL)


def _end_time(call: Call, pointers: NDArray[np.uint64], bits: int, result: Values) -> None:
    """Nothing is left of the time where it was waited for in vain: select(2) tells programs on Linux.

    Memory that cannot be written is no error here.
    """
    over = (result == 0) & (pointers != 0)
    data = np.zeros(int(over.sum()) * (bits // 4), np.uint8)
    call.memory.scatter(call.lanes, pointers, np.where(over, bits // 4, 0), data)


def _first_error(*errors: Values) -> Values:
    return np.select([e != 0 for e in errors], list(errors), default=0)


def _ppoll(*, bits: int = 0) -> Handler:
    """ppoll(pollfd*, count, timespec*, mask*, size of a mask)."""

    def handler(call: Call) -> Values:
        width = bits or call.environment.xlen
        counts, times = call.address(1).astype(np.uint32).astype(np.int64), call.address(2)
        too_many = np.where(counts > _MOST, -errno.EINVAL, 0)
        result = _first_error(
            _time_error(call, times, width), _mask_error(call, call.address(3), call.address(4)), too_many
        )
        good = result == 0
        if good.any():
            result[good] = _polled(part_of(call, good), counts[good])
        _end_time(call, times, width, result)
        return result

    return handler


def _polled(call: Call, counts: Values) -> Values:
    """Fill in what is ready of each lane's pollfds; gives of how many descriptors something is."""
    sizes = counts * _POLLFD.itemsize
    data, good = call.memory.gather(call.lanes, call.address(0), sizes)
    entries = data.view(_POLLFD).copy()
    rows = np.repeat(np.arange(len(counts)), np.where(good, counts, 0))
    states = _states(call, rows, entries["fd"].astype(np.int64)) & (entries["events"] | _POLLNVAL)
    entries["revents"] = np.where(entries["fd"] < 0, 0, states)
    # Descriptors and what was asked for are written back as they were.
    stored = call.memory.scatter(call.lanes, call.address(0), np.where(good, sizes, 0), entries.view(np.uint8))
    ready = np.bincount(rows[entries["revents"] != 0], minlength=len(counts))
    return np.where(good & stored, ready, -errno.EFAULT)


def _pselect(*, bits: int = 0) -> Handler:
    """pselect6(count, fd_set*, fd_set*, fd_set*, timespec*, {mask*, size}*)."""

    def handler(call: Call) -> Values:
        width = bits or call.environment.xlen
        counts, times = call.signed(0).astype(np.int32).astype(np.int64), call.address(4)
        negative = np.where(counts < 0, -errno.EINVAL, 0)
        result = _first_error(_packed_mask_error(call), _time_error(call, times, width), negative)
        good = result == 0
        if good.any():
            # More than there can be is not looked at, as on Linux: programs give the most that they could open.
            result[good] = _selected(part_of(call, good), np.minimum(counts[good], _MOST))
        _end_time(call, times, width, result)
        return result

    return handler


def _packed_mask_error(call: Call) -> Values:
    """As `_mask_error`, of a pointer and a size in memory."""
    word = call.environment.xlen // 8
    places = call.address(5)
    wanted = places != 0
    data, good = call.memory.gather(call.lanes, places, np.where(wanted, 2 * word, 0))
    pairs = np.zeros((len(call.lanes), 2), np.uint64)
    pairs[wanted & good] = data.view(np.uint32 if word == 4 else np.uint64).reshape(-1, 2)
    return np.where(good, _mask_error(call, pairs[:, 0], pairs[:, 1]), -errno.EFAULT)


def _selected(call: Call, counts: Values) -> Values:
    """Leave in each lane's sets what is ready; gives how many bits that are."""
    xlen = call.environment.xlen
    sizes = -(-counts // xlen) * (xlen // 8)
    rows = np.repeat(np.arange(len(counts)), DESCRIPTORS)
    states = _states(call, rows, np.tile(np.arange(DESCRIPTORS), len(counts))).reshape(-1, DESCRIPTORS)
    ready = [states & _POLLIN != 0, states & _POLLOUT != 0, np.zeros(states.shape, bool)]
    pointers = [call.address(index) for index in (1, 2, 3)]
    bad = np.zeros(len(counts), bool)
    faults = np.zeros(len(counts), bool)
    for which, places in zip(ready, pointers, strict=True):
        asked, strange, good = _fd_set(call, places, np.where(places != 0, sizes, 0), counts)
        bad |= strange | (asked & (states == _POLLNVAL)).any(axis=1)
        which &= asked
        faults |= ~good
    going = ~faults & ~bad
    for which, places in zip(ready, pointers, strict=True):
        faults |= ~_give_set(call, places, np.where(going & (places != 0), sizes, 0), which)
    total = sum(which.sum(axis=1) for which in ready)
    return np.where(faults, -errno.EFAULT, np.where(bad, -errno.EBADF, total))


def _fd_set(call: Call, places: NDArray[np.uint64], sizes: Values, counts: Values) -> tuple[Mask, Mask, Mask]:
    """(which of each lane's descriptors a set has, lanes whose set has more than those, lanes that have the set)."""
    data, good = call.memory.gather(call.lanes, places, sizes)
    rows = np.zeros((len(sizes), max(int(sizes.max()), DESCRIPTORS // 8)), np.uint8)
    rows[np.arange(rows.shape[1]) < np.where(good, sizes, 0)[:, None]] = data
    has = np.unpackbits(rows, axis=1, bitorder="little").astype(bool)
    has &= np.arange(has.shape[1]) < counts[:, None]
    return has[:, :DESCRIPTORS], np.asarray(has[:, DESCRIPTORS:].any(axis=1)), good


def _give_set(call: Call, places: NDArray[np.uint64], sizes: Values, ready: Mask) -> Mask:
    """Write sets back; which lanes could take theirs."""
    rows = np.zeros((len(sizes), max(int(sizes.max()), DESCRIPTORS // 8)), np.uint8)
    rows[:, : DESCRIPTORS // 8] = np.packbits(ready, axis=1, bitorder="little")
    return call.memory.scatter(call.lanes, places, sizes, rows[np.arange(rows.shape[1]) < sizes[:, None]])


POLL_CALLS: dict[int, Handler] = {
    72: _pselect(),
    73: _ppoll(),
    413: _pselect(bits=64),
    414: _ppoll(bits=64),
}
"""By number; those of RV32 with 64-bit times have numbers of their own."""
