"""vmjit: run a guest program on thousands of lanes, translated.

    program = vmjit.load("guest.elf")
    machine = vmjit.Machine(program, lanes=4096)
    machine.set_input(inputs)
    result = machine.run()

Importing this package imports neither LLVM nor a GPU library; that happens when a machine is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmjit.errors import (
    ArgumentError,
    CacheWarning,
    CompileError,
    DeviceError,
    DeviceMissingError,
    GuestAddressError,
    IRError,
    IsaError,
    MemoryLimitError,
    ProgramError,
    VmjitError,
)
from vmjit.stops import Access, Stop

if TYPE_CHECKING:
    from vmjit.executor import ExecutionResult, Executor
    from vmjit.machine import Machine
    from vmjit.placement import Placement
    from vmjit.program import Program, Segment, load
    from vmjit.result import RunResult

__version__ = "0.1.0"

_LAZY = {
    "ExecutionResult": "vmjit.executor",
    "Executor": "vmjit.executor",
    "Machine": "vmjit.machine",
    "Placement": "vmjit.placement",
    "Program": "vmjit.program",
    "RunResult": "vmjit.result",
    "Segment": "vmjit.program",
    "load": "vmjit.program",
}

__all__ = [
    "Access",
    "ArgumentError",
    "CacheWarning",
    "CompileError",
    "DeviceError",
    "DeviceMissingError",
    "ExecutionResult",
    "Executor",
    "GuestAddressError",
    "IRError",
    "IsaError",
    "Machine",
    "MemoryLimitError",
    "Placement",
    "Program",
    "ProgramError",
    "RunResult",
    "Segment",
    "Stop",
    "VmjitError",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'vmjit' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(module), name)
    globals()[name] = value
    return value
