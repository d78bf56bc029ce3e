"""Devices whose memory this process can address: buffers are arrays, copies are assignments."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vmjit.devices.interface import Buffer, Bytes, Device, check_offsets, check_range
from vmjit.errors import DeviceMemoryError, MemoryLimitError
from vmjit.host_memory import HostMemory


class AddressableDevice(Device):
    """Everything about memory; a subclass adds code and launches."""

    def allocate(self, size: int) -> Buffer:
        try:
            memory = HostMemory(size, sparse_unit=size)
        except MemoryLimitError as error:
            raise DeviceMemoryError(
                f"{self.name} cannot give {size} bytes of memory", device=self.name, bytes=size
            ) from error
        return Buffer(memory.address, size, memory)

    def free(self, buffer: Buffer) -> None:
        """The memory goes when the last reference to the buffer does."""

    def clear(self, buffer: Buffer) -> None:
        buffer.handle.discard()

    @staticmethod
    def array(buffer: Buffer) -> Bytes:
        """The buffer's bytes themselves."""
        array: Bytes = buffer.handle.array[: buffer.size]
        return array

    def copy_to(self, buffer: Buffer, data: Bytes, offset: int = 0, pitch: int = 0) -> None:
        rows = np.atleast_2d(data)
        self._view(buffer, rows.shape[1], offset, pitch, len(rows))[:] = rows

    def copy_from(self, buffer: Buffer, size: int, offset: int = 0, pitch: int = 0, rows: int = 1) -> Bytes:
        data: Bytes = self._view(buffer, size, offset, pitch, rows).copy()
        return data

    def _view(self, buffer: Buffer, size: int, offset: int, pitch: int, rows: int) -> Bytes:
        check_range(buffer, size, offset, pitch, rows)
        start = self.array(buffer)[offset:]
        view: Bytes = np.lib.stride_tricks.as_strided(start, (rows, size), (pitch, 1))
        return view

    def gather(self, buffer: Buffer, offsets: NDArray[np.int64]) -> Bytes:
        check_offsets(buffer, offsets)
        found: Bytes = self.array(buffer)[offsets]
        return found

    def scatter(self, buffer: Buffer, offsets: NDArray[np.int64], data: Bytes) -> None:
        check_offsets(buffer, offsets)
        self.array(buffer)[offsets] = data
