"""AMD GPUs: `hip` and `hip:0` are the first one, `hip:1` the second.

Code objects come from LLVM offline (`translators/hip.py`) and are loaded through numba-hip's driver. Everything here is
written against `HipDriver` and tested with one in host memory; it has not run on AMD hardware yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.devices.driven import DrivenDevice
from vmjit.devices.hip_driver import HipDriver, NumbaHipDriver
from vmjit.devices.interface import (
    Buffer,
    Bytes,
    DeviceInfo,
    DeviceTarget,
    Kernel,
    check_offsets,
)
from vmjit.errors import (
    ArgumentError,
    DeviceInitializationError,
    KernelExecutionError,
)
from vmjit.translators.hip import GATHER, SCATTER, THREADS_PER_BLOCK, HipTarget

_NAME = re.compile(r"hip(?::([0-9]{1,3}))?")

_OF_KERNELS = frozenset(
    f"hipError{name}"
    for name in ("Assert", "ECCNotCorrectable", "IllegalAddress", "LaunchFailure", "LaunchTimeOut", "Unknown")
)


class HipDevice(DrivenDevice):
    """One GPU. `open_driver` is called with its ordinal.

    Raises `ArgumentError` for a name of no GPU, `DeviceMissingError` and `DeviceInitializationError`.
    """

    driver: HipDriver
    out_of_memory = "hipErrorOutOfMemory"
    of_kernels = _OF_KERNELS

    def __init__(self, name: str = "hip", *, open_driver: Callable[[int], HipDriver] = NumbaHipDriver) -> None:
        found = _NAME.fullmatch(name)
        if found is None:
            raise ArgumentError(f"no device {name!r}; there are hip, hip:0, hip:1, …")
        self.name = f"hip:{int(found[1] or 0)}"
        with self._failing_as(DeviceInitializationError, "cannot be opened"):
            self._begin(open_driver(int(found[1] or 0)))
        self._hip_target = HipTarget(self.driver.properties.architecture, self.driver.properties.wavefront)
        self.target: DeviceTarget = self._hip_target

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

    # -- memory

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

    def _loaded(self, module: Any, name: str) -> Any:
        return self.driver.function(module, name)

    def launch(self, kernel: Kernel, threads: int, argument: int) -> None:
        """In groups of the size that the kernels were compiled for: their registers are given out by it."""
        function, _ = kernel.handle
        with self._failing_as(KernelExecutionError, f"{kernel.name} cannot be started"):
            self.driver.launch(function, -(-threads // THREADS_PER_BLOCK), THREADS_PER_BLOCK, argument)
