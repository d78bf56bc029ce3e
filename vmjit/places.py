"""Places in a program by name: `guest_main+0x1c`, and the instruction that is there."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING

from vmjit.errors import ArgumentError

if TYPE_CHECKING:
    from vmjit.program import Program, Segment
    from vmjit.source_lines import SourceLines

_SOURCE_LINE = re.compile(r"(.+):(\d+)$")

# Of the files that a program is from, so many are named where another one was asked for.
_FILES_SHOWN = 8


class CodeSymbols:
    """The symbols in a program's executable segments, by address."""

    def __init__(self, program: Program) -> None:
        self._segments = [s for s in program.segments if s.executable]
        self._names: dict[int, list[str]] = {}
        for name, address in program.symbols.items():
            if self._segment(address) is not None:
                self._names.setdefault(address, []).append(name)
        self._addresses = sorted(self._names)

    def _segment(self, address: int) -> Segment | None:
        return next((s for s in self._segments if s.address <= address < s.end), None)

    def at(self, address: int) -> list[str]:
        """The names of exactly this address."""
        return self._names.get(address, [])

    def name(self, address: int) -> str | None:
        """`name` or `name+0x1c` of the last symbol at or before an address of its segment."""
        segment = self._segment(address)
        position = bisect_right(self._addresses, address)
        if segment is None or position == 0 or self._addresses[position - 1] < segment.address:
            return None
        start = self._addresses[position - 1]
        name = self._names[start][0]
        return name if start == address else f"{name}+{address - start:#x}"

    def next(self, address: int) -> int | None:
        """The address of the first symbol behind `address`."""
        position = bisect_right(self._addresses, address)
        return self._addresses[position] if position < len(self._addresses) else None

    def place(self, address: int) -> str:
        """`0x10234 <guest_main>`, without the name where there is none."""
        name = self.name(address)
        return f"{address:#x} <{name}>" if name else f"{address:#x}"


def code_address(program: Program, place: str | int) -> int:
    """The address of a symbol or number where an instruction can start; `ArgumentError` says why not."""
    address = program.address(place)
    if not any(s.executable and s.address <= address < s.end for s in program.segments):
        raise ArgumentError(f"{place} ({address:#x}) is in no executable segment of {program.name}")
    if address & (1 if program.isa_config.compressed else 3):
        raise ArgumentError(f"no {program.isa} instruction can start at {address:#x}")
    return address


def source_line(program: Program, place: str) -> tuple[str, int] | None:
    """(file, line) of a place `FILE:LINE`; None for other places, symbols of such a name among them."""
    match = _SOURCE_LINE.match(place)
    return (match[1], int(match[2])) if match is not None and place not in program.symbols else None


def line_ranges(program: Program, lines: SourceLines, file: str, line: int) -> list[tuple[int, int]]:
    """(first address, address behind the last) of a source line's code; `ArgumentError` says why there is none."""
    if found := lines.ranges(file, line):
        return found
    if not lines:
        raise ArgumentError(f"{file}:{line}: {program.name} has no source lines; compile it with -g")
    there = lines.lines(file)
    if not there:
        shown = ", ".join([*lines.files[:_FILES_SHOWN], *(["…"] if len(lines.files) > _FILES_SHOWN else [])])
        raise ArgumentError(f"{file}:{line}: no code of {program.name} is from such a file; there are {shown}")
    nearest = min(there, key=lambda number: (abs(number - line), number))
    raise ArgumentError(f"{file}:{line}: no code of {program.name} is from this line; the nearest is {nearest}")


def instruction_text(program: Program, fetch: Callable[[int, int], bytes], pc: int) -> str | None:
    """The disassembly of the instruction at `pc`; None if there are no bytes. `fetch` may give fewer than asked for."""
    from vmjit.decoders.riscv.decoder import Decoder

    decoder = Decoder(program.isa_config)
    return decoder.text(decoder.decode(fetch, pc)) if fetch(pc, 2) else None
