"""`vmjit trace`: what lanes execute, an instruction or a system call a line."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

import vmjit
from vmjit.cli.arguments import Parser, integer, positive
from vmjit.cli.guest import add_input, add_memory, add_surroundings, guest_machine, guest_parser, parse_guest
from vmjit.cli.outputs import recorded
from vmjit.errors import ArgumentError

if TYPE_CHECKING:
    import argparse

    from vmjit.places import CodeSymbols
    from vmjit.program import Program
    from vmjit.source_lines import SourceLines
    from vmjit.timeline import Timeline
    from vmjit.tracing import Event, TracedCall, TracedInstruction

_DESCRIPTION = """\
Runs a program and prints what its lanes execute: each instruction, before it runs, with the registers that it writes
and what it loads and stores, and each system call with its result. Without --at all of the program is traced, some
thousand instructions a second; with it the functions and ranges that are named, and all else runs as fast as ever.
Source lines are shown where the file has them (-g). What guests write is not shown. Lines of lanes that run at the
same time are in no order but each lane's own."""
_EXAMPLES = """\
vmjit trace guest.elf --at main --count 100
vmjit trace guest.elf --at list.c:120
vmjit trace guest.elf --calls --lanes 3 --json -- -v file"""

# Characters of the column with source lines; longer ones take what they need.
_SOURCE_WIDTH = 18


def parser() -> Parser:
    made = guest_parser("trace", _DESCRIPTION, _EXAMPLES)
    made.add_argument(
        "--at",
        action="append",
        default=[],
        metavar="SYMBOL|ADDRESS|FILE:LINE|PLACE..PLACE",
        help="trace a function, an instruction, a source line, or a range without its end; may be repeated",
    )
    made.add_argument("--calls", action="store_true", help="trace system calls, and instructions only where --at says")
    made.add_argument("--lanes", type=positive, default=1, metavar="N", help="how many lanes run (default 1)")
    made.add_argument("--lane", type=integer, action="append", metavar="I", help="trace lane I; may be repeated (all)")
    made.add_argument("--first", type=integer, default=0, metavar="K", help="leave out the first K lines")
    made.add_argument("--count", type=positive, metavar="N", help="end after N lines")
    made.add_argument("--json", action="store_true", help="print a JSON object a line")
    made.add_argument(
        "--timeline",
        metavar="FILE",
        help="save what is traced beside passes, calls, compilations and stops over time, a line a lane, for Perfetto "
        "(ui.perfetto.dev) or chrome://tracing",
    )
    made.add_argument("-o", "--output", metavar="FILE", help="write to FILE instead of standard output")
    made.add_argument(
        "--tier", default="auto", metavar="auto|interpreter|scalar|simd", help="what runs what is not traced (auto)"
    )
    made.add_argument("--max-instructions", type=positive, metavar="K", help="stop every lane after K instructions")
    add_memory(made)
    add_surroundings(made)
    add_input(made)
    return made


def main(arguments: Sequence[str]) -> int:
    options = parse_guest(parser(), arguments)
    from vmjit.cli.inputs import read_inputs
    from vmjit.places import CodeSymbols
    from vmjit.source_lines import SourceLines
    from vmjit.tracing import Tracer

    program = vmjit.load(options.program, options.isa)
    symbols, lines = CodeSymbols(program), SourceLines.of(options.program)
    ranges = [found for text in options.at for found in _ranges(program, symbols, lines, text)]
    if not options.at and not options.calls:
        ranges = [(s.address, s.end) for s in program.segments if s.executable]
    machine = guest_machine(options, program, read_inputs(options.input, None), tier=options.tier)
    with _output(options) as file, recorded(options.timeline) as timeline:
        write = _written(file, symbols, lines, as_json=options.json, lanes=options.lanes)
        if timeline is not None:
            write = _also_on(timeline, symbols, write)
        tracer = Tracer(
            machine,
            write,
            ranges=ranges,
            calls=options.calls,
            lanes=options.lane,
            first=options.first,
            count=options.count,
        )
        tracer.run(options.max_instructions)
    return 0


def _also_on(timeline: Timeline, symbols: CodeSymbols, write: Callable[[Event], None]) -> Callable[[Event], None]:
    from vmjit.tracing import TracedCall

    def note(event: Event) -> None:
        write(event)
        if isinstance(event, TracedCall):
            timeline.lane_event(event.lane, _call_line(event), retired=event.retired)
        else:
            place = symbols.place(event.pc)
            timeline.lane_event(event.lane, event.text, retired=event.retired, at=place, **event.registers)

    return note


@contextlib.contextmanager
def _output(options: argparse.Namespace) -> Iterator[TextIO]:
    if options.output is None:
        yield sys.stdout
        return
    with open(options.output, "w", encoding="utf-8") as file:
        yield file


def _ranges(program: Program, symbols: CodeSymbols, lines: SourceLines, text: str) -> list[tuple[int, int]]:
    """A function to the next symbol, an instruction, all code of a source line, or PLACE..PLACE."""
    from vmjit.places import code_address, line_ranges, source_line

    if (source := source_line(program, text)) is not None:
        return line_ranges(program, lines, *source)
    first, dots, last = text.partition("..")
    start = code_address(program, first)
    segment = next(s for s in program.segments if s.executable and s.address <= start < s.end)
    if dots:
        end = program.address(last)
        if not start < end <= segment.end:
            raise ArgumentError(
                f"--at {text}: a range from {start:#x} ends at {segment.end:#x} at most, not at {end:#x}"
            )
        return [(start, end)]
    if first in program.symbols:
        return [(start, symbols.next(start) or segment.end)]
    return [(start, start + 1)]


def _written(
    file: TextIO, symbols: CodeSymbols, lines: SourceLines, *, as_json: bool, lanes: int
) -> Callable[[Event], None]:
    from vmjit.tracing import TracedCall

    def write(event: Event) -> None:
        if as_json:
            made = _call_object(event) if isinstance(event, TracedCall) else _object(event, symbols)
            name, number = lines.line(event.pc) or (None, None)
            file.write(json.dumps({**made, "file": name, "line": number}) + "\n")
            return
        head = f"{event.lane:>{len(str(lanes - 1))}}  " if lanes > 1 else ""
        line = _call_line(event) if isinstance(event, TracedCall) else _line(event, symbols, lines)
        file.write(f"{head}{event.retired:>10}  {line}\n")

    return write


def _line(event: TracedInstruction, symbols: CodeSymbols, lines: SourceLines) -> str:
    effects = [f"{name}={value:#x}" for name, value in event.registers.items()]
    for address, data, stores in event.memory:
        value = f"{int.from_bytes(data, 'little'):#x}" if data else "fault"
        effects.append(f"[{address:#x}]{'=' if stores else ' is '}{value}" if data else f"[{address:#x}] {value}")
    source = f"{lines.text(event.pc):<{_SOURCE_WIDTH}} " if lines else ""
    line = f"{symbols.place(event.pc):<36} {source}{event.data.hex():<8}  {event.text:<28}"
    return f"{line} {', '.join(effects)}".rstrip()


def _call_line(event: TracedCall) -> str:
    arguments = ", ".join(str(a) if a < 1 << 12 else f"{a:#x}" for a in event.arguments)
    result = "" if event.result is None else f" = {event.result if abs(event.result) < 1 << 12 else hex(event.result)}"
    return f"{event.name}({arguments}){result}"


def _object(event: TracedInstruction, symbols: CodeSymbols) -> dict[str, object]:
    return {
        "kind": "instruction",
        "lane": event.lane,
        "retired": event.retired,
        "pc": event.pc,
        "symbol": symbols.name(event.pc),
        "bytes": event.data.hex(),
        "text": event.text,
        "registers": event.registers,
        "memory": [{"address": a, "bytes": data.hex(), "store": stores} for a, data, stores in event.memory],
    }


def _call_object(event: TracedCall) -> dict[str, object]:
    return {
        "kind": "call",
        "lane": event.lane,
        "retired": event.retired,
        "pc": event.pc,
        "number": event.number,
        "name": event.name,
        "arguments": list(event.arguments),
        "result": event.result,
    }
