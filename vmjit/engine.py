"""The engine: runs lanes until all have stopped, decoding, compiling and serving their calls in between.

A run is a sequence of passes. A pass is one call of the `run_lanes` kernel over the lanes that can go on, on as many
threads as pay; between passes the lanes that stopped for something are served in bulk.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vmjit.cache import CodeCache, process_cache
from vmjit.code_space import CodeSpace, CodeSpaceFullError, CodeSpan
from vmjit.decoders.riscv.decoder import Decoder
from vmjit.decoders.riscv.isa import Isa
from vmjit.host_memory import HostMemory
from vmjit.interpreter import Interpreter, interpreter_for
from vmjit.interrupts import DeferredInterrupt
from vmjit.kernels.layout import JUMP_ENTRIES, STOP_FENCE_I, STOP_NEED_CODE, STOP_RUNNING, Frame, Hot, MachineBlock
from vmjit.lane_memory import LaneMemory
from vmjit.lane_state import UNLIMITED, LaneState
from vmjit.stops import Access, Stop
from vmjit.tiering import VISITS_UNTIL_HOT, CompileOptions, RegionCompiler, compile_later

TIERS = ("auto", "interpreter", "scalar")

# Instructions a lane runs before the next lane has its turn: long against the cost of a change, short against Ctrl-C.
QUANTUM = 1 << 26

# The first pass of a run is made by the calling thread, over a few lanes and with a short slice: a short run needs no
# other thread, and a long one has its first code decoded before many threads ask for it.
_FIRST_QUANTUM = 1 << 18
_FIRST_LANES = 16

_POLL_SECONDS = 0.002
_HOT_ENTRIES = 1024
_KEPT_SPACES = 64

# As plain numbers: comparing an array with an enum's member takes numpy several times as long.
_EXIT, _ECALL = int(Stop.EXIT), int(Stop.ECALL)

Lanes = NDArray[np.intp]


class Environment(Protocol):
    """Serves environment calls. Gives the lanes that go on behind their call; the others it has stopped."""

    def serve(self, state: LaneState, memory: LaneMemory, lanes: Lanes) -> Lanes: ...


@dataclass
class RunReport:
    """What one run did, over all lanes."""

    seconds: float = 0.0
    compiled_instructions: int = 0
    passes: int = 0
    interrupted: bool = False
    retired_before: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=max(_cores(), 1), thread_name_prefix="vmjit lanes")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Worker:
    """One thread's frame and cursor."""

    def __init__(self) -> None:
        self._memory = HostMemory(Frame.BYTES)
        self.frame: NDArray[np.uint64] = self._memory.array.view(np.uint64)
        self.address = self._memory.address
        self.jumps = np.zeros((JUMP_ENTRIES, 2), np.uint64)
        self.frame[Frame.JUMPS // 8] = self.jumps.ctypes.data
        self._jumps_seen = 0

    def new_jumps(self) -> NDArray[np.uint64] | None:
        """The computed jumps (site, target) remembered lately, if there are new ones."""
        count = int(self.frame[Frame.JUMP_COUNT // 8])
        if count == self._jumps_seen:
            return None
        self._jumps_seen = count
        return np.unique(self.jumps[: min(count, JUMP_ENTRIES)], axis=0)

    def take_compiled(self) -> int:
        count = int(self.frame[Frame.COMPILED // 8])
        self.frame[Frame.COMPILED // 8] = 0
        return count


class Engine:
    """Runs the lanes of `state` on `memory`.

    `tier` is one of TIERS. `threads` is the number of threads that run lanes, by default one per core.
    """

    def __init__(
        self,
        isa: Isa,
        state: LaneState,
        memory: LaneMemory,
        *,
        tier: str = "auto",
        environment: Environment | None = None,
        threads: int | None = None,
        cache: CodeCache | None = None,
        visits_until_hot: int = VISITS_UNTIL_HOT,
        outside: Stop = Stop.FAULT,
    ) -> None:
        self.state = state
        self.memory = memory
        self.tier = tier
        self.environment = environment
        self.threads = threads or _cores()
        self.outside = outside
        self.decoder = Decoder(isa)
        self.interpreter: Interpreter = interpreter_for(isa.xlen)
        self.visits_until_hot = 0 if tier == "interpreter" else visits_until_hot
        self.compiler = RegionCompiler(cache or process_cache(), CompileOptions(memory.layout.window_plan()))
        self._hot = HostMemory(Hot.ENTRIES + 8 * _HOT_ENTRIES).array.view(np.uint64)
        self._hot[Hot.MASK // 8] = _HOT_ENTRIES - 1
        self._hot_seen = 0
        self._workers = [_Worker()]
        # Taking an array's address costs as much as a short run, so what never moves has its address beside it.
        self._block = np.zeros(MachineBlock.BYTES // 8, np.uint64)
        self._block_address = int(self._block.ctypes.data)
        self._cursor = np.zeros(1, np.int64)
        self._cursor_address = int(self._cursor.ctypes.data)
        self._lane_list = np.zeros(state.lanes, np.int32)
        self._lane_list_address = int(self._lane_list.ctypes.data)
        self._listed_spaces: list[int] = []
        self._bound: tuple[int, tuple[int, ...]] | None = None
        self._alignment = np.uint64(1 if isa.compressed else 3)
        self.reset_code()

    # -- code

    def reset_code(self) -> None:
        """Forget all decoded code and what is bound to it; every lane has the code that is in its memory now."""
        self.code_was_written = bool(getattr(self, "spaces", ()))
        self._code_can_change = any(s.executable and not s.shared for s in self.memory.layout.spans)
        self.spaces: list[CodeSpace] = []
        self._space_of: dict[bytes, int] = {}
        self.state.code_index[:] = 0
        if self.state.lanes:
            self.assign_code(np.arange(self.state.lanes))

    def replace_memory(self, memory: LaneMemory) -> None:
        """Go on with another layout of the same guest memory; no lane runs now."""
        self.memory = memory
        self._bound = None
        self.compiler = RegionCompiler(self.compiler.cache, CompileOptions(memory.layout.window_plan()))
        self.reset_code()

    def assign_code(self, lanes: Lanes) -> None:
        """Give each lane the code space of the code its memory holds."""
        spans = [s for s in self.memory.layout.spans if s.executable]
        own = [s for s in spans if not s.shared]
        if not own:
            self.state.code_index[lanes] = self._space(spans, None)
            return
        self._drop_unused_spaces(lanes)
        parts = [self.memory.rows[lanes[0], s.offset : s.offset + s.size].tobytes() for s in own]
        same = np.ones(len(lanes), bool)
        for span, part in zip(own, parts, strict=True):
            data = np.frombuffer(part, np.uint8)
            for i in range(0, len(lanes), 1024):
                rows = self.memory.rows[lanes[i : i + 1024], span.offset : span.offset + span.size]
                same[i : i + 1024] &= (rows == data).all(axis=1)
        self.state.code_index[lanes[same]] = self._space(spans, int(lanes[0]))
        for lane in lanes[~same]:
            self.state.code_index[lane] = self._space(spans, int(lane))

    def _space(self, spans: list[Any], lane: int | None) -> int:
        """Index of the code space with the executable bytes that this lane sees."""
        code = []
        for span in spans:
            source = self.memory.shared if span.shared else self.memory.rows[lane]
            code.append(CodeSpan(span.lo, source[span.offset : span.offset + span.size].tobytes()))
        digest = hashlib.blake2b(digest_size=16)
        for part in code:
            digest.update(part.lo.to_bytes(8, "little") + part.data)
        key = digest.digest()
        if key in self._space_of:
            return self._space_of[key]
        space = CodeSpace(
            self.decoder,
            self.interpreter,
            code,
            visits_until_hot=self.visits_until_hot,
            compiled_only=self.tier == "scalar",
        )
        self.spaces.append(space)
        self._space_of[key] = len(self.spaces) - 1
        return len(self.spaces) - 1

    def _drop_unused_spaces(self, moving: Lanes) -> None:
        """Lanes that keep changing their code leave spaces behind; keep only those in use once there are many."""
        if len(self.spaces) < _KEPT_SPACES:
            return
        stay = np.ones(self.state.lanes, bool)
        stay[moving] = False
        used = np.unique(self.state.code_index[stay])
        order = {int(old): new for new, old in enumerate(used)}
        self._space_of = {k: order[i] for k, i in self._space_of.items() if i in order}
        self.spaces = [self.spaces[i] for i in order]
        if order:
            translate = np.zeros(int(used.max()) + 1, np.uint32)
            translate[used] = np.arange(len(used), dtype=np.uint32)
            self.state.code_index[stay] = translate[self.state.code_index[stay]]

    # -- running

    def run(
        self,
        max_instructions: int | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> RunReport:
        """Run every lane that has not exited until it stops.

        `progress` is called a few times a second with (lanes that stopped, instructions retired in this run).
        Ctrl-C ends the run at once; the lanes that had not stopped stay RUNNING.
        """
        state = self.state
        report = RunReport(retired_before=state.retired.copy())
        started = time.perf_counter()
        active = state.stop != _EXIT
        state.stop[active] = STOP_RUNNING
        state.fault_access[active] = 0
        state.fault_address[active] = 0
        state.budget[:] = UNLIMITED if max_instructions is None else max_instructions
        state.attention[0] = 0
        self._stop_misaligned(active)
        try:
            with DeferredInterrupt(state.attention) as interrupt:
                self._prepare()
                while len(lanes := (state.stop == STOP_RUNNING).nonzero()[0]) and not interrupt.raised:
                    self._pass(lanes, report, progress)
                    self._serve()
                    if progress is not None:
                        progress(int((state.stop != STOP_RUNNING).sum()), self._retired_in(report))
                report.interrupted = interrupt.raised
        except KeyboardInterrupt:
            report.interrupted = True
            self._serve()
        report.compiled_instructions = sum(w.take_compiled() for w in self._workers)
        report.seconds = time.perf_counter() - started
        return report

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

    def _prepare(self) -> None:
        """Write the machine block and the frames, unless nothing has moved since the last run."""
        bound = (self.memory.rows.ctypes.data, self.memory.rows.strides)
        if bound == self._bound:
            return
        self._bound = bound
        self.state.fill_block(self._block)
        self.memory.fill_block(self._block)
        while len(self._workers) < self.threads:
            self._workers.append(_Worker())
        symbols = self.interpreter.symbols
        for worker in self._workers:
            self.memory.fill_frame(worker.frame)
            worker.frame[Frame.HOT // 8] = self._hot.ctypes.data
            for place, name in (
                (Frame.GOTO_TAIL, "goto_tail"),
                (Frame.GOTO_COUNT, "goto_count"),
                (Frame.GOTO_INDIRECT, "goto_indirect"),
                (Frame.GOTO_COMPUTED, "goto_computed"),
                (Frame.SLOW_LOAD, "slow_load"),
                (Frame.SLOW_STORE, "slow_store"),
            ):
                worker.frame[place // 8] = symbols[name]

    def _pass(self, lanes: Lanes, report: RunReport, progress: Callable[[int, int], None] | None) -> None:
        first = report.passes == 0
        report.passes += 1
        if first:
            lanes = lanes[:_FIRST_LANES]
        self._block[MachineBlock.QUANTUM // 8] = _FIRST_QUANTUM if first else QUANTUM
        spaces = [s.descriptor_address for s in self.spaces]
        if spaces != self._listed_spaces:
            self._listed_spaces = spaces
            self._spaces_table = np.array(spaces, np.uint64)
            self._block[MachineBlock.CODE_SPACES // 8] = self._spaces_table.ctypes.data
        self._lane_list[: len(lanes)] = lanes
        self._cursor[0] = 0
        arguments = (self._block_address, self._lane_list_address, len(lanes), self._cursor_address)
        threads = min(self.threads, len(lanes))
        if first:
            self._call(self._workers[0], *arguments)
            self._handle_hot()
            return
        futures = [_pool().submit(self._call, worker, *arguments) for worker in self._workers[:threads]]
        self._supervise(futures, report, progress)

    def _call(self, worker: _Worker, block: int, lanes: int, count: int, cursor: int) -> None:
        self.interpreter.run_lanes(block, worker.address, lanes, count, cursor)

    def _supervise(
        self, futures: list[Future[None]], report: RunReport, progress: Callable[[int, int], None] | None
    ) -> None:
        """Wait for the workers; meanwhile have hot blocks compiled, and bring everything to a stop on Ctrl-C."""
        last = time.perf_counter()
        try:
            while wait(futures, timeout=_POLL_SECONDS).not_done:
                self._handle_hot()
                if progress is not None and time.perf_counter() - last > 0.1:
                    last = time.perf_counter()
                    progress(int((self.state.stop != STOP_RUNNING).sum()), self._retired_in(report))
        except BaseException:
            self.state.attention[0] = 1
            wait(futures)
            raise
        for future in futures:
            future.result()
        self._handle_hot()

    def _handle_hot(self) -> None:
        head = int(self._hot[Hot.HEAD // 8])
        if head == self._hot_seen:
            return
        for worker in self._workers:
            if (jumps := worker.new_jumps()) is not None:
                for site, target in jumps.tolist():
                    for space in self.spaces:
                        space.note_jump(site, target)
        head = int(self._hot[Hot.HEAD // 8])
        for position in range(max(self._hot_seen, head - _HOT_ENTRIES), head):
            address = int(self._hot[Hot.ENTRIES // 8 + position % _HOT_ENTRIES])
            for space in self.spaces:
                pc = space.pc_of_record(address)
                if pc is not None:
                    compile_later(self.compiler, space, pc)
        self._hot_seen = head

    # -- serving lanes that stopped for something

    def _serve(self) -> None:
        for kind, serve in (
            (STOP_NEED_CODE, self._serve_code),
            (STOP_FENCE_I, self._serve_fence),
            (_ECALL, self._serve_calls),
        ):
            if len(lanes := (self.state.stop == kind).nonzero()[0]):
                serve(lanes)

    def _serve_code(self, lanes: Lanes) -> None:
        state = self.state
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

    def _provide(self, index: int, pc: int) -> bool:
        """Have code at `pc`. False if nothing can be executed there."""
        for attempt in range(2):
            space = self.spaces[index]
            try:
                if not space.decode(pc):
                    return False
                if not space.watched and not self.compiler.compile_now(space, pc):
                    space.interpret_only(pc)
                return True
            except CodeSpaceFullError:
                if attempt:
                    raise
                self._renew(index)
        return True

    def _renew(self, index: int) -> None:
        """A code space without room starts afresh; no lane runs now."""
        old = self.spaces[index]
        self.spaces[index] = CodeSpace(
            self.decoder,
            self.interpreter,
            old.spans,
            visits_until_hot=old.visits_until_hot,
            compiled_only=old.compiled_only,
        )

    def _serve_fence(self, lanes: Lanes) -> None:
        if self._code_can_change:
            self.assign_code(lanes)
        self.state.pc[lanes] += np.uint64(4)
        self._wrap_pc(lanes)
        self.state.stop[lanes] = STOP_RUNNING

    def _serve_calls(self, lanes: Lanes) -> None:
        state = self.state
        if self.environment is None:
            # Nobody handles it: the call did not retire.
            state.retired[lanes] -= np.uint64(1)
            state.budget[lanes] += 1
            return
        going_on = self.environment.serve(state, self.memory, lanes)
        state.pc[going_on] += np.uint64(4)
        self._wrap_pc(going_on)
        state.stop[going_on] = STOP_RUNNING

    def _wrap_pc(self, lanes: Lanes) -> None:
        self.state.pc[lanes] &= np.uint64(self.decoder.registers.type.mask)
