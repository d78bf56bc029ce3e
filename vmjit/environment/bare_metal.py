"""The bare-metal environment: system calls by Linux/RISC-V numbers, served for all waiting lanes at once.

Time is virtual: one retired instruction takes one nanosecond, so that a run gives the same results everywhere.
`lseek` takes three arguments on RV32 too, as bare-metal C libraries call it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.address_spaces import AddressSpaces
from vmjit.engine import GuestMemory
from vmjit.environment.call import Call, Lanes, Values
from vmjit.environment.saved import SavedEnvironment
from vmjit.environment.streams import InputStreams, OutputStreams
from vmjit.kernels.device_layout import OUTPUT_HEADER
from vmjit.kernels.layout import STOP_CALL
from vmjit.lane_state import LaneState, index_of
from vmjit.stops import Stop

_EBADF, _EFAULT, _EINVAL, _ENOSYS, _ESPIPE = 9, 14, 22, 38, 29
_STDIN, _STDOUT, _STDERR = 0, 1, 2

_A7, _SP = 17, 2

_EXITED = int(Stop.EXIT)

_MOST_SIGNALS = 64

# What a write takes beside its bytes.
_WRITE_BYTES = 24
MAX_OUTPUTS = 1 << 50

_NANOSECONDS = 1_000_000_000

# A larger single read or write is a mistake of the guest; it gets as much as this in one call, as on Linux.
MAX_TRANSFER = 0x7FFFF000

S_IFREG, S_IFCHR = 0o100000, 0o020000


Handler = Callable[[Call], Values | None]


class BareMetal:
    """Serves one machine's lanes.

    `heap_start` and `stack_top` bound what `brk` may move in: the break stays below the lane's stack pointer. `calls`
    are the handlers by number.
    """

    calls: dict[int, Handler]
    has_signals = False
    gathers_outputs = False
    """Whether there is `writev`."""
    spaces: AddressSpaces | None = None
    """What lanes may access, where they can change that."""

    def __init__(self, lanes: int, xlen: int, heap_start: int, stack_top: int) -> None:
        self.xlen = xlen
        self.heap_start = heap_start
        self.stack_top = stack_top
        self.break_top = stack_top
        self.stdin = InputStreams(lanes)
        self.outputs = {_STDOUT: OutputStreams(lanes), _STDERR: OutputStreams(lanes)}
        self.exit_code = np.zeros(lanes, np.int64)
        self.brk = np.zeros(lanes, np.uint64)
        self.closed = np.zeros((3, lanes), bool)
        self.unknown_calls: dict[int, int] = {}
        self.signal = np.zeros(lanes, np.int64)
        self.output_limit = MAX_OUTPUTS
        """Bytes that are kept of all lanes' outputs; when there are more, lanes with more than their share stop."""
        self.kept = np.zeros(lanes, np.int64)  # bytes that each lane's outputs take
        self.reset()

    def reset(self) -> None:
        """Back to the start: nothing read, nothing written."""
        self.stdin.rewind()
        for output in self.outputs.values():
            output.clear()
        self.exit_code[:] = 0
        self.signal[:] = 0
        self.kept[:] = 0
        self.brk[:] = self.heap_start
        self.closed[:] = False
        self.unknown_calls.clear()

    def _by_lane(self) -> dict[str, NDArray[Any]]:
        """What is kept for each lane, its first axis; views."""
        return {
            "exit_code": self.exit_code,
            "signal": self.signal,
            "brk": self.brk,
            "closed": self.closed.T,
            "kept": self.kept,
        }

    def save(self) -> SavedEnvironment:
        """The state of this moment, for `restore`."""
        return SavedEnvironment(
            {name: array.copy() for name, array in self._by_lane().items()},
            self.stdin.save(),
            {number: stream.save() for number, stream in self.outputs.items()},
            dict(self.unknown_calls),
        )

    def restore(self, saved: SavedEnvironment) -> None:
        """The state that as many lanes had."""
        for name, array in self._by_lane().items():
            array[...] = saved.by_lane[name]
        self.stdin.restore(saved.stdin)
        for number, stream in self.outputs.items():
            stream.restore(saved.outputs[number])
        self.unknown_calls.clear()
        self.unknown_calls.update(saved.unknown_calls)

    def refuses(self, saved: SavedEnvironment) -> str:
        """What of a state that may be from anywhere cannot be restored here; empty if all can."""
        own = self._by_lane()
        if saved.by_lane.keys() != own.keys() or saved.outputs.keys() != self.outputs.keys():
            return "it is of another environment"
        for name, array in own.items():
            given = saved.by_lane[name]
            if given.dtype != array.dtype or given.shape[1:] != array.shape[1:]:
                return f"its {name} is not as it should be"
        brk, signal, kept = (saved.by_lane[name] for name in ("brk", "signal", "kept"))
        if ((kept < 0) | (kept > MAX_OUTPUTS)).any():
            return "outputs that cannot be"
        if ((brk < self.heap_start) | (brk > self.break_top)).any():
            return "a break that cannot be"
        if ((signal < 0) | (signal > _MOST_SIGNALS)).any():
            return "a signal that cannot be"
        return ""

    def serve(self, state: LaneState, memory: GuestMemory, lanes: Lanes) -> Lanes:
        """Serve the lanes' calls; gives those that go on."""
        index = index_of(lanes)
        numbers = state.registers[_A7, index].copy()  # handlers write registers
        alike = bool((numbers == numbers[:1]).all())
        for number in numbers[:1] if alike else np.unique(numbers):
            these = lanes if alike else lanes[numbers == number]
            call = Call(self, state, memory, these)
            handler = self.calls.get(int(number))
            if handler is None:
                self.unknown_calls[int(number)] = self.unknown_calls.get(int(number), 0) + len(these)
                call.give(np.full(len(these), -_ENOSYS, np.int64))
            else:
                result = handler(call)
                if result is not None:
                    call.give(result)
        stopped = state.stop[index] != STOP_CALL
        return lanes[~stopped] if stopped.any() else lanes

    # -- what lanes write while they are on a device

    def output_room(self) -> NDArray[np.int64]:
        """As `vmjit.engine.Environment` has it.

        So much that all lanes together stay within the limit, whatever they write: where that is near, the host serves
        every write, and a lane stops at the one that it stops at elsewhere.
        """
        spare = (self.output_limit - int(self.kept.sum())) // len(self.kept)
        # A record takes most beside its own size where it has no data.
        room = max(spare, 0) * OUTPUT_HEADER // _WRITE_BYTES
        return np.where(self._has_standard_outputs(), room, 0)

    def _has_standard_outputs(self) -> NDArray[np.bool_]:
        """(lanes,): where descriptors 1 and 2 are what they are at the start."""
        standard: NDArray[np.bool_] = ~(self.closed[_STDOUT] | self.closed[_STDERR])
        return standard

    def take_outputs(self, stream: int, lanes: Lanes, sizes: Values, writes: Values, data: NDArray[np.uint8]) -> None:
        """What lanes wrote by themselves, within the room that they had for it."""
        self.outputs[stream].append(lanes, sizes, data)
        self.kept[lanes] += sizes + writes * _WRITE_BYTES

    def output(self, lane: int, descriptor: int = _STDOUT) -> bytes:
        return self.outputs[descriptor].of(lane)


def _exit(call: Call) -> None:
    code = call.signed(0) & 0xFF
    call.environment.exit_code[call.index] = code
    call.state.stop[call.index] = _EXITED


def _read(call: Call) -> Values:
    good = call.descriptor() == _STDIN
    result = read_input(call, call.address(1), np.where(good, call.signed(2), 0))
    result[~good] = -_EBADF
    return result


def read_input(call: Call, pointers: NDArray[np.uint64], wanted: Values) -> Values:
    """Move on in the lanes' standard input, into their memory; gives how much, or an error."""
    stdin = call.environment.stdin
    data, counts = stdin.take(call.lanes, np.minimum(wanted, MAX_TRANSFER))
    stored = call.memory.scatter(call.lanes, pointers, counts, data)
    stdin.position[call.index] += counts * stored
    return np.where(wanted < 0, -_EINVAL, np.where(stored, counts, -_EFAULT))


def _write(call: Call) -> Values:
    return write_outputs(call, call.descriptor(), call.address(1), call.signed(2))


def write_outputs(call: Call, streams: Values, pointers: NDArray[np.uint64], wanted: Values) -> Values:
    """Write from the lanes' memory to their outputs with the numbers of `streams`; gives how much, or an error."""
    result = np.full(len(call.lanes), -_EBADF, np.int64)
    for number, stream in call.environment.outputs.items():
        found = np.flatnonzero(streams == number)
        if not len(found):
            continue
        these = index_of(found)
        sizes = np.minimum(wanted[these], MAX_TRANSFER)
        lanes = call.lanes[these]
        data, good = call.memory.gather(lanes, pointers[these], sizes)
        valid = sizes >= 0
        good &= valid
        result[these] = np.where(good, sizes, np.where(valid, -_EFAULT, -_EINVAL))
        stream.append(lanes[good], sizes[good], data)
        _keep(call, lanes[good], sizes[good])
    return result


def _keep(call: Call, lanes: Lanes, sizes: Values) -> None:
    """Account for outputs; lanes that write without end stop before they fill the host's memory."""
    environment = call.environment
    environment.kept[lanes] += sizes + _WRITE_BYTES
    if environment.kept.sum() > environment.output_limit:
        over = lanes[environment.kept[lanes] > environment.output_limit // len(environment.kept)]
        call.state.stop[over] = int(Stop.MEMORY)


def _brk(call: Call) -> Values:
    """As on Linux: gives the break, which moves if it can. Memory given back and taken again is not cleared."""
    environment = call.environment
    wanted = call.address(0)
    limit = np.minimum(call.state.registers[_SP, call.lanes].astype(np.uint64), np.uint64(environment.stack_top))
    possible = (wanted >= np.uint64(environment.heap_start)) & (wanted < limit)
    environment.brk[call.lanes] = np.where(possible, wanted, environment.brk[call.lanes])
    return environment.brk[call.lanes].astype(np.int64)


def _two_longs(call: Call, first: NDArray[np.uint64], second: NDArray[np.uint64], bits: int) -> NDArray[np.uint8]:
    rows = np.stack([first, second], axis=1).astype(np.uint32 if bits == 32 else np.uint64)
    return rows.view(np.uint8).reshape(len(call.lanes), -1)


def _clock_gettime(call: Call, *, bits: int = 0) -> Values:
    """clock_gettime(clock, timespec*): every clock is the lane's virtual time."""
    time = call.nanoseconds()
    rows = _two_longs(call, time // _NANOSECONDS, time % _NANOSECONDS, bits or call.environment.xlen)
    known = (call.signed(0) >= 0) & (call.signed(0) < 16)
    pointers = call.address(1)
    stored = np.zeros(len(call.lanes), bool)
    sizes = np.where(known, rows.shape[1], 0)
    stored = call.memory.scatter(call.lanes, pointers, sizes, rows[known].reshape(-1))
    return np.where(known, np.where(stored, 0, -_EFAULT), -_EINVAL)


def _clock_gettime64(call: Call) -> Values:
    """The RV32 call with 64-bit fields."""
    return _clock_gettime(call, bits=64)


def _gettimeofday(call: Call) -> Values:
    """gettimeofday(timeval*, timezone*): the time zone is ignored, as on Linux for a null pointer."""
    time = call.nanoseconds()
    rows = _two_longs(call, time // _NANOSECONDS, time % _NANOSECONDS // 1000, call.environment.xlen)
    wanted = call.address(0) != 0
    stored = call.memory.scatter(
        call.lanes, call.address(0), np.where(wanted, rows.shape[1], 0), rows[wanted].reshape(-1)
    )
    return np.where(stored, 0, -_EFAULT)


def _fstat(call: Call) -> Values:
    """fstat(fd, stat*) in the generic Linux layout: input is a regular file, the outputs are character devices."""
    descriptors = call.descriptor()
    good = descriptors >= 0
    rows = np.zeros((len(call.lanes), 128 if call.environment.xlen == 64 else 104), np.uint8)
    is_input = descriptors == _STDIN
    mode = np.where(is_input, S_IFREG | 0o444, S_IFCHR | 0o620)
    size = np.where(is_input, call.environment.stdin.size[call.lanes], 0)
    for offset, values, dtype in (
        (8, descriptors + 1, np.int64),  # st_ino
        (16, mode, np.int32),
        (20, np.ones_like(mode), np.int32),  # st_nlink
        (48, size, np.int64),
        (56, np.full_like(mode, 4096), np.int32),  # st_blksize
        (64, (size + 511) // 512, np.int64),
    ):
        field = values.astype(dtype).view(np.uint8).reshape(len(call.lanes), -1)
        rows[:, offset : offset + field.shape[1]] = field
    sizes = np.where(good, rows.shape[1], 0)
    stored = call.memory.scatter(call.lanes, call.address(1), sizes, rows[good].reshape(-1))
    return np.where(good, np.where(stored, 0, -_EFAULT), -_EBADF)


def _close(call: Call) -> Values:
    descriptors = call.descriptor()
    good = descriptors >= 0
    call.environment.closed[descriptors[good], call.lanes[good]] = True
    return np.where(good, 0, -_EBADF)


def _lseek(call: Call) -> Values:
    """lseek(fd, offset, whence): input can be sought in; the outputs cannot."""
    descriptors, offset, whence = call.descriptor(), call.signed(1), call.signed(2)
    stdin = call.environment.stdin
    origin = np.select(
        [whence == 0, whence == 1, whence == 2],
        [np.zeros_like(offset), stdin.position[call.lanes], stdin.size[call.lanes]],
        default=-1,
    )
    goal = origin + offset
    possible = (origin >= 0) & (goal >= 0) & (goal <= np.iinfo(np.int32).max)
    moved = possible & (descriptors == _STDIN)
    stdin.position[call.lanes] = np.where(moved, goal, stdin.position[call.lanes])
    result = np.where(possible, goal, -_EINVAL)
    return np.select([descriptors < 0, descriptors == _STDIN], [np.full_like(offset, -_EBADF), result], -_ESPIPE)


SYSTEM_CALLS: dict[int, Handler] = {
    57: _close,
    62: _lseek,
    63: _read,
    64: _write,
    80: _fstat,
    93: _exit,
    94: _exit,
    113: _clock_gettime,
    169: _gettimeofday,
    214: _brk,
    403: _clock_gettime64,
}
"""System calls by Linux/RISC-V number. A handler gives each lane's result, or None if the lanes stop."""

BareMetal.calls = SYSTEM_CALLS
