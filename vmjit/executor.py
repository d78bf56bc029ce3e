"""The embedding API: for a program that owns the loop, the registers and the memory.

executor = vmjit.Executor(isa="rv32imac")
outcome = executor.execute(code, address=pc, registers=registers, memory=memory, memory_address=0x80000000)
pc = outcome.pc
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.checks import as_unsigned, checked_budget, is_integer, shown
from vmjit.cpu_engine import CpuEngine
from vmjit.decoders.riscv.decoder import Decoder
from vmjit.decoders.riscv.isa import parse_isa
from vmjit.decoders.riscv.registers import RESERVATION
from vmjit.engine import TIERS
from vmjit.errors import ArgumentError, VmjitError
from vmjit.kernels.layout import PERMISSION_EXECUTE, PERMISSION_READ, PERMISSION_WRITE
from vmjit.lane_memory import LaneMemory
from vmjit.lane_state import LaneState
from vmjit.memory_layout import plan_memory
from vmjit.placement import Placement, choose_device, no_gpu_reasons
from vmjit.program import Program, Segment
from vmjit.stops import Stop

_GUEST_REGISTERS = 32
_KEPT_ENGINES = 64
_RUNNING, _FAULT, _UNSUPPORTED = int(Stop.RUNNING), int(Stop.FAULT), int(Stop.UNSUPPORTED)


@dataclass(frozen=True, eq=False)
class ExecutionResult:
    """What became of one `execute`.

    success: every lane ran without a fault or an unsupported instruction.
    executed_on: the device, "cpu".
    execution_time_ns: wall-clock nanoseconds, decoding included.
    pc: (lanes,) uint64, where each lane goes on.
    stop: (lanes,) int32, values of `vmjit.Stop`; LEFT is the ordinary one: the pc left the code that was given.
    retired: (lanes,) uint64, instructions retired.
    return_data: (lanes,) the guest's a0, where its calling convention returns values.
    error: one line about the first lane that did not succeed, or None.
    """

    success: bool
    executed_on: str
    execution_time_ns: int
    pc: NDArray[np.uint64]
    stop: NDArray[np.int32]
    retired: NDArray[np.uint64]
    fault_address: NDArray[np.uint64]
    fault_access: NDArray[np.uint8]
    return_data: NDArray[Any]
    error: str | None


@dataclass
class _Bound:
    """An engine with the code it was made for, and the arrays it runs on."""

    engine: CpuEngine
    state: LaneState
    memory: LaneMemory


class Executor:
    """Executes guest code on registers and memory that the caller owns.

    Args:
        isa: an ISA string such as "rv32imac".
        device: "auto" or "cpu".
        tier: as for `Machine`.

    What was decoded and compiled for a piece of code is kept for the next call with the same code, address and shapes.
    """

    def __init__(self, isa: str, device: str = "auto", tier: str = "auto") -> None:
        self.isa = parse_isa(isa)
        self.device = choose_device(device)
        if self.device != "cpu":
            raise ArgumentError(f"an Executor works on memory of this computer: device cpu, not {device!r}")
        if tier not in TIERS:
            raise ArgumentError(f"tier must be one of {', '.join(TIERS)}, got {tier!r}")
        self.tier = tier
        self.decoder = Decoder(self.isa)
        self._engines: OrderedDict[tuple[Any, ...], _Bound] = OrderedDict()

    def can_execute_on_gpu(self, code_bytes: bytes, address: int, lanes: int = 1) -> Placement:
        """Whether a GPU can take this code for so many lanes, and why (or why not).

        The reasons name every instruction without a meaning by address, bytes and disassembly.
        """
        reasons = list(no_gpu_reasons())
        place = 0
        while place < len(code_bytes):
            instruction = self.decoder.decode(
                lambda pc, n: code_bytes[pc - address : pc - address + n], address + place
            )
            if not self.decoder.has_meaning(instruction):
                data = code_bytes[place : place + instruction.size].hex(" ")
                text = self.decoder.text(instruction)
                reasons.append(f"no lowering for the instruction at {address + place:#x}: {data}  {text}")
            place += instruction.size
        return Placement(False, self.device, tuple(reasons))

    def execute(
        self,
        code_bytes: bytes,
        address: int,
        registers: NDArray[Any],
        memory: NDArray[np.uint8] | None = None,
        max_instructions: int | None = None,
        *,
        memory_address: int = 0,
        pc: int | NDArray[Any] | None = None,
    ) -> ExecutionResult:
        """Run code until the pc leaves it, a lane stops, or the budget is used.

        Args:
            code_bytes: the guest's code; it can be read by the guest, not written.
            address: guest address of its first byte.
            registers: (32,) or (32, lanes), uint32 or uint64 by the ISA's width; changed in place.
            memory: (n,) or (lanes, n) uint8, C-contiguous, at `memory_address`; changed in place. None: no memory.
            max_instructions: for each lane, exact; None: no limit.
            memory_address: guest address of the memory's first byte.
            pc: where the lanes start, one for all or (lanes,); None: at `address`.

        Environment calls are not served: such a lane stops with ECALL at the call. Ctrl-C raises KeyboardInterrupt;
        registers and memory are then as far as the guest came.

        Raises:
            ArgumentError: arrays of a wrong shape or dtype, or code and memory that overlap.
        """
        started = time.perf_counter_ns()
        code_bytes = bytes(code_bytes)
        budget = checked_budget(max_instructions)
        rows = self._register_rows(registers)
        lanes = rows.shape[1]
        memory_rows = self._memory_rows(memory, lanes)
        bound = self._bound(code_bytes, address, lanes, memory_rows.shape[1], memory_address)
        state, engine = bound.state, bound.engine
        bound.memory.rows = memory_rows
        state.registers[:_GUEST_REGISTERS] = rows
        state.registers[0] = 0
        state.registers[RESERVATION] = 0
        state.pc[:] = self._start(address if pc is None else pc, lanes)
        state.stop[:] = _RUNNING
        state.retired[:] = 0
        report = engine.run(budget)
        rows[1:] = state.registers[1:_GUEST_REGISTERS]
        if report.interrupted:  # noted while the lanes' state was not whole; the caller's loop must hear of it
            raise KeyboardInterrupt
        error = self._error(state, code_bytes, address)
        return ExecutionResult(
            success=error is None,
            executed_on=self.device,
            execution_time_ns=time.perf_counter_ns() - started,
            pc=state.pc.copy(),
            stop=state.stop.copy(),
            retired=state.retired.copy(),
            fault_address=state.fault_address.copy(),
            fault_access=state.fault_access.copy(),
            return_data=state.registers[10].copy(),
            error=error,
        )

    def _start(self, pc: object, lanes: int) -> NDArray[np.uint64]:
        if is_integer(pc) and not 0 <= int(pc) < 1 << 64:  # type: ignore[call-overload]
            raise ArgumentError(f"pc must be an address, got {shown(pc)}")
        return as_unsigned(pc, np.dtype(np.uint64), lanes, "values of pc")  # type: ignore[arg-type]

    def _register_rows(self, registers: NDArray[Any]) -> NDArray[Any]:
        """The caller's registers as (32, lanes), a view."""
        wanted = np.uint32 if self.isa.xlen == 32 else np.uint64
        if not isinstance(registers, np.ndarray) or registers.dtype != wanted:
            found = getattr(registers, "dtype", type(registers).__name__)
            raise ArgumentError(f"registers must be an array of {np.dtype(wanted)}, got {found}")
        if registers.ndim not in (1, 2) or registers.shape[0] != _GUEST_REGISTERS or registers.size == 0:
            raise ArgumentError(f"registers must have shape (32,) or (32, lanes), got {registers.shape}")
        if not registers.flags.writeable:
            raise ArgumentError("registers must be writable: results are written to them")
        return registers[:, None] if registers.ndim == 1 else registers

    def _memory_rows(self, memory: NDArray[np.uint8] | None, lanes: int) -> NDArray[np.uint8]:
        if memory is None:
            return np.zeros((lanes, 0), np.uint8)
        if not isinstance(memory, np.ndarray) or memory.dtype != np.uint8 or not memory.flags.c_contiguous:
            raise ArgumentError("memory must be a C-contiguous array of uint8")
        if not memory.flags.writeable:
            raise ArgumentError("memory must be writable: the guest's stores go there")
        rows = memory[None, :] if memory.ndim == 1 else memory
        if rows.ndim != 2 or rows.shape[0] != lanes:
            raise ArgumentError(f"memory must have shape (n,) for one lane or ({lanes}, n), got {memory.shape}")
        return rows

    def _bound(self, code: bytes, address: int, lanes: int, size: int, memory_address: int) -> _Bound:
        key = (code, address, lanes, size, memory_address)
        bound = self._engines.get(key)
        if bound is None:
            bound = self._engines[key] = self._new(code, address, lanes, size, memory_address)
            if len(self._engines) > _KEPT_ENGINES:
                self._engines.popitem(last=False)
        self._engines.move_to_end(key)
        return bound

    def _new(self, code: bytes, address: int, lanes: int, size: int, memory_address: int) -> _Bound:
        segments = [Segment(address, len(code), code, PERMISSION_READ | PERMISSION_EXECUTE)]
        if size:
            segments.append(Segment(memory_address, size, b"", PERMISSION_READ | PERMISSION_WRITE))
        try:
            program = Program(tuple(segments), address, self.isa, name="code")
        except VmjitError as error:
            raise ArgumentError(str(error)) from error
        layout = plan_memory(program, 0, lanes, arena=False, aligned=False)
        memory = LaneMemory(layout, lanes, external=np.zeros((lanes, size), np.uint8))
        state = LaneState(lanes, len(self.decoder.registers), self.isa.xlen)
        engine = CpuEngine(self.isa, state, memory, tier=self.tier, outside=Stop.LEFT)
        return _Bound(engine, state, memory)

    def _error(self, state: LaneState, code: bytes, address: int) -> str | None:
        bad = ((state.stop == _FAULT) | (state.stop == _UNSUPPORTED)).nonzero()[0]
        if not len(bad):
            return None
        lane = int(bad[0])
        pc = int(state.pc[lane])
        instruction = self.decoder.decode(lambda p, n: code[p - address : p - address + n] if p >= address else b"", pc)
        text = self.decoder.text(instruction)
        what = f"lane {lane} stopped with {Stop(int(state.stop[lane])).name} at {pc:#x} ({text})"
        if state.stop[lane] == _FAULT:
            what += f", address {int(state.fault_address[lane]):#x}"
        return what + (f"; {len(bad)} lanes in all" if len(bad) > 1 else "")
