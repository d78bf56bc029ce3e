"""The CPU's engine: the `run_lanes` kernel on as many threads as pay."""

from __future__ import annotations

import ctypes
import os
import re
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmjit.cache import CodeCache, process_cache
from vmjit.code_space import CodeSpace, CodeSpaceFullError
from vmjit.decoders.riscv.isa import Isa
from vmjit.engine import Engine, Environment, Lanes, RunReport
from vmjit.guest_code import CodeSpan
from vmjit.host_memory import HostMemory
from vmjit.interpreter import Interpreter, interpreter_for
from vmjit.kernels.layout import (
    HOT_MASKED,
    HOT_REGISTERS,
    HOT_WHOLE,
    JUMP_ENTRIES,
    STOP_NEED_CODE,
    STOP_RUNNING,
    Frame,
    GroupFrame,
    Hot,
    MachineBlock,
    MappedRange,
)
from vmjit.lane_memory import LaneMemory
from vmjit.lane_state import LaneState
from vmjit.memory_budget import MemoryBudget
from vmjit.regrouping import Regrouping
from vmjit.stops import Stop
from vmjit.tiering import VISITS_UNTIL_HOT, CompileOptions, RegionCompiler, compile_later
from vmjit.translators.interpreter import EXACT_FLOAT, EXACT_FLOATS, PAGES_PERMIT
from vmjit.translators.vector_unit import vector_unit
from vmjit.vector_tier import POLICIES, GroupGovernor, VectorCompiler, VectorPolicy

# Instructions a lane runs before the next lane has its turn: long against the cost of a change, short against Ctrl-C.
QUANTUM = 1 << 26

# The first pass of a run is made by the calling thread, over a few lanes and with a short slice: a short run needs no
# other thread, and a long one has its first code decoded before many threads ask for it. Not where many lanes run what
# has been run before: those few would make each system call by themselves from then on.
_FIRST_QUANTUM = 1 << 18
_FIRST_LANES = 16

# So it goes on while few lanes stop at once again at breakpoints: to wake other threads takes 200 us. Not after system
# calls: what becomes hot would be looked at between slices, when little has been visited, and regions come out poor.
_QUICK_SECONDS = 500e-6
_QUICK_LANES = 64

# Tiers in which lane groups run in SIMD registers.
VECTOR_TIERS = ("auto", "simd")

_PAGE = 4096

# While workers run, hot blocks are looked for, less often once there were none for so many times. To try again what was
# slow for groups has even more time.
_POLL_SECONDS = 0.002
_QUIET_POLLS = 50
_QUIET_POLL_SECONDS = 0.016
_RECONSIDER_SECONDS = 0.1
_HOT_ENTRIES = 1024


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=max(core_count(), 1), thread_name_prefix="vmjit lanes")


def core_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _mincore() -> int:
    """The address of the C library's mincore, which tells which pages of memory are there; 0 where it cannot be asked.

    It does not tell of pages that were swapped out, so with swap all memory has to be looked at.
    """
    try:
        if not re.search(r"^SwapTotal:\s+0 kB$", Path("/proc/meminfo").read_text(), re.MULTILINE):
            return 0
        return ctypes.cast(ctypes.CDLL(None).mincore, ctypes.c_void_p).value or 0
    except (OSError, AttributeError, TypeError):
        return 0


class _Worker:
    """One thread's frame and cursor."""

    def __init__(self) -> None:
        self._memory = HostMemory(Frame.BYTES)
        self.frame: NDArray[np.uint64] = self._memory.array.view(np.uint64)
        self.address = self._memory.address
        self.jumps = np.zeros((JUMP_ENTRIES, 2), np.uint64)
        self.frame[Frame.JUMPS // 8] = self.jumps.ctypes.data
        self._jumps_seen = 0
        self.group_frame: NDArray[np.uint64] | None = None
        self.group_address = 0

    def have_groups(self, memory: LaneMemory, exact_floats: int) -> None:
        """Room for what this thread needs to run lane groups, and the address of a function that they call."""
        if self.group_frame is not None:
            return
        size = memory.group * memory.layout.private_bytes
        self._group_memory = HostMemory(GroupFrame.BYTES)
        self._copy = HostMemory(size, sparse_unit=size)
        self._pages = HostMemory(2 * (size // _PAGE + 2))
        self.group_address = self._group_memory.address
        self.group_frame = self._group_memory.array.view(np.uint64)
        self.group_frame[GroupFrame.COPY // 8] = self._copy.address
        self.group_frame[GroupFrame.RESIDENT // 8] = self._pages.address
        self.group_frame[GroupFrame.EXACT_FLOATS // 8] = exact_floats
        memory.fill_group_frame(self.group_frame)

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

    @property
    def vectored(self) -> int:
        return 0 if self.group_frame is None else int(self.group_frame[GroupFrame.COMPILED // 8])

    def take_vectored(self) -> int:
        count = self.vectored
        if self.group_frame is not None:
            self.group_frame[GroupFrame.COMPILED // 8] = 0
        return count


class CpuEngine(Engine[CodeSpace]):
    """Runs the lanes of `state` on `memory`.

    `tier` is one of TIERS. `threads` is the number of threads that run lanes, by default one per core.
    `vector_policy` says when lane groups run in SIMD registers, instead of what the tier has for that.
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
        vector_policy: VectorPolicy | None = None,
        budget: MemoryBudget | None = None,
    ) -> None:
        super().__init__(isa, state, tier=tier, environment=environment, outside=outside)
        self.memory = memory
        self.budget = budget
        self._over_budget = False
        self._budget_seen = 0.0
        self.threads = threads or core_count()
        self.interpreter: Interpreter = interpreter_for(self.decoder.registers)
        self.visits_until_hot = 0 if tier == "interpreter" else visits_until_hot
        self.compiler = RegionCompiler(cache or process_cache(), CompileOptions(memory.layout.window_plan()))
        self._hot = HostMemory(Hot.ENTRIES + 8 * _HOT_ENTRIES).array.view(np.uint64)
        self._hot[Hot.MASK // 8] = _HOT_ENTRIES - 1
        self._hot_memory = HostMemory(8 * HOT_REGISTERS * _HOT_ENTRIES)
        self._hot_registers = self._hot_memory.array.view(np.uint64).reshape(_HOT_ENTRIES, HOT_REGISTERS)
        self._hot[Hot.REGISTERS // 8] = self._hot_memory.address
        self._hot_seen = 0
        self._quiet_polls = 0
        self._reconsidered = 0.0
        self._workers = [_Worker()]
        # Taking an array's address costs as much as a short run, so what never moves has its address beside it.
        self._block = np.zeros(MachineBlock.BYTES // 8, np.uint64)
        self._block_address = int(self._block.ctypes.data)
        self._cursor = np.zeros(1, np.int64)
        self._cursor_address = int(self._cursor.ctypes.data)
        self._lane_list = np.zeros(state.lanes, np.int32)
        self._lane_list_address = int(self._lane_list.ctypes.data)
        self._group_cursor = np.zeros(1, np.int64)
        self._governor: GroupGovernor | None = None
        self._group_list = np.zeros(0, np.int32)
        self.regrouping: Regrouping | None = None
        if tier in VECTOR_TIERS and memory.form_groups(vector_unit().lanes):
            self.compiler.vectors = VectorCompiler(self.compiler)
            self._group_list = np.zeros(state.lanes // memory.group, np.int32)
            policy = vector_policy or POLICIES[tier]
            policy.fill_block(self._block)
            if policy.trial_work:
                self._governor = GroupGovernor(self._block)
            self._block[MachineBlock.MINCORE // 8] = _mincore()
            self._block[MachineBlock.HOT // 8] = self._hot.ctypes.data
            self.regrouping = Regrouping(state, memory, weakref.proxy(self))
        self._group_list_address = int(self._group_list.ctypes.data)
        self._group_cursor_address = int(self._group_cursor.ctypes.data)
        self._quick_pass = False
        self._mapped = np.zeros((0, MappedRange.BYTES // 8), np.uint64)
        self._listed_spaces: list[int] = []
        self._told_rows: NDArray[np.uint64] | None = None
        self._bound: tuple[int, tuple[int, ...]] | None = None
        self.reset_code()

    calls_hooks = True

    @property
    def lane_memory(self) -> LaneMemory:
        return self.memory

    # -- code

    def _new_space(self, spans: Sequence[CodeSpan], *, stepped: bool = False, plain: bool = False) -> CodeSpace:
        return CodeSpace(
            self.decoder,
            self.interpreter,
            spans,
            visits_until_hot=0 if stepped or plain else self.visits_until_hot,
            compiled_only=self.tier == "scalar" and not stepped and not plain,
            hooks=None if stepped else self.hooks,
        )

    def _step(self, lanes: Lanes, report: RunReport) -> None:
        self._list_spaces()
        self._block[MachineBlock.QUANTUM // 8] = 1
        self._lane_list[: len(lanes)] = lanes
        self._cursor[0] = 0
        self._call(self._workers[0], 0, len(lanes))  # by this thread: to wake another takes longer

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
            hooks=old.hooks,
        )

    # -- running

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
            worker.frame[Frame.MAPPED // 8] = self._mapped.ctypes.data
            worker.frame[Frame.MAPPED_COUNT // 8] = len(self._mapped)
            for place, name in (
                (Frame.GOTO_TAIL, "goto_tail"),
                (Frame.GOTO_SLOT, "goto_slot"),
                (Frame.GOTO_COUNT, "goto_count"),
                (Frame.GOTO_INDIRECT, "goto_indirect"),
                (Frame.GOTO_COMPUTED, "goto_computed"),
                (Frame.SLOW_LOAD, "slow_load"),
                (Frame.SLOW_STORE, "slow_store"),
                (Frame.EXACT_FLOAT, EXACT_FLOAT),
                (Frame.PERMITTED, PAGES_PERMIT),
            ):
                worker.frame[place // 8] = symbols.get(name, 0)

    def _pass(self, lanes: Lanes, report: RunReport, progress: Callable[[int, int], None] | None) -> None:
        new_code = self._list_spaces()
        started = time.perf_counter()
        if report.passes == 0:
            self._quick_pass = False
            few = lanes[:_FIRST_LANES] if len(lanes) <= _FIRST_LANES or new_code else lanes[:0]
        else:
            quick = self._quick_pass and bool(self.breakpoints) and len(lanes) <= _QUICK_LANES
            few = lanes if quick else lanes[:0]
        report.passes += 1
        regrouping = self.regrouping
        if len(few):
            self._run_lanes(few, report, progress, first=True)
        elif regrouping is None or len(lanes) < 2 * self.memory.group:
            self._run_lanes(lanes, report, progress)
        else:
            before = regrouping.count
            regrouping.run_pass(lanes, lambda seats, slice_: self._run_lanes(seats, report, progress, slice_=slice_))
            report.regroupings += regrouping.count - before
        took = time.perf_counter() - started
        self._quick_pass = took < _QUICK_SECONDS
        if self._over_budget or (started + took - self._budget_seen > _POLL_SECONDS and self._is_over_budget()):
            self._relieve()

    def _is_over_budget(self) -> bool:
        self._budget_seen = time.perf_counter()
        return self.budget is not None and self.budget.may_be_exceeded()

    def _relieve(self) -> None:
        """Stop the lanes that have more memory than their share, and give back what they had."""
        assert self.budget is not None
        self._over_budget = False
        self.state.attention[0] = 0  # what ends the run is seen all the same
        self.settle()
        over = self.budget.over_share(self.memory) & (self.state.stop != int(Stop.EXIT))
        if over.any():
            self.state.stop[over] = int(Stop.MEMORY)
            self.memory.give_back(over)

    def _run_lanes(
        self,
        lanes: Lanes,
        report: RunReport,
        progress: Callable[[int, int], None] | None,
        *,
        first: bool = False,
        slice_: int = 0,
    ) -> None:
        """Let lanes, named by their seats, run until each has stopped, one needs code or attention is asked for; one by
        one for a slice of so many instructions if there is one."""
        self._block[MachineBlock.QUANTUM // 8] = _FIRST_QUANTUM if first else slice_ or QUANTUM
        self._list_spaces()
        groups = self._groups_of(lanes if not slice_ else lanes[:0])
        single = lanes[lanes >= len(self._group_list) * self.memory.group] if len(groups) else lanes
        self._group_list[: len(groups)] = groups
        self._lane_list[: len(single)] = single
        self._cursor[0] = self._group_cursor[0] = 0
        work = (len(groups), len(single))
        threads = min(self.threads, sum(work))
        for worker in self._workers[: 1 if first else threads] if len(groups) else ():
            worker.have_groups(self.memory, self._exact_floats)
        if first:
            started = time.perf_counter()
            with self._short_budgets(groups):
                self._call(self._workers[0], *work)
            self.compiler.lanes_ran(time.perf_counter() - started)
            self._handle_hot()
            return
        futures = [_pool().submit(self._call, worker, *work) for worker in self._workers[:threads]]
        self._supervise(futures, report, progress)
        self._govern()

    def set_mapped(self, rows: NDArray[np.uint64]) -> None:
        self._mapped = rows
        self._bound = None  # have the frames written anew

    def _list_spaces(self) -> bool:
        """Tell kernels where code spaces and address spaces are; whether there are other code spaces than before."""
        if self.memory.spaces is not None and self.memory.spaces.rows is not self._told_rows:
            self._told_rows = self.memory.spaces.rows
            self.memory.fill_spaces(self._block)
        spaces = [s.descriptor_address for s in self.spaces]
        if spaces == self._listed_spaces:
            return False
        self._listed_spaces = spaces
        self._spaces_table = np.array(spaces, np.uint64)
        self._block[MachineBlock.CODE_SPACES // 8] = self._spaces_table.ctypes.data
        return True

    def _govern(self) -> None:
        vectors = self.compiler.vectors
        if self._governor is not None and vectors is not None:
            self._governor.look(time.perf_counter(), self.compiler.statistics.vector_regions, vectors.awaits)

    @contextmanager
    def _short_budgets(self, groups: NDArray[np.intp]) -> Iterator[None]:
        """A slice ends a lane's turn, but groups go on until their lanes stop: let their budgets end meanwhile."""
        if not len(groups):
            yield
            return
        state, end = self.state, (int(groups[-1]) + 1) * self.memory.group
        held = np.maximum(state.budget[:end] - _FIRST_QUANTUM, 0)
        state.budget[:end] -= held
        try:
            yield
        finally:
            state.budget[:end] += held
            state.stop[:end][(held > 0) & (state.stop[:end] == int(Stop.BUDGET))] = STOP_RUNNING

    def _groups_of(self, lanes: Lanes) -> NDArray[np.intp]:
        """The whole groups that have some of these lanes."""
        if not len(self._group_list) or not self.memory.groups_fit:
            return np.zeros(0, np.intp)
        groups = lanes // self.memory.group  # ascending, as the lanes are
        new = np.ones(len(groups), bool)
        np.not_equal(groups[1:], groups[:-1], out=new[1:])
        return groups[new & (groups < len(self._group_list))]

    def _call(self, worker: _Worker, groups: int, lanes: int) -> None:
        if groups:
            self.interpreter.run_groups(
                self._block_address,
                worker.address,
                worker.group_address,
                self._group_list_address,
                groups,
                self._group_cursor_address,
            )
        if lanes:
            self.interpreter.run_lanes(
                self._block_address, worker.address, self._lane_list_address, lanes, self._cursor_address
            )

    def _supervise(
        self, futures: list[Future[None]], report: RunReport, progress: Callable[[int, int], None] | None
    ) -> None:
        """Wait for the workers; meanwhile have hot blocks compiled, and bring everything to a stop on Ctrl-C."""
        last = polled = time.perf_counter()
        try:
            while wait(futures, timeout=self._poll_seconds()).not_done:
                before, polled = polled, time.perf_counter()
                self.compiler.lanes_ran(polled - before)
                self._quiet_polls = 0 if self._handle_hot() else self._quiet_polls + 1
                if self.compiler.vectors is not None and time.perf_counter() - self._reconsidered > _RECONSIDER_SECONDS:
                    self._reconsidered = time.perf_counter()
                    self.compiler.vectors.reconsider()
                    self._govern()
                if self.regrouping is not None:
                    self.regrouping.poll()
                if self._is_over_budget():
                    self._over_budget = True
                    self.state.attention[0] = 1
                if self.out_of_time():
                    self.state.attention[0] = 1
                if progress is not None and time.perf_counter() - last > 0.1:
                    last = time.perf_counter()
                    progress(int((self.state.stop != STOP_RUNNING).sum()), self._retired_in(report))
        except BaseException:
            self.state.attention[0] = 1
            wait(futures)
            raise
        for future in futures:
            future.result()
        self.compiler.lanes_ran(time.perf_counter() - polled)
        self._handle_hot()

    def _poll_seconds(self) -> float:
        return _POLL_SECONDS if self._quiet_polls < _QUIET_POLLS else _QUIET_POLL_SECONDS

    # -- what regrouping asks

    def serve_code(self) -> None:
        """Have the code that lanes stopped for."""
        self._serve_code((self.state.stop == STOP_NEED_CODE).nonzero()[0])

    @property
    def _exact_floats(self) -> int:
        return self.interpreter.symbols.get(EXACT_FLOATS, 0)

    def separate(self, groups: Lanes) -> None:
        """Lay out the memory of these groups' lanes apart."""
        self._workers[0].have_groups(self.memory, self._exact_floats)
        self._group_list[: len(groups)] = groups
        self._group_cursor[0] = 0
        self.interpreter.separate_groups(
            self._block_address,
            self._workers[0].group_address,
            self._group_list_address,
            len(groups),
            self._group_cursor_address,
        )

    def settle(self) -> None:
        if len(groups := self.memory.interleaved_groups()):
            self.undisturbed(lambda: self.separate(groups))

    def vectored(self) -> int:
        """Instructions so far in SIMD registers."""
        return sum(worker.vectored for worker in self._workers)

    def undisturbed(self, job: Callable[[], None]) -> None:
        """Do something that Ctrl-C must not leave half done: it raises in the main thread only."""
        future = _pool().submit(job)
        try:
            future.result()
        except BaseException:
            wait([future])
            raise

    def _handle_hot(self) -> bool:
        """Have compiled what became hot; whether there was something."""
        if self.compiler.refused is not None:
            raise self.compiler.refused
        head = int(self._hot[Hot.HEAD // 8])
        if head == self._hot_seen:
            return False
        for worker in self._workers:
            if (jumps := worker.new_jumps()) is not None:
                for site, target in jumps.tolist():
                    for space in self.spaces:
                        space.note_jump(site, target)
        head = int(self._hot[Hot.HEAD // 8])
        for position in range(max(self._hot_seen, head - _HOT_ENTRIES), head):
            address = int(self._hot[Hot.ENTRIES // 8 + position % _HOT_ENTRIES])
            if asked := address & (HOT_WHOLE | HOT_MASKED):
                if self.compiler.vectors is not None:
                    self.compiler.vectors.compile_later(address - asked, masked=asked == HOT_MASKED)
                continue
            for space in self.spaces:
                pc = space.pc_of_record(address)
                if pc is not None:
                    registers = self._hot_registers[position % _HOT_ENTRIES] & self.decoder.registers.type.mask
                    self.compiler.note_registers(space, pc, registers.tolist())
                    compile_later(self.compiler, space, pc)
        self._hot_seen = head
        return True

    def _count_tiers(self, report: RunReport) -> None:
        vectored = sum(w.take_vectored() for w in self._workers)
        report.vector_instructions += vectored
        report.compiled_instructions += sum(w.take_compiled() for w in self._workers) + vectored

    def _finish(self, report: RunReport) -> None:
        self._count_tiers(report)
