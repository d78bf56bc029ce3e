"""What devices with a driver have in common: its errors become ours, memory, copies, loaded code, and garbage."""

from __future__ import annotations

import contextlib
import gc
import weakref
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from vmjit.devices.driver_error import DriverError
from vmjit.devices.interface import Buffer, Bytes, Device, Kernel, check_range
from vmjit.errors import DeviceCopyError, DeviceError, DeviceMemoryError, KernelExecutionError, KernelLoadError

# Machines of one kind begin with the same kernel, and loading one takes milliseconds; in the PTX machine, seconds.
_KEPT_KERNELS = 8


class DrivenDevice(Device):
    """A device whose `driver` allocates, clears, reads, writes, loads and unloads; see `CudaDriver` and `HipDriver`."""

    driver: Any
    out_of_memory: ClassVar[str]
    """The driver's status for it."""
    of_kernels: ClassVar[frozenset[str]]
    """Statuses of what kernels do, whichever call it is that tells of it: errors of launches come late."""

    def _begin(self, driver: Any) -> None:
        self.driver = driver
        self._garbage: deque[Callable[[], None]] = deque()
        self._kernels: dict[tuple[str, tuple[bytes, ...]], Kernel] = {}

    @abstractmethod
    def _loaded(self, module: Any, name: str) -> Any:
        """The handle of a kernel in a module."""

    def _hint(self, status: str) -> str:
        """What to do about a status, if anything is known to help."""
        return ""

    def _max_pitch(self) -> int:
        """The most bytes between the rows of one copy; 0: any."""
        return 0

    # -- failures

    @contextlib.contextmanager
    def _failing_as(self, kind: type[DeviceError], what: str, **details: Any) -> Iterator[None]:
        """The driver's errors inside become this error, or what their status is one of by itself."""
        try:
            yield
        except DriverError as error:
            if error.status == self.out_of_memory:
                kind = DeviceMemoryError
            elif error.status in self.of_kernels:
                kind = KernelExecutionError
            hint = self._hint(error.status)
            message = f"{self.name}: {what}: {error.told()}{f'; {hint}' if hint else ''}"
            raise kind(message, device=self.name, status=error.status, log=error.log, **details) from error

    # -- memory

    def allocate(self, size: int) -> Buffer:
        self._sweep()
        with self._failing_as(DeviceMemoryError, f"cannot give {size} bytes of memory", bytes=size):
            try:
                address = self.driver.allocate(max(size, 1))
            except DriverError:
                gc.collect()  # machines are in cycles: some may be waiting for it
                self._sweep()
                address = self.driver.allocate(max(size, 1))
            # Freed by `_sweep` when nobody has the buffer any more: garbage may be collected in the middle of a call.
            owner = Owner(partial(self.driver.free, address), self._garbage)
            self.driver.clear(address, max(size, 1))
        return Buffer(address, size, owner)

    def free(self, buffer: Buffer) -> None:
        """At once; freeing twice is freeing once."""
        with self._failing_as(DeviceMemoryError, f"cannot free {buffer.size} bytes"):
            buffer.handle.release()

    def _sweep(self) -> None:
        """Give back what is no longer used; a device that fails at it will fail at what follows."""
        while self._garbage:
            with contextlib.suppress(DriverError, IndexError):
                self._garbage.popleft()()

    def clear(self, buffer: Buffer) -> None:
        with self._failing_as(DeviceCopyError, f"cannot clear {buffer.size} bytes"):
            self.driver.clear(buffer.address, max(buffer.size, 1))

    def copy_to(self, buffer: Buffer, data: Bytes, offset: int = 0, pitch: int = 0) -> None:
        rows = np.ascontiguousarray(np.atleast_2d(data))
        count, size = rows.shape
        check_range(buffer, size, offset, pitch, count)
        with self._failing_as(DeviceCopyError, f"cannot copy {count} times {size} bytes there"):
            for start, part in self._copies(rows, pitch):
                self.driver.write(buffer.address + offset + start, pitch, part)

    def copy_from(self, buffer: Buffer, size: int, offset: int = 0, pitch: int = 0, rows: int = 1) -> Bytes:
        check_range(buffer, size, offset, pitch, rows)
        data = np.empty((rows, size), np.uint8)
        with self._failing_as(DeviceCopyError, f"cannot copy {rows} times {size} bytes back"):
            for start, part in self._copies(data, pitch):
                self.driver.read(buffer.address + offset + start, pitch, part)
        return data

    def _copies(self, rows: Bytes, pitch: int) -> Iterator[tuple[int, Bytes]]:
        """What one call of the driver can copy: everything, or row by row where they lie too far or too near."""
        if not rows.size:
            return
        limit = self._max_pitch()
        if len(rows) == 1 or (rows.shape[1] <= pitch and (not limit or pitch <= limit)):
            yield 0, rows
            return
        for row in range(len(rows)):
            yield row * pitch, rows[row : row + 1]

    # -- code

    def load(self, images: Sequence[bytes], name: str) -> Kernel:
        key = (name, tuple(images))
        kernel = self._kernels.get(key)
        if kernel is None:
            self._sweep()
            with self._failing_as(KernelLoadError, f"{name} cannot be loaded"):
                module = self.driver.load(images)
                owner = Owner(partial(self.driver.unload, module), self._garbage)
                kernel = Kernel(name, (self._loaded(module, name), owner))
            while len(self._kernels) >= _KEPT_KERNELS:
                self._kernels.pop(next(iter(self._kernels)), None)
            self._kernels[key] = kernel
        return kernel

    def synchronize(self) -> None:
        with self._failing_as(KernelExecutionError, "a kernel failed"):
            self.driver.synchronize()


class Owner:
    """Something of the device's. It is left to `garbage` when nobody has this object, unless released before."""

    def __init__(self, release: Callable[[], None], garbage: deque[Callable[[], None]]) -> None:
        self._release = release
        self._finalizer = weakref.finalize(self, garbage.append, release)
        self._finalizer.atexit = False  # the driver takes everything back by itself then

    def release(self) -> None:
        if self._finalizer.detach() is not None:
            self._release()
