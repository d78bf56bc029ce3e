"""The embedding API: for a program that owns the loop, the registers and the memory.

executor = vmjit.Executor(isa="rv32imac")
outcome = executor.execute(code, address=pc, registers=registers, memory=memory, memory_address=0x80000000)
pc = outcome.pc
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vmjit.cache import process_cache
from vmjit.checks import MAX_LANES, as_unsigned, checked_budget, checked_integer, checked_seconds, is_integer, shown
from vmjit.cpu_engine import CpuEngine
from vmjit.decoders.riscv.decoder import Decoder
from vmjit.decoders.riscv.isa import parse_isa
from vmjit.decoders.riscv.registers import FLOAT, FLOAT_STATUS
from vmjit.engine import TIERS, RunReport
from vmjit.errors import ArgumentError, CompileError, DeviceError, VmjitError
from vmjit.kernels.layout import PERMISSION_EXECUTE, PERMISSION_READ, PERMISSION_WRITE
from vmjit.lane_memory import LaneMemory
from vmjit.lane_state import LaneState
from vmjit.memory_layout import plan_memory
from vmjit.placement import Placement, choose_device, device_of_tier, place, reasons_in_code
from vmjit.program import Program, Segment
from vmjit.statistics import ExecutionStatistics, RunCounter, compile_statistics
from vmjit.stops import Stop
from vmjit.tiering import CompileStatistics

if TYPE_CHECKING:
    from vmjit.device_engine import DeviceEngine

log = logging.getLogger("vmjit")

_GUEST_REGISTERS = 32
_FLOAT_ROWS = 33
_KEPT_ENGINES = 64
_RUNNING, _FAULT, _UNSUPPORTED = int(Stop.RUNNING), int(Stop.FAULT), int(Stop.UNSUPPORTED)


@dataclass(frozen=True, eq=False)
class ExecutionResult:
    """What became of one `execute`.

    success: every lane ran without a fault or an unsupported instruction.
    executed_on: the device; "cpu" after a fallback.
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


_Key = tuple[bytes, int, int, int, int]
"""Code, its address, lanes, bytes of memory and their address."""


@dataclass
class _Bound:
    """An engine with the code it was made for, and the arrays it runs on."""

    engine: CpuEngine | DeviceEngine
    state: LaneState
    memory: LaneMemory
    """The caller's memory; what a device has is a copy."""
    device: str

    def run(self, budget: int | None, max_seconds: float | None) -> RunReport:
        """Run the lanes with the memory as it is here, and bring it up to date."""
        engine = self.engine
        report = engine.begin(budget)
        if isinstance(engine, CpuEngine):
            engine.go_on(report, max_seconds=max_seconds)
        else:
            engine.memory.upload(self.memory)
            engine.go_on(report, max_seconds=max_seconds)
            # A copy that fails half-way must leave the caller's memory as it was.
            there = LaneMemory(self.memory.layout, self.state.lanes, external=np.empty_like(self.memory.rows))
            engine.memory.download(there)
            self.memory.rows[:] = there.rows
        return report


_Rows = tuple[NDArray[Any], NDArray[Any] | None]
"""The caller's integer and float registers, a row each."""


def _checked_rows(registers: NDArray[Any], name: str, count: int, wanted: np.dtype[Any]) -> NDArray[Any]:
    """The caller's registers as (count, lanes), a view."""
    if not isinstance(registers, np.ndarray) or registers.dtype != wanted:
        found = getattr(registers, "dtype", type(registers).__name__)
        raise ArgumentError(f"{name} must be an array of {wanted}, got {found}")
    if registers.ndim not in (1, 2) or registers.shape[0] != count or registers.size == 0:
        raise ArgumentError(f"{name} must have shape ({count},) or ({count}, lanes), got {registers.shape}")
    if not registers.flags.writeable:
        raise ArgumentError(f"{name} must be writable: results are written to them")
    return registers[:, None] if registers.ndim == 1 else registers


class Executor:
    """Executes guest code on registers and memory that the caller owns.

    Args:
        isa: an ISA string such as "rv32imac".
        device: as for `Machine`. With "auto", `can_execute_on_gpu` decides for each piece of code. On a GPU, registers
            and memory are copied there and back in each call.
        tier: as for `Machine`; but lanes run one by one here, on memory that the caller has laid out.
        fallback: whether the CPU does the work when a device fails; registers and memory are untouched until then.

    What was decoded and compiled for a piece of code is kept for the next call with the same code, address and shapes.
    """

    def __init__(self, isa: str, device: str = "auto", tier: str = "auto", *, fallback: bool = True) -> None:
        self.isa = parse_isa(isa)
        self.device = device_of_tier(choose_device(device), tier)
        self.fallback = fallback
        if tier not in TIERS:
            raise ArgumentError(f"tier must be one of {', '.join(TIERS)}, got {tier!r}")
        self.tier = tier
        self.decoder = Decoder(self.isa)
        self._engines: OrderedDict[tuple[_Key, str], _Bound] = OrderedDict()
        self._placed: dict[_Key, str] = {}
        self._failed: set[str] = set()
        self._counter = RunCounter()

    def can_execute_on_gpu(
        self, code_bytes: bytes, address: int, lanes: int = 1, *, memory_bytes: int = 0, memory_address: int = 0
    ) -> Placement:
        """Whether a GPU can and should take this code for so many lanes, and why (or why not).

        `memory_bytes` is what each lane has at `memory_address`. The reasons name every instruction without a meaning
        by address, bytes and disassembly, loops with system calls, memory that does not fit (bytes needed, bytes free,
        lanes that fit), and too few lanes to pay, by a measurement that is made once on each device and takes seconds.
        The devices are those of the executor, all GPUs for "auto" and "cpu".
        """
        code_bytes = bytes(code_bytes)
        lanes = checked_integer("lanes", lanes, 1, MAX_LANES)
        device = "auto" if self.device == "cpu" else self.device
        against = reasons_in_code(self.decoder, code_bytes, address)
        if not code_bytes:
            return Placement(False, "cpu", ("there is no code",))
        program = self._program(code_bytes, address, memory_bytes, memory_address)
        layout = plan_memory(program, 0, lanes, arena=False, aligned=False)
        return place(layout, lanes, self.decoder.registers, device=device, against=against)

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
        max_seconds: float | None = None,
        float_registers: NDArray[np.uint64] | None = None,
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
            max_seconds: wall-clock limit; lanes that were under way stay `Stop.RUNNING`.
            float_registers: for ISAs with F or D, (33,) or (33, lanes) uint64: f0 to f31 as bits, a narrower number in
                the low bits with all bits above it set, and fcsr; changed in place. None: all zero.

        Environment calls are not served: such a lane stops with ECALL at the call. Ctrl-C raises KeyboardInterrupt;
        registers and memory are then as far as the guest came.

        Raises:
            ArgumentError: arrays of a wrong shape or dtype, or code and memory that overlap.
        """
        started = time.perf_counter_ns()
        code_bytes = bytes(code_bytes)
        budget = checked_budget(max_instructions)
        rows = _checked_rows(registers, "registers", _GUEST_REGISTERS, self._register_dtype)
        float_rows = self._float_rows(float_registers, rows.shape[1])
        lanes = rows.shape[1]
        memory_rows = self._memory_rows(memory, lanes)
        seconds = checked_seconds("max_seconds", max_seconds)
        start = None if pc is None else self._start(pc, lanes)
        key = (code_bytes, address, lanes, memory_rows.shape[1], memory_address)
        bound, report = self._run(key, (rows, float_rows), memory_rows, start, budget, seconds)
        state = bound.state
        rows[1:] = state.registers[1:_GUEST_REGISTERS]
        if float_rows is not None:
            float_rows[:-1] = state.registers[FLOAT:]
            float_rows[-1] = state.registers[FLOAT_STATUS]
        if report.interrupted:  # noted while the lanes' state was not whole; the caller's loop must hear of it
            raise KeyboardInterrupt
        error = self._error(state, code_bytes, address)
        self._counter.ran(bound.device, success=error is None)
        return ExecutionResult(
            success=error is None,
            executed_on=bound.device,
            execution_time_ns=time.perf_counter_ns() - started,
            pc=state.pc.copy(),
            stop=state.stop.copy(),
            retired=state.retired.copy(),
            fault_address=state.fault_address.copy(),
            fault_access=state.fault_access.copy(),
            return_data=state.registers[10].astype(self._register_dtype),
            error=error,
        )

    @property
    def statistics(self) -> ExecutionStatistics:
        """What this executor did so far, and the process's cache."""
        total = CompileStatistics()
        for bound in self._engines.values():
            made = compile_statistics(bound.engine)
            total.compiled += made.compiled
            total.compile_seconds += made.compile_seconds
        return self._counter.statistics(total, process_cache().statistics)

    def _run(
        self,
        key: _Key,
        rows: _Rows,
        memory_rows: NDArray[np.uint8],
        start: NDArray[np.uint64] | None,
        budget: int | None,
        max_seconds: float | None,
    ) -> tuple[_Bound, RunReport]:
        device = self._device_for(key)
        try:
            bound = self._bound(key, device)
            self._load(bound, rows, memory_rows, key[1], start)
            return bound, bound.run(budget, max_seconds)
        except (DeviceError, CompileError) as error:
            if device == "cpu" or not self.fallback:
                raise
            log.warning("%s failed: %s; the CPU does the work", device, error)
            self._counter.fallbacks += 1
            self._failed.add(device)
            self._forget((key, device))
        bound = self._bound(key, "cpu")
        self._load(bound, rows, memory_rows, key[1], start)
        return bound, bound.run(budget, max_seconds)

    def _device_for(self, key: _Key) -> str:
        """Where this code goes. A device that has failed is not tried again."""
        if self.device == "cpu" or self.device in self._failed:
            return "cpu"
        if self.device != "auto":
            return self.device
        if key not in self._placed:
            code, address, lanes, size, memory_address = key
            placed = self.can_execute_on_gpu(code, address, lanes, memory_bytes=size, memory_address=memory_address)
            if len(self._placed) >= _KEPT_ENGINES:
                self._placed.pop(next(iter(self._placed)))
            self._placed[key] = placed.device
        device = self._placed[key]
        return "cpu" if device in self._failed else device

    def _load(
        self,
        bound: _Bound,
        rows: _Rows,
        memory_rows: NDArray[np.uint8],
        address: int,
        start: NDArray[np.uint64] | None,
    ) -> None:
        """The caller's registers and memory as the lanes' state."""
        state = bound.state
        bound.memory.rows = memory_rows
        state.registers[:] = 0
        state.registers[1:_GUEST_REGISTERS] = rows[0][1:]
        if rows[1] is not None:
            state.registers[FLOAT:] = rows[1][:-1]
            state.registers[FLOAT_STATUS] = rows[1][-1] & np.uint64(0xFF)
        state.pc[:] = address if start is None else start
        state.stop[:] = _RUNNING
        state.retired[:] = 0

    def _start(self, pc: object, lanes: int) -> NDArray[np.uint64]:
        if is_integer(pc) and not 0 <= int(pc) < 1 << 64:  # type: ignore[call-overload]
            raise ArgumentError(f"pc must be an address, got {shown(pc)}")
        return as_unsigned(pc, np.dtype(np.uint64), lanes, "values of pc")  # type: ignore[arg-type]

    @property
    def _register_dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint32 if self.isa.xlen == 32 else np.uint64)

    def _float_rows(self, floats: NDArray[np.uint64] | None, lanes: int) -> NDArray[Any] | None:
        if floats is None:
            return None
        if self.decoder.registers.float_status is None:
            raise ArgumentError(f"{self.isa.name} has no float registers; its name needs f or d")
        rows = _checked_rows(floats, "float_registers", _FLOAT_ROWS, np.dtype(np.uint64))
        if rows.shape[1] != lanes:
            raise ArgumentError(f"float_registers must be for {lanes} lanes, got shape {floats.shape}")
        return rows

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

    def _bound(self, key: _Key, device: str) -> _Bound:
        place_ = (key, device)
        bound = self._engines.get(place_)
        if bound is None:
            bound = self._engines[place_] = self._new(*key, device)
            if len(self._engines) > _KEPT_ENGINES:
                self._forget(next(iter(self._engines)))
        self._engines.move_to_end(place_)
        return bound

    def _forget(self, place_: tuple[_Key, str]) -> None:
        bound = self._engines.pop(place_, None)
        if bound is not None:
            self._counter.keep(compile_statistics(bound.engine))

    def _program(self, code: bytes, address: int, size: int, memory_address: int) -> Program:
        segments = [Segment(address, len(code), code, PERMISSION_READ | PERMISSION_EXECUTE)]
        if size:
            segments.append(Segment(memory_address, size, b"", PERMISSION_READ | PERMISSION_WRITE))
        try:
            return Program(tuple(segments), address, self.isa, name="code")
        except VmjitError as error:
            raise ArgumentError(str(error)) from error

    def _new(self, code: bytes, address: int, lanes: int, size: int, memory_address: int, device: str) -> _Bound:
        program = self._program(code, address, size, memory_address)
        layout = plan_memory(program, 0, lanes, arena=False, aligned=False)
        memory = LaneMemory(layout, lanes, external=np.zeros((lanes, size), np.uint8))
        state = LaneState(lanes, self.decoder.registers)
        engine: CpuEngine | DeviceEngine
        if device == "cpu":
            engine = CpuEngine(self.isa, state, memory, tier=self.tier, outside=Stop.LEFT)
        else:
            from vmjit.device_engine import DeviceEngine
            from vmjit.split_lane_memory import device_memory

            there = device_memory(layout, lanes, device, self.isa.xlen)
            engine = DeviceEngine(self.isa, state, there, tier=self.tier, outside=Stop.LEFT)
        return _Bound(engine, state, memory, device)

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
