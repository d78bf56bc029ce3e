"""`vmjit disassemble`: the executable segments as a listing in the style of objdump."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import vmjit
from vmjit.cli.arguments import Parser, add_program, command_parser, positive
from vmjit.cli.console import printable
from vmjit.places import CodeSymbols, code_address

if TYPE_CHECKING:
    from vmjit.decoders.riscv.decoder import Decoder, Instruction
    from vmjit.program import Program, Segment

# Zero bytes from this many on are listed as `...`.
_MANY_ZEROS = 16


def parser() -> Parser:
    made = command_parser(
        "disassemble",
        "Lists the instructions of a program's executable segments, with its symbols as labels.",
        "vmjit disassemble guest.elf --at main --count 20",
    )
    add_program(made)
    made.add_argument(
        "--at",
        metavar="SYMBOL|ADDRESS",
        help="start here; without --count, end at the next symbol",
    )
    made.add_argument("--count", type=positive, metavar="N", help="list at most N instructions")
    return made


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    program = vmjit.load(options.program, options.isa)
    listing = Listing(program)
    if options.at is None:
        lines = listing.lines(options.count)
    else:
        lines = listing.lines_at(code_address(program, options.at), options.count)
    print(f"{printable(program.name)}: {program.isa}, entry {program.entry:#x}")
    for line in lines:
        sys.stdout.write(line + "\n")
    return 0


class Listing:
    """A program's instructions as text."""

    def __init__(self, program: Program) -> None:
        from vmjit.decoders.riscv.decoder import Decoder

        self.program = program
        self.symbols = CodeSymbols(program)
        self.decoder: Decoder = Decoder(program.isa_config)
        self.segments = [s for s in program.segments if s.executable]

    def lines(self, count: int | None = None) -> Iterator[str]:
        """All executable segments, or the first `count` instructions."""
        left = count
        for segment in self.segments:
            yield ""
            yield f"segment {segment.address:#x}..{segment.end:#x}:"
            for chunk in islice(self._chunks(segment, segment.address, segment.end), left):
                left = None if left is None else left - 1
                yield from chunk
            if left == 0:
                return

    def lines_at(self, address: int, count: int | None = None) -> Iterator[str]:
        """`count` instructions from an address on; without a count those up to the next symbol."""
        segment = next(s for s in self.segments if s.address <= address < s.end)
        end = segment.end
        following = self.symbols.next(address)
        if count is None and following is not None:
            end = min(end, following)
        if not self.symbols.at(address):
            yield ""
            yield self._label(address, self.symbols.name(address))
        for chunk in islice(self._chunks(segment, address, end), count):
            yield from chunk

    def _label(self, address: int, name: str | None) -> str:
        return f"{address:0{self.program.xlen // 4}x} <{name or hex(address)}>:"

    def _chunks(self, segment: Segment, pc: int, end: int) -> Iterator[list[str]]:
        """One instruction after the other: its labels, if any, and its line."""
        data = segment.data

        def fetch(place: int, size: int) -> bytes:
            offset = place - segment.address
            return data[offset : offset + size].ljust(min(size, segment.end - place), b"\0")

        while pc < end:
            names = self.symbols.at(pc)
            chunk = [""] * bool(names) + [self._label(pc, name) for name in names]
            following = min(self.symbols.next(pc) or end, end)
            zeros = _zeros(data, pc - segment.address, following - segment.address)
            if zeros >= _MANY_ZEROS:
                size = zeros & ~3
                chunk.append("\t...")
            else:
                instruction = self.decoder.decode(fetch, pc)
                size = instruction.size
                chunk.append(self._line(instruction))
            yield chunk
            pc += size

    def _line(self, instruction: Instruction) -> str:
        raw = f"{instruction.raw:0{2 * instruction.size}x}"
        name, _, operands = self.decoder.text(instruction).partition(" ")
        line = f"{instruction.pc:8x}:\t{raw:<8}\t{name}"
        if operands:
            line += f"\t{operands}"
        matched = instruction.matched
        if matched is not None and matched.base.name != "auipc" and instruction.target != instruction.pc:
            goal = self.symbols.name(instruction.target)
            line += f" <{goal}>" if goal else ""
        return line


def _zeros(data: bytes, start: int, end: int) -> int:
    """How many bytes from `start` on are zero; those behind the data are."""
    if data[start : start + _MANY_ZEROS].strip(b"\0"):
        return 0
    rest = data[start:end]
    return end - start if not rest.strip(b"\0") else len(rest) - len(rest.lstrip(b"\0"))
