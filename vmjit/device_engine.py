"""The engine of devices: lane state and code are copied there, a kernel gives every lane a slice, results come back.

The host's lane state is whole between passes. The lanes' memory stays on the device.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.cache import CodeCache, process_cache
from vmjit.decoders.riscv.isa import Isa
from vmjit.device_code import SLOT_TYPE, DeviceCodeSpace
from vmjit.device_kernels import DeviceKernels, interpreter_keys_of
from vmjit.device_lane_memory import DeviceLaneMemory
from vmjit.devices.interface import Buffer, Device
from vmjit.engine import Engine, Environment, Lanes, Progress, RunReport
from vmjit.guest_code import CodeSpan
from vmjit.kernels.device_layout import (
    GROUP,
    LANE_FIELDS,
    CodeRange,
    DeviceCode,
    DeviceMachine,
    LaneField,
    frame_bytes,
    registers_bytes,
)
from vmjit.kernels.device_memory import aligned_window
from vmjit.lane_state import LaneState
from vmjit.stops import Stop
from vmjit.tiering import COMPILE_THREAD, INLINE_BEFORE_RUNNING
from vmjit.translators.device_region import DeviceWindowPlan
from vmjit.translators.regions import MAX_REGION_INSTRUCTIONS, Growth, form_region, loop_head, visited

# Visits of a block by all lanes together until it is hot.
VISITS_UNTIL_HOT = 256

# How many times as often a block inside a region must be visited from outside until it is an entry.
_ENTRY_FACTOR = 64

# A launch is to take about this long: short against Ctrl-C and a display's watchdog, long against the copies around it.
_SLICE_SECONDS = (0.02, 0.2)
_FIRST_QUANTUM = 4096
_MIN_QUANTUM, _MAX_QUANTUM = 256, 1 << 26


class DeviceEngine(Engine[DeviceCodeSpace]):
    """Runs the lanes of `state` on `memory`'s device."""

    def __init__(
        self,
        isa: Isa,
        state: LaneState,
        memory: DeviceLaneMemory,
        *,
        tier: str = "auto",
        environment: Environment | None = None,
        cache: CodeCache | None = None,
        visits_until_hot: int = VISITS_UNTIL_HOT,
        outside: Stop = Stop.FAULT,
    ) -> None:
        super().__init__(isa, state, tier=tier, environment=environment, outside=outside)
        self.memory = memory
        self.device: Device = memory.device
        self.visits_until_hot = visits_until_hot
        layout = memory.layout
        windows = DeviceWindowPlan(layout.window_plan(), layout.private_window[2], layout.shared_window[2])
        self.kernels = DeviceKernels(self.device, self.decoder.registers, windows, cache or process_cache())
        self._numbers = {key: i for i, key in enumerate(interpreter_keys_of(isa.xlen))}
        self._frames = self.device.allocate(memory.groups * frame_bytes(len(self.decoder.registers), isa.xlen))
        self._machine = self.device.allocate(DeviceMachine.BYTES)
        self._code: dict[int, _CodeCopy] = {}
        self._descriptors: Buffer | None = None
        self._quantum = _FIRST_QUANTUM
        self.reset_code()

    @property
    def lane_memory(self) -> DeviceLaneMemory:
        return self.memory

    # -- code

    def _new_space(self, spans: Sequence[CodeSpan]) -> DeviceCodeSpace:
        return DeviceCodeSpace(self.decoder, self._numbers, spans)

    def _provide(self, index: int, pc: int) -> bool:
        space = self.spaces[index]
        if not space.decode(pc):
            return False
        if self.tier == "scalar" and not space.entry(pc):
            self._compile_ahead(space, pc)
        return True

    def _compile_ahead(self, space: DeviceCodeSpace, pc: int) -> None:
        """Compile what of the function at `pc` is not compiled yet, and what it calls."""
        todo = [pc]
        while todo:
            place = todo.pop()
            if not space.executable(place) or space.entry(place) or place in space.submitted:
                continue
            space.submitted.add(place)

            def wanted(target: int) -> bool:
                return space.executable(target) and not space.entry(target)

            growth = Growth(wanted, MAX_REGION_INSTRUCTIONS, INLINE_BEFORE_RUNNING, whole_function=True)
            region = form_region(space, place, growth)
            if self.kernels.add(space, region):
                todo += [t for t in region.link_targets() if t not in region.blocks]

    def _compile_hot(self) -> None:
        """Have the blocks that jumps arrive at most often compiled in the background."""
        for space in self.spaces:
            visits = space.slots["visits"][: space.used]
            hot = np.flatnonzero(visits >= self.visits_until_hot)
            order = hot[np.argsort(visits[hot])[::-1]]
            for pc in space.pcs[order].tolist():
                if pc not in space.submitted and not space.entry(pc) and self._is_hot(space, pc):
                    space.submitted.add(pc)
                    self._compile_later(space, pc)

    def _is_hot(self, space: DeviceCodeSpace, pc: int) -> bool:
        """A block inside a region becomes an entry itself only when the interpreter keeps coming to it."""
        if pc not in space.covered:
            return space.visits(pc) >= self.visits_until_hot
        return space.visits(pc) - space.covered[pc] >= self.visits_until_hot * _ENTRY_FACTOR

    def _compile_later(self, space: DeviceCodeSpace, pc: int) -> None:
        kernels = self.kernels
        weak = weakref.ref(space)
        covered = pc in space.covered

        def job() -> None:
            alive = weak()
            if alive is None or alive.entry(pc):
                return
            if covered != (pc in alive.covered):
                alive.submitted.discard(pc)  # a region that has the block came in meanwhile
                return
            # A block that is hot although the head of its loop is compiled is entered some other way.
            head = loop_head(alive, pc)
            kernels.add(alive, form_region(alive, pc if alive.entry(head) else head, visited(alive)))

        COMPILE_THREAD.submit(job)

    # -- running

    def _prepare(self) -> None:
        layout, memory = self.memory.layout, self.memory
        word = self.decoder.registers.type.bits // 8
        block = np.zeros(DeviceMachine.BYTES // 8, np.uint64)
        for place, value in (
            (DeviceMachine.FRAMES, self._frames.address),
            (DeviceMachine.LANES, self.state.lanes),
            (DeviceMachine.FRAME_BYTES, frame_bytes(len(self.decoder.registers), 8 * word)),
            (DeviceMachine.PRIVATE, memory.private.address),
            (DeviceMachine.PRIVATE_BYTES, memory.pitch),
            (DeviceMachine.SHARED, memory.image.address),
            (DeviceMachine.SPANS, memory.spans.address),
            (DeviceMachine.SPAN_COUNT, len(layout.spans)),
        ):
            block[place // 8] = value
        for first, window in (
            (DeviceMachine.WINDOW0_LO, layout.private_window),
            (DeviceMachine.WINDOW1_LO, layout.shared_window),
        ):
            block[first // 8 : first // 8 + 3] = aligned_window(*window, word)
        self._block = block

    def _pass(self, lanes: Lanes, report: RunReport, progress: Progress | None) -> None:
        report.passes += 1
        kernel = self.kernels.kernel()
        self._upload_code()
        self._block[DeviceMachine.QUANTUM // 8] = self._quantum
        self.device.copy_to(self._machine, self._block.view(np.uint8))
        self._upload_state()
        started = time.perf_counter()
        self.device.launch(kernel, self.memory.groups * GROUP, self._machine.address)
        self.device.synchronize()
        self._adapt(time.perf_counter() - started)
        report.compiled_instructions += self._download_state()
        if self.tier != "interpreter":
            self._download_profile()
            self._compile_hot()

    def _adapt(self, seconds: float) -> None:
        """Make the next launch about as long as a launch should be."""
        shortest, longest = _SLICE_SECONDS
        if seconds < shortest:
            self._quantum = min(self._quantum * 2, _MAX_QUANTUM)
        elif seconds > longest:
            self._quantum = max(self._quantum // 2, _MIN_QUANTUM)

    def _finish(self, report: RunReport) -> None:
        """Everything is accounted for pass by pass."""

    # -- lane state there and back

    def _fields(self) -> tuple[tuple[LaneField, NDArray[Any]], ...]:
        state = self.state
        return (
            (LaneField.PC, state.pc),
            (LaneField.STOP, state.stop),
            (LaneField.BUDGET, state.budget),
            (LaneField.RETIRED, state.retired),
            (LaneField.FAULT_ADDRESS, state.fault_address),
            (LaneField.ACCESS, state.fault_access),
        )

    def _upload_state(self) -> None:
        state, groups = self.state, self.memory.groups
        count = len(self.decoder.registers)
        size = registers_bytes(count, self.decoder.registers.type.bits)
        frames = np.zeros((groups, size + LANE_FIELDS * GROUP * 8), np.uint8)
        tile = np.zeros((count, groups * GROUP), state.registers.dtype)
        tile[:, : state.lanes] = state.registers
        by_group = np.ascontiguousarray(tile.reshape(count, groups, GROUP).transpose(1, 0, 2))
        frames[:, :size] = by_group.view(np.uint8).reshape(groups, size)
        fields = np.zeros((LANE_FIELDS, groups * GROUP), np.uint64)
        for row, values in self._fields():
            fields[row, : state.lanes] = values.astype(np.int64).view(np.uint64)
        fields[LaneField.CODE, : state.lanes] = state.code_index
        by_group = np.ascontiguousarray(fields.reshape(LANE_FIELDS, groups, GROUP).transpose(1, 0, 2))
        frames[:, size:] = by_group.view(np.uint8).reshape(groups, -1)
        self.device.copy_to(self._frames, frames.reshape(-1))

    def _download_state(self) -> int:
        """Take over the lanes' state; gives the instructions that ran in compiled code."""
        state, groups = self.state, self.memory.groups
        count = len(self.decoder.registers)
        size = registers_bytes(count, self.decoder.registers.type.bits)
        frames = self.device.copy_from(self._frames, self._frames.size).reshape(groups, -1)
        tile = np.ascontiguousarray(frames[:, :size]).view(state.registers.dtype).reshape(groups, count, GROUP)
        state.registers[:] = tile.transpose(1, 0, 2).reshape(count, -1)[:, : state.lanes]
        found = np.ascontiguousarray(frames[:, size:]).view(np.uint64).reshape(groups, LANE_FIELDS, GROUP)
        fields = found.transpose(1, 0, 2).reshape(LANE_FIELDS, -1)[:, : state.lanes]
        for row, values in self._fields():
            values[:] = fields[row].view(np.int64) if values.dtype.kind == "i" else fields[row]
        return int(fields[LaneField.COMPILED].sum())

    # -- code there, and what was counted back

    def _upload_code(self) -> None:
        copies = []
        for space in self.spaces:
            copy = self._code.get(id(space))
            if copy is None or copy.space is not space:
                copy = self._code[id(space)] = _CodeCopy(self.device, space)
            copy.bring_up_to_date()
            copies.append(copy)
        for gone in self._code.keys() - {id(s) for s in self.spaces}:
            self._code.pop(gone).release()
        table = np.concatenate([c.descriptor for c in copies]).view(np.uint8)
        if self._descriptors is None or self._descriptors.size < len(table):
            if self._descriptors is not None:
                self.device.free(self._descriptors)
            self._descriptors = self.device.allocate(2 * len(table))
        self.device.copy_to(self._descriptors, table)
        self._block[DeviceMachine.CODE_SPACES // 8] = self._descriptors.address

    def _download_profile(self) -> None:
        for space in self.spaces:
            self._code[id(space)].download_profile()


class _CodeCopy:
    """A code space's copy on a device."""

    def __init__(self, device: Device, space: DeviceCodeSpace) -> None:
        self.device = device
        self.space = space
        self.changes = -1
        self.capacity = 0
        self.tables = [device.allocate(max(t.nbytes, 4)) for t in space.tables]
        ranges = np.zeros((len(space.spans), CodeRange.BYTES // 8), np.uint64)
        for row, span, table in zip(ranges, space.spans, self.tables, strict=True):
            row[:] = (span.lo, len(span.data), table.address)
        self.ranges = device.allocate(max(ranges.nbytes, 8))
        device.copy_to(self.ranges, ranges.view(np.uint8).reshape(-1))
        self.slots: list[Buffer] = []
        self.descriptor = np.zeros(DeviceCode.BYTES // 8, np.uint64)

    def bring_up_to_date(self) -> None:
        space = self.space
        with space.lock:
            if self.changes == space.changes:
                return
            if len(space.slots) > self.capacity:
                self._grow(len(space.slots))
            slots, pcs, _ = self.slots
            self.device.copy_to(slots, space.slots[: space.used].view(np.uint8).reshape(-1))
            self.device.copy_to(pcs, space.pcs[: space.used].view(np.uint8))
            for buffer, table in zip(self.tables, space.tables, strict=True):
                self.device.copy_to(buffer, table.view(np.uint8))
            self.changes = space.changes

    def _grow(self, capacity: int) -> None:
        for buffer in self.slots:
            self.device.free(buffer)
        self.capacity = capacity
        self.slots = [self.device.allocate(capacity * size) for size in (SLOT_TYPE.itemsize, 8, 8)]
        for place, value in (
            (DeviceCode.RANGES, self.ranges.address),
            (DeviceCode.RANGE_COUNT, len(self.space.spans)),
            (DeviceCode.SLOTS, self.slots[0].address),
            (DeviceCode.SLOT_PCS, self.slots[1].address),
            (DeviceCode.SLOT_TARGETS, self.slots[2].address),
        ):
            self.descriptor[place // 8] = value

    def download_profile(self) -> None:
        space = self.space
        used = min(space.used, self.capacity)
        slots = self.device.copy_from(self.slots[0], used * SLOT_TYPE.itemsize).reshape(-1).view(SLOT_TYPE)
        targets = self.device.copy_from(self.slots[2], used * 8).reshape(-1).view(np.uint64)
        space.take_profile(slots["visits"], targets)

    def release(self) -> None:
        for buffer in (*self.tables, self.ranges, *self.slots):
            self.device.free(buffer)
