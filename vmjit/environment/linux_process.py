"""Linux's system calls of a process: its end, signals to itself, ids, limits, time and random numbers."""

from __future__ import annotations

import errno
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vmjit.environment import bare_metal
from vmjit.environment.bare_metal import Handler
from vmjit.environment.call import Call, Values
from vmjit.environment.descriptors import DESCRIPTORS
from vmjit.environment.linux_start import USER
from vmjit.environment.linux_state import MASK64, constant, linux_of, part_of
from vmjit.stops import Stop

PROCESS = 1000
_PARENT = 1

_SIGNALS_IGNORED = (0, 17, 18, 23, 28)  # nothing, and those whose default is to be ignored: CHLD, CONT, URG, WINCH
_ENDED_BY_SIGNAL = 128


def _signal(index: int) -> Handler:
    """kill, tkill and tgkill: to itself, or there is nobody. Handlers are not called."""

    def handler(call: Call) -> Values | None:
        environment = linux_of(call)
        numbers, target = call.signed(index), call.signed(0)
        own = (target == PROCESS) | (target == 0) | (target == -1) | (target == -PROCESS)
        ignored = np.isin(numbers, _SIGNALS_IGNORED)
        bad = (numbers < 0) | (numbers > 64)
        ended = own & ~ignored & ~bad
        lanes = call.lanes[ended]
        environment.signal[lanes] = numbers[ended]
        environment.exit_code[lanes] = _ENDED_BY_SIGNAL + numbers[ended]
        call.state.stop[lanes] = int(Stop.EXIT)
        result = np.where(bad, -errno.EINVAL, np.where(own, 0, -errno.ESRCH))
        on = part_of(call, ~ended)
        if len(on.lanes):
            on.give(result[~ended])
        return None

    return handler


def _zeros_at(index: int, size: Callable[[int], int]) -> Handler:
    """A structure of zeros at an argument's address, unless that is 0."""

    def handler(call: Call) -> Values:
        pointers = call.address(index)
        wanted = pointers != 0
        count = size(call.environment.xlen)
        data = np.zeros(count * int(wanted.sum()), np.uint8)
        stored = call.memory.scatter(call.lanes, pointers, np.where(wanted, count, 0), data)
        return np.where(stored | ~wanted, 0, -errno.EFAULT)

    return handler


def _rows(call: Call, pointers: NDArray[np.uint64], row: bytes) -> NDArray[np.bool_]:
    """The same bytes for every lane."""
    return call.write_struct(pointers, np.tile(np.frombuffer(row, np.uint8), (len(call.lanes), 1)))


def _uname(call: Call) -> Values:
    machine = f"riscv{call.environment.xlen}"
    fields = ("Linux", "vmjit", "6.1.0", "#1 vmjit", machine, "(none)")
    row = b"".join(field.encode().ljust(65, b"\0") for field in fields)
    return np.where(_rows(call, call.address(0), row), 0, -errno.EFAULT)


_RLIMIT_STACK, _RLIMIT_NOFILE = 3, 7


def _prlimit64(call: Call) -> Values:
    """Limits are those of the lane's memory and descriptors, and cannot be changed."""
    environment = linux_of(call)
    limits = {_RLIMIT_STACK: environment.stack_top - environment.stack_lo, _RLIMIT_NOFILE: DESCRIPTORS}
    result = np.zeros(len(call.lanes), np.int64)
    pointers, resource = call.address(3), call.signed(1)
    for kind in np.unique(resource).tolist():
        chosen = (pointers != 0) & (resource == kind)
        if chosen.any():
            part = part_of(call, chosen)
            row = limits.get(kind, MASK64).to_bytes(8, "little") + MASK64.to_bytes(8, "little")
            result[chosen] = np.where(_rows(part, pointers[chosen], row), 0, -errno.EFAULT)
    return result


def _getrandom(call: Call) -> Values:
    sizes = np.clip(call.signed(1), 0, 1 << 20)
    words = linux_of(call).random_words(call.lanes, int(-(-sizes.max() // 8)) or 1)
    rows = words.view(np.uint8).reshape(len(call.lanes), -1)
    data = rows[np.arange(rows.shape[1]) < sizes[:, None]]
    stored = call.memory.scatter(call.lanes, call.address(0), sizes, data)
    return np.where(stored, sizes, -errno.EFAULT)


def _futex(call: Call) -> Values:
    """For one thread: nobody waits, so nobody is woken; who would wait would do so forever."""
    operation = call.signed(1) & 0x7F
    words, good = call.memory.gather(call.lanes, call.address(0), np.full(len(call.lanes), 4, np.int64))
    values = np.zeros(len(call.lanes), np.int64)
    values[good] = words.view(np.int32)
    expected = call.signed(2).astype(np.int32).astype(np.int64)
    waits = np.isin(operation, (0, 9))
    result = np.where(waits, np.where(values == expected, -errno.ETIMEDOUT, -errno.EAGAIN), 0)
    return np.where(good, result, -errno.EFAULT)


def _getaffinity(call: Call) -> Values:
    word = call.environment.xlen // 8
    return np.where(_rows(call, call.address(2), b"\x01".ljust(word, b"\0")), word, -errno.EFAULT)


def _clock_getres(*, bits: int = 0) -> Handler:
    def handler(call: Call) -> Values:
        width = (bits or call.environment.xlen) // 8
        row = (0).to_bytes(width, "little") + (1).to_bytes(width, "little")
        pointers = call.address(1)
        part = part_of(call, pointers != 0)
        if len(part.lanes):
            _rows(part, pointers[pointers != 0], row)
        return np.zeros(len(call.lanes), np.int64)

    return handler


def _flush_icache(call: Call) -> Values:
    """riscv_flush_icache(start, end, flags): what lanes execute is what they have written by now."""
    linux_of(call).spaces.code_moved(call.lanes)
    return np.zeros(len(call.lanes), np.int64)


def _word_by_xlen(narrow: int, wide: int) -> Callable[[int], int]:
    return lambda xlen: wide if xlen == 64 else narrow


PROCESS_CALLS: dict[int, Handler] = {
    93: bare_metal.SYSTEM_CALLS[93],
    94: bare_metal.SYSTEM_CALLS[94],
    96: constant(PROCESS),  # set_tid_address
    98: _futex,
    99: constant(0),  # set_robust_list
    101: constant(0),  # nanosleep
    113: bare_metal.SYSTEM_CALLS[113],
    114: _clock_getres(),
    115: constant(0),  # clock_nanosleep
    123: _getaffinity,
    124: constant(0),  # sched_yield
    129: _signal(1),
    130: _signal(1),
    131: _signal(2),
    132: constant(0),  # sigaltstack
    134: _zeros_at(2, _word_by_xlen(16, 24)),  # rt_sigaction
    135: _zeros_at(2, lambda xlen: 8),  # rt_sigprocmask
    153: _zeros_at(0, _word_by_xlen(16, 32)),  # times
    160: _uname,
    165: _zeros_at(1, _word_by_xlen(72, 144)),  # getrusage
    166: constant(0o022),  # umask
    169: bare_metal.SYSTEM_CALLS[169],
    172: constant(PROCESS),
    173: constant(_PARENT),
    174: constant(USER),
    175: constant(USER),
    176: constant(USER),
    177: constant(USER),
    178: constant(PROCESS),
    179: _zeros_at(0, _word_by_xlen(64, 112)),  # sysinfo
    258: constant(-errno.ENOSYS),  # riscv_hwprobe: C libraries ask, and do without
    259: _flush_icache,
    261: _prlimit64,
    278: _getrandom,
    293: constant(-errno.ENOSYS),  # rseq: the same
    403: bare_metal.SYSTEM_CALLS[403],
    406: _clock_getres(bits=64),
    407: constant(0),
    422: _futex,
}
"""By number; those of RV32 with 64-bit times have numbers of their own."""
