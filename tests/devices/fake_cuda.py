"""A stand-in for the NVIDIA driver: the PTX machine with the numbers of some GPU, and with faults on order."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vmjit.devices.cuda import CudaDevice
from vmjit.devices.cuda_driver import CudaFunction, GpuProperties
from vmjit.devices.driver_error import DriverError
from vmjit.devices.interface import Bytes
from vmjit.devices.ptx import COPY_KERNELS
from vmjit.devices.ptx_driver import PtxDriver
from vmjit.ptx import DeviceMemory, Module
from vmjit.translators.cuda import CudaTarget

CUBIN = b"\x7fELF"


def sealed(ptx: bytes) -> bytes:
    """What stands for the machine code of a PTX text: damage to it is noticed."""
    return CUBIN + hashlib.sha256(ptx).digest() + ptx


# One machine serves all drivers of a test run: what it has compiled of a kernel, which takes seconds, is kept.
_MACHINE = DeviceMemory()
_LOCK = threading.RLock()
_MODULES: dict[tuple[bytes, ...], Module] = {}


@dataclass(frozen=True)
class Gpu:
    """What a GPU has. registers, threads, blocks: what a multiprocessor holds at once."""

    name: str = "Fake GPU"
    capability: tuple[int, int] = (9, 0)
    multiprocessors: int = 4
    registers: int = 65536
    threads: int = 2048
    blocks: int = 32
    memory: int = 1 << 34
    max_pitch: int = (1 << 31) - 1
    driver: str = "13.0"
    kernel_registers: int = 96


@dataclass
class Fault:
    """The `number`-th call of an operation, and with `for_good` every call of anything from then on, has a status."""

    operation: str
    number: int
    status: str
    for_good: bool = False


@dataclass
class Launch:
    name: str
    blocks: int
    threads: int
    arguments: tuple[int, ...]


@dataclass
class _Log:
    calls: Counter[str] = field(default_factory=Counter)
    launches: list[Launch] = field(default_factory=list)
    live: dict[int, int] = field(default_factory=dict)  # address -> bytes
    modules: int = 0


class FakeCuda(PtxDriver):
    """`log` says what was called; `faults` may be changed at any time."""

    def __init__(self, gpu: Gpu | None = None, faults: Sequence[Fault] = (), engine: str = "auto") -> None:
        self.gpu = gpu or Gpu()
        super().__init__(self.gpu.capability, engine, at_once=COPY_KERNELS)
        self._machine, self._lock = _MACHINE, _LOCK
        self.properties = GpuProperties(
            name=self.gpu.name,
            capability=self.gpu.capability,
            multiprocessors=self.gpu.multiprocessors,
            clock=1980,
            l2=50 << 20,
            memory=self.gpu.memory,
            max_pitch=self.gpu.max_pitch,
            driver=self.gpu.driver,
        )
        self.faults = list(faults)
        self.log = _Log()
        self._gone = ""

    def _meet(self, operation: str) -> None:
        self.log.calls[operation] += 1
        if self._gone:
            raise DriverError(self._gone, "it is gone")
        for fault in self.faults:
            if (fault.operation, fault.number) == (operation, self.log.calls[operation]):
                self._gone = fault.status if fault.for_good else ""
                raise DriverError(fault.status, "as was ordered")

    def memory_free(self) -> int:
        self._meet("memory_free")
        return self.gpu.memory - sum(self.log.live.values())

    def allocate(self, size: int) -> int:
        self._meet("allocate")
        if sum(self.log.live.values()) + size > self.gpu.memory:
            raise DriverError("CUDA_ERROR_OUT_OF_MEMORY", "out of memory")
        address = super().allocate(size)
        self.log.live[address] = size
        self._view(address, size, (1, size))[0, : 1 << 16] = 0xA5  # nobody said that it is zero
        return address

    def free(self, address: int) -> None:
        self._meet("free")
        super().free(address)
        del self.log.live[address]

    def clear(self, address: int, size: int) -> None:
        self._meet("clear")
        super().clear(address, size)

    def write(self, address: int, pitch: int, rows: Bytes) -> None:
        self._meet("write")
        self._check_copy(pitch, rows)
        super().write(address, pitch, rows)

    def read(self, address: int, pitch: int, rows: Bytes) -> None:
        self._meet("read")
        self._check_copy(pitch, rows)
        super().read(address, pitch, rows)

    def _check_copy(self, pitch: int, rows: Bytes) -> None:
        """What cuMemcpy2D demands."""
        count, size = rows.shape
        if not rows.flags.c_contiguous or (count > 1 and not size <= pitch <= self.gpu.max_pitch):
            raise DriverError("CUDA_ERROR_INVALID_VALUE", "invalid argument")

    def load(self, images: Sequence[bytes]) -> Any:
        self._meet("load")
        plain = []
        for image in images:
            if image.startswith(CUBIN):
                digest, ptx = image[4:36], image[36:]
                if hashlib.sha256(ptx).digest() != digest:
                    raise DriverError("CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid")
                image = ptx
            plain.append(image)
        key = tuple(plain)
        if key not in _MODULES:
            _MODULES[key] = super().load(plain)
        self.log.modules += 1
        return _MODULES[key]

    def unload(self, module: Any) -> None:
        self._meet("unload")
        self.log.modules -= 1

    def function(self, module: Any, name: str) -> CudaFunction:
        self._meet("function")
        found = super().function(module, name)
        return CudaFunction(name, found.handle, self.gpu.kernel_registers, 0, 1024)

    def resident_blocks(self, function: CudaFunction, threads: int) -> int:
        self._meet("resident_blocks")
        gpu = self.gpu
        return min(gpu.blocks, gpu.threads // threads, gpu.registers // (function.registers * threads))

    def launch(self, function: CudaFunction, blocks: int, threads: int, arguments: Sequence[int]) -> None:
        self._meet("launch")
        self.log.launches.append(Launch(function.name, blocks, threads, tuple(arguments)))
        super().launch(function, blocks, threads, arguments)

    def synchronize(self) -> None:
        self._meet("synchronize")


def device_on(fake: FakeCuda, name: str = "cuda") -> CudaDevice:
    """A device on this driver. It links to PTX for the driver's compiler: nothing here runs machine code."""
    device = CudaDevice(name, open_driver=lambda ordinal: fake)
    device.target = CudaTarget(device.info().architecture, machine_code=False)
    return device
