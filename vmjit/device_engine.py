"""The engine of devices: lane state and code are copied there, a kernel gives every lane a slice, results come back.

The host's lane state is whole between passes. The lanes' memory stays on the devices, of which there may be several.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import numpy as np

from vmjit.cache import CodeCache, process_cache
from vmjit.compile_thread import COMPILE_THREAD
from vmjit.decoders.riscv.isa import Isa
from vmjit.device_code import DeviceCodeSpace
from vmjit.device_kernels import DeviceKernels, interpreter_keys_of
from vmjit.device_lane_memory import DeviceLaneMemory
from vmjit.device_part import DevicePart
from vmjit.engine import Engine, Environment, Lanes, Progress, RunReport
from vmjit.errors import CompileForbiddenError
from vmjit.guest_code import CodeSpan
from vmjit.lane_state import LaneState
from vmjit.region_memory import RegionMemory
from vmjit.split_lane_memory import SplitLaneMemory
from vmjit.stops import Stop
from vmjit.tiering import INLINE_BEFORE_RUNNING
from vmjit.translators.device_region import DeviceWindowPlan
from vmjit.translators.regions import MAX_REGION_INSTRUCTIONS, Growth, form_region, loop_head, visited

# Visits of a block by all lanes together until it is hot.
VISITS_UNTIL_HOT = 256

# How many times as often a block inside a region must be visited from outside until it is an entry.
_ENTRY_FACTOR = 8


class DeviceEngine(Engine[DeviceCodeSpace]):
    """Runs the lanes of `state` on the devices that their memory is on."""

    def __init__(
        self,
        isa: Isa,
        state: LaneState,
        memory: DeviceLaneMemory | SplitLaneMemory,
        *,
        tier: str = "auto",
        environment: Environment | None = None,
        cache: CodeCache | None = None,
        visits_until_hot: int = VISITS_UNTIL_HOT,
        outside: Stop = Stop.FAULT,
    ) -> None:
        super().__init__(isa, state, tier=tier, environment=environment, outside=outside)
        self.memory = memory
        self.visits_until_hot = visits_until_hot
        layout = memory.layout
        windows = DeviceWindowPlan(layout.window_plan(), layout.private_window[2], layout.shared_window[2])
        registers = self.decoder.registers
        places = memory.parts()
        self.kernels = DeviceKernels([m.device for _, m in places], registers, windows, cache or process_cache())
        self._numbers = {key: i for i, key in enumerate(interpreter_keys_of(registers))}
        self._firsts = [first for first, _ in places]
        self.parts = [
            DevicePart(
                registers,
                state.part(first, first + share.lanes),
                share,
                keeps_outputs=environment is not None,
                gathers_outputs=environment is not None and environment.gathers_outputs,
            )
            for first, share in places
        ]
        self.regions = RegionMemory(self.kernels.cache.disk, ("device", repr(windows)))
        self._jobs: list[None] = []  # one for each that waits for the compile thread or is under way
        self._refused: CompileForbiddenError | None = None
        self._serving = False
        self._stepped: weakref.WeakSet[DeviceCodeSpace] = weakref.WeakSet()  # of which nothing is compiled
        self.reset_code()

    @property
    def lane_memory(self) -> DeviceLaneMemory | SplitLaneMemory:
        return self.memory

    @property
    def whole(self) -> bool:
        """Whether the host's state and the devices' memory belong together: no launch or call is half done."""
        return not self._serving and not any(part.launched or part.written for part in self.parts)

    def release(self) -> None:
        """Give the devices back what is there, the lanes' memory too."""
        for part in self.parts:
            part.release()
        self.memory.release()

    # -- code

    def _new_space(self, spans: Sequence[CodeSpan], *, stepped: bool = False, plain: bool = False) -> DeviceCodeSpace:
        space = DeviceCodeSpace(self.decoder, self._numbers, spans)
        if stepped or plain:
            self._stepped.add(space)
        elif self.tier == "auto":
            self._in_background(space, self._recall)
        return space

    def _step(self, lanes: Lanes, report: RunReport) -> None:
        self._pass(lanes, report, None)

    def _provide(self, index: int, pc: int) -> bool:
        space = self.spaces[index]
        if not space.decode(pc):
            return False
        if self.tier == "scalar" and space not in self._stepped and not space.has_compiled(pc):
            self._compile_ahead(space, pc)
            self.kernels.bring_in()
        return True

    def _compile_ahead(self, space: DeviceCodeSpace, pc: int) -> None:
        """Compile what of the function at `pc` is not compiled yet, and what it calls."""
        todo = [pc]
        while todo:
            place = todo.pop()
            if not space.executable(place) or space.has_compiled(place) or place in space.submitted:
                continue
            space.submitted.add(place)

            def wanted(target: int) -> bool:
                return space.executable(target) and not space.has_compiled(target)

            growth = Growth(wanted, MAX_REGION_INSTRUCTIONS, INLINE_BEFORE_RUNNING, whole_function=True)
            region = form_region(space, place, growth)
            if self.kernels.add(space, region):
                todo += [t for t in region.link_targets() if t not in region.blocks]

    def _compile_hot(self) -> None:
        """Have the blocks that jumps arrive at most often compiled in the background."""
        for space in self.spaces:
            if space in self._stepped:
                continue
            visits = space.slots["visits"][: space.used]
            hot = np.flatnonzero(visits >= self.visits_until_hot)
            order = hot[np.argsort(visits[hot])[::-1]]
            for pc in space.pcs[order].tolist():
                if pc not in space.submitted and not space.has_compiled(pc) and self._is_hot(space, pc):
                    space.submitted.add(pc)
                    self._compile_later(space, pc)

    def _is_hot(self, space: DeviceCodeSpace, pc: int) -> bool:
        """A block inside a region becomes an entry itself only when the interpreter keeps coming to it."""
        if pc not in space.covered:
            return space.visits(pc) >= self.visits_until_hot
        return space.visits(pc) - space.covered[pc] >= self.visits_until_hot * _ENTRY_FACTOR

    def _recall(self, space: DeviceCodeSpace) -> None:
        """Have all regions that earlier processes chose for this code."""
        for region in self.regions.all(space):
            if not space.has_compiled(region.entries[0]):
                self.kernels.add(space, region)

    def _compile_later(self, space: DeviceCodeSpace, pc: int) -> None:
        covered = pc in space.covered

        def compile_region(space: DeviceCodeSpace) -> None:
            if space.has_compiled(pc):
                return
            if covered != (pc in space.covered):
                space.submitted.discard(pc)  # a region that has the block came in meanwhile
                return
            # A block that is hot although the head of its loop is compiled is entered some other way.
            head = loop_head(space, pc)
            seed = pc if space.has_compiled(head) else head
            region = form_region(space, seed, visited(space))
            if self.kernels.add(space, region):
                self.regions.add(space, region)
                if pc not in region.blocks:
                    space.submitted.discard(pc)  # the loop's region does not hold it: it has one of its own coming

        self._in_background(space, compile_region)

    def _in_background(self, space: DeviceCodeSpace, work: Callable[[DeviceCodeSpace], None]) -> None:
        """Have regions added by the compile thread, unless the machine is gone by then; the last of several such jobs
        brings in what all of them have added, since linking takes long."""
        weak, engine = weakref.ref(space), weakref.ref(self)
        self._jobs.append(None)

        def job() -> None:
            alive, here = weak(), engine()
            if here is None:
                return
            try:
                try:
                    if alive is not None:
                        work(alive)
                finally:  # what others have added waits for the last job, whatever becomes of it
                    here._jobs.pop()
                    if not here._jobs:
                        here.kernels.bring_in()
            except CompileForbiddenError as error:
                here._refused = error

        COMPILE_THREAD.submit(job)

    # -- running

    def _prepare(self) -> None:
        """Everything that a launch needs is written by the parts."""

    def _pass(self, lanes: Lanes, report: RunReport, progress: Progress | None) -> None:
        report.passes += 1
        if self._refused is not None:
            raise self._refused
        kernels = [self.kernels.kernel(part.device) for part in self.parts]
        room = None if self.environment is None else self.environment.output_room()
        try:
            for first, part, kernel in zip(self._firsts, self.parts, kernels, strict=True):
                part.launch(kernel, self.spaces, None if room is None else room[first : first + part.state.lanes])
            report.compiled_instructions += self._take_over()
        except KeyboardInterrupt:
            # The second Ctrl-C. What the lanes have run on the device is not to be lost.
            report.compiled_instructions += self._take_over()
            raise
        if self.tier != "interpreter":
            for part in self.parts:
                part.download_profile()
            self._compile_hot()

    def _take_over(self) -> int:
        """Wait for the launches and take over what the lanes have done; gives the instructions that ran in compiled
        code."""
        compiled = 0
        for first, part in zip(self._firsts, self.parts, strict=True):
            compiled += part.finish()
            while part.written:  # before calls are served: what lanes write there comes behind it
                assert self.environment is not None
                stream, lanes, sizes, writes, data = part.written.pop()
                self.environment.take_outputs(stream, lanes + first, sizes, writes, data)
        return compiled

    def _serve(self, report: RunReport) -> None:
        self._serving = True
        super()._serve(report)
        self._serving = False

    def _finish(self, report: RunReport) -> None:
        """Everything is accounted for pass by pass."""
