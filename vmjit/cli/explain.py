"""`vmjit explain`: a region of a program beside all that it is translated to."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import vmjit
from vmjit.cli.arguments import Parser, positive
from vmjit.cli.console import stdout_console
from vmjit.cli.guest import add_inputs, add_memory, add_surroundings, guest_machine, guest_parser, parse_guest
from vmjit.cli.outputs import prepare_file
from vmjit.errors import ArgumentError

if TYPE_CHECKING:
    from vmjit.machine import Machine
    from vmjit.program import Program

_TARGETS = "ir, emitted, llvm, scalar, quick, simd, masked, ptx, sass, amdgcn"
_IN_TERMINAL = ["ir", "scalar"]

_DESCRIPTION = """\
Shows the region around a guest address beside its translations, linked by guest instruction: vmjit's IR, LLVM IR, this
computer's code for one lane and for a group in SIMD registers, PTX, SASS and AMD code; and where lanes would run, and
why. With --run the program runs, twice: the region is the one that was compiled then, and each instruction tells how
often it ran, in which tier, with how many lanes, and where lanes parted."""
_EXAMPLES = """\
vmjit explain guest.elf --at main
vmjit explain guest.elf --at 0x101f8 --html main.html
vmjit explain guest.elf --at main --run --lanes 64 --html main.html -- -v file"""


def parser() -> Parser:
    made = guest_parser("explain", _DESCRIPTION, _EXAMPLES)
    made.add_argument("--at", required=True, metavar="SYMBOL|ADDRESS", help="an instruction of the region")
    made.add_argument(
        "--target",
        action="append",
        metavar="NAME,…",
        help=f"what to show, of {_TARGETS} (a terminal: ir,scalar; a page: all but emitted, quick and masked)",
    )
    made.add_argument("--html", metavar="FILE", help="save one page that opens from disk")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    made.add_argument("--arch", metavar="sm_NN", default="sm_90", help="the NVIDIA architecture (sm_90)")
    made.add_argument("--amd-arch", metavar="gfxNNN", default="gfx942", help="the AMD architecture (gfx942)")
    made.add_argument("--run", action="store_true", help="run the program first")
    made.add_argument(
        "--lanes", type=positive, metavar="N", help="how many lanes run (default: as many as inputs, else 1)"
    )
    made.add_argument(
        "--tier", default="auto", metavar="auto|scalar|simd", help="how to execute what is counted (default auto)"
    )
    made.add_argument("--max-instructions", type=positive, metavar="K", help="stop every lane after K instructions")
    add_memory(made)
    add_surroundings(made)
    add_inputs(made)
    return made


def main(arguments: Sequence[str]) -> int:
    options = parse_guest(parser(), arguments)
    from vmjit.explain.explanation import explain
    from vmjit.explain.terminal import print_explanation

    program = vmjit.load(options.program, options.isa)
    prepare_file(options.html)
    explanation = explain(
        program,
        options.at,
        targets=_targets(options),
        memory=options.memory,
        lanes=options.lanes,
        cuda=options.arch,
        amd=options.amd_arch,
        source=options.program,
        make=_maker(options, program) if options.run else None,
        tier=options.tier,
        max_instructions=options.max_instructions,
    )
    if options.html is not None:
        Path(options.html).write_text(explanation.html(), encoding="utf-8")
    if options.json:
        print(json.dumps(explanation.object()))
    elif options.html is None:
        print_explanation(explanation, stdout_console())
    return 0


def _targets(options: argparse.Namespace) -> list[str] | None:
    if options.target is not None:
        return [name for names in options.target for name in names.split(",")]
    return None if options.html is not None or options.json else _IN_TERMINAL


def _maker(options: argparse.Namespace, program: Program) -> Callable[[str], Machine]:
    from vmjit.cli.inputs import read_inputs

    if options.tier not in ("auto", "scalar", "simd"):
        raise ArgumentError(f"--tier is auto, scalar or simd here, not {options.tier}")
    inputs = read_inputs(options.input, options.inputs)
    options.lanes = inputs.lanes(options.lanes, options.inputs)
    return lambda tier: guest_machine(options, program, inputs, tier=tier)
