"""Errors. One hierarchy; each says what was wrong, where, and what to do.

A guest's misbehaviour is never one of these: it is the stop of its lane (`vmjit.Stop`).
"""

from __future__ import annotations

from typing import Any


class VmjitError(Exception):
    """Root of all errors of this package. Comparable and picklable: its message and its details are its identity.

    `details` are keyword facts about where it happened (pc=…, path=…); they are attributes of the error too.
    """

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["details"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.details))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, VmjitError) or type(self) is not type(other):
            return False
        return self.message == other.message and self.details == other.details

    def __hash__(self) -> int:
        return hash((type(self), self.message))


def _rebuild(kind: type[VmjitError], message: str, details: dict[str, Any]) -> VmjitError:
    return kind(message, **details)


class ProgramError(VmjitError):
    """A guest program that cannot be loaded: not an ELF, truncated, another machine, overlapping segments."""


class FileError(ProgramError, OSError):
    """A program's file that cannot be read; `path` names it."""


class IsaError(ProgramError):
    """An ISA string that cannot be read, or that names an unknown extension."""


class ArgumentError(VmjitError, ValueError):
    """An argument of a call that makes no sense; the message says which and what is allowed."""


class MemoryLimitError(VmjitError, MemoryError):
    """The host cannot give the memory asked for."""


class GuestAddressError(VmjitError, IndexError):
    """The host asked for guest memory that is not there (`machine.memory.read` and `write`)."""


class HookError(VmjitError):
    """A compiled hook raised an exception; `pc` and `lane` say where. The lane stands before the hook."""

    @classmethod
    def raised(cls, hook: str, pc: int, lane: int) -> HookError:
        """Of a hook that `hook` names."""
        return cls(f"{hook} raised an exception in lane {lane}", pc=pc, lane=lane)


class SnapshotError(VmjitError):
    """A snapshot that cannot be read or written, or that is not of such a machine as it is restored in."""


class IRError(VmjitError):
    """IR that cannot be read or does not hold against the op table."""


class CompileError(VmjitError):
    """LLVM refused a module; `log` has its words and `ir` the module."""


class CompileForbiddenError(VmjitError):
    """Something would have to be compiled while that is forbidden (`vmjit.cache.forbid_compiling`)."""


class DeviceError(VmjitError):
    """Something failed on a device; `device` names it."""


class DeviceMissingError(DeviceError):
    """The device asked for is not there; the message says what would bring it."""


class DeviceInitializationError(DeviceError):
    """The device is there and cannot be used: a driver that is too old, a context that cannot be made."""


class DeviceMemoryError(DeviceError, MemoryError):
    """The device cannot give the memory asked for; `bytes` says how much."""


class DeviceCopyError(DeviceError):
    """Copying to or from a device failed."""


class KernelLoadError(DeviceError):
    """Compiled code that the device does not take."""


class KernelExecutionError(DeviceError):
    """A kernel failed or the device was lost while it ran."""


class UnsupportedFeatureError(DeviceError):
    """The device has no such thing."""


class CacheWarning(UserWarning):
    """A cached file was damaged or foreign and was ignored."""
