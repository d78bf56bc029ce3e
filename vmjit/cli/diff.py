"""`vmjit diff`: the first instruction at which two executions of a program differ."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import vmjit
from vmjit.cli.arguments import Parser, add_isa, command_parser, integer, positive
from vmjit.errors import ArgumentError

if TYPE_CHECKING:
    import argparse

    from vmjit.divergence.report import Report
    from vmjit.divergence.sides import Side
    from vmjit.machine import Machine
    from vmjit.program import Program

DIFFERENT = 1
_OTHERS = ("unicorn", "qemu", "reference")
_DEFAULT_LIMIT = 100_000_000
# Instructions between two comparisons, by how fast the slower side is.
_WINDOWS = {"unicorn": 1 << 20, "qemu": 1 << 14, "reference": 1 << 12}
_DESCRIPTION = """\
Runs a program twice, in step, and finds the first instruction after which the two differ in a register, in memory, in
the pc or in how they stop. It prints the lane, the instruction, and what both have before and after it; --case writes a
test case of one file that shows it.

The first side is the one that is trusted. --tier twice compares two tiers; --against compares a tier (interpreter,
unless --tier says otherwise) with somebody else, who executes the instructions of one lane: unicorn, some ten million
a second, QEMU's user mode or the reference evaluator, some thousand. System calls are vmjit's on both sides. The status
is 0 if they do not differ, 1 if they do."""
_EXAMPLES = """\
vmjit diff guest.elf --tier interpreter --tier scalar --lanes 64
vmjit diff guest.elf --against unicorn --max-instructions 1e7 --case case.test -- -v file"""


def parser() -> Parser:
    made = command_parser(
        "diff", _DESCRIPTION, _EXAMPLES, usage="vmjit diff [OPTION ...] PROGRAM [ARG ...] [-- ARG ...]"
    )
    made.add_argument("program", metavar="PROGRAM", help="a static RISC-V ELF executable")
    made.add_argument("arguments", metavar="ARG", nargs="*", help="the guest's arguments")
    made.add_argument(
        "--tier",
        action="append",
        default=[],
        metavar="interpreter|scalar|simd|auto",
        help="of a side; twice compares two, the first of which is trusted",
    )
    made.add_argument("--device", default="cpu", metavar="DEVICE", help="where the last side runs (default cpu)")
    made.add_argument("--against", choices=_OTHERS, help="who executes the trusted side's instructions")
    made.add_argument("--lanes", type=positive, default=1, metavar="N", help="lanes of both sides (default 1)")
    made.add_argument(
        "--max-instructions",
        type=positive,
        default=_DEFAULT_LIMIT,
        metavar="K",
        help=f"compare so many instructions of each lane at most (default {_DEFAULT_LIMIT:g})",
    )
    made.add_argument("--memory", metavar="SIZE", help="heap and stack of a lane, as for run")
    made.add_argument("--environment", default="auto", metavar="auto|linux|bare-metal", help="as for run")
    made.add_argument("--root", metavar="DIR", help="a folder that a Linux program may read as its file system")
    made.add_argument("--seed", type=integer, default=0, metavar="N", help="of a Linux program's random numbers (0)")
    made.add_argument("--input", metavar="FILE", help="standard input of every lane; - is ours")
    made.add_argument("--case", metavar="FILE", help="write a test case that shows the difference")
    add_isa(made)
    return made


def main(arguments: Sequence[str]) -> int:
    cut = list(arguments).index("--") if "--" in arguments else len(arguments)
    options = parser().parse_intermixed_args(list(arguments[:cut]))
    options.arguments += arguments[cut + 1 :]
    program = vmjit.load(options.program, options.isa)
    left, right = _sides(options, program)
    report = compare(left, right, program, options.max_instructions)
    if report is None:
        count = int(left.machine.retired.sum())
        lanes = "one lane" if options.lanes == 1 else f"{options.lanes:,} lanes"
        print(f"{left.name} and {right.name} do not differ: {count:,} instructions in {lanes}{_left_out(left)}")
        return 0
    print(report.text)
    if options.case is not None:
        _write_case(report, options)
    return DIFFERENT


def _left_out(side: Side) -> str:
    """What was compared with itself."""
    from vmjit.divergence.sides import ForeignSide

    if not isinstance(side, ForeignSide) or not side.left_out:
        return ""
    return (
        f", of which {side.name} left {side.left_out:,} to vmjit (calls, counters, reservations, what it does not know)"
    )


def compare(left: Side, right: Side, program: Program, limit: int) -> Report | None:
    """The difference within `limit` instructions, if there is one."""
    from vmjit.cli.places import CodeSymbols
    from vmjit.divergence.report import explained
    from vmjit.divergence.search import find_difference

    window = min(_WINDOWS.get(side.name, 1 << 22) for side in (left, right))
    difference = find_difference(left, right, limit, window=window)
    return None if difference is None else explained(difference, left, right, CodeSymbols(program).place)


def _sides(options: argparse.Namespace, program: Program) -> tuple[Side, Side]:
    from vmjit.divergence.sides import TierSide

    tiers = options.tier
    if len(tiers) > 2 or (options.against and len(tiers) > 1):
        raise ArgumentError("two sides are compared: --tier twice, or --against and --tier")
    if options.against is None:
        tiers = [*(["interpreter"] if len(tiers) < 2 else []), *(tiers or ["scalar"])]
        first: Side = TierSide(tiers[0], _machine(options, program, tiers[0], "cpu"))
    else:
        if options.lanes != 1:
            raise ArgumentError(f"{options.against} executes one lane: leave --lanes out")
        tiers = [options.against, *(tiers or ["interpreter"])]
        first = _foreign(options.against, _machine(options, program, "interpreter", "cpu"))
    name = tiers[1] if options.device == "cpu" else f"{tiers[1]} on {options.device}"
    name = name if name != first.name else f"{name} again"
    return first, TierSide(name, _machine(options, program, tiers[1], options.device))


def _foreign(name: str, machine: Machine) -> Side:
    if name == "unicorn":
        from vmjit.divergence.unicorn_side import UnicornSide

        return UnicornSide(machine)
    if name == "qemu":
        from vmjit.divergence.qemu_side import QemuSide

        return QemuSide(machine)
    from vmjit.divergence.reference_side import ReferenceSide

    return ReferenceSide(machine)


def _machine(options: argparse.Namespace, program: Program, tier: str, device: str) -> Machine:
    machine = vmjit.Machine(
        program,
        options.lanes,
        device,
        tier,
        options.memory,
        arguments=[os.fsencode(word) for word in (options.program, *options.arguments)],
        environment=options.environment,
        root=options.root,
        seed=options.seed,
        fallback=False,
    )
    if options.input is not None:
        machine.set_input(_read(options.input))
    return machine


_OURS: list[bytes] = []


def _read(path: str) -> bytes:
    """A file; our standard input once for both sides."""
    if path != "-":
        return Path(path).read_bytes()
    if not _OURS:
        _OURS.append(sys.stdin.buffer.read())
    return _OURS[0]


def _write_case(report: Report, options: argparse.Namespace) -> None:
    from vmjit.cli.console import remark
    from vmjit.divergence.case import case_of

    comment = f"{Path(options.program).name}: {report.left.name} and {report.right.name} differ"
    try:
        text = case_of(report, comment).text()
    except ValueError as error:
        remark(f"no case was written: {error}")
        return
    Path(options.case).write_text(text, encoding="utf-8")
    remark(f"{options.case} shows it")
