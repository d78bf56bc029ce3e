"""AMD's HIP runtime as the HIP back end needs it: one GPU, through the bindings that numba-hip drives it with.

`HipDriver` is what is needed, `NumbaHipDriver` the real one; tests have another. It has been written against the source
of numba-hip 0.2.1 and has not run on AMD hardware yet.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any, Protocol

from vmjit.devices.driver_error import DriverError
from vmjit.errors import DeviceMissingError

if TYPE_CHECKING:
    from vmjit.devices.interface import Bytes


@dataclass(frozen=True)
class HipProperties:
    """What does not change about a GPU; `architecture` is a gfx name, clock MHz, l2 and memory bytes."""

    name: str
    architecture: str
    multiprocessors: int
    clock: int
    l2: int
    memory: int
    wavefront: int


class HipDriver(Protocol):
    """Every method may raise `DriverError`. Addresses are the device's; work is done in the order of the calls."""

    properties: HipProperties

    def memory_free(self) -> int: ...

    def allocate(self, size: int) -> int: ...

    def free(self, address: int) -> None: ...

    def clear(self, address: int, size: int) -> None: ...

    def write(self, address: int, pitch: int, rows: Bytes) -> None:
        """Copy (rows, n) contiguous bytes to addresses that are `pitch` >= n bytes apart."""

    def read(self, address: int, pitch: int, rows: Bytes) -> None:
        """Fill (rows, n) contiguous bytes from addresses that are `pitch` >= n bytes apart."""

    def load(self, images: Sequence[bytes]) -> Any:
        """A module from what the target's `link` gave: one code object."""

    def unload(self, module: Any) -> None: ...

    def function(self, module: Any, name: str) -> Any: ...

    def launch(self, function: Any, groups: int, items: int, argument: int) -> None: ...

    def synchronize(self) -> None: ...


class NumbaHipDriver:
    """numba-hip's driver object, whose attributes are the runtime's functions.

    Raises `DeviceMissingError` where there is nothing to drive.
    """

    def __init__(self, ordinal: int) -> None:
        name = f"hip:{ordinal}"
        try:
            from numba.hip.hipdrv.driver import driver
        except Exception as error:  # numba-hip looks for ROCm when it is imported, and fails in many ways without it
            raise _missing(name, error) from error
        self._api: Any = driver
        self._ordinal = ordinal
        if not driver.is_available:
            why = " ".join(str(driver.initialization_error).split())
            raise DeviceMissingError(f"no {name}: {why}; AMD GPUs work with: a ROCm installation", device=name)
        count = int(self._call("hipGetDeviceCount"))
        if ordinal >= count:
            raise DeviceMissingError(f"no {name}: the HIP runtime sees {count} GPUs", device=name)
        self.properties = self._properties()

    def _call(self, name: str, *arguments: Any) -> Any:
        """What a function gives behind its status. The runtime's current device belongs to the thread."""
        try:
            if name not in ("hipSetDevice", "hipGetDeviceCount"):
                self._api.hipSetDevice(self._ordinal)
            return getattr(self._api, name)(*arguments)
        except Exception as error:  # HipAPIError of numba-hip, and what its bindings raise for arguments
            status = getattr(getattr(error, "code", None), "name", type(error).__name__)
            raise DriverError(str(status), str(error)) from error

    def _properties(self) -> HipProperties:
        found = self._call("hipGetDeviceProperties", self._ordinal)
        return HipProperties(
            name=_text(found.name),
            architecture=_text(found.gcnArchName).partition(":")[0],
            multiprocessors=int(found.multiProcessorCount),
            clock=int(found.clockRate) // 1000,
            l2=int(found.l2CacheSize),
            memory=int(found.totalGlobalMem),
            wavefront=int(found.warpSize),
        )

    def memory_free(self) -> int:
        free, _ = self._call("hipMemGetInfo")
        return int(free)

    def allocate(self, size: int) -> int:
        return int(self._call("hipMalloc", size))

    def free(self, address: int) -> None:
        self._call("hipFree", address)

    def clear(self, address: int, size: int) -> None:
        self._call("hipMemset", address, 0, size)

    def write(self, address: int, pitch: int, rows: Bytes) -> None:
        count, size = rows.shape
        kind = self._kind("hipMemcpyHostToDevice")
        self._call("hipMemcpy2D", address, max(pitch, size), int(rows.ctypes.data), size, size, count, kind)

    def read(self, address: int, pitch: int, rows: Bytes) -> None:
        count, size = rows.shape
        kind = self._kind("hipMemcpyDeviceToHost")
        self._call("hipMemcpy2D", int(rows.ctypes.data), size, address, max(pitch, size), size, count, kind)

    @staticmethod
    def _kind(name: str) -> Any:
        return getattr(import_module("rocm.bindings.hip").hipMemcpyKind, name)

    def load(self, images: Sequence[bytes]) -> Any:
        (image,) = images
        return self._call("hipModuleLoadData", image)

    def unload(self, module: Any) -> None:
        self._call("hipModuleUnload", module)

    def function(self, module: Any, name: str) -> Any:
        return self._call("hipModuleGetFunction", module, name.encode())

    def launch(self, function: Any, groups: int, items: int, argument: int) -> None:
        value = ctypes.c_uint64(argument)
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(value))
        shape = (groups, 1, 1, items, 1, 1)
        self._call("hipModuleLaunchKernel", function, *shape, 0, 0, ctypes.addressof(parameters), 0)

    def synchronize(self) -> None:
        self._call("hipDeviceSynchronize")


def count_gpus() -> int:
    """How many GPUs the runtime sees. Raises `DeviceMissingError` where there is nothing to drive any."""
    if not _is_installed():  # known at once, where importing numba-hip would take a while to fail
        raise _missing("hip", ImportError("numba-hip is not installed"))
    driver = NumbaHipDriver(0)
    return int(driver._call("hipGetDeviceCount"))


@lru_cache(maxsize=1)
def _is_installed() -> bool:
    try:
        metadata.version("numba-hip")
    except metadata.PackageNotFoundError:
        return False
    return True


def _missing(name: str, error: Exception) -> DeviceMissingError:
    return DeviceMissingError(
        f"the device {name!r} needs numba-hip and a ROCm installation, and {error or type(error).__name__}; "
        'install numba-hip into an environment of its own with: pip install "vmjit[rocm]"',
        device=name,
    )


def _text(value: Any) -> str:
    return value.split(b"\0")[0].decode(errors="replace") if isinstance(value, bytes) else str(value)
