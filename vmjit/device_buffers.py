"""Device memory that belongs to an object of this process."""

from __future__ import annotations

import contextlib

from vmjit.devices.interface import Buffer, Device
from vmjit.errors import DeviceError


class DeviceBuffers:
    """Allocates from `device` and remembers what can be given back at once.

    A buffer that nobody has any more is given back by its device in its own time, so that nothing needs to be done
    where an object is just forgotten.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._buffers: dict[int, Buffer] = {}

    def allocate(self, size: int) -> Buffer:
        """`size` zero bytes, at least one. Raises `DeviceMemoryError`."""
        buffer = self.device.allocate(max(size, 1))
        self._buffers[buffer.address] = buffer
        return buffer

    def free(self, buffer: Buffer) -> None:
        self.device.free(self._buffers.pop(buffer.address))

    def release(self) -> None:
        """Give everything back now. A device that is lost has nothing to take."""
        while self._buffers:
            with contextlib.suppress(DeviceError):
                self.device.free(self._buffers.popitem()[1])
