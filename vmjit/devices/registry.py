"""The devices that can be asked for by name; each back end is imported when its device is."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module

from vmjit.devices.interface import Device
from vmjit.errors import DeviceMissingError

# name: (module, function or class that gives the device)
BACK_ENDS: dict[str, tuple[str, str]] = {
    "host": ("vmjit.devices.host", "HostDevice"),
    "ptx": ("vmjit.devices.ptx", "PtxDevice"),
}


@lru_cache(maxsize=16)
def open_device(name: str) -> Device:
    """The device of this name, such as `host`. Raises `DeviceMissingError` for one that is not there."""
    kind = name.partition(":")[0]
    if kind not in BACK_ENDS:
        raise DeviceMissingError(f"no device {name!r}; there are: cpu, {', '.join(BACK_ENDS)}", device=name)
    module, attribute = BACK_ENDS[kind]
    make: Callable[[str], Device] = getattr(import_module(module), attribute)
    return make(name)
