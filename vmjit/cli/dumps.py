"""Dumps: guest memory saved as .npy files after a run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vmjit.errors import ArgumentError
from vmjit.memory_layout import parse_size, plan_memory

if TYPE_CHECKING:
    from vmjit.machine import Machine
    from vmjit.program import Program


@dataclass(frozen=True)
class Dump:
    """`size` bytes at `address` of every lane, for `path`."""

    address: int
    size: int
    path: Path

    def save(self, machine: Machine) -> None:
        """Write the (lanes, size) uint8 array, under exactly this name."""
        with open(self.path, "wb") as file:
            np.save(file, np.ascontiguousarray(machine.memory.read(self.address, self.size)))


def parse_dump(program: Program, text: str) -> Dump:
    """`PLACE:LENGTH=FILE` or `PLACE..PLACE=FILE`; a place is a symbol or an address."""
    range_, equals, file = text.partition("=")
    start, dots, end = range_.partition("..")
    if not dots:
        start, _, length = range_.rpartition(":")
    if not (equals and file and start and (end if dots else length)):
        raise ArgumentError(f"cannot read the dump {text!r}: write PLACE:LENGTH=FILE or PLACE..PLACE=FILE")
    address = program.address(start)
    size = program.address(end) - address if dots else _length(length, text)
    if size <= 0:
        raise ArgumentError(f"the dump {text!r} has no bytes: it is {size} long")
    return Dump(address, size, Path(file))


def _length(length: str, text: str) -> int:
    try:
        return int(length, 0)
    except ValueError:
        pass
    try:
        return parse_size(length)
    except ArgumentError:
        raise ArgumentError(f"cannot read the length {length!r} of the dump {text!r}") from None


def check_dumps(dumps: list[Dump], program: Program, memory: int, lanes: int) -> None:
    """Find out before a long run what would make a dump fail behind it."""
    spans = plan_memory(program, memory, lanes, whole_pages=program.linux).spans
    for dump in dumps:
        place, end = dump.address, dump.address + dump.size
        while place < end:
            reached = next((s.end for s in spans if s.lo <= place < s.end), None)
            if reached is None:
                raise ArgumentError(f"cannot dump {dump.address:#x}..{end:#x}: there is no guest memory at {place:#x}")
            place = reached
        _check_writable(dump.path)


def _check_writable(path: Path) -> None:
    folder = path.parent
    if path.is_dir():
        raise ArgumentError(f"{path}: is a directory")
    if not folder.is_dir():
        raise ArgumentError(f"{path}: there is no directory {folder}")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ArgumentError(f"{path}: cannot be written")
