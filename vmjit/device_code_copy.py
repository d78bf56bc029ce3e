"""A code space's copy on a device: slots and tables there, and what was counted in them back."""

from __future__ import annotations

import numpy as np

from vmjit.device_buffers import DeviceBuffers
from vmjit.device_code import SLOT_TYPE, DeviceCodeSpace
from vmjit.devices.interface import Buffer, Device
from vmjit.kernels.device_layout import CodeRange, DeviceCode


class CodeCopy:
    """A code space's copy on a device."""

    def __init__(self, device: Device, space: DeviceCodeSpace) -> None:
        self.device = device
        self.space = space
        self.changes = -1
        self.capacity = 0
        self._buffers = DeviceBuffers(device)
        self.tables = [self._buffers.allocate(t.nbytes) for t in space.tables]
        ranges = np.zeros((len(space.spans), CodeRange.BYTES // 8), np.uint64)
        for row, span, table in zip(ranges, space.spans, self.tables, strict=True):
            row[:] = (span.lo, len(span.data), table.address)
        self.ranges = self._buffers.allocate(ranges.nbytes)
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
            self._buffers.free(buffer)
        self.slots = []
        self.capacity = capacity
        self.slots = [self._buffers.allocate(capacity * size) for size in (SLOT_TYPE.itemsize, 8, 8)]
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
        self._buffers.release()
