"""Device memory that belongs to an object of this process, and goes when the object does."""

from __future__ import annotations

import contextlib
import weakref

from vmjit.devices.interface import Buffer, Device
from vmjit.errors import DeviceError


class DeviceBuffers:
    """Allocates from `device` and remembers what is to be given back."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._buffers: dict[int, Buffer] = {}
        self._finalizer = weakref.finalize(self, _free_all, device, self._buffers)
        self._finalizer.atexit = False  # the process's end frees everything

    def allocate(self, size: int) -> Buffer:
        """`size` zero bytes, at least one. Raises `DeviceMemoryError`."""
        buffer = self.device.allocate(max(size, 1))
        self._buffers[buffer.address] = buffer
        return buffer

    def free(self, buffer: Buffer) -> None:
        self.device.free(self._buffers.pop(buffer.address))

    def release(self) -> None:
        """Give everything back now. A device that is lost has nothing to take."""
        self._finalizer()


def _free_all(device: Device, buffers: dict[int, Buffer]) -> None:
    while buffers:
        with contextlib.suppress(DeviceError):
            device.free(buffers.popitem()[1])
