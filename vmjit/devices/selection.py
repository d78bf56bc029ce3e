"""Which devices a name means: one, several with commas between them, or all of a kind."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from vmjit.devices.registry import BACK_ENDS, back_end_of, open_device
from vmjit.errors import ArgumentError, DeviceError, DeviceMissingError

if TYPE_CHECKING:
    from vmjit.devices.interface import Device


def device_names(text: str) -> list[str]:
    """The devices that `text` names: "cuda:1", "cuda:0,cuda:1" or "cuda:all".

    Raises `ArgumentError` for a name that no back end has, `DeviceMissingError` where a kind has no devices.
    """
    names: list[str] = []
    for name in text.split(","):
        back_end = back_end_of(name)
        kind, _, number = name.partition(":")
        if number != "all":
            names.append(name)
        elif not back_end.gpu:
            raise ArgumentError(f"there is one {kind}; {text!r} means the devices of a kind with several")
        else:
            names += names_of(kind)
    if len(set(names)) < len(names):
        raise ArgumentError(f"a device is named twice in {text!r}")
    return names


def open_devices(text: str) -> list[Device]:
    """The devices that `text` names, opened. Raises as `device_names`, and `DeviceError` where one fails."""
    return [open_device(name) for name in device_names(text)]


def check_name(text: str) -> None:
    """Raise `ArgumentError` unless `text` can be the name of a device here or elsewhere."""
    if text in ("auto", "cpu"):
        return
    for name in text.split(","):
        back_end_of(name)


def is_gpu(text: str) -> bool:
    """Whether `text`, a name that can be, means GPUs."""
    return text not in ("auto", "cpu") and all(back_end_of(name).gpu for name in text.split(","))


def names_of(kind: str) -> list[str]:
    """The devices of a kind that has several. Raises `DeviceMissingError` where there are none."""
    count: int = import_module(BACK_ENDS[kind].counter).count_gpus()
    if count == 0:
        raise DeviceMissingError(f"no {kind} device on this computer", device=kind)
    return [f"{kind}:{i}" for i in range(count)]


def find_gpus() -> tuple[list[Device], list[str]]:
    """The GPUs that can be opened, and why the others cannot, a line for each kind or device."""
    found: list[Device] = []
    reasons: list[str] = []
    for kind, back_end in BACK_ENDS.items():
        if not back_end.gpu:
            continue
        try:
            names = names_of(kind)
        except DeviceError as error:
            reasons.append(str(error))
            continue
        for name in names:
            try:
                found.append(open_device(name))
            except DeviceError as error:
                reasons.append(str(error))
    return found, reasons
