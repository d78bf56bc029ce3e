"""The PTX machine in the place of the NVIDIA driver: device memory is this computer's, every access is checked."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vmjit.devices.cuda_driver import CudaFunction, GpuProperties
from vmjit.devices.driver_error import DriverError
from vmjit.devices.interface import Bytes
from vmjit.errors import MemoryLimitError
from vmjit.host_memory import HostMemory
from vmjit.ptx import DeviceMemory, LaunchStatistics, Module, PtxError
from vmjit.ptx.memory import Segment

_MAX_THREADS = 1024
_RESIDENT_THREADS = 2048


@dataclass
class PtxCounts:
    """What the machine executed so far: the same on every computer."""

    launches: int = 0
    thread_instructions: int = 0

    def add(self, statistics: LaunchStatistics) -> None:
        self.launches += 1
        self.thread_instructions += statistics.thread_instructions


class PtxDriver:
    """`engine` is the PTX machine's: "thread" is fast for few lanes, "simt" starts at once; "auto" chooses.

    Kernels named in `at_once` are too small to be worth compiling and are always run by "simt". `counts` are by kernel.
    """

    def __init__(self, capability: tuple[int, int], engine: str = "auto", at_once: Sequence[str] = ()) -> None:
        self.properties = GpuProperties("PTX virtual machine", capability)
        self.engine = engine
        self.at_once = frozenset(at_once)
        self.counts: dict[str, PtxCounts] = {}
        self._lock = threading.RLock()  # a PTX machine is for one thread at a time
        self._machine = DeviceMemory()
        self._starts: list[int] = []  # sorted
        self._memories: dict[int, tuple[HostMemory, Segment]] = {}

    # -- memory

    def memory_free(self) -> int:
        return 0

    def allocate(self, size: int) -> int:
        try:
            memory = HostMemory(size, sparse_unit=size)
        except MemoryLimitError as error:
            raise DriverError("CUDA_ERROR_OUT_OF_MEMORY", str(error)) from error
        with self._lock:
            segment = self._machine.add(memory.array, f"buffer of {size} bytes")
            self._memories[memory.address] = (memory, segment)
            bisect.insort(self._starts, memory.address)
        return memory.address

    def free(self, address: int) -> None:
        with self._lock:
            _, segment = self._memories.pop(address)
            self._starts.remove(address)
            self._machine.remove(segment)

    def _from(self, address: int) -> tuple[HostMemory, int]:
        """The memory in which an address lies, and how far from its start."""
        with self._lock:
            start = self._starts[bisect.bisect_right(self._starts, address) - 1]
            return self._memories[start][0], address - start

    def clear(self, address: int, size: int) -> None:
        memory, start = self._from(address)
        if (start, size) == (0, memory.array.size):
            memory.discard()
        else:
            memory.array[start : start + size] = 0

    def _view(self, address: int, pitch: int, shape: tuple[int, ...]) -> Bytes:
        memory, start = self._from(address)
        view: Bytes = np.lib.stride_tricks.as_strided(memory.array[start:], shape, (pitch, 1))
        return view

    def write(self, address: int, pitch: int, rows: Bytes) -> None:
        self._view(address, pitch, rows.shape)[:] = rows

    def read(self, address: int, pitch: int, rows: Bytes) -> None:
        rows[:] = self._view(address, pitch, rows.shape)

    # -- code

    def load(self, images: Sequence[bytes]) -> Module:
        try:
            with self._lock:
                return Module([image.decode() for image in images], memory=self._machine)
        except (PtxError, UnicodeDecodeError) as error:
            raise DriverError("CUDA_ERROR_INVALID_PTX", str(error)) from error

    def unload(self, module: Module) -> None:
        with self._lock:
            module.close()

    def function(self, module: Module, name: str) -> CudaFunction:
        if name not in module.entries:
            raise DriverError("CUDA_ERROR_NOT_FOUND", f"no kernel {name}; there is: {', '.join(module.entries)}")
        return CudaFunction(name, module, registers=0, local_bytes=0, max_threads=_MAX_THREADS)

    def resident_blocks(self, function: CudaFunction, threads: int) -> int:
        return _RESIDENT_THREADS // threads

    def launch(self, function: CudaFunction, blocks: int, threads: int, arguments: Sequence[int]) -> None:
        engine = "simt" if function.name in self.at_once else self.engine
        try:
            with self._lock:
                done = function.handle.launch(function.name, blocks, threads, arguments, engine=engine)
        except PtxError as error:
            raise DriverError("CUDA_ERROR_LAUNCH_FAILED", str(error)) from error
        self.counts.setdefault(function.name, PtxCounts()).add(done)

    def synchronize(self) -> None:
        """A launch returns when it is done."""
