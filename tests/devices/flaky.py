"""A device that runs everything on this computer and fails on cue, behind the interface that GPUs have."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from vmjit.devices.host import HostDevice
from vmjit.devices.interface import Buffer, DeviceInfo, Kernel
from vmjit.devices.registry import BACK_ENDS, BackEnd, open_device
from vmjit.errors import DeviceCopyError, DeviceError, DeviceMemoryError, KernelExecutionError, KernelLoadError

ERRORS: dict[str, type[DeviceError]] = {
    "allocate": DeviceMemoryError,
    "copy_to": DeviceCopyError,
    "copy_from": DeviceCopyError,
    "gather": DeviceCopyError,
    "scatter": DeviceCopyError,
    "load": KernelLoadError,
    "launch": KernelExecutionError,
    "synchronize": KernelExecutionError,
}

count = 1
"""How many there are."""


def count_gpus() -> int:
    return count


class FlakyDevice(HostDevice):
    """`fail` says which call of a kind fails, the first being 1; `lost`: every call fails from now on."""

    def __init__(self, name: str = "flaky") -> None:
        super().__init__(name)
        self.fail: dict[str, int] = {}
        self.lost = False
        self.lost_at: dict[str, int] = {}
        self.calls: dict[str, int] = dict.fromkeys(ERRORS, 0)
        self.free_bytes = 1 << 30
        self.allocated = 0

    def _called(self, kind: str) -> None:
        self.calls[kind] += 1
        if self.lost_at.get(kind) == self.calls[kind]:
            self.lost = True
        if self.lost or self.fail.get(kind) == self.calls[kind]:
            raise ERRORS[kind](f"{self.name}: {kind} failed" + (", the device is lost" if self.lost else ""))

    def info(self) -> DeviceInfo:
        return replace(super().info(), name="Flaky", kind="flaky", memory_total=1 << 30, memory_free=self.free_bytes)

    def allocate(self, size: int) -> Buffer:
        self._called("allocate")
        buffer = super().allocate(size)
        self.allocated += size
        weakref.finalize(buffer.handle, self._gone, size)
        return buffer

    def _gone(self, size: int) -> None:
        self.allocated -= size

    def copy_to(self, *args: Any, **keywords: Any) -> None:
        self._called("copy_to")
        super().copy_to(*args, **keywords)

    def copy_from(self, *args: Any, **keywords: Any) -> Any:
        self._called("copy_from")
        return super().copy_from(*args, **keywords)

    def gather(self, *args: Any) -> Any:
        self._called("gather")
        return super().gather(*args)

    def scatter(self, *args: Any) -> None:
        self._called("scatter")
        super().scatter(*args)

    def load(self, images: Sequence[bytes], name: str) -> Kernel:
        self._called("load")
        return super().load(images, name)

    def launch(self, kernel: Kernel, threads: int, argument: int) -> None:
        self._called("launch")
        super().launch(kernel, threads, argument)

    def synchronize(self) -> None:
        self._called("synchronize")


@contextmanager
def flaky_gpus(monkeypatch: pytest.MonkeyPatch, number: int = 1) -> Iterator[None]:
    """The only GPUs there are: flaky:0, flaky:1, …"""
    for kind, back_end in list(BACK_ENDS.items()):
        if back_end.gpu:
            monkeypatch.delitem(BACK_ENDS, kind)
    monkeypatch.setitem(BACK_ENDS, "flaky", BackEnd(__name__, "FlakyDevice", "fails on cue", __name__))
    monkeypatch.setattr(f"{__name__}.count", number)
    open_device.cache_clear()
    yield
    open_device.cache_clear()


def flaky(name: str = "flaky") -> FlakyDevice:
    device = open_device(name)
    assert isinstance(device, FlakyDevice)
    return device
