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
    CompileForbiddenError,
    DeviceCopyError,
    DeviceError,
    DeviceInitializationError,
    DeviceMemoryError,
    DeviceMissingError,
    FileError,
    GuestAddressError,
    HookError,
    IRError,
    IsaError,
    KernelExecutionError,
    KernelLoadError,
    MemoryLimitError,
    ProgramError,
    SnapshotError,
    UnsupportedFeatureError,
    VmjitError,
)
from vmjit.stops import Access, Stop

if TYPE_CHECKING:
    from vmjit.cache import forbid_compiling
    from vmjit.devices.interface import DeviceInfo
    from vmjit.executor import ExecutionResult, Executor
    from vmjit.hooks import Hook, HookedLanes
    from vmjit.machine import Machine
    from vmjit.memory_hooks import MemoryAccesses, MemoryHook
    from vmjit.placement import Placement
    from vmjit.program import Program, Segment, load
    from vmjit.residence import Fallback
    from vmjit.result import RunResult
    from vmjit.snapshot import Snapshot
    from vmjit.statistics import ExecutionStatistics

__version__ = "0.1.0"

_LAZY = {
    "DeviceInfo": "vmjit.devices.interface",
    "ExecutionResult": "vmjit.executor",
    "ExecutionStatistics": "vmjit.statistics",
    "Executor": "vmjit.executor",
    "Fallback": "vmjit.residence",
    "Hook": "vmjit.hooks",
    "HookedLanes": "vmjit.hooks",
    "Machine": "vmjit.machine",
    "MemoryAccesses": "vmjit.memory_hooks",
    "MemoryHook": "vmjit.memory_hooks",
    "Placement": "vmjit.placement",
    "Program": "vmjit.program",
    "RunResult": "vmjit.result",
    "Segment": "vmjit.program",
    "Snapshot": "vmjit.snapshot",
    "forbid_compiling": "vmjit.cache",
    "load": "vmjit.program",
}

__all__ = [
    "Access",
    "ArgumentError",
    "CacheWarning",
    "CompileError",
    "CompileForbiddenError",
    "DeviceCopyError",
    "DeviceError",
    "DeviceInfo",
    "DeviceInitializationError",
    "DeviceMemoryError",
    "DeviceMissingError",
    "ExecutionResult",
    "ExecutionStatistics",
    "Executor",
    "Fallback",
    "FileError",
    "GuestAddressError",
    "Hook",
    "HookError",
    "HookedLanes",
    "IRError",
    "IsaError",
    "KernelExecutionError",
    "KernelLoadError",
    "Machine",
    "MemoryAccesses",
    "MemoryHook",
    "MemoryLimitError",
    "Placement",
    "Program",
    "ProgramError",
    "RunResult",
    "Segment",
    "Snapshot",
    "SnapshotError",
    "Stop",
    "UnsupportedFeatureError",
    "VmjitError",
    "__version__",
    "forbid_compiling",
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
