"""`vmjit demo`: a bundled guest on thousands of lanes, its results checked against an independent computation.

The guest is `benchmarks/guests/src/crc32.c`: from its input (`u32 seed`, `u32 repeat`) it generates 8 KiB of data per
repeat and writes their CRC-32. Here the same data are generated in Python and given to zlib.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vmjit.cli.arguments import Parser, command_parser, integer

if TYPE_CHECKING:
    from vmjit.cli.report import Report
    from vmjit.program import Program
    from vmjit.result import RunResult

GUEST = ("crc32", "rv32im")
REPEAT = 2
_WORDS = 2048 * REPEAT
_CHECKED = 16
_SHOWN = 6
_MASK = 0xFFFFFFFF


def parser() -> Parser:
    made = command_parser(
        "demo",
        "Runs a bundled RISC-V program, CRC-32 of generated data, on many lanes with an input each, and checks the\n"
        "results of some lanes with zlib. The status is 0 if they are right.",
        "vmjit demo --lanes 4096",
    )
    made.add_argument("--lanes", type=integer, default=4096, metavar="N", help="how many lanes (default 4096)")
    made.add_argument("--device", default="auto", metavar="auto|cpu|ptx|host", help="where to run (default auto)")
    return made


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    import vmjit
    from vmjit.cli.console import remark, stdout_console
    from vmjit.cli.progress import run_with_progress
    from vmjit.cli.report import Report

    machine = vmjit.Machine(bundled_guest(), options.lanes, options.device, memory="16KiB")
    machine.set_input([struct.pack("<II", seed_of(lane), REPEAT) for lane in range(machine.lanes)])
    result = run_with_progress(machine)
    report = Report(machine, result)
    report.print(stdout_console())
    if result.interrupted:
        remark("interrupted")
        return 130
    return _check(report)


def bundled_guest() -> Program:
    """The guest that comes with the package."""
    import vmjit
    from vmjit.bench.guests import elf_path

    return vmjit.load(elf_path(*GUEST))


def seed_of(lane: int) -> int:
    """A lane's seed: numbers that look as different as their results."""
    return (lane + 1) * 0x9E3779B1 & _MASK


def expected(seed: int) -> int:
    """What zlib makes of the data that the guest generates from a seed."""
    words = _random_words(seed)
    return zlib.crc32(struct.pack(f"<{_WORDS}I", *(next(words) for _ in range(_WORDS))))


def _random_words(seed: int) -> Iterator[int]:
    """The guest's generator, xorshift32."""
    state = ((seed ^ 0x9E3779B9) * 0x85EBCA6B) & _MASK
    state = (state ^ state >> 15) or 0x6D2B79F5
    while True:
        state ^= state << 13 & _MASK
        state ^= state >> 17
        state ^= state << 5 & _MASK
        yield state


def right(result: RunResult, lane: int) -> bool:
    """Whether a lane wrote what zlib makes of its data."""
    return result.output(lane) == struct.pack("<I", expected(seed_of(lane)))


def _check(report: Report) -> int:
    """Print what some lanes computed, the wrong ones first; gives the exit status."""
    from rich.table import Table

    from vmjit.cli.console import stdout_console

    lanes, result = report.machine.lanes, report.result
    checked = sorted({i * (lanes - 1) // (_CHECKED - 1) for i in range(_CHECKED)})
    wrong = [lane for lane in checked if not right(result, lane)]
    table = Table("lane", "seed", "CRC-32 by the guest", "by zlib", "instructions")
    for column in table.columns:
        column.justify = "right"
    for lane in (wrong or checked)[:_SHOWN]:
        seed, output = seed_of(lane), result.output(lane)
        found = f"{int.from_bytes(output, 'little'):08x}" if len(output) == 4 else "-"
        table.add_row(f"{lane:,}", f"{seed:08x}", found, f"{expected(seed):08x}", f"{int(result.retired[lane]):,}")
    console = stdout_console()
    console.print(table)
    if wrong:
        console.print(f"{len(wrong)} of {len(checked)} lanes that were checked with zlib are wrong")
        return 1
    console.print(f"{len(checked)} lanes were checked with zlib: all are right")
    return 0
