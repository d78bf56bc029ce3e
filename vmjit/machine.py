"""Machines: N lanes running one program."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vmjit.checks import MAX_LANES, as_unsigned, checked_budget, checked_integer, checked_seconds, shown
from vmjit.decoders.riscv.registers import registers_of
from vmjit.devices.selection import is_gpu
from vmjit.engine import TIERS
from vmjit.environment.bare_metal import BareMetal
from vmjit.environment.linux import Linux
from vmjit.environment.linux_start import RANDOM_BYTES, initial_stack
from vmjit.environment.selection import checked_arguments, checked_variables, is_linux, linux_environment
from vmjit.errors import ArgumentError, MemoryLimitError, SnapshotError, VmjitError
from vmjit.hooks import CompiledHook, Hook, Hooks, HostHook
from vmjit.lane_state import LaneState
from vmjit.machine_views import GuestMemory, Registers
from vmjit.memory_budget import default_limit
from vmjit.memory_hooks import MemoryHook, MemoryHooks
from vmjit.memory_layout import MAX_TOTAL, MemoryLayout, MemorySpan, parse_size, plan_memory
from vmjit.placement import Placement, choose_device, device_of_tier, place
from vmjit.program import Program
from vmjit.residence import Residence
from vmjit.result import RunResult
from vmjit.snapshot import Snapshot
from vmjit.snapshots import Snapshots
from vmjit.span_memory import Bytes
from vmjit.statistics import ExecutionStatistics
from vmjit.stops import Stop

if TYPE_CHECKING:
    from vmjit.cpu_engine import CpuEngine
    from vmjit.device_engine import DeviceEngine
    from vmjit.device_lane_memory import DeviceLaneMemory
    from vmjit.lane_memory import LaneMemory
    from vmjit.split_lane_memory import SplitLaneMemory

_SP, _A0, _A1 = 2, 10, 11

MAX_THREADS = 1024


class Machine:
    """`lanes` guest machines running `program`.

    Args:
        program: what to run; every lane starts at its entry.
        lanes: how many, at least 1.
        device: "auto": a GPU where one can run the program and pays, as `placement` says, else the CPU. "cpu".
            "cuda" or "hip": a GPU; "cuda:1" is the second, "cuda:all" and "cuda:0,cuda:1" split the lanes over
            several. "ptx" executes the CUDA kernels in a PTX virtual machine ("ptx:sm_75" chooses the architecture),
            "host" runs the same kernels compiled for this computer.
        tier: "auto": what is hot is compiled, for lanes one by one and for groups of them in SIMD registers, and what
            is quicker runs. "interpreter": tier 0 only. "scalar": everything compiled before it runs, lanes one by one.
            "simd": as "auto" on the CPU, with groups in SIMD registers as soon as their lanes meet.
        memory: bytes of heap and stack a lane, as a number or text such as "1MiB"; None: 1 MiB, and 16 MiB for Linux
            programs, of which a lane has what it touches.
        memory_limit: bytes of this computer's memory that all lanes together may come to have on it, and again as much
            for what they write to their outputs, as a number or text; None: three eighths of what is free. When they
            have more, the lanes with more than an equal share stop with `Stop.MEMORY`; the others go on.
        arguments: put on every lane's stack as a C program's argc and argv.
        lane_arguments: instead, arguments for each lane of a Linux program.
        environment: "linux" serves the system calls of static Linux programs and gives them the stack that they expect,
            "bare-metal" those that bare-metal C libraries make; "auto": by what the program says it was made for.
        variables: the environment of a Linux program, by name.
        lane_variables: what each lane has beside these or in their place.
        root: a folder whose files a Linux program may read, as its file system's root; None: it finds no files.
        seed: what a Linux program's random numbers follow from, together with its lane's number.
        threads: how many threads run lanes on the CPU, 1 to 1024; None: one per core.
        fallback: whether the CPU goes on when the device cannot give memory, compile or run; a warning in the log and
            the result's `fallbacks` tell of it. Without, that is an error.

    On entry `sp` is the top of the stack, `a0` the lane's number and `a1` the number of lanes.

    Raises:
        ArgumentError: an argument that makes no sense.
        MemoryLimitError: the host cannot give the memory.
        DeviceMissingError, DeviceInitializationError: the device asked for is not there or cannot be used.
        DeviceError, CompileError: the device failed, and there is no fallback.
    """

    def __init__(
        self,
        program: Program,
        lanes: int = 1,
        device: str = "auto",
        tier: str = "auto",
        memory: int | str | None = None,
        *,
        memory_limit: int | str | None = None,
        arguments: Sequence[str | bytes] = (),
        lane_arguments: Sequence[Sequence[str | bytes]] | None = None,
        environment: str = "auto",
        variables: Mapping[str, str] | None = None,
        lane_variables: Sequence[Mapping[str, str]] | None = None,
        root: str | os.PathLike[str] | None = None,
        seed: int = 0,
        threads: int | None = None,
        fallback: bool = True,
    ) -> None:
        self.lanes = checked_integer("lanes", lanes, 1, MAX_LANES)
        if tier not in TIERS:
            raise ArgumentError(f"tier must be one of {', '.join(TIERS)}, got {shown(tier)}")
        if threads is not None:
            threads = checked_integer("threads", threads, 1, MAX_THREADS)
        self.program = program
        self.tier = tier
        device = device_of_tier(choose_device(device), tier)
        self._linux = is_linux(environment, program)
        self._memory_bytes = parse_size(memory if memory is not None else "16MiB" if self._linux else "1MiB")
        self._arguments = checked_arguments(arguments)
        self._lane_arguments = self._checked_lane_arguments(lane_arguments)
        self._own: frozenset[int] = frozenset()
        self._first_run = True
        self._layout = self._plan(self._own)
        self._variables = self._checked_variables(variables, lane_variables)
        self.environment: BareMetal
        if self._linux:
            self.environment = linux_environment(self.lanes, program.xlen, self._layout, root, seed)
        else:
            self.environment = BareMetal(self.lanes, program.xlen, self._layout.heap_start, self._layout.stack_top)
        limit = default_limit() if memory_limit is None else parse_size(memory_limit)
        limit = checked_integer("memory_limit", limit, 1, MAX_TOTAL)
        self.environment.output_limit = limit
        registers = registers_of(program.isa_config)
        if device == "auto":
            self.placement = place(self._layout, self.lanes, registers)
        else:
            self.placement = Placement(is_gpu(device), device, ("the device asked for",))
        try:
            self._state = LaneState(self.lanes, registers)
            if self.environment.spaces is not None:
                self._state.space = self.environment.spaces.numbers
            self._residence = Residence(
                program,
                self._state,
                self.environment,
                device=self.placement.device,
                tier=tier,
                threads=threads,
                fallback=fallback,
                chosen=device == "auto",
                memory_limit=limit,
            )
            self._residence.move_in(self._layout)
        except MemoryError as error:
            if isinstance(error, VmjitError):
                raise
            raise MemoryLimitError(f"the host cannot give memory for {lanes} lanes") from error
        self._snapshots = Snapshots(
            program, registers, self._state, self.environment, self._residence, self._memory_bytes
        )
        self.registers = Registers(self._state, registers, self._residence.changed)
        self.memory = GuestMemory(self)
        self._hooks = Hooks(self)
        self._memory_hooks = MemoryHooks(self)
        self._start()

    @property
    def memory_size(self) -> int:
        """Bytes of heap and stack that a lane may use."""
        return self._memory_bytes

    @property
    def device(self) -> str:
        """Where the lanes are now."""
        return self._residence.device

    @property
    def _engine(self) -> CpuEngine | DeviceEngine:
        return self._residence.engine

    @property
    def _lane_memory(self) -> LaneMemory | DeviceLaneMemory | SplitLaneMemory:
        return self._residence.memory

    # -- state

    def _start(self) -> None:
        """Registers, pc and stack as a lane finds them at its first instruction."""
        state = self._state
        state.registers[:] = 0
        state.pc[:] = self.program.entry
        state.stop[:] = Stop.RUNNING
        state.retired[:] = 0
        if self._linux:
            state.registers[_SP] = self._push_linux_stack()
            return
        state.registers[_SP] = self._push_arguments()
        state.registers[_A0] = np.arange(self.lanes)
        state.registers[_A1] = self.lanes

    def _checked_lane_arguments(
        self, given: Sequence[Sequence[str | bytes]] | None
    ) -> tuple[tuple[bytes, ...], ...] | None:
        if given is None:
            return None
        if not self._linux or self._arguments:
            raise ArgumentError("lane_arguments are for Linux programs, and instead of arguments")
        if len(given) != self.lanes:
            raise ArgumentError(f"expected {self.lanes} lists of arguments, one a lane, got {len(given)}")
        return tuple(checked_arguments(arguments) for arguments in given)

    def _checked_variables(
        self, variables: Mapping[str, str] | None, lane_variables: Sequence[Mapping[str, str]] | None
    ) -> tuple[tuple[bytes, ...], ...]:
        """Those of each lane, or one for all."""
        if lane_variables is None:
            return (checked_variables(variables),)
        if not self._linux or isinstance(lane_variables, Mapping | str):
            raise ArgumentError("lane_variables are for Linux programs, a mapping for each lane")
        if len(lane_variables) != self.lanes:
            raise ArgumentError(f"expected variables for {self.lanes} lanes, got {len(lane_variables)}")
        return tuple(checked_variables({**(variables or {}), **more}) for more in lane_variables)

    def _push_linux_stack(self) -> NDArray[np.uint64]:
        """What a Linux program finds on its stack; each lane has random bytes of its own. Gives sp by lane."""
        assert isinstance(self.environment, Linux)
        program, top = self.program, self._layout.stack_top
        by_lane = self._lane_arguments or (self._arguments or (os.fsencode(program.name),),) * self.lanes
        variables = self._variables if len(self._variables) == self.lanes else self._variables * self.lanes
        kinds = list(zip(by_lane, variables, strict=True))
        lanes_of: dict[tuple[tuple[bytes, ...], tuple[bytes, ...]], list[int]] = {}
        for lane, kind in enumerate(kinds):
            lanes_of.setdefault(kind, []).append(lane)
        stacks = {kind: initial_stack(program, top, *kind) for kind in lanes_of}
        lowest = min(stack.sp for stack in stacks.values())
        if lowest < self.environment.stack_lo:
            raise ArgumentError(f"arguments and variables do not fit into {self._memory_bytes} bytes of memory")
        rows = np.zeros((self.lanes, max(s.sp - lowest + len(s.data) for s in stacks.values())), np.uint8)
        words = self.environment.random_words(np.arange(self.lanes), RANDOM_BYTES // 8)
        random = np.ascontiguousarray(words).view(np.uint8).reshape(self.lanes, -1)
        for kind, stack in stacks.items():
            these = np.array(lanes_of[kind])
            start = stack.sp - lowest
            rows[these, start : start + len(stack.data)] = np.frombuffer(stack.data, np.uint8)
            rows[these, stack.random - lowest : stack.random - lowest + RANDOM_BYTES] = random[these]
        self._write(lowest, rows)
        return np.array([stacks[kind].sp for kind in kinds], np.uint64)

    def _push_arguments(self) -> int:
        """Lay out argc, argv and empty environment and auxiliary vectors as the psABI has them; gives sp."""
        top = self._layout.stack_top
        if not self._arguments:
            return top
        text = b"".join(a + b"\0" for a in self._arguments)
        strings = (top - len(text)) & ~15
        starts = np.cumsum([0, *(len(a) + 1 for a in self._arguments[:-1])]) + strings
        word = "<I" if self.program.xlen == 32 else "<Q"
        table = [len(self._arguments), *(int(s) for s in starts), 0, 0, 0, 0]
        size = struct.calcsize(word) * len(table)
        sp = (strings - size) & ~15
        if sp < self._layout.heap_start:
            raise ArgumentError(f"the arguments do not fit into {self._memory_bytes} bytes of memory")
        block = b"".join(struct.pack(word, v) for v in table).ljust(strings - sp, b"\0") + text
        self._write(sp, np.frombuffer(block, np.uint8))
        return sp

    def _write(self, address: int, data: Bytes) -> tuple[list[MemorySpan], list[MemorySpan]]:
        """As `SpanMemory.write`."""
        self._snapshots.changed()
        written = self._residence.on_memory(lambda memory: memory.write(address, data))
        if not written[1]:
            self._residence.written(address, data)
        return written

    @property
    def pc(self) -> NDArray[np.uint64]:
        """The lanes' program counters, (lanes,) uint64. Assign (lanes,) integers or a scalar to move lanes."""
        values: NDArray[np.uint64] = self._state.pc.copy()
        return values

    @pc.setter
    def pc(self, values: ArrayLike) -> None:
        self._residence.changed()
        mask = np.uint64(self._engine.decoder.registers.type.mask)
        self._state.pc[:] = as_unsigned(values, np.dtype(np.uint64), self.lanes, "values of pc") & mask

    @property
    def retired(self) -> NDArray[np.uint64]:
        """Instructions each lane retired since it was loaded or reset, (lanes,) uint64."""
        values: NDArray[np.uint64] = self._state.retired.copy()
        return values

    @property
    def stop(self) -> NDArray[np.int32]:
        """Why each lane is not running (`vmjit.Stop`), (lanes,) int32."""
        values: NDArray[np.int32] = self._state.stop.copy()
        return values

    def set_input(self, inputs: bytes | Sequence[bytes] | Bytes) -> None:
        """Standard input: bytes for every lane, a sequence with one bytes object a lane, or (lanes, n) uint8."""
        self._residence.changed()
        self.environment.stdin.set(inputs)

    def set_file(self, path: str | bytes, contents: bytes | Sequence[bytes] | Bytes) -> None:
        """Have a file at a path of a Linux program, with contents as `set_input` takes them: another for each lane.

        It lies over what is at the path in the root folder. Files that lanes have open change with it.
        """
        if not isinstance(self.environment, Linux):
            raise ArgumentError("only Linux programs have files")
        self._residence.changed()
        self.environment.set_file(os.fsencode(path), contents)

    # -- running

    def run(
        self,
        max_instructions: int | None = None,
        *,
        max_seconds: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> RunResult:
        """Run every lane until it stops. Called again, it goes on with those that have not exited.

        Args:
            max_instructions: retired instructions after which a lane stops, exactly; None: no limit.
            max_seconds: wall-clock time after which the run ends, as soon as lanes are through with their slice, a
                fraction of a second. The result then says `timed_out`, and lanes under way are `Stop.RUNNING`.
            progress: called a few times a second with (lanes stopped, instructions retired).

        Ctrl-C ends the run at once: the result says `interrupted`, and lanes under way are `Stop.RUNNING`.
        """
        home = self._residence
        budget, seconds = checked_budget(max_instructions), checked_seconds("max_seconds", max_seconds)
        before = 0 if self._first_run else len(home.fallbacks)
        self._first_run = False
        report = home.run(budget, progress=progress, max_seconds=seconds)
        result = RunResult.collect(self._state, self.environment, report, self.device, tuple(home.fallbacks[before:]))
        home.counter.ran(self.device, success=result.successful, regroupings=report.regroupings)
        return result

    def run_until(
        self, place: int | str, max_instructions: int | None = None, *, max_seconds: float | None = None
    ) -> RunResult:
        """Run every lane until it comes to an address or symbol: it stops there with `Stop.ARRIVED`, before it executes
        what is there. Lanes that stop for another reason do so as in `run`.

        A lane that is there when the run begins has arrived, unless it stopped there the last time: then it goes on
        until it comes there again.
        """
        self._hooks.until(self._code_address(place))
        try:
            return self.run(max_instructions, max_seconds=max_seconds)
        finally:
            self._hooks.until(None)

    def hook(self, place: int | str, function: HostHook | CompiledHook, *, host: bool = False) -> Hook:
        """Have a function called whenever a lane comes to an address or symbol, before it executes what is there.

        Args:
            function: compiled by Numba and called by each lane, as function(registers, memory). `registers` has x0 to
                x31, (32,) uint32 or uint64, which it may change; `vmjit.hooks.load` and `store` access `memory`. If it
                returns something true, the lane stops there with `Stop.ARRIVED`, and the next run goes on with the
                instruction. Where lanes run on a device, the host calls it, in Python.
            host: call it in Python instead, with a `vmjit.HookedLanes`, once for all lanes that are there at the same
                time. An exception that it raises ends the run.

        Several hooks at one address are called in the order in which they were added. When lanes leave a device that
        fails and go on from an earlier state, hooks are called for what they do again.

        Raises `ArgumentError` for a place where no instruction can be and for a function that Numba cannot compile. An
        exception inside a compiled hook ends the run with `HookError`.
        """
        if not callable(function):
            raise ArgumentError(f"a hook is a function, got {shown(function)}")
        address = self._code_address(place)
        compiled = None
        if not host:
            from vmjit.compiled_hooks import compile_hook  # imports Numba

            compiled = compile_hook(function, self.program.xlen)
        hook = Hook(address, function, host, compiled)
        self._hooks.add(hook)
        return hook

    def hook_memory(
        self,
        place: int | str,
        size: int,
        *,
        read: Callable[..., Any] | None = None,
        write: Callable[..., Any] | None = None,
        host: bool = False,
    ) -> MemoryHook:
        """Have functions stand for device registers: `size` bytes at an address or symbol where there is no memory.

        Args:
            read: gives what lanes load there: compiled by Numba, read(memory, address, size) for each lane by itself,
            an
                unsigned number, where `vmjit.hooks.load` and `store` access the lane's `memory`. None: reads are
                faults.
            write: takes what they store: write(memory, address, size, value). None: writes are faults.
            host: call them in Python instead, once for all lanes that access with the same instruction at the same
            time:
                read(accesses), which gives (n,) numbers or one for all, and write(accesses, values), with (n,) uint64.
                `accesses` is a `vmjit.MemoryAccesses`.

        Accesses have 1, 2, 4 or 8 bytes; atomic instructions read and then write. Raises `ArgumentError` where there is
        memory, or another such hook, and for a function that Numba cannot compile.
        """
        return self._memory_hooks.add(place, size, read, write, host=host)

    def unhook(self, hook: Hook | MemoryHook) -> None:
        """Take back what `hook` or `hook_memory` gave. Raises `ArgumentError` for a hook that is not there."""
        if isinstance(hook, MemoryHook):
            self._memory_hooks.remove(hook)
        else:
            self._hooks.remove(hook)

    def _code_address(self, place: int | str) -> int:
        """An address where an instruction can be; `ArgumentError` for others."""
        address = self.program.address(place)
        if not any(s.executable and s.address <= address < s.end for s in self.program.segments):
            raise ArgumentError(f"{address:#x} is in no executable segment of {self.program.name}")
        if address % (2 if self.program.isa_config.compressed else 4):
            raise ArgumentError(f"no instruction can start at {address:#x}")
        return address

    @property
    def statistics(self) -> ExecutionStatistics:
        """What this machine did so far: runs, fallbacks, compilations; and the process's cache."""
        return self._residence.statistics()

    def reset(self) -> None:
        """Back to the loaded program: registers, memory, streams and counters. Compiled code and inputs stay."""
        changed = bool((self._state.code_index != 0).any())
        self._snapshots.changed()
        self._residence.reset()
        self.environment.reset()
        self._start()
        if changed or self._engine.code_was_written:
            self._engine.assign_code(np.arange(self.lanes))
        self._engine.follow_mappings()

    # -- snapshots

    def snapshot(self, lane: int | None = None) -> Snapshot:
        """The state of all lanes at this moment, or of one: registers, pc, memory, streams, open files.

        Takes time and memory for what lanes have written, not for what they could. Raises `ArgumentError` for a lane
        that is not there.
        """
        if lane is not None:
            lane = checked_integer("lane", lane, 0, self.lanes - 1)
        return self._snapshots.take(lane, self._own)

    def restore(self, snapshot: Snapshot) -> None:
        """Have all lanes as they were in a snapshot; from one lane's snapshot, all have what that lane had.

        Memory that lanes have not written since is not touched. Inputs are those of the snapshot, so set others after
        it. Raises `SnapshotError` for a snapshot of another program, another size of memory or another number of lanes;
        the machine is then as it was.
        """
        if not isinstance(snapshot, Snapshot):
            raise ArgumentError(f"restore takes a vmjit.Snapshot, got {shown(snapshot)}")
        self._snapshots.check(snapshot)
        if snapshot.own != self._own:
            self._take_layout(snapshot.own)
        self._snapshots.check_layout(snapshot)
        self._snapshots.restore(snapshot)

    def _plan(self, own: frozenset[int]) -> MemoryLayout:
        return plan_memory(self.program, self._memory_bytes, self.lanes, own=own, whole_pages=self._linux)

    def _take_layout(self, own: frozenset[int]) -> None:
        """Have new memory with these read-only segments for each lane."""
        if not own <= {s.lo for s in self._layout.spans}:
            raise SnapshotError("the snapshot is damaged: it has segments that the program has not")
        self._own = own
        self._layout = self._plan(own)
        self._residence.move_in(self._layout)

    def _make_own(self, addresses: frozenset[int]) -> None:
        """Give every lane its own copy of read-only segments that so far were shared."""
        old = self._lane_memory
        self._take_layout(self._own | addresses)
        for span in self._layout.spans:
            for start in range(0, span.size, 1 << 20):
                count = min(1 << 20, span.size - start)
                self._write(span.lo + start, old.read(span.lo + start, count))
        self._engine.reset_code()

    def memory_per_lane(self) -> int:
        """Bytes of host memory that one lane can come to need, its guest memory and its state."""
        state = self._state
        arrays = tuple(getattr(state, name) for name in state.BY_LANE if name != "registers")
        return int(
            self._layout.private_bytes
            + len(state.registers) * state.registers.itemsize
            + sum(a.itemsize for a in arrays)
        )


__all__ = ["GuestMemory", "Machine", "Registers"]
