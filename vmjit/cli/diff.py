"""`vmjit diff`: the first instruction at which two executions of a program differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import vmjit
from vmjit.cli.arguments import Parser, positive
from vmjit.cli.guest import add_input, add_memory, add_surroundings, guest_machine, guest_parser, parse_guest
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
    made = guest_parser("diff", _DESCRIPTION, _EXAMPLES)
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
    add_memory(made)
    add_surroundings(made)
    add_input(made)
    made.add_argument("--case", metavar="FILE", help="write a test case that shows the difference")
    return made


def main(arguments: Sequence[str]) -> int:
    options = parse_guest(parser(), arguments)
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
    from vmjit.divergence.report import explained
    from vmjit.divergence.search import find_difference
    from vmjit.places import CodeSymbols

    window = min(_WINDOWS.get(side.name, 1 << 22) for side in (left, right))
    difference = find_difference(left, right, limit, window=window)
    return None if difference is None else explained(difference, left, right, CodeSymbols(program).place)


def _sides(options: argparse.Namespace, program: Program) -> tuple[Side, Side]:
    from vmjit.cli.inputs import Inputs, read_inputs
    from vmjit.divergence.sides import TierSide

    # Both sides read the same: our standard input only if it is asked for.
    inputs = Inputs(b"") if options.input is None else read_inputs(options.input, None)

    def machine(tier: str, device: str = "cpu") -> Machine:
        return guest_machine(options, program, inputs, tier=tier, device=device, fallback=False)

    tiers = options.tier
    if len(tiers) > 2 or (options.against and len(tiers) > 1):
        raise ArgumentError("two sides are compared: --tier twice, or --against and --tier")
    if options.against is None:
        tiers = [*(["interpreter"] if len(tiers) < 2 else []), *(tiers or ["scalar"])]
        first: Side = TierSide(tiers[0], machine(tiers[0]))
    else:
        if options.lanes != 1:
            raise ArgumentError(f"{options.against} executes one lane: leave --lanes out")
        tiers = [options.against, *(tiers or ["interpreter"])]
        first = _foreign(options.against, machine("interpreter"))
    name = tiers[1] if options.device == "cpu" else f"{tiers[1]} on {options.device}"
    name = name if name != first.name else f"{name} again"
    return first, TierSide(name, machine(tiers[1], options.device))


def _foreign(name: str, machine: Machine) -> Side:
    if name == "unicorn":
        from vmjit.divergence.unicorn_side import UnicornSide

        return UnicornSide(machine)
    if name == "qemu":
        from vmjit.divergence.qemu_side import QemuSide

        return QemuSide(machine)
    from vmjit.divergence.reference_side import ReferenceSide

    return ReferenceSide(machine)


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
