"""NVIDIA GPUs: `cuda` and `cuda:0` are the first one, `cuda:1` the second.

Everything here is written against `CudaDriver`, so that the PTX machine and tests can stand in for the hardware.
"""

from __future__ import annotations

import contextlib
import gc
import re
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vmjit.cache import cache_key, process_cache
from vmjit.devices.cuda_driver import CudaDriver, CudaFunction, DriverError, NvidiaDriver
from vmjit.devices.interface import (
    Buffer,
    Bytes,
    Device,
    DeviceInfo,
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
    DeviceMissingError,
    KernelExecutionError,
    KernelLoadError,
)

if TYPE_CHECKING:
    from vmjit.translators.cuda import PtxTarget

_NAME = re.compile(r"cuda(?::([0-9]{1,3}))?")

# Machines of one kind begin with the same kernel, and loading one takes milliseconds; in the PTX machine, seconds.
_KEPT_KERNELS = 8

# Elements that one launch of a copy kernel is given; its scratch memory has 9 bytes for each.
_COPIED_AT_ONCE = 1 << 20

_MAX_BLOCK = 1024

_ABSENT = {"CUDA_ERROR_NO_DEVICE", "CUDA_ERROR_INVALID_DEVICE", "CUDA_ERROR_STUB_LIBRARY"}

# What kernels do, whichever call it is that tells of it: errors of launches come late.
_OF_KERNELS = {
    f"CUDA_ERROR_{name}"
    for name in (
        "ASSERT",
        "ECC_UNCORRECTABLE",
        "HARDWARE_STACK_ERROR",
        "ILLEGAL_ADDRESS",
        "ILLEGAL_INSTRUCTION",
        "INVALID_ADDRESS_SPACE",
        "INVALID_PC",
        "LAUNCH_FAILED",
        "LAUNCH_TIMEOUT",
        "MISALIGNED_ADDRESS",
    )
}

_UPDATE = "the driver knows CUDA {driver}; update it, or install an older compiler with: pip install {cuda12}"
_HINTS = {
    "CUDA_ERROR_UNSUPPORTED_PTX_VERSION": _UPDATE,
    "CUDA_ERROR_NO_BINARY_FOR_GPU": _UPDATE,
    "CUDA_ERROR_INVALID_IMAGE": "the code is damaged or for a newer driver: " + _UPDATE,
    "CUDA_ERROR_JIT_COMPILER_NOT_FOUND": "the driver has no compiler; install one with: pip install {cuda13}",
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": "the driver's library and its kernel module differ; restart the computer",
    "CUDA_ERROR_LAUNCH_TIMEOUT": "a watchdog of the display's GPU ended it",
    "CUDA_ERROR_DEVICE_UNAVAILABLE": "another process has the GPU for itself, or it was lost",
}


class CudaDevice(Device):
    """One GPU. `open_driver` is called with its ordinal.

    Raises `ArgumentError` for a name of no GPU, `DeviceMissingError` and `DeviceInitializationError`.
    """

    kind = "cuda"
    target: PtxTarget

    def __init__(self, name: str = "cuda", *, open_driver: Callable[[int], CudaDriver] = NvidiaDriver) -> None:
        found = _NAME.fullmatch(name)
        if found is None:
            raise ArgumentError(f"no device {name!r}; there are cuda, cuda:0, cuda:1, …")
        ordinal = int(found[1] or 0)
        self.name = f"cuda:{ordinal}"
        try:
            driver = open_driver(ordinal)
        except DriverError as error:
            kind = DeviceMissingError if error.status in _ABSENT else DeviceInitializationError
            raise kind(f"{self.name}: {_told(error)}", device=self.name, status=error.status) from error
        self._set_up(driver, partial(_target_for, driver.properties.capability))

    def _set_up(self, driver: CudaDriver, make_target: Callable[[], PtxTarget]) -> None:
        self.driver = driver
        try:
            self.target = make_target()
        except ImportError as error:
            raise DeviceMissingError(
                f"the device {self.name!r} compiles for CUDA, and {error}; "
                'install what is missing with: pip install "vmjit[cuda13]"',
                device=self.name,
            ) from error
        except ValueError as error:
            raise DeviceInitializationError(f"{self.name}: {error}", device=self.name) from error
        self._garbage: deque[Callable[[], None]] = deque()
        self._kernels: dict[tuple[str, tuple[bytes, ...]], Kernel] = {}
        self._copying = threading.RLock()
        self._copy_kernels: dict[str, Kernel] = {}
        self._scratch: Buffer | None = None

    def info(self) -> DeviceInfo:
        known = self.driver.properties
        with self._failing_as(DeviceInitializationError, "cannot be asked"):
            free = self.driver.memory_free()
        return DeviceInfo(
            name=known.name,
            kind=self.kind,
            architecture="sm_{}{}".format(*known.capability),
            memory_total=known.memory,
            memory_free=free,
            multiprocessors=known.multiprocessors,
            clock=known.clock,
            l2=known.l2,
            lockstep=known.warp,
        )

    # -- failures

    @contextlib.contextmanager
    def _failing_as(self, kind: type[DeviceError], what: str, **details: Any) -> Iterator[None]:
        """The driver's errors inside become this error, or what their status is one of by itself."""
        try:
            yield
        except DriverError as error:
            if error.status == "CUDA_ERROR_OUT_OF_MEMORY":
                kind = DeviceMemoryError
            elif error.status in _OF_KERNELS:
                kind = KernelExecutionError
            hint = _HINTS.get(error.status, "").format(
                driver=self.driver.properties.driver, cuda12='"vmjit[cuda12]"', cuda13='"vmjit[cuda13]"'
            )
            message = f"{self.name}: {what}: {_told(error)}{f'; {hint}' if hint else ''}"
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
            owner = _Owner(partial(self.driver.free, address), self._garbage)
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
        limit = self.driver.properties.max_pitch
        if len(rows) == 1 or (rows.shape[1] <= pitch and (not limit or pitch <= limit)):
            yield 0, rows
            return
        for row in range(len(rows)):
            yield row * pitch, rows[row : row + 1]

    def gather(self, buffer: Buffer, offsets: NDArray[np.int64]) -> Bytes:
        check_offsets(buffer, offsets)
        found = np.empty(len(offsets), np.uint8)
        with self._copying:
            for part, places, data in self._parts(offsets):
                self._run_copy("vmjit_gather", data.size, _array(buffer), _array(places, 8), _array(data))
                found[part] = self.copy_from(data, data.size)[0]
        return found

    def scatter(self, buffer: Buffer, offsets: NDArray[np.int64], data: Bytes) -> None:
        check_offsets(buffer, offsets)
        with self._copying:
            for part, places, there in self._parts(offsets):
                self.copy_to(there, np.asarray(data)[part])
                self._run_copy("vmjit_scatter", there.size, _array(buffer), _array(places, 8), _array(there))

    def fill(self, buffer: Buffer, data: Bytes, offset: int, pitch: int, rows: int) -> None:
        check_range(buffer, len(data), offset, pitch, rows)
        if not len(data) or rows < 2 or (len(data) | offset | pitch) % 8 or len(data) > _COPIED_AT_ONCE:
            super().fill(buffer, data, offset, pitch, rows)
            return
        with self._copying:
            pattern = self._part_of_scratch(0, len(data))
            self.copy_to(pattern, data)
            numbers = (offset // 8, pitch // 8, rows)
            self._run_copy("vmjit_fill", rows * len(data) // 8, _array(buffer, 8), _array(pattern, 8), numbers)

    def _parts(self, offsets: NDArray[np.int64]) -> Iterator[tuple[slice, Buffer, Buffer]]:
        """Pieces of the offsets, each with scratch memory that holds them, and some for its bytes."""
        for start in range(0, len(offsets), _COPIED_AT_ONCE):
            part = slice(start, start + _COPIED_AT_ONCE)
            piece = np.ascontiguousarray(offsets[part], np.int64)
            places = self._part_of_scratch(_COPIED_AT_ONCE, piece.nbytes)
            self.copy_to(places, piece.view(np.uint8))
            yield part, places, self._part_of_scratch(0, len(piece))

    def _part_of_scratch(self, start: int, size: int) -> Buffer:
        if self._scratch is None:
            self._scratch = self.allocate(9 * _COPIED_AT_ONCE)
        return Buffer(self._scratch.address + start, size, None)

    def _run_copy(self, name: str, threads: int, *arguments: Sequence[int]) -> None:
        if name not in self._copy_kernels:
            self._copy_kernels[name] = self._load_copy_kernel(name)
        self._start(self._copy_kernels[name], threads, [number for part in arguments for number in part])

    def _load_copy_kernel(self, name: str) -> Kernel:
        cache = process_cache()
        key = cache_key("copy kernel", (name, *self.target.identity))

        def image() -> bytes:
            return cache.image(key, f"the copy kernel {name}", partial(self.target.copy_kernel, name))

        try:
            return self.load([image()], name)
        except KernelLoadError:
            cache.disk.remove(key)  # damaged in a way that only the driver sees: made anew
            return self.load([image()], name)

    # -- code

    def load(self, images: Sequence[bytes], name: str) -> Kernel:
        key = (name, tuple(images))
        kernel = self._kernels.get(key)
        if kernel is None:
            self._sweep()
            with self._failing_as(KernelLoadError, f"{name} cannot be loaded"):
                module = self.driver.load(images)
                owner = _Owner(partial(self.driver.unload, module), self._garbage)
                kernel = Kernel(name, _Loaded(self.driver.function(module, name), owner))
            while len(self._kernels) >= _KEPT_KERNELS:
                self._kernels.pop(next(iter(self._kernels)), None)
            self._kernels[key] = kernel
        return kernel

    def launch_shape(self, kernel: Kernel, threads: int) -> tuple[int, int]:
        """(blocks, threads of a block) with which the kernel is started for so many threads."""
        loaded: _Loaded = kernel.handle
        known = self.driver.properties

        def resident(block: int) -> int:
            if block not in loaded.resident:
                loaded.resident[block] = self.driver.resident_blocks(loaded.function, block)
            return max(known.multiprocessors, 1) * loaded.resident[block] * block

        most = min(loaded.function.max_threads, _MAX_BLOCK)
        block = block_size(threads, resident, known.warp, most)
        return -(-threads // block), block

    def launch(self, kernel: Kernel, threads: int, argument: int) -> None:
        self._start(kernel, threads, [argument])

    def _start(self, kernel: Kernel, threads: int, arguments: Sequence[int]) -> None:
        with self._failing_as(KernelExecutionError, f"{kernel.name} cannot be started"):
            blocks, block = self.launch_shape(kernel, threads)
            self.driver.launch(kernel.handle.function, blocks, block, arguments)

    def synchronize(self) -> None:
        with self._failing_as(KernelExecutionError, "a kernel failed"):
            self.driver.synchronize()


def block_size(threads: int, resident: Callable[[int], int], warp: int, most: int) -> int:
    """The smallest block with which all threads are on the device at once, or else the one with most there.

    Small blocks spread evenly over the multiprocessors and end one by one. `resident` gives the threads that the device
    holds at once in blocks of a size.
    """
    sizes = []
    size = warp
    while size <= most:
        sizes.append((size, resident(size)))
        size *= 2
    for size, there in sizes:
        if there >= threads:
            return size
    return max(sizes, key=lambda found: (found[1], -found[0]))[0] if sizes else most


@dataclass
class _Loaded:
    """A kernel's handle. `resident`: by block size, the blocks that a multiprocessor holds."""

    function: CudaFunction
    owner: _Owner
    resident: dict[int, int] = field(default_factory=dict)


class _Owner:
    """Something of the device's. It is left to `garbage` when nobody has this object, unless released before."""

    def __init__(self, release: Callable[[], None], garbage: deque[Callable[[], None]]) -> None:
        self._release = release
        self._finalizer = weakref.finalize(self, garbage.append, release)
        self._finalizer.atexit = False  # the driver takes everything back by itself then

    def release(self) -> None:
        if self._finalizer.detach() is not None:
            self._release()


def _array(buffer: Buffer, word: int = 1) -> tuple[int, ...]:
    """A buffer as Numba passes an array: two owners, elements, their size, address, shape, strides."""
    count = buffer.size // word
    return (0, 0, count, word, buffer.address, count, word)


def _told(error: DriverError) -> str:
    first_line = error.log.partition("\n")[0]
    return f"{error.status} ({error.text})" + (f": {first_line}" if first_line else "")


def _target_for(capability: tuple[int, int]) -> PtxTarget:
    """Raises ImportError where there is no compiler, ValueError where it does not know such a GPU."""
    from vmjit.translators.cuda import CudaTarget, closest_capability

    closest = closest_capability(capability)
    # Machine code runs on its own generation from its own number on; PTX on every later GPU.
    return CudaTarget("sm_{}{}".format(*closest), machine_code=closest[0] == capability[0])
