"""The device "ptx": the CUDA back end with a PTX virtual machine in the driver's place.

The same kernels, the same PTX and the same launches as on a GPU, executed on this computer with every access checked:
for testing and debugging CUDA translations where there is no GPU. `ptx:sm_75` and the like choose the architecture
that is compiled for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vmjit.devices.addressable import AddressableDevice
from vmjit.devices.interface import Buffer, DeviceInfo, DeviceTarget, Kernel
from vmjit.errors import ArgumentError, DeviceMissingError, KernelExecutionError, KernelLoadError
from vmjit.kernels.device_layout import GROUP
from vmjit.ptx import DeviceMemory, LaunchStatistics, Module, PtxError, PtxFault
from vmjit.ptx.memory import Segment

DEFAULT_ARCHITECTURE = "sm_90"
THREADS_PER_BLOCK = 4 * GROUP

# Reading and compiling a module takes seconds, and machines of one kind begin with the same one.
_KEPT_KERNELS = 8


@dataclass
class PtxCounts:
    """What the machine executed so far: the same on every computer."""

    launches: int = 0
    thread_instructions: int = 0

    def add(self, statistics: LaunchStatistics) -> None:
        self.launches += 1
        self.thread_instructions += statistics.thread_instructions


class PtxDevice(AddressableDevice):
    """`engine` is the PTX machine's: "thread" is fast for few lanes, "simt" starts at once. `counts` add up."""

    def __init__(self, name: str = "ptx", *, engine: str = "auto") -> None:
        self.name = name
        self.architecture = name.partition(":")[2] or DEFAULT_ARCHITECTURE
        if not re.fullmatch(r"sm_[0-9]{2,3}", self.architecture):
            raise ArgumentError(f"no architecture {self.architecture!r}; there are sm_75, sm_80, sm_90, …")
        try:
            from vmjit.translators.cuda import CudaTarget

            self.target: DeviceTarget = CudaTarget(self.architecture)
        except ImportError as error:
            raise DeviceMissingError(
                f"the device {name!r} compiles for CUDA, and {error}; "
                'install what is missing with: pip install "vmjit[cuda13]"',
                device=name,
            ) from error
        self.engine = engine
        self.counts = PtxCounts()
        self._memory = DeviceMemory()
        self._kernels: dict[tuple[str, tuple[bytes, ...]], Kernel] = {}
        self._segments: dict[int, Segment] = {}

    def info(self) -> DeviceInfo:
        return DeviceInfo("PTX virtual machine", "ptx", self.architecture, lockstep=GROUP)

    def allocate(self, size: int) -> Buffer:
        buffer = super().allocate(size)
        self._segments[buffer.address] = self._memory.add(self.array(buffer), f"buffer of {size} bytes")
        return buffer

    def free(self, buffer: Buffer) -> None:
        self._memory.remove(self._segments.pop(buffer.address))

    def load(self, images: Sequence[bytes], name: str) -> Kernel:
        key = (name, tuple(images))
        if key not in self._kernels:
            try:
                module = Module([image.decode() for image in images], memory=self._memory)
            except PtxError as error:
                raise KernelLoadError(f"{self.name}: {error}", device=self.name) from error
            if len(self._kernels) >= _KEPT_KERNELS:
                self._kernels.pop(next(iter(self._kernels)))
            self._kernels[key] = Kernel(name, module)
        return self._kernels[key]

    def launch(self, kernel: Kernel, threads: int, argument: int) -> None:
        blocks = -(-threads // THREADS_PER_BLOCK)
        try:
            done = kernel.handle.launch(kernel.name, blocks, THREADS_PER_BLOCK, [argument], engine=self.engine)
        except PtxFault as error:
            raise KernelExecutionError(f"{self.name}: {error}", device=self.name) from error
        self.counts.add(done)

    def synchronize(self) -> None:
        """A launch returns when it is done."""
