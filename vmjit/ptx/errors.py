"""Errors of the PTX machine. Messages name the line of the text and, where one is at fault, the thread."""

from __future__ import annotations

from vmjit.errors import VmjitError


class PtxError(VmjitError):
    """PTX that cannot be read, linked or launched. `line` is the line of the text, where there is one."""


class PtxUnsupported(PtxError):
    """An instruction, directive or form that this machine, or the engine asked for, does not execute."""


class PtxFault(PtxError):
    """A kernel did what a device would not survive, or did not end.

    A stray or misaligned access, a trap, a failed assertion, a barrier that can never be complete, an exceeded
    budget. Details, where they are known: `line`, `thread` and `block` (three coordinates each), `address`.
    """


class LaneFault(Exception):
    """A fault found by a helper that knows the lane only by its `position` among those it was called for.

    The SIMT engine catches it where it knows line and thread, and raises a `PtxFault`.
    """

    def __init__(self, message: str, position: int = 0, address: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.position = position
        self.address = address
