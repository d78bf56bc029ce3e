"""Memory hooks: functions that stand for device registers, at guest addresses where there is no memory.

Compiled ones are called by the interpreter's slow accesses. For those on the host, and where lanes run on a device, the
access is a fault first: the instruction is then evaluated for all lanes that are at it, op by op, with one call for all
of them where it loads or stores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vmjit.checks import as_unsigned, checked_integer, shown
from vmjit.errors import ArgumentError
from vmjit.hooks import HookedLanes, call_as_python
from vmjit.ir.evaluate import Evaluator
from vmjit.ir.values import Op
from vmjit.kernels.layout import MappedRange
from vmjit.stops import Access, Stop

if TYPE_CHECKING:
    from vmjit.machine import Machine

Lanes = NDArray[np.intp]


class MemoryAccesses(HookedLanes):
    """The lanes that access device registers at once, all with the same instruction.

    `address` is the range's first. `addresses` are the lanes', (n,) uint64, `size` the bytes of the access. The lanes
    go on behind the instruction; they cannot be stopped or sent elsewhere here.
    """

    def __init__(self, machine: Machine, address: int, lanes: Lanes, addresses: NDArray[np.uint64], size: int) -> None:
        super().__init__(machine, address, lanes)
        self.addresses = addresses
        self.size = size

    def stop(self, chosen: NDArray[np.bool_] | None = None) -> None:
        raise ArgumentError("lanes cannot be stopped in the middle of an access")


@dataclass(frozen=True, eq=False)
class MemoryHook:
    """What `machine.hook_memory` gives, for `machine.unhook`."""

    address: int
    size: int
    read: Callable[..., Any] | None
    write: Callable[..., Any] | None
    host: bool
    compiled: tuple[Any, Any] = (None, None)
    """What Numba made of the two."""

    @property
    def last(self) -> int:
        return self.address + self.size - 1


class _Register:
    """The memory of one lane's evaluator: what was read for it, and what it writes."""

    def __init__(self) -> None:
        self.loaded = b""
        self.stored: tuple[int, bytes] | None = None

    def read(self, address: int, size: int) -> bytes:
        return self.loaded

    def write(self, address: int, data: bytes) -> None:
        self.stored = (address, data)


# The ops that access memory, and which operand is the address.
_ACCESSES = {"load": 0, "store": 0, "store_if": 1}


def _inside(hook: MemoryHook, op: Op, evaluators: list[Evaluator], mask: int) -> bool:
    """Whether an access lies in the range in all lanes."""
    size = op.type.bits // 8
    places = [e.value(op.args[_ACCESSES[op.name]]) & mask for e in evaluators]
    return all(hook.address <= p and p + size - 1 <= hook.last for p in places)


class MemoryHooks:
    """The memory hooks of one machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._hooks: list[MemoryHook] = []

    def add(
        self,
        place: int | str,
        size: int,
        read: Callable[..., Any] | None,
        write: Callable[..., Any] | None,
        *,
        host: bool,
    ) -> MemoryHook:
        """As `machine.hook_memory`."""
        program = self._machine.program
        address = program.address(place)
        size = checked_integer("size", size, 1, 1 << 32)
        if not 0 <= address <= (1 << program.xlen) - size:
            raise ArgumentError(f"{size} bytes at {address:#x} are not in the {program.xlen}-bit address space")
        if read is None and write is None:
            raise ArgumentError("a memory hook needs a function for reads, for writes or for both")
        for function in (read, write):
            if function is not None and not callable(function):
                raise ArgumentError(f"a hook is a function, got {shown(function)}")
        for span in self._machine._layout.spans:
            if span.lo < address + size and address < span.end:
                raise ArgumentError(f"there is memory at {max(span.lo, address):#x}: hooks are for where there is none")
        for other in self._hooks:
            if other.address < address + size and address <= other.last:
                raise ArgumentError(f"there is a memory hook at {other.address:#x} already")
        compiled: tuple[Any, Any] = (None, None)
        if not host:
            from vmjit.compiled_hooks import compile_read, compile_write  # imports Numba

            xlen = program.xlen
            compiled = (read and compile_read(read, xlen), write and compile_write(write, xlen))
        hook = MemoryHook(address, size, read, write, host, compiled)
        self._hooks.append(hook)
        self._tell()
        return hook

    def remove(self, hook: MemoryHook) -> None:
        if hook not in self._hooks:
            raise ArgumentError("this machine has no such hook")
        self._hooks.remove(hook)
        self._tell()

    def _tell(self) -> None:
        rows = [
            (hook.address, hook.last, *(made.address if made else 0 for made in hook.compiled))
            for hook in self._hooks
            if not hook.host
        ]
        table = np.array(rows, np.uint64).reshape(-1, MappedRange.BYTES // 8)
        self._machine._residence.set_mapped(table, self.access if self._hooks else None)

    # -- accesses by the host

    def access(self, lanes: Lanes) -> None:
        """Make the accesses of those of some lanes with a fault that were to device registers."""
        state = self._machine._state
        for hook in self._hooks:
            at = state.fault_address[lanes]
            there = (at >= np.uint64(hook.address)) & (at <= np.uint64(hook.last))
            kinds = [int(a) for a, f in ((Access.READ, hook.read), (Access.WRITE, hook.write)) if f is not None]
            these = lanes[there & np.isin(state.fault_access[lanes], kinds)]
            keys = np.stack([state.pc[these], state.code_index[these].astype(np.uint64)])
            for key in np.unique(keys, axis=1).T:
                self._access(hook, these[(keys == key[:, None]).all(axis=0)])

    def _access(self, hook: MemoryHook, lanes: Lanes) -> None:
        """For lanes that are at one instruction."""
        state = self._machine._state
        block = self._machine._engine.instruction_of(int(lanes[0]))
        registers = state.registers[:, lanes]
        evaluators = [Evaluator([int(v) for v in column], _Register()) for column in registers.T]
        mask = self._machine._engine.decoder.registers.type.mask
        for evaluator in evaluators:
            evaluator.begin(block)
        accessed = False
        for op in block.instructions[0].ops:
            if op.name in _ACCESSES and not accessed:
                if not _inside(hook, op, evaluators, mask):
                    return  # across the end of the range
                accessed = True
                state.stop[lanes] = int(Stop.RUNNING)
            if op.name == "load":
                self._load(hook, lanes, op, evaluators, mask)
            for evaluator in evaluators:
                evaluator.step(op)
            if op.name in ("store", "store_if"):
                self._store(hook, lanes, op, evaluators)
        instruction = block.instructions[0]
        running = state.stop[lanes] == int(Stop.RUNNING)
        done = lanes[running]
        columns = np.array([e.registers for e in evaluators], np.uint64).T
        state.registers[:, done] = columns[:, running].astype(state.registers.dtype)
        state.pc[done] = np.uint64((instruction.pc + instruction.size) & mask)
        state.retired[done] += np.uint64(1)
        state.budget[done] -= 1
        state.fault_access[done] = 0
        state.fault_address[done] = 0
        state.stop[done[state.budget[done] <= 0]] = int(Stop.BUDGET)

    def _load(self, hook: MemoryHook, lanes: Lanes, op: Op, evaluators: list[Evaluator], mask: int) -> None:
        size = op.type.bits // 8
        places = np.array([e.value(op.args[0]) & mask for e in evaluators], np.uint64)
        assert hook.read is not None
        if hook.host:
            accesses = MemoryAccesses(self._machine, hook.address, lanes, places, size)
            values = self._unsigned(hook.read(accesses), len(lanes))
        else:
            pairs = zip(lanes.tolist(), places.tolist(), strict=True)
            values = self._unsigned([self._call(hook, hook.read, lane, p, size) for lane, p in pairs], len(lanes))
        for evaluator, value in zip(evaluators, values.tolist(), strict=True):
            assert isinstance(evaluator.memory, _Register)
            evaluator.memory.loaded = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")

    def _store(self, hook: MemoryHook, lanes: Lanes, op: Op, evaluators: list[Evaluator]) -> None:
        """Of the lanes that store: a conditional store may be one of some."""
        size = op.type.bits // 8
        stored = [e.memory.stored for e in evaluators if isinstance(e.memory, _Register)]
        some = [i for i, found in enumerate(stored) if found is not None]
        if not some or hook.write is None:
            return
        places = np.array([found[0] for found in stored if found is not None], np.uint64)
        values = np.array([int.from_bytes(found[1], "little") for found in stored if found is not None], np.uint64)
        these = lanes[some]
        if hook.host:
            hook.write(MemoryAccesses(self._machine, hook.address, these, places, size), values)
            return
        for lane, place, value in zip(these.tolist(), places.tolist(), values.tolist(), strict=True):
            self._call(hook, hook.write, lane, place, size, value)

    def _call(self, hook: MemoryHook, function: Callable[..., Any], lane: int, *args: int) -> int:
        """Run a compiled function for a lane as Python."""
        name = f"the hook of memory at {hook.address:#x}"
        result, _ = call_as_python(self._machine, lane, name, lambda memory: function(memory, *args))
        return 0 if result is None else int(result) & ((1 << 64) - 1)

    def _unsigned(self, values: ArrayLike, count: int) -> NDArray[np.uint64]:
        found: NDArray[np.uint64] = as_unsigned(values, np.dtype(np.uint64), count, "what a hook reads")
        return found
