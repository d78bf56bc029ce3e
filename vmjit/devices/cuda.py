"""NVIDIA GPUs: `cuda` and `cuda:0` are the first one, `cuda:1` the second.

Everything here is written against `CudaDriver`, so that the PTX machine and tests can stand in for the hardware.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vmjit.cache import cache_key, process_cache
from vmjit.devices.cuda_driver import CudaDriver, CudaFunction, NvidiaDriver
from vmjit.devices.driven import DrivenDevice
from vmjit.devices.driver_error import DriverError
from vmjit.devices.interface import (
    Buffer,
    Bytes,
    DeviceInfo,
    Kernel,
    check_offsets,
    check_range,
)
from vmjit.errors import (
    ArgumentError,
    DeviceInitializationError,
    DeviceMissingError,
    KernelExecutionError,
    KernelLoadError,
)

if TYPE_CHECKING:
    from vmjit.translators.cuda import PtxTarget

_NAME = re.compile(r"cuda(?::([0-9]{1,3}))?")

# Elements that one launch of a copy kernel is given; its scratch memory has 9 bytes for each.
_COPIED_AT_ONCE = 1 << 20

_MAX_BLOCK = 1024

_ABSENT = {"CUDA_ERROR_NO_DEVICE", "CUDA_ERROR_INVALID_DEVICE", "CUDA_ERROR_STUB_LIBRARY"}

_OF_KERNELS = frozenset(
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
)

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


class CudaDevice(DrivenDevice):
    """One GPU. `open_driver` is called with its ordinal.

    Raises `ArgumentError` for a name of no GPU, `DeviceMissingError` and `DeviceInitializationError`.
    """

    kind = "cuda"
    target: PtxTarget
    driver: CudaDriver
    out_of_memory = "CUDA_ERROR_OUT_OF_MEMORY"
    of_kernels = _OF_KERNELS

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
            raise kind(f"{self.name}: {error.told()}", device=self.name, status=error.status) from error
        self._set_up(driver, partial(_target_for, driver.properties.capability))

    def _set_up(self, driver: CudaDriver, make_target: Callable[[], PtxTarget]) -> None:
        self._begin(driver)
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

    def _hint(self, status: str) -> str:
        return _HINTS.get(status, "").format(
            driver=self.driver.properties.driver, cuda12='"vmjit[cuda12]"', cuda13='"vmjit[cuda13]"'
        )

    def _max_pitch(self) -> int:
        return self.driver.properties.max_pitch

    # -- memory

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

    def _loaded(self, module: Any, name: str) -> _Loaded:
        return _Loaded(self.driver.function(module, name))

    def launch_shape(self, kernel: Kernel, threads: int) -> tuple[int, int]:
        """(blocks, threads of a block) with which the kernel is started for so many threads."""
        loaded: _Loaded = kernel.handle[0]
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
            self.driver.launch(kernel.handle[0].function, blocks, block, arguments)


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
    resident: dict[int, int] = field(default_factory=dict)


def _array(buffer: Buffer, word: int = 1) -> tuple[int, ...]:
    """A buffer as Numba passes an array: two owners, elements, their size, address, shape, strides."""
    count = buffer.size // word
    return (0, 0, count, word, buffer.address, count, word)


def _target_for(capability: tuple[int, int]) -> PtxTarget:
    """Raises ImportError where there is no compiler, ValueError where it does not know such a GPU."""
    from vmjit.translators.cuda import CudaTarget, closest_capability

    closest = closest_capability(capability)
    # Machine code runs on its own generation from its own number on; PTX on every later GPU.
    return CudaTarget("sm_{}{}".format(*closest), machine_code=closest[0] == capability[0])
