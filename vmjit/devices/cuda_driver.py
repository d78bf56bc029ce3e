"""The NVIDIA driver as the CUDA back end needs it: one GPU, its primary context, one stream.

`CudaDriver` is what is needed, `NvidiaDriver` the real one; the PTX machine has another and tests have a third.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from vmjit.devices.driver_error import DriverError
from vmjit.errors import DeviceMissingError

if TYPE_CHECKING:
    from vmjit.devices.interface import Bytes

_LOG_BYTES = 16 << 10

NO_DRIVER = "no NVIDIA driver (libcuda) on this computer; GPUs work with: an NVIDIA driver"


@dataclass(frozen=True)
class GpuProperties:
    """What does not change about a GPU; 0 or "" where it is not known.

    capability: compute capability. clock: MHz. l2, memory: bytes. max_pitch: bytes between the rows of a copy.
    driver: the newest version of CUDA that the driver knows, such as 13.0.
    """

    name: str
    capability: tuple[int, int]
    multiprocessors: int = 0
    clock: int = 0
    l2: int = 0
    memory: int = 0
    warp: int = 32
    max_pitch: int = 0
    driver: str = ""


@dataclass(frozen=True)
class CudaFunction:
    """A loaded kernel. registers and local_bytes are a thread's; max_threads: the largest block it can have."""

    name: str
    handle: Any
    registers: int
    local_bytes: int
    max_threads: int


class CudaDriver(Protocol):
    """Every method may raise `DriverError`, and may be called from any thread. Addresses are the device's."""

    properties: GpuProperties

    def memory_free(self) -> int: ...

    def allocate(self, size: int) -> int:
        """The address of `size` bytes with any content."""

    def free(self, address: int) -> None: ...

    def clear(self, address: int, size: int) -> None:
        """Make bytes zero, after what was launched before."""

    def write(self, address: int, pitch: int, rows: Bytes) -> None:
        """Copy (rows, n) contiguous bytes to addresses that are `pitch` bytes apart, after what was launched."""

    def read(self, address: int, pitch: int, rows: Bytes) -> None:
        """Fill (rows, n) contiguous bytes from addresses that are `pitch` bytes apart, after what was launched."""

    def load(self, images: Sequence[bytes]) -> Any:
        """A module from what the target's `link` gave."""

    def unload(self, module: Any) -> None: ...

    def function(self, module: Any, name: str) -> CudaFunction: ...

    def resident_blocks(self, function: CudaFunction, threads: int) -> int:
        """How many blocks of so many threads a multiprocessor can hold at once."""

    def launch(self, function: CudaFunction, blocks: int, threads: int, arguments: Sequence[int]) -> None:
        """Start a kernel whose parameters are all 64 bits wide."""

    def synchronize(self) -> None:
        """Wait for what was launched."""


class NvidiaDriver:
    """The driver's API through `cuda.bindings`. Raises `DeviceMissingError` where there is nothing to drive."""

    def __init__(self, ordinal: int) -> None:
        name = f"cuda:{ordinal}"
        try:
            from cuda.bindings import driver
        except ImportError as error:
            raise DeviceMissingError(
                f'NVIDIA\'s bindings for Python: {error}; install them with: pip install "vmjit[cuda13]"', device=name
            ) from error
        self._api: Any = driver
        try:
            driver.cuInit(0)
        except RuntimeError as error:  # what the bindings raise where the library cannot be loaded
            raise DeviceMissingError(NO_DRIVER, device=name) from error
        self._call("cuInit", 0)
        count = self._call("cuDeviceGetCount")
        if ordinal >= count:
            raise DeviceMissingError(f"no {name}: the NVIDIA driver sees {count} GPUs", device=name)
        self._device = self._call("cuDeviceGet", ordinal)
        self.properties = self._properties()
        self._context = self._call("cuDevicePrimaryCtxRetain", self._device)
        with self._current():
            self._stream = self._call("cuStreamCreate", 0)

    def _call(self, name: str, *arguments: Any) -> Any:
        """The first value that a function of the API gives behind its status."""
        try:
            status, *values = getattr(self._api, name)(*arguments)
        except RuntimeError as error:  # a function that this driver is too old to have
            raise DriverError("CUDA_ERROR_NOT_SUPPORTED", str(error)) from error
        except ValueError as error:  # a status that these bindings do not know
            raise DriverError("CUDA_ERROR_UNKNOWN", str(error)) from error
        if int(status):
            raise DriverError(*self._described(status))
        return values[0] if values else None

    def _described(self, status: Any) -> tuple[str, str]:
        found = []
        for function in (self._api.cuGetErrorName, self._api.cuGetErrorString):
            failed, text = function(status)
            found.append(f"status {int(status)}" if int(failed) or text is None else text.decode(errors="replace"))
        return found[0], found[1]

    @contextlib.contextmanager
    def _current(self) -> Iterator[None]:
        """The context is this thread's current one; afterwards it is again what other users of CUDA had there."""
        self._call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self._api.cuCtxPopCurrent()

    def _properties(self) -> GpuProperties:
        kinds = self._api.CUdevice_attribute

        def attribute(name: str) -> int:
            return int(self._call("cuDeviceGetAttribute", getattr(kinds, f"CU_DEVICE_ATTRIBUTE_{name}"), self._device))

        version = int(self._call("cuDriverGetVersion"))
        return GpuProperties(
            name=self._call("cuDeviceGetName", 256, self._device).split(b"\0")[0].decode(errors="replace"),
            capability=(attribute("COMPUTE_CAPABILITY_MAJOR"), attribute("COMPUTE_CAPABILITY_MINOR")),
            multiprocessors=attribute("MULTIPROCESSOR_COUNT"),
            clock=attribute("CLOCK_RATE") // 1000,
            l2=attribute("L2_CACHE_SIZE"),
            memory=int(self._call("cuDeviceTotalMem", self._device)),
            warp=attribute("WARP_SIZE"),
            max_pitch=attribute("MAX_PITCH"),
            driver=f"{version // 1000}.{version % 1000 // 10}",
        )

    # -- memory

    def memory_free(self) -> int:
        with self._current():
            return int(self._call("cuMemGetInfo"))

    def allocate(self, size: int) -> int:
        with self._current():
            return int(self._call("cuMemAlloc", size))

    def free(self, address: int) -> None:
        with self._current():
            self._call("cuMemFree", address)

    def clear(self, address: int, size: int) -> None:
        with self._current():
            self._call("cuMemsetD8Async", address, 0, size, self._stream)

    def write(self, address: int, pitch: int, rows: Bytes) -> None:
        host = int(rows.ctypes.data)
        self._copy(rows, pitch, host=host, address=address, to_device=True)

    def read(self, address: int, pitch: int, rows: Bytes) -> None:
        host = int(rows.ctypes.data)
        self._copy(rows, pitch, host=host, address=address, to_device=False)

    def _copy(self, rows: Bytes, pitch: int, *, host: int, address: int, to_device: bool) -> None:
        """On the stream, so that it comes after launches there; waited for, since the array is the caller's."""
        count, size = rows.shape
        with self._current():
            if count > 1:
                self._call(
                    "cuMemcpy2DAsync", self._rectangle(count, size, pitch, host, address, to_device), self._stream
                )
            elif to_device:
                self._call("cuMemcpyHtoDAsync", address, host, size, self._stream)
            else:
                self._call("cuMemcpyDtoHAsync", host, address, size, self._stream)
            self._call("cuStreamSynchronize", self._stream)

    def _rectangle(self, count: int, size: int, pitch: int, host: int, address: int, to_device: bool) -> Any:
        kinds = self._api.CUmemorytype
        here, there = ("src", "dst") if to_device else ("dst", "src")
        copy = self._api.CUDA_MEMCPY2D()
        copy.WidthInBytes, copy.Height = size, count
        for end, kind, place, step in (
            (here, kinds.CU_MEMORYTYPE_HOST, "Host", size),
            (there, kinds.CU_MEMORYTYPE_DEVICE, "Device", pitch),
        ):
            setattr(copy, f"{end}MemoryType", kind)
            setattr(copy, f"{end}Pitch", step)
            setattr(copy, f"{end}{place}", host if place == "Host" else self._api.CUdeviceptr(address))
        return copy

    # -- code

    def load(self, images: Sequence[bytes]) -> Any:
        (image,) = images
        kinds = self._api.CUjit_option
        log = bytearray(_LOG_BYTES)  # what the bindings take for a `char *` to be written to
        options = [kinds.CU_JIT_ERROR_LOG_BUFFER, kinds.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES]
        with self._current():
            try:
                # PTX ends with a zero; machine code does not mind one behind it.
                return self._call("cuModuleLoadDataEx", image + b"\0", len(options), options, [log, _LOG_BYTES])
            except DriverError as error:
                told = log.partition(b"\0")[0].decode(errors="replace").strip()
                raise DriverError(error.status, error.text, told) from None

    def unload(self, module: Any) -> None:
        with self._current():
            self._call("cuModuleUnload", module)

    def function(self, module: Any, name: str) -> CudaFunction:
        kinds = self._api.CUfunction_attribute
        with self._current():
            handle = self._call("cuModuleGetFunction", module, name.encode())
            registers, local, threads = (
                int(self._call("cuFuncGetAttribute", kind, handle))
                for kind in (
                    kinds.CU_FUNC_ATTRIBUTE_NUM_REGS,
                    kinds.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES,
                    kinds.CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK,
                )
            )
        return CudaFunction(name, handle, registers, local, threads)

    def resident_blocks(self, function: CudaFunction, threads: int) -> int:
        with self._current():
            return int(self._call("cuOccupancyMaxActiveBlocksPerMultiprocessor", function.handle, threads, 0))

    def launch(self, function: CudaFunction, blocks: int, threads: int, arguments: Sequence[int]) -> None:
        parameters = (tuple(arguments), (ctypes.c_uint64,) * len(arguments))
        with self._current():
            self._call("cuLaunchKernel", function.handle, blocks, 1, 1, threads, 1, 1, 0, self._stream, parameters, 0)

    def synchronize(self) -> None:
        with self._current():
            self._call("cuStreamSynchronize", self._stream)


def count_gpus() -> int:
    """How many GPUs the driver sees, asked without the bindings, whose import takes as long as a short run.

    Raises `DeviceMissingError` where there is no driver.
    """
    try:
        api = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as error:
        raise DeviceMissingError(NO_DRIVER, device="cuda") from error
    count = ctypes.c_int(0)
    failed = api.cuInit(0) or api.cuDeviceGetCount(ctypes.byref(count))
    return 0 if failed else count.value
