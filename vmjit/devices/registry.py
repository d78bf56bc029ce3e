"""The devices that can be asked for by name; a back end is imported when one of its devices is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING

from vmjit.errors import ArgumentError

if TYPE_CHECKING:
    from vmjit.devices.interface import Device


@dataclass(frozen=True)
class BackEnd:
    """`module` has `factory(name) -> Device`.

    `counter` is a module with `count_gpus() -> int`, quick to import and to answer where there is none. A back end
    without one is simulated on this computer's processor.
    """

    module: str
    factory: str
    summary: str
    counter: str = ""

    @property
    def gpu(self) -> bool:
        return bool(self.counter)


BACK_ENDS: dict[str, BackEnd] = {
    "cuda": BackEnd(
        "vmjit.devices.cuda", "CudaDevice", "NVIDIA GPUs; cuda:1 is the second", "vmjit.devices.cuda_driver"
    ),
    "hip": BackEnd(
        "vmjit.devices.hip", "HipDevice", "AMD GPUs through ROCm; hip:1 is the second", "vmjit.devices.hip_driver"
    ),
    "host": BackEnd("vmjit.devices.host", "HostDevice", "device kernels compiled for this computer, for tests"),
    "ptx": BackEnd("vmjit.devices.ptx", "PtxDevice", "CUDA kernels in a PTX virtual machine; ptx:sm_75 and the like"),
}


def known_devices() -> str:
    """The names that `device` takes, for messages."""
    return ", ".join(["auto", "cpu", *BACK_ENDS])


def back_end_of(name: str) -> BackEnd:
    """The back end of a device such as `ptx:sm_80`. Raises `ArgumentError` for a name that none has."""
    found = BACK_ENDS.get(name.partition(":")[0])
    if found is None:
        raise ArgumentError(f"no device {name!r}; there is: {known_devices()}")
    return found


@lru_cache(maxsize=16)
def open_device(name: str) -> Device:
    """The device of this name. Raises `ArgumentError` for a name that none has, `DeviceError` where it fails."""
    back_end = back_end_of(name)
    make: Callable[[str], Device] = getattr(import_module(back_end.module), back_end.factory)
    return make(name)
