"""Which environment a program's lanes get, and a Linux one made for their memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from vmjit.checks import checked_integer, shown
from vmjit.environment.linux import Linux
from vmjit.errors import ArgumentError
from vmjit.memory_layout import MemoryLayout
from vmjit.program import Program

ENVIRONMENTS = ("auto", "bare-metal", "linux")


def is_linux(environment: str, program: Program) -> bool:
    """Whether a program's lanes get Linux; "auto" asks the program."""
    if environment not in ENVIRONMENTS:
        raise ArgumentError(f"environment must be one of {', '.join(ENVIRONMENTS)}, got {shown(environment)}")
    return program.linux if environment == "auto" else environment == "linux"


def checked_arguments(arguments: Sequence[str | bytes]) -> tuple[bytes, ...]:
    """A guest's arguments as bytes; `ArgumentError` for what can be none."""
    if isinstance(arguments, str | bytes) or not all(isinstance(a, str | bytes) for a in arguments):
        raise ArgumentError("arguments must be texts or bytes, one for each argument of the guest")
    return tuple(os.fsencode(a) if isinstance(a, str) else a for a in arguments)


def checked_variables(variables: Mapping[str, str] | None) -> tuple[bytes, ...]:
    """NAME=VALUE of each; `ArgumentError` for what can be no variable."""
    found = []
    for name, value in (variables or {}).items():
        if not isinstance(name, str) or not isinstance(value, str) or not name or "=" in name or "\0" in name + value:
            raise ArgumentError(f"variables are texts by name, got {shown(name)}: {shown(value)}")
        found.append(os.fsencode(f"{name}={value}"))
    return tuple(found)


def linux_environment(
    lanes: int, xlen: int, layout: MemoryLayout, root: str | os.PathLike[str] | None, seed: int
) -> Linux:
    """Linux for a machine's lanes; files below `root`, random numbers by `seed`."""
    return Linux(lanes, xlen, layout, root=root, seed=checked_integer("seed", seed, 0, (1 << 64) - 1))
