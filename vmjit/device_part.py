"""A device's share of a machine's lanes: their state goes there, a kernel gives each a slice, the state comes back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.address_space import PAGE
from vmjit.device_buffers import DeviceBuffers
from vmjit.device_code import DeviceCodeSpace
from vmjit.device_code_copy import CodeCopy
from vmjit.device_lane_memory import DeviceLaneMemory
from vmjit.device_outputs import DeviceOutputs, Written
from vmjit.devices.interface import Buffer, Kernel
from vmjit.ir.registers import RegisterFile
from vmjit.kernels.device_layout import (
    GROUP,
    LANE_FIELDS,
    DeviceMachine,
    LaneField,
    frame_bytes,
    registers_bytes,
)
from vmjit.kernels.device_memory import aligned_window
from vmjit.kernels.layout import STOP_RUNNING, AddressSpaceRow
from vmjit.lane_state import LaneState

# A launch is to take about this long: short against Ctrl-C and a display's watchdog, long against the copies around it.
_SLICE_SECONDS = (0.02, 0.2)
_FIRST_QUANTUM = 4096
_MIN_QUANTUM, _MAX_QUANTUM = 256, 1 << 26


class DevicePart:
    """The lanes of `state`, whose memory is on a device. The host's state is whole unless a launch is under way.

    With `keeps_outputs`, lanes may go on behind their writes while a launch runs, and with `gathers_outputs` behind
    those of several vectors; `written` is what they wrote in the last one, for whoever takes it.
    """

    def __init__(
        self,
        registers: RegisterFile,
        state: LaneState,
        memory: DeviceLaneMemory,
        *,
        keeps_outputs: bool = False,
        gathers_outputs: bool = False,
    ) -> None:
        self.registers = registers
        self.state = state
        self.memory = memory
        self.device = memory.device
        self._buffers = DeviceBuffers(self.device)
        self._frames = self._buffers.allocate(memory.groups * frame_bytes(len(registers), registers.storage.bits))
        self._machine = self._buffers.allocate(DeviceMachine.BYTES)
        self._outputs = DeviceOutputs(self._buffers, state.lanes) if keeps_outputs else None
        self._output_ends: NDArray[np.uint64] | None = None
        self.written: list[Written] = []
        self._code: dict[int, CodeCopy] = {}
        self._descriptors: Buffer | None = None
        self._rows: Buffer | None = None
        self._rows_there = -1  # which version of the address spaces they are
        self._quantum = _FIRST_QUANTUM
        self._block = self._machine_block()
        self._block[DeviceMachine.GATHERS // 8] = gathers_outputs
        self._started = 0.0
        self.launched = False

    def _machine_block(self) -> NDArray[np.uint64]:
        layout, memory = self.memory.layout, self.memory
        word = self.registers.type.bits // 8
        block = np.zeros(DeviceMachine.BYTES // 8, np.uint64)
        for place, value in (
            (DeviceMachine.FRAMES, self._frames.address),
            (DeviceMachine.LANES, self.state.lanes),
            (DeviceMachine.FRAME_BYTES, frame_bytes(len(self.registers), self.registers.storage.bits)),
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
        if (plan := layout.paged) is not None and memory.spaces is not None:
            block[DeviceMachine.PAGES_LO // 8], block[DeviceMachine.PAGES_SIZE // 8] = plan.lo, plan.size
            block[DeviceMachine.HULL_LO // 8] = plan.hull_lo
            block[DeviceMachine.HULL_BITS // 8] = (plan.hull_lo - plan.bits_lo) // PAGE // 8
            block[DeviceMachine.BITMAP_BYTES // 8] = memory.spaces.bitmap_bytes
        return block

    # -- one launch

    def launch(self, kernel: Kernel, spaces: Sequence[DeviceCodeSpace], room: NDArray[np.int64] | None = None) -> None:
        """Start a slice for every lane that is RUNNING; nothing if there is none.

        `room`, (lanes,): the bytes of records that each lane may keep of what it writes; None: all writes are stops.
        """
        if not (self.state.stop == STOP_RUNNING).any():
            return
        self._upload_code(spaces)
        self._block[DeviceMachine.QUANTUM // 8] = self._quantum
        self.device.copy_to(self._machine, self._block.view(np.uint8))
        self._output_ends = None if self._outputs is None or room is None else self._outputs.ends(room)
        self._upload_state()
        self._started = time.perf_counter()
        self.launched = True
        self.device.launch(kernel, self.memory.groups * GROUP, self._machine.address)

    def finish(self) -> int:
        """Wait for the launch and take over the lanes' state and outputs; gives the instructions that ran in compiled
        code."""
        if not self.launched:
            return 0
        self.device.synchronize()
        self._adapt(time.perf_counter() - self._started)
        compiled = self._download_state()
        self.launched = False
        return compiled

    def _adapt(self, seconds: float) -> None:
        """Make the next launch about as long as a launch should be."""
        shortest, longest = _SLICE_SECONDS
        if seconds < shortest:
            self._quantum = min(self._quantum * 2, _MAX_QUANTUM)
        elif seconds > longest:
            self._quantum = max(self._quantum // 2, _MIN_QUANTUM)

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
        count = len(self.registers)
        size = registers_bytes(count, self.registers.storage.bits)
        frames = np.zeros((groups, size + LANE_FIELDS * GROUP * 8), np.uint8)
        tile = np.zeros((count, groups * GROUP), state.registers.dtype)
        tile[:, : state.lanes] = state.registers
        by_group = np.ascontiguousarray(tile.reshape(count, groups, GROUP).transpose(1, 0, 2))
        frames[:, :size] = by_group.view(np.uint8).reshape(groups, size)
        fields = np.zeros((LANE_FIELDS, groups * GROUP), np.uint64)
        for row, values in self._fields():
            fields[row, : state.lanes] = values.astype(np.int64).view(np.uint64)
        fields[LaneField.CODE, : state.lanes] = state.code_index
        for row, reach in zip((LaneField.REACH, LaneField.SHARED, LaneField.SPACE), self._reach(), strict=True):
            fields[row, : state.lanes] = reach
        if self._outputs is not None and self._output_ends is not None:
            fields[LaneField.OUTPUT, : state.lanes] = self._outputs.starts
            fields[LaneField.OUTPUT_END, : state.lanes] = self._output_ends
        by_group = np.ascontiguousarray(fields.reshape(LANE_FIELDS, groups, GROUP).transpose(1, 0, 2))
        frames[:, size:] = by_group.view(np.uint8).reshape(groups, -1)
        self.device.copy_to(self._frames, frames.reshape(-1))

    def _reach(self) -> tuple[Any, Any, Any]:
        """(bytes of the private window that lanes can access, bytes of the shared one, where the rows of their address
        spaces are): numbers, or (lanes,) uint64."""
        spaces = self.memory.spaces
        private, shared = (self._block[size // 8] for size in (DeviceMachine.WINDOW0_SIZE, DeviceMachine.WINDOW1_SIZE))
        if spaces is None:
            return private, shared, 0
        rows = spaces.rows
        if self._rows is None or self._rows.size < rows.nbytes:
            if self._rows is not None:
                self._buffers.free(self._rows)
                self._rows = None
            self._rows = self._buffers.allocate(rows.nbytes)
            self._rows_there = -1
        if self._rows_there != spaces.version:
            self.device.copy_to(self._rows, rows.view(np.uint8).reshape(-1))
            self._rows_there = spaces.version
        number = self.state.space
        place = np.uint64(self._rows.address) + number.astype(np.uint64) * np.uint64(rows.strides[0])
        regular = rows[number, AddressSpaceRow.REGULAR // 8] != 0
        return rows[number, AddressSpaceRow.REACH // 8], np.where(regular, shared, 0), place

    def _download_state(self) -> int:
        """Take over the lanes' state; gives the instructions that ran in compiled code."""
        state, groups = self.state, self.memory.groups
        count = len(self.registers)
        size = registers_bytes(count, self.registers.storage.bits)
        frames = self.device.copy_from(self._frames, self._frames.size).reshape(groups, -1)
        tile = np.ascontiguousarray(frames[:, :size]).view(state.registers.dtype).reshape(groups, count, GROUP)
        state.registers[:] = tile.transpose(1, 0, 2).reshape(count, -1)[:, : state.lanes]
        found = np.ascontiguousarray(frames[:, size:]).view(np.uint64).reshape(groups, LANE_FIELDS, GROUP)
        fields = found.transpose(1, 0, 2).reshape(LANE_FIELDS, -1)[:, : state.lanes]
        for row, values in self._fields():
            values[:] = fields[row].view(np.int64) if values.dtype.kind == "i" else fields[row]
        if self._outputs is not None and self._output_ends is not None:
            self.written = self._outputs.download(fields[LaneField.OUTPUT])
        return int(fields[LaneField.COMPILED].sum())

    # -- code there, and what was counted back

    def _upload_code(self, spaces: Sequence[DeviceCodeSpace]) -> None:
        copies = []
        for space in spaces:
            copy = self._code.get(id(space))
            if copy is None or copy.space is not space:
                copy = self._code[id(space)] = CodeCopy(self.device, space)
            copy.bring_up_to_date()
            copies.append(copy)
        for gone in self._code.keys() - {id(s) for s in spaces}:
            self._code.pop(gone).release()
        table = np.concatenate([c.descriptor for c in copies]).view(np.uint8)
        if self._descriptors is None or self._descriptors.size < len(table):
            if self._descriptors is not None:
                self._buffers.free(self._descriptors)
                self._descriptors = None
            self._descriptors = self._buffers.allocate(2 * len(table))
        self.device.copy_to(self._descriptors, table)
        self._block[DeviceMachine.CODE_SPACES // 8] = self._descriptors.address

    def download_profile(self) -> None:
        """Take over how often jumps arrived where."""
        for copy in self._code.values():
            copy.download_profile()

    def release(self) -> None:
        """Give the device back what this part has there, its memory apart."""
        for copy in self._code.values():
            copy.release()
        self._code.clear()
        self._buffers.release()
