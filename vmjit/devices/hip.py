"""AMD GPUs: `hip` and `hip:0` are the first one, `hip:1` the second.

Code objects come from LLVM offline (`translators/hip.py`) and are loaded through numba-hip's driver. Everything here is
written against `HipDriver` and tested with one in host memory; it has not run on AMD hardware yet.
"""

from __future__ import annotations

import contextlib
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.devices.hip_driver import HipDriver, HipError, NumbaHipDriver
from vmjit.devices.interface import (
    Buffer,
    Bytes,
    Device,
    DeviceInfo,
    DeviceTarget,
    Kernel,
    check_offsets,
    check_range,
)
from vmjit.errors import (
    ArgumentError,
    DeviceCopyError,
    DeviceError,
    DeviceInitializationError,
    DeviceMemoryError,
    KernelExecutionError,
    KernelLoadError,
)
from vmjit.translators.hip import GATHER, SCATTER, THREADS_PER_BLOCK, HipTarget

_NAME = re.compile(r"hip(?::([0-9]{1,3}))?")

_KEPT_KERNELS = 8

# What a kernel did, whichever call it is that tells of it: errors of launches come late.
_OF_KERNELS = {
    f"hipError{name}"
    for name in ("Assert", "ECCNotCorrectable", "IllegalAddress", "LaunchFailure", "LaunchTimeOut", "Unknown")
}


class HipDevice(Device):
    """One GPU. `open_driver` is called with its ordinal.

    Raises `ArgumentError` for a name of no GPU, `DeviceMissingError` and `DeviceInitializationError`.
    """

    def __init__(self, name: str = "hip", *, open_driver: Callable[[int], HipDriver] = NumbaHipDriver) -> None:
        found = _NAME.fullmatch(name)
        if found is None:
            raise ArgumentError(f"no device {name!r}; there are hip, hip:0, hip:1, …")
        self.name = f"hip:{int(found[1] or 0)}"
        with self._failing_as(DeviceInitializationError, "cannot be opened"):
            self.driver = open_driver(int(found[1] or 0))
        self._hip_target = HipTarget(self.driver.properties.architecture, self.driver.properties.wavefront)
        self.target: DeviceTarget = self._hip_target
        self._kernels: dict[tuple[str, tuple[bytes, ...]], Kernel] = {}

    def info(self) -> DeviceInfo:
        known = self.driver.properties
        with self._failing_as(DeviceInitializationError, "cannot be asked"):
            free = self.driver.memory_free()
        return DeviceInfo(
            name=known.name,
            kind="hip",
            architecture=known.architecture,
            memory_total=known.memory,
            memory_free=free,
            multiprocessors=known.multiprocessors,
            clock=known.clock,
            l2=known.l2,
            lockstep=known.wavefront,
        )

    @contextlib.contextmanager
    def _failing_as(self, kind: type[DeviceError], what: str, **details: Any) -> Iterator[None]:
        """The driver's errors inside become this error, or what their status is one of by itself."""
        try:
            yield
        except HipError as error:
            if error.status == "hipErrorOutOfMemory":
                kind = DeviceMemoryError
            elif error.status in _OF_KERNELS:
                kind = KernelExecutionError
            raise kind(f"{self.name}: {what}: {error}", device=self.name, status=error.status, **details) from error

    # -- memory

    def allocate(self, size: int) -> Buffer:
        with self._failing_as(DeviceMemoryError, f"cannot give {size} bytes of memory", bytes=size):
            address = self.driver.allocate(max(size, 1))
            owner = _Owned(self.driver.free, address)
            self.driver.clear(address, max(size, 1))
        return Buffer(address, size, owner)

    def free(self, buffer: Buffer) -> None:
        """At once; freeing twice is freeing once. A buffer that nobody has any more is freed by itself."""
        with self._failing_as(DeviceMemoryError, f"cannot free {buffer.size} bytes"):
            buffer.handle.release()

    def clear(self, buffer: Buffer) -> None:
        with self._failing_as(DeviceCopyError, f"cannot clear {buffer.size} bytes"):
            self.driver.clear(buffer.address, max(buffer.size, 1))

    def copy_to(self, buffer: Buffer, data: Bytes, offset: int = 0, pitch: int = 0) -> None:
        rows = np.ascontiguousarray(np.atleast_2d(data))
        check_range(buffer, rows.shape[1], offset, pitch, len(rows))
        with self._failing_as(DeviceCopyError, f"cannot copy {rows.size} bytes there"):
            for start, part in _copies(rows, pitch):
                self.driver.write(buffer.address + offset + start, pitch, part)

    def copy_from(self, buffer: Buffer, size: int, offset: int = 0, pitch: int = 0, rows: int = 1) -> Bytes:
        data = np.empty((rows, size), np.uint8)
        check_range(buffer, size, offset, pitch, rows)
        with self._failing_as(DeviceCopyError, f"cannot copy {data.size} bytes back"):
            for start, part in _copies(data, pitch):
                self.driver.read(buffer.address + offset + start, pitch, part)
        return data

    def gather(self, buffer: Buffer, offsets: NDArray[np.int64]) -> Bytes:
        check_offsets(buffer, offsets)
        if not len(offsets):
            return np.empty(0, np.uint8)
        there = self.allocate(len(offsets))
        self._copy_by_offsets(GATHER, buffer, offsets, there)
        return self.copy_from(there, len(offsets)).reshape(-1)

    def scatter(self, buffer: Buffer, offsets: NDArray[np.int64], data: Bytes) -> None:
        check_offsets(buffer, offsets)
        if not len(offsets):
            return
        there = self.allocate(len(offsets))
        self.copy_to(there, np.ascontiguousarray(data, np.uint8))
        self._copy_by_offsets(SCATTER, buffer, offsets, there)
        self.synchronize()

    def _copy_by_offsets(self, name: str, buffer: Buffer, offsets: NDArray[np.int64], data: Buffer) -> None:
        places = self.allocate(8 * len(offsets))
        self.copy_to(places, np.ascontiguousarray(offsets, np.int64).view(np.uint8))
        block = self.allocate(32)
        values = np.array([buffer.address, places.address, data.address, len(offsets)], np.uint64)
        self.copy_to(block, values.view(np.uint8))
        kernel = self.load(self._hip_target.copy_kernel(name), name)
        self.launch(kernel, len(offsets), block.address)
        self.synchronize()  # before its arguments are freed

    # -- code

    def load(self, images: Sequence[bytes], name: str) -> Kernel:
        key = (name, tuple(images))
        kernel = self._kernels.get(key)
        if kernel is None:
            (image,) = images
            with self._failing_as(KernelLoadError, f"{name} cannot be loaded"):
                module = self.driver.load(image)
                kernel = Kernel(name, (self.driver.function(module, name), _Owned(self.driver.unload, module)))
            while len(self._kernels) >= _KEPT_KERNELS:
                self._kernels.pop(next(iter(self._kernels)), None)
            self._kernels[key] = kernel
        return kernel

    def launch(self, kernel: Kernel, threads: int, argument: int) -> None:
        """In groups of the size that the kernels were compiled for: their registers are given out by it."""
        function, _ = kernel.handle
        with self._failing_as(KernelExecutionError, f"{kernel.name} cannot be started"):
            self.driver.launch(function, -(-threads // THREADS_PER_BLOCK), THREADS_PER_BLOCK, argument)

    def synchronize(self) -> None:
        with self._failing_as(KernelExecutionError, "a kernel failed"):
            self.driver.synchronize()


class _Owned:
    """Something of the driver's, given back when nobody has this object any more, or before."""

    def __init__(self, give_back: Callable[[Any], None], what: Any) -> None:
        self._finalizer = weakref.finalize(self, _quietly, give_back, what)
        self._finalizer.atexit = False  # the runtime takes everything back by itself then
        self._give_back, self._what = give_back, what

    def release(self) -> None:
        if self._finalizer.detach() is not None:
            self._give_back(self._what)


def _quietly(give_back: Callable[[Any], None], what: Any) -> None:
    """A device that fails here will fail at what follows."""
    with contextlib.suppress(HipError):
        give_back(what)


def _copies(rows: Bytes, pitch: int) -> Iterator[tuple[int, Bytes]]:
    """What one call of the driver can copy: everything, or row by row where rows overlap."""
    if not rows.size:
        return
    if len(rows) == 1 or rows.shape[1] <= pitch:
        yield 0, rows
        return
    for row in range(len(rows)):
        yield row * pitch, rows[row : row + 1]
