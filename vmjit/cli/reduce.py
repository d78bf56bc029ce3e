"""`vmjit reduce`: a test case that fails, made smaller."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vmjit.cli.arguments import Parser, command_parser
from vmjit.cli.console import remark
from vmjit.errors import ArgumentError

_DESCRIPTION = """\
Makes a test case that fails smaller: what can be left out of its instructions, registers and memory is, as long as the
tier and the reference evaluator come to different ends. What `vmjit diff --case` writes is such a case, for as long as
the tier is wrong."""


def parser() -> Parser:
    made = command_parser("reduce", _DESCRIPTION, "vmjit reduce found.test --tier scalar -o small.test")
    made.add_argument("case", metavar="CASE", help="a file as tests/filetests/run has them")
    made.add_argument(
        "--tier", default="scalar", metavar="interpreter|scalar|simd|auto", help="that is wrong (default scalar)"
    )
    made.add_argument("--device", default="cpu", metavar="DEVICE", help="where it runs (default cpu)")
    made.add_argument("-o", "--output", metavar="FILE", help="write to FILE instead of standard output")
    return made


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    from vmjit.cases.reduce import draft_of, fails_on, reduced
    from vmjit.engine import TIERS

    if options.tier not in TIERS:
        raise ArgumentError(f"tier must be one of {', '.join(TIERS)}, got {options.tier!r}")

    draft = draft_of(Path(options.case))
    small = reduced(draft, fails_on(options.tier, options.device))
    remark(f"{len(draft.code)} instructions before, {len(small.code)} now")
    text = small.text()
    if options.output is None:
        sys.stdout.write(text)
    else:
        Path(options.output).write_text(text, encoding="utf-8")
    return 0
