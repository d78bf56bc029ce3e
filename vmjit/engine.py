"""The engine: runs lanes until all have stopped, decoding, compiling and serving their calls in between.

A run is a sequence of passes. A pass lets the lanes that can go on run on the device; between passes the lanes that
stopped for something are served in bulk. What a pass is, and what code is on a device, its engine says.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from vmjit import timeline
from vmjit.address_spaces import AddressSpaces
from vmjit.decoders.riscv.decoder import Decoder
from vmjit.decoders.riscv.isa import Isa
from vmjit.errors import CompileForbiddenError, HookError
from vmjit.guest_code import CodeSpan
from vmjit.interrupts import DeferredInterrupt
from vmjit.ir.block import Block
from vmjit.kernels.layout import (
    ACCESS_HOOK_FAILED,
    PERMISSION_EXECUTE,
    STOP_CALL,
    STOP_FENCE_I,
    STOP_GUEST_BREAK,
    STOP_HOOK_FAILED,
    STOP_NEED_CODE,
    STOP_RUNNING,
)
from vmjit.lane_state import UNLIMITED, LaneState, index_of
from vmjit.memory_layout import MemoryLayout, MemorySpan
from vmjit.stops import Access, Stop

TIERS = ("auto", "interpreter", "scalar", "simd")

_KEPT_SPACES = 64

# Bytes of lanes' own code that are compared at once.
_COMPARED_AT_ONCE = 16 << 20

# As plain numbers: comparing an array with an enum's member takes numpy several times as long.
_EXIT, _ECALL, _EBREAK, _BUDGET = int(Stop.EXIT), int(Stop.ECALL), int(Stop.EBREAK), int(Stop.BUDGET)
_ARRIVED, _FAULT, _MEMORY = int(Stop.ARRIVED), int(Stop.FAULT), int(Stop.MEMORY)

# What is decoded at an address with a breakpoint, if ISAs have 16-bit instructions or not.
_BREAK = {True: bytes.fromhex("0290"), False: bytes.fromhex("73001000")}

Lanes = NDArray[np.intp]
Progress = Callable[[int, int], None]


class GuestMemory(Protocol):
    """What engines and environments need of the lanes' memory, wherever it lies."""

    layout: MemoryLayout
    spaces: AddressSpaces | None

    def gather(
        self,
        lanes: NDArray[np.integer],
        addresses: NDArray[np.uint64],
        sizes: NDArray[np.int64],
        *,
        by_host: bool = False,
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]: ...

    def scatter(
        self,
        lanes: NDArray[np.integer],
        addresses: NDArray[np.uint64],
        sizes: NDArray[np.int64],
        data: NDArray[np.uint8],
        *,
        by_host: bool = False,
    ) -> NDArray[np.bool_]: ...

    def own_bytes(self, span: MemorySpan, lanes: Lanes) -> NDArray[np.uint8]: ...

    def shared_bytes(self, span: MemorySpan) -> NDArray[np.uint8]: ...


class Environment(Protocol):
    """What is around lanes."""

    def serve(self, state: LaneState, memory: GuestMemory, lanes: Lanes) -> Lanes:
        """Serve environment calls. Gives the lanes that go on behind their call; the others it has stopped."""

    gathers_outputs: bool

    def output_room(self) -> NDArray[np.int64]:
        """(lanes,): how many bytes of records (`kernels/device_layout.py`) of writes to descriptors 1 and 2, also by
        `writev` if it `gathers_outputs`, each lane may keep by itself; 0 where it must not. They are to be taken over
        with `take_outputs` before anything else."""

    def take_outputs(
        self,
        stream: int,
        lanes: Lanes,
        sizes: NDArray[np.int64],
        writes: NDArray[np.int64],
        data: NDArray[np.uint8],
    ) -> None:
        """What lanes wrote by themselves: `sizes` bytes each, in so many `writes`, lane by lane in `data`."""


def _with_breakpoints(span: CodeSpan, breakpoints: Iterable[int], stop: bytes) -> CodeSpan:
    """What is decoded where lanes are to stop at some addresses."""
    data = bytearray(span.data)
    for place in breakpoints:
        if span.lo <= place and place + len(stop) <= span.end:
            data[place - span.lo : place - span.lo + len(stop)] = stop
    return CodeSpan(span.lo, bytes(data))


@dataclass
class RunReport:
    """What one run did, over all lanes.

    compiled_instructions: retired in compiled code; vector_instructions: of these, in SIMD registers.
    interrupted: by Ctrl-C. timed_out: the time limit ended it. served: calls of lanes that the host answered.
    regroupings: how often lanes were given to other lane groups.
    """

    seconds: float = 0.0
    compiled_instructions: int = 0
    vector_instructions: int = 0
    passes: int = 0
    served: int = 0
    regroupings: int = 0
    interrupted: bool = False
    timed_out: bool = False
    retired_before: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))


Space = TypeVar("Space")


class Arrivals(Protocol):
    """Serves lanes that have come to breakpoints: at one address, RUNNING, before the instruction there. What it stops
    or sends elsewhere does not execute that."""

    def __call__(self, address: int, lanes: Lanes) -> None: ...


class Accesses(Protocol):
    """Serves lanes that accessed memory where there is none: makes those of them RUNNING, behind the instruction, whose
    access it has made."""

    def __call__(self, lanes: Lanes) -> None: ...


def _nothing() -> None:
    """What happens between passes unless somebody asks for more."""


class Engine(ABC, Generic[Space]):
    """Runs the lanes of `state`. `tier` is one of TIERS; `outside` is the stop of a lane whose pc is in no code."""

    def __init__(
        self,
        isa: Isa,
        state: LaneState,
        *,
        tier: str,
        environment: Environment | None,
        outside: Stop,
    ) -> None:
        self.state = state
        self.tier = tier
        self.environment = environment
        self.outside = outside
        self.decoder = Decoder(isa)
        self._alignment = np.uint64(1 if isa.compressed else 3)
        self.spaces: list[Space] = []
        self._space_of: dict[bytes, int] = {}
        self._codes: list[list[CodeSpan]] = []  # what the lanes of each space have in memory
        self.breakpoints: frozenset[int] = frozenset()
        self.hooks: dict[int, tuple[int, ...]] = {}
        """Compiled functions by the addresses that they are called at; only where `calls_hooks`."""
        self.arrivals: Arrivals | None = None
        self.accesses: Accesses | None = None
        self._arrived: Lanes = np.zeros(0, np.intp)  # lanes that stopped there in the last run
        self.code_was_written = False
        self.deadline: float | None = None
        """When the run under way has to end, by `time.perf_counter`."""
        self.after_pass: Callable[[], None] = _nothing
        """Called between passes, when the lanes' state is whole."""

    calls_hooks = False
    """Whether code calls compiled hooks itself."""

    # -- what an engine says

    @property
    @abstractmethod
    def lane_memory(self) -> GuestMemory:
        """The lanes' memory."""

    @abstractmethod
    def _new_space(self, spans: Sequence[CodeSpan], *, stepped: bool = False, plain: bool = False) -> Space:
        """A code space for lanes whose executable memory holds this; `stepped` if they execute one instruction
        there, `plain` if nothing of it is to be compiled."""

    @abstractmethod
    def _step(self, lanes: Lanes, report: RunReport) -> None:
        """Let these lanes, whose budget is one instruction, run; others may run meanwhile."""

    @abstractmethod
    def _provide(self, index: int, pc: int) -> bool:
        """Have code at `pc` in a code space. False if nothing can be executed there."""

    @abstractmethod
    def _prepare(self) -> None:
        """Before the first pass of a run."""

    @abstractmethod
    def _pass(self, lanes: Lanes, report: RunReport, progress: Progress | None) -> None:
        """Let lanes run until each has stopped or had its slice."""

    @abstractmethod
    def _finish(self, report: RunReport) -> None:
        """After the last pass of a run."""

    # -- code

    def reset_code(self) -> None:
        """Forget all decoded code and what is bound to it; every lane has the code that is in its memory now."""
        self.code_was_written = bool(self.spaces)
        self.spaces = []
        self._space_of = {}
        self._codes = []
        self.state.code_index[:] = 0
        if self.state.lanes:
            self.assign_code(np.arange(self.state.lanes))

    @property
    def _code_can_change(self) -> bool:
        """Whether lanes may execute what they can write."""
        memory = self.lane_memory
        own = any(s.executable and not s.shared for s in memory.layout.spans)
        return own or (memory.spaces is not None and memory.spaces.own_code)

    def code_may_have_changed(self, lanes: Lanes) -> None:
        """The memory of these lanes was replaced."""
        if self._code_can_change and len(lanes):
            self.assign_code(lanes)

    def follow_mappings(self) -> None:
        """Have the code of lanes that since the last time may execute other pages."""
        spaces = self.lane_memory.spaces
        if spaces is not None and len(moved := spaces.take_moved()):
            self.assign_code(moved)

    def settle(self) -> None:
        """Have the lanes' memory laid out apart. No lane runs."""

    def assign_code(self, lanes: Lanes) -> None:
        """Give each lane the code space of the code its memory holds."""
        spaces = self.lane_memory.spaces
        if spaces is None:
            self._assign_code(lanes, [s for s in self.lane_memory.layout.spans if s.executable])
            return
        for these, kind in spaces.alike_in_code(lanes):
            mapped = [part for start, end in kind.executable for part in self._parts(start, end)]
            mapped += [
                MemorySpan(start, end - start, PERMISSION_EXECUTE, False, spaces.offset_of(place), b"")
                for start, end, place in kind.backing
            ]
            self._assign_code(these, mapped, plain=not kind.compiled)

    def _parts(self, start: int, end: int) -> list[MemorySpan]:
        """The memory in a range."""
        found = []
        for span in self.lane_memory.layout.spans:
            first, last = max(span.lo, start), min(span.end, end)
            if first < last:
                whole = (first, last) == (span.lo, span.end)
                offset = span.offset + first - span.lo
                part = MemorySpan(first, last - first, span.permissions, span.shared, offset, b"")
                found.append(span if whole else part)
        return found

    def _assign_code(self, lanes: Lanes, spans: list[MemorySpan], *, plain: bool = False) -> None:
        """The same for lanes that may execute these spans."""
        own = [s for s in spans if not s.shared]
        if not own:
            self.state.code_index[lanes] = self._space(spans, None, plain=plain)
            return
        self._drop_unused_spaces(lanes)
        same = np.ones(len(lanes), bool)
        for span in own:
            first = self.lane_memory.own_bytes(span, lanes[:1])
            step = max(_COMPARED_AT_ONCE // span.size, 1)
            for i in range(0, len(lanes), step):
                rows = self.lane_memory.own_bytes(span, lanes[i : i + step])
                same[i : i + step] &= (rows == first).all(axis=1)
        self.state.code_index[lanes[same]] = self._space(spans, int(lanes[0]), plain=plain)
        for lane in lanes[~same]:
            self.state.code_index[lane] = self._space(spans, int(lane), plain=plain)

    def _space(self, spans: list[MemorySpan], lane: int | None, *, plain: bool) -> int:
        """Index of the code space with the executable bytes that this lane sees."""
        code = []
        for span in spans:
            if span.shared:
                data = self.lane_memory.shared_bytes(span).tobytes()
            else:
                data = self.lane_memory.own_bytes(span, np.array([lane])).tobytes()
            code.append(CodeSpan(span.lo, data))
        return self._space_with(code, self.breakpoints, plain=plain)

    def _space_with(self, code: list[CodeSpan], breakpoints: frozenset[int] | None, *, plain: bool = False) -> int:
        """Index of the code space for lanes with this in memory that stop at breakpoints; None: for single steps."""
        digest = hashlib.blake2b(digest_size=16)
        for span in code:
            digest.update(span.lo.to_bytes(8, "little") + span.data)
        stops = None if breakpoints is None else (sorted(breakpoints), sorted(self.hooks.items()), plain)
        digest.update(repr(stops).encode())
        key = digest.digest()
        if key not in self._space_of:
            stop = _BREAK[self.decoder.isa.compressed]
            decoded = [_with_breakpoints(span, breakpoints or (), stop) for span in code]
            self.spaces.append(self._new_space(decoded, stepped=breakpoints is None, plain=plain))
            self._codes.append(code)
            self._space_of[key] = len(self.spaces) - 1
        return self._space_of[key]

    def set_breakpoints(self, addresses: frozenset[int], hooks: dict[int, tuple[int, ...]]) -> None:
        """Have lanes come to `arrivals` before they execute what is at these addresses, and call compiled hooks at
        others."""
        if addresses != self.breakpoints or hooks != self.hooks:
            self.breakpoints, self.hooks = addresses, hooks
            self.code_was_written = True  # number 0 is the loaded code with other breakpoints
            self.assign_code(np.arange(self.state.lanes))

    def _drop_unused_spaces(self, moving: Lanes) -> None:
        """Lanes that keep changing their code leave spaces behind; keep only those in use once there are many."""
        if len(self.spaces) < _KEPT_SPACES:
            return
        self.code_was_written = True  # number 0 is not the loaded code any more
        stay = np.ones(self.state.lanes, bool)
        stay[moving] = False
        used = np.unique(self.state.code_index[stay])
        order = {int(old): new for new, old in enumerate(used)}
        self._space_of = {k: order[i] for k, i in self._space_of.items() if i in order}
        self.spaces = [self.spaces[i] for i in order]
        self._codes = [self._codes[i] for i in order]
        if order:
            translate = np.zeros(int(used.max()) + 1, np.uint32)
            translate[used] = np.arange(len(used), dtype=np.uint32)
            self.state.code_index[stay] = translate[self.state.code_index[stay]]

    # -- running

    def run(
        self,
        max_instructions: int | None = None,
        *,
        progress: Progress | None = None,
    ) -> RunReport:
        """Run every lane that is not at its end until it stops: `begin` and `go_on`."""
        report = self.begin(max_instructions)
        self.go_on(report, progress=progress)
        return report

    def begin(self, max_instructions: int | None = None) -> RunReport:
        """Make every lane that has not exited, or used up its memory, ready to run."""
        state = self.state
        report = RunReport(retired_before=state.retired.copy())
        active = (state.stop != _EXIT) & (state.stop != _MEMORY)
        self._arrived = (state.stop == _ARRIVED).nonzero()[0]
        state.stop[active] = STOP_RUNNING
        state.fault_access[active] = 0
        state.fault_address[active] = 0
        state.budget[:] = UNLIMITED if max_instructions is None else max_instructions
        self._stop_misaligned(active)
        return report

    def go_on(self, report: RunReport, *, progress: Progress | None = None, max_seconds: float | None = None) -> None:
        """Run the lanes that are RUNNING until they stop; `report` grows.

        `progress` is called a few times a second with (lanes that stopped, instructions retired in this run).
        Ctrl-C ends the run at once, and `max_seconds` soon after; the lanes that had not stopped stay RUNNING.
        """
        state = self.state
        started = time.perf_counter()
        self.deadline = None if max_seconds is None else started + max_seconds
        state.attention[0] = 0
        try:
            with DeferredInterrupt(state.attention) as interrupt:
                self._prepare()
                self._leave_breakpoints(report)
                while len(lanes := (state.stop == STOP_RUNNING).nonzero()[0]) and not interrupt.raised:
                    if self.out_of_time():
                        report.timed_out = True
                        break
                    self._told_pass(lanes, report, progress)
                    self.after_pass()
                    if progress is not None:
                        progress(int((state.stop != STOP_RUNNING).sum()), self._retired_in(report))
                report.interrupted = interrupt.raised
        except KeyboardInterrupt:
            report.interrupted = True
            self._serve(report)
        except CompileForbiddenError:
            self._serve(report)  # so that no lane is left half way
            raise
        finally:
            state.stop[state.stop == STOP_GUEST_BREAK] = _EBREAK
            report.seconds += time.perf_counter() - started
        self._finish(report)

    def _told_pass(self, lanes: Lanes, report: RunReport, progress: Progress | None) -> None:
        """A pass and what it asks for, on the time line if there is one."""
        with timeline.span("pass", lanes=len(lanes)) as told:
            before = (0, 0, 0) if told is None else self._told_counts(report)
            self._pass(lanes, report, progress)
            if told is not None:
                names = ("instructions", "compiled", "in SIMD registers")
                told |= {n: a - b for n, a, b in zip(names, self._told_counts(report), before, strict=True)}
        with timeline.span("serve") as told:
            served = report.served
            self._serve(report)
            if told is not None:
                told["calls"] = report.served - served
        if told is not None:
            ended = self.state.stop[lanes]
            for reason in np.unique(ended[ended != STOP_RUNNING]).tolist():
                name = "ebreak" if reason == STOP_GUEST_BREAK else Stop(reason).name.lower()
                timeline.instant(f"stop: {name}", lanes=int((ended == reason).sum()))

    def _count_tiers(self, report: RunReport) -> None:
        """Have in the report what ran in compiled code until now."""

    def _told_counts(self, report: RunReport) -> tuple[int, int, int]:
        self._count_tiers(report)
        return self._retired_in(report), report.compiled_instructions, report.vector_instructions

    def out_of_time(self) -> bool:
        return self.deadline is not None and time.perf_counter() >= self.deadline

    def _retired_in(self, report: RunReport) -> int:
        return int((self.state.retired - report.retired_before).sum())

    def _stop_misaligned(self, active: NDArray[np.bool_]) -> None:
        """Lanes whose pc the host set to where no instruction can start."""
        bad = (active & ((self.state.pc & self._alignment) != 0)).nonzero()[0]
        if len(bad):
            self._fault(bad, self.state.pc[bad], Access.MISALIGNED_FETCH)

    def _fault(self, lanes: Lanes, addresses: NDArray[np.uint64], access: Access) -> None:
        self.state.stop[lanes] = Stop.FAULT
        self.state.fault_address[lanes] = addresses
        self.state.fault_access[lanes] = access

    # -- serving lanes that stopped for something

    def _serve(self, report: RunReport) -> None:
        while self._serve_once(report):
            pass

    def _serve_once(self, report: RunReport) -> bool:
        """Whether lanes may have stopped for something since."""
        stop = self.state.stop
        if len(lanes := (stop == STOP_NEED_CODE).nonzero()[0]):
            self._serve_code(lanes)
        if len(lanes := (stop == STOP_FENCE_I).nonzero()[0]):
            self._serve_fence(lanes)
        if len(lanes := (stop == STOP_CALL).nonzero()[0]):
            report.served += len(lanes)
            self._serve_calls(lanes)
        if self.hooks and len(lanes := (stop == STOP_HOOK_FAILED).nonzero()[0]):
            stop[lanes] = STOP_RUNNING
            place = int(self.state.pc[lanes[0]])
            raise HookError.raised(f"the hook at {place:#x}", place, int(lanes[0]))
        again = bool(self.breakpoints) and self._serve_arrivals(report)
        if self.accesses is not None and len(lanes := (stop == _FAULT).nonzero()[0]):
            self._raise_hook_errors(lanes)
            self.accesses(lanes)
        return again

    def _raise_hook_errors(self, lanes: Lanes) -> None:
        """The fault of a lane may be an exception in a compiled hook."""
        state = self.state
        failed = lanes[state.fault_access[lanes] == ACCESS_HOOK_FAILED]
        if len(failed):
            state.stop[failed] = STOP_RUNNING
            state.fault_access[failed] = 0
            place, lane = int(state.fault_address[failed[0]]), int(failed[0])
            raise HookError.raised(f"the hook of memory at {place:#x}", int(state.pc[lane]), lane)

    def instruction_of(self, lane: int) -> Block:
        """The instruction that a lane is at, as a block of it alone."""
        code = self._codes[int(self.state.code_index[lane])]

        def fetch(pc: int, size: int) -> bytes:
            for span in code:
                if span.lo <= pc < span.end:
                    return span.data[pc - span.lo : pc - span.lo + size]
            return b""

        return self.decoder.block(fetch, int(self.state.pc[lane]), limit=1)

    def set_mapped(self, rows: NDArray[np.uint64]) -> None:
        """Device registers for which code calls compiled hooks, rows of `MappedRange`; only where `calls_hooks`."""

    def _serve_arrivals(self, report: RunReport) -> bool:
        """Whether lanes were at breakpoints, and have executed what is there."""
        state = self.state
        lanes = (state.stop == _EBREAK).nonzero()[0]
        pcs = state.pc[lanes]
        places = [place for place in np.unique(pcs).tolist() if place in self.breakpoints]
        stepping = []
        for place in places:
            these = lanes[pcs == place]
            spent = state.budget[these] <= 0
            state.stop[these[spent]] = _BUDGET
            these = these[~spent]
            state.stop[these] = STOP_RUNNING
            if self.arrivals is not None and len(these):
                self.arrivals(place, these)
            stepping.append(these[(state.stop[these] == STOP_RUNNING) & (state.pc[these] == np.uint64(place))])
        if not stepping:
            return False
        self._step_over(np.sort(np.concatenate(stepping)), report)
        return True

    def _leave_breakpoints(self, report: RunReport) -> None:
        """Lanes that stopped at a breakpoint in the last run go on behind it."""
        lanes, self._arrived = self._arrived, self._arrived[:0]
        there = np.isin(self.state.pc[lanes], np.array(sorted(self.breakpoints | self.hooks.keys()), np.uint64))
        ready = (self.state.stop[lanes] == STOP_RUNNING) & (self.state.budget[lanes] > 0)
        self._step_over(lanes[there & ready], report)
        self._serve(report)

    def _step_over(self, lanes: Lanes, report: RunReport) -> None:
        """Have lanes execute the instruction that they are at, whatever breakpoint is there."""
        if not len(lanes):
            return
        state = self.state
        codes, budgets, retired = state.code_index[lanes], state.budget[lanes], state.retired[lanes]
        attention = False
        for code in np.unique(codes).tolist():
            state.code_index[lanes[codes == code]] = self._space_with(self._codes[code], None)
        state.budget[lanes] = 1
        try:
            left = np.ones(len(lanes), bool)
            while left.any():  # also if what ends the run comes meanwhile: a hook is not to be called twice
                attention |= bool(state.attention[0])
                state.attention[0] = 0
                these = lanes[left]
                self._step(these, report)
                self._serve_code(these[state.stop[these] == STOP_NEED_CODE])
                left = (state.stop[lanes] == STOP_RUNNING) & (state.retired[lanes] == retired)
        finally:
            state.attention[0] |= attention
            state.code_index[lanes] = codes
            state.budget[lanes] = budgets - (state.retired[lanes] - retired).astype(np.int64)
            done = lanes[(state.stop[lanes] == _BUDGET) & (state.budget[lanes] > 0)]
            state.stop[done] = STOP_RUNNING
            state.stop[lanes[state.stop[lanes] == _EBREAK]] = STOP_GUEST_BREAK

    def _serve_code(self, lanes: Lanes) -> None:
        state = self.state
        # A jump to nowhere as the last instruction of the budget: the budget ends first.
        spent = state.budget[lanes] <= 0
        state.stop[lanes[spent]] = int(Stop.BUDGET)
        lanes = lanes[~spent]
        while len(lanes):
            # Most often all lanes want the same: take the first one's wish, and all who share it.
            index, pc = state.code_index[lanes[0]], state.pc[lanes[0]]
            alike = (state.code_index[lanes] == index) & (state.pc[lanes] == pc)
            these, lanes = lanes[alike], lanes[~alike]
            if self._provide(int(index), int(pc)):
                state.stop[these] = STOP_RUNNING
            elif self.outside is Stop.FAULT:
                self._fault(these, state.pc[these], Access.EXECUTE)
            else:
                state.stop[these] = int(self.outside)

    def _serve_fence(self, lanes: Lanes) -> None:
        if self._code_can_change:
            self.assign_code(lanes)
        self._go_on_behind(lanes)

    def _serve_calls(self, lanes: Lanes) -> None:
        state = self.state
        if self.environment is None:
            # Nobody handles it: the call did not retire.
            state.stop[lanes] = _ECALL
            state.retired[lanes] -= np.uint64(1)
            state.budget[lanes] += 1
            return
        going_on = self.environment.serve(state, self.lane_memory, lanes)
        self.follow_mappings()
        self._go_on_behind(going_on)

    def _go_on_behind(self, lanes: Lanes) -> None:
        """Let lanes go on behind the instruction that they stopped at."""
        these = index_of(lanes)
        self.state.pc[these] = (self.state.pc[these] + np.uint64(4)) & np.uint64(self.decoder.registers.type.mask)
        self.state.stop[these] = STOP_RUNNING
