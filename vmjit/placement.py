"""Where a run takes place, and why."""

from __future__ import annotations

from dataclasses import dataclass

from vmjit.devices.registry import back_end_of
from vmjit.errors import ArgumentError


@dataclass(frozen=True)
class Placement:
    """The answer of `can_execute_on_gpu`: true where a GPU can take the work; `reasons` say why it is as it is."""

    on_gpu: bool
    device: str
    reasons: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.on_gpu


def choose_device(device: str) -> str:
    """The device for a request. Raises `ArgumentError` for one that is not there."""
    if not isinstance(device, str):
        raise ArgumentError(f"a device is a name such as 'cpu', got {device!r}")
    if device in ("auto", "cpu"):
        return "cpu"
    back_end_of(device)
    return device


def no_gpu_reasons() -> tuple[str, ...]:
    """Why no GPU is used, when none is registered."""
    return ("no GPU device: this version of vmjit runs on the CPU only",)
