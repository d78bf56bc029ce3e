"""Where a run takes place, and why."""

from __future__ import annotations

from dataclasses import dataclass

from vmjit.errors import ArgumentError

# Devices that this build can run on. GPU back ends register themselves here when they are imported.
DEVICES: dict[str, str] = {
    "cpu": "this computer's processor",
    "host": "device kernels on this computer's processor, for tests",
}


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
    if device == "auto":
        return "cpu"
    if device not in DEVICES:
        raise ArgumentError(f"no device {device!r}; there is: auto, {', '.join(DEVICES)}")
    return device


def no_gpu_reasons() -> tuple[str, ...]:
    """Why no GPU is used, when none is registered."""
    return ("no GPU device: this version of vmjit runs on the CPU only",)
