"""The device "host": device kernels compiled for this computer's processor, one lane after the other.

Nobody's fastest way to run anything. It runs the very code that GPUs get, under a debugger if need be.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Sequence

from vmjit.devices.addressable import AddressableDevice
from vmjit.devices.interface import DeviceInfo, DeviceTarget, Kernel
from vmjit.errors import CompileError, KernelLoadError
from vmjit.translators.cpu import cpu_target
from vmjit.translators.host_device import HostDeviceTarget

_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.c_uint64)


class HostDevice(AddressableDevice):
    """One object; there is no state but what buffers hold."""

    def __init__(self, name: str = "host") -> None:
        self.name = name
        self.target: DeviceTarget = HostDeviceTarget()

    def info(self) -> DeviceInfo:
        return DeviceInfo(platform.processor() or platform.machine(), "host", cpu_target().cpu)

    def load(self, images: Sequence[bytes], name: str) -> Kernel:
        try:
            code = cpu_target().load_all(images, (name,))
        except CompileError as error:
            raise KernelLoadError(f"{self.name}: {error}", device=self.name) from error
        return Kernel(name, (code, _KERNEL(code.addresses[name])))

    def launch(self, kernel: Kernel, threads: int, argument: int) -> None:
        kernel.handle[1](argument, threads)

    def synchronize(self) -> None:
        """A launch returns when it is done."""
