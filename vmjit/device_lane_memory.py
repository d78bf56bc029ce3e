"""The lanes' memory on a device: interleaved by words within groups of 32 lanes (`kernels/device_layout.py`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vmjit.device_buffers import DeviceBuffers
from vmjit.devices.interface import Buffer, Device
from vmjit.errors import ArgumentError
from vmjit.kernels.device_layout import GROUP
from vmjit.lane_memory import LaneMemory
from vmjit.memory_layout import MemoryLayout, MemorySpan
from vmjit.span_memory import Bytes, Index, SpanMemory, span_table

# Kernels index words with 32 bits.
_MAX_PRIVATE = 1 << 32


def interleave(rows: Bytes, word: int) -> Bytes:
    """(32, n) bytes of a group's lanes as its memory has them, (32 n,); n is a multiple of `word`."""
    words = rows.reshape(GROUP, -1, word)
    return np.ascontiguousarray(words.transpose(1, 0, 2)).reshape(-1)


def deinterleave(data: Bytes, word: int) -> Bytes:
    """(groups, 32 n) bytes of memory as (32 groups, n) bytes of lanes."""
    groups = len(data)
    words = data.reshape(groups, -1, GROUP, word)
    return np.ascontiguousarray(words.transpose(0, 2, 1, 3)).reshape(groups * GROUP, -1)


class DeviceLaneMemory(SpanMemory):
    """Raises `DeviceMemoryError` where the device cannot give the memory."""

    def __init__(self, layout: MemoryLayout, lanes: int, device: Device, xlen: int) -> None:
        super().__init__(layout, lanes)
        self.device = device
        self.word = xlen // 8
        self.groups = -(-lanes // GROUP)
        if layout.private_bytes >= _MAX_PRIVATE:
            raise ArgumentError(f"a lane on {device.name} can have 4 GiB of memory, {layout.private_bytes} are wanted")
        self.pitch = layout.private_bytes * GROUP
        """Bytes from one group's memory to the next one's."""
        self.shared = np.zeros(layout.shared_bytes, np.uint8)
        table = span_table(layout).view(np.uint8).reshape(-1)
        self._buffers = DeviceBuffers(device)
        self.private: Buffer = self._buffers.allocate(self.groups * self.pitch)
        self.image: Buffer = self._buffers.allocate(layout.shared_bytes)
        self.spans: Buffer = self._buffers.allocate(len(table))
        device.copy_to(self.spans, table)
        self.fill()

    def parts(self) -> list[tuple[int, DeviceLaneMemory]]:
        """(number of the first lane, memory) of each device's share: there is one device."""
        return [(0, self)]

    def reset(self) -> None:
        """Back to the loaded program."""
        self.fill()

    def _clear_own(self) -> None:
        self.device.clear(self.private)

    def release(self) -> None:
        """Give the device its memory back now."""
        self._buffers.release()

    # -- the same memory on this computer

    def upload(self, memory: LaneMemory, first: int = 0, last: int | None = None) -> None:
        """Take over the bytes of lanes `first` to `last` - 1 of a memory with the same layout."""
        self.shared[:] = memory.shared
        self.device.copy_to(self.image, self.shared)
        given = memory.rows[first:last]
        for group in range(self.groups):
            rows = np.zeros((GROUP, self.layout.private_bytes), np.uint8)
            some = given[group * GROUP : (group + 1) * GROUP]
            rows[: len(some), : some.shape[1]] = some
            self.device.copy_to(self.private, interleave(rows, self.word), group * self.pitch)

    def download(self, memory: LaneMemory, first: int = 0, last: int | None = None) -> None:
        """Write all bytes to lanes `first` to `last` - 1 of a memory with the same layout."""
        memory.shared[:] = self.shared
        wanted = memory.rows[first:last]
        for group in range(self.groups):
            some = wanted[group * GROUP : (group + 1) * GROUP]
            some[:] = self._words(0, self.layout.private_bytes, group, 1)[: len(some), : some.shape[1]]

    # -- SpanMemory

    def _around(self, offset: int, size: int) -> tuple[int, int]:
        """The whole words around a range: (first byte, bytes)."""
        start = offset // self.word * self.word
        return start, -(-(offset + size) // self.word) * self.word - start

    def _words(self, start: int, size: int, first_group: int = 0, groups: int | None = None) -> Bytes:
        """(32 groups, size): whole words of own memory."""
        count = self.groups - first_group if groups is None else groups
        place = first_group * self.pitch + start * GROUP
        return deinterleave(self.device.copy_from(self.private, size * GROUP, place, self.pitch, count), self.word)

    def _read_own(self, offset: int, size: int) -> Bytes:
        start, count = self._around(offset, size)
        return self._words(start, count)[: self.lanes, offset - start : offset - start + size]

    def _write_own(self, offset: int, data: Bytes) -> None:
        size = data.shape[-1]
        start, count = self._around(offset, size)
        if (start, count) == (offset, size) and data.ndim == 1:
            block = interleave(np.broadcast_to(data, (GROUP, size)), self.word)
            self.device.fill(self.private, block, start * GROUP, self.pitch, self.groups)
            return
        rows = self._words(start, count)
        rows[: self.lanes, offset - start : offset - start + size] = data
        words = rows.reshape(self.groups, GROUP, -1, self.word).transpose(0, 2, 1, 3)
        block = np.ascontiguousarray(words).reshape(self.groups, -1)
        self.device.copy_to(self.private, block, start * GROUP, self.pitch)

    def _offsets(self, lanes: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
        within = columns % self.word
        return lanes // GROUP * self.pitch + (columns - within) * GROUP + lanes % GROUP * self.word + within

    def _take(self, lanes: NDArray[np.int64], columns: NDArray[np.int64]) -> Bytes:
        return self.device.gather(self.private, self._offsets(lanes, columns))

    def _put(self, lanes: NDArray[np.int64], columns: NDArray[np.int64], data: Bytes) -> None:
        self.device.scatter(self.private, self._offsets(lanes, columns), data)

    def _shared_written(self, offset: int, size: int) -> None:
        self.device.copy_to(self.image, self.shared[offset : offset + size], offset)

    def own_bytes(self, span: MemorySpan, lanes: Index) -> Bytes:
        start, count = self._around(span.offset, span.size)
        first, last = int(lanes.min()) // GROUP, int(lanes.max()) // GROUP
        rows = self._words(start, count, first, last - first + 1)
        return rows[np.asarray(lanes) - first * GROUP, span.offset - start : span.offset - start + span.size]


__all__ = ["DeviceLaneMemory", "deinterleave", "interleave"]
