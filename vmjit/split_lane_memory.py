"""The lanes' memory on several devices, each with a share of the lanes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vmjit.device_lane_memory import DeviceLaneMemory
from vmjit.devices.interface import Device
from vmjit.devices.selection import open_devices
from vmjit.kernels.device_layout import GROUP
from vmjit.lane_memory import LaneMemory
from vmjit.memory_layout import MemoryLayout, MemorySpan
from vmjit.span_memory import Bytes, Index, SpanMemory


def shares(lanes: int, weights: Sequence[int]) -> list[tuple[int, int]]:
    """Each device's lanes by its weight, as (first, last + 1): whole groups but for the last. Some may have none."""
    groups = -(-lanes // GROUP)
    ends = np.round(np.cumsum(weights) / sum(weights) * groups).astype(int) * GROUP
    ends = np.minimum(ends, lanes)
    starts = [0, *ends[:-1].tolist()]
    return list(zip(starts, ends.tolist(), strict=True))


class SplitLaneMemory(SpanMemory):
    """Lane i is lane i - `starts`[k] of part k."""

    def __init__(self, layout: MemoryLayout, lanes: int, devices: Sequence[Device], xlen: int) -> None:
        super().__init__(layout, lanes)
        weights = [max(device.info().multiprocessors, 1) for device in devices]
        used = [(r, d) for r, d in zip(shares(lanes, weights), devices, strict=True) if r[1] > r[0]]
        self._ranges = [lanes_of for lanes_of, _ in used]
        self.starts = np.array([first for first, _ in self._ranges], np.int64)
        self._parts = [DeviceLaneMemory(layout, last - first, device, xlen) for (first, last), device in used]
        self.shared = self._parts[0].shared
        for part in self._parts[1:]:
            part.shared = self.shared

    def parts(self) -> list[tuple[int, DeviceLaneMemory]]:
        """(number of the first lane, memory) of each device's share."""
        return list(zip(self.starts.tolist(), self._parts, strict=True))

    def reset(self) -> None:
        self.fill()

    def _clear_own(self) -> None:
        for part in self._parts:
            part._clear_own()

    def release(self) -> None:
        for part in self._parts:
            part.release()

    def upload(self, memory: LaneMemory) -> None:
        for (first, last), part in zip(self._ranges, self._parts, strict=True):
            part.upload(memory, first, last)

    def download(self, memory: LaneMemory) -> None:
        for (first, last), part in zip(self._ranges, self._parts, strict=True):
            part.download(memory, first, last)

    # -- SpanMemory

    def _read_own(self, offset: int, size: int) -> Bytes:
        return np.concatenate([part._read_own(offset, size) for part in self._parts])

    def _write_own(self, offset: int, data: Bytes) -> None:
        for (first, last), part in zip(self._ranges, self._parts, strict=True):
            part._write_own(offset, data if data.ndim == 1 else data[first:last])

    def _by_part(
        self, lanes: NDArray[np.int64], act: Callable[[DeviceLaneMemory, NDArray[np.int64], int], None]
    ) -> None:
        """For each part with some of these lanes: which of them it has, by position, and its first lane."""
        owner = np.searchsorted(self.starts, lanes, side="right") - 1
        for k in np.unique(owner):
            act(self._parts[k], np.flatnonzero(owner == k), int(self.starts[k]))

    def _take(self, lanes: NDArray[np.int64], columns: NDArray[np.int64]) -> Bytes:
        result = np.empty(len(lanes), np.uint8)

        def take(part: DeviceLaneMemory, these: NDArray[np.int64], first: int) -> None:
            result[these] = part._take(lanes[these] - first, columns[these])

        self._by_part(lanes, take)
        return result

    def _put(self, lanes: NDArray[np.int64], columns: NDArray[np.int64], data: Bytes) -> None:
        self._by_part(lanes, lambda part, these, first: part._put(lanes[these] - first, columns[these], data[these]))

    def own_bytes(self, span: MemorySpan, lanes: Index) -> Bytes:
        wanted = np.asarray(lanes, np.int64)
        result = np.empty((len(wanted), span.size), np.uint8)

        def read(part: DeviceLaneMemory, these: NDArray[np.int64], first: int) -> None:
            result[these] = part.own_bytes(span, wanted[these] - first)

        self._by_part(wanted, read)
        return result

    def _shared_written(self, offset: int, size: int) -> None:
        for part in self._parts:
            part._shared_written(offset, size)


def device_memory(layout: MemoryLayout, lanes: int, device: str, xlen: int) -> DeviceLaneMemory | SplitLaneMemory:
    """Memory for lanes on the device or devices that `device` names. Raises `DeviceError`."""
    devices = open_devices(device)
    if len(devices) == 1:
        return DeviceLaneMemory(layout, lanes, devices[0], xlen)
    return SplitLaneMemory(layout, lanes, devices, xlen)
