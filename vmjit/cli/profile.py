"""`vmjit profile`: where a program's lanes spend their instructions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vmjit
from vmjit.cli.arguments import Parser, positive
from vmjit.cli.guest import add_input, add_memory, add_surroundings, guest_machine, guest_parser, parse_guest
from vmjit.cli.outputs import prepare_file
from vmjit.errors import ArgumentError

if TYPE_CHECKING:
    from vmjit.places import CodeSymbols
    from vmjit.profiling import Profile
    from vmjit.source_lines import SourceLines

_DESCRIPTION = """\
Runs a program and shows the functions and blocks that most instructions retire in, how many of the running lanes are
in a block when one is (agreement), and which tiers they ran in. Lanes are looked at every --interval instructions;
between, they run as fast as ever. Stacks are unwound where the file says how (.eh_frame or -g); lines need -g."""
_EXAMPLES = """\
vmjit profile guest.elf --lanes 64
vmjit profile guest.elf --speedscope profile.json --plot profile.svg -- -v file"""


def parser() -> Parser:
    made = guest_parser("profile", _DESCRIPTION, _EXAMPLES)
    made.add_argument("--lanes", type=positive, default=1, metavar="N", help="how many lanes run (default 1)")
    made.add_argument(
        "--interval", type=positive, default=10_000, metavar="K", help="instructions between looks (10000)"
    )
    made.add_argument("--rows", type=positive, default=15, metavar="N", help="functions and blocks to show (15)")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    made.add_argument("--speedscope", metavar="FILE", help="save a flame graph for speedscope.app")
    made.add_argument("--plot", metavar="FILE", help="save a picture (.svg or .png); needs matplotlib")
    made.add_argument(
        "--tier", default="auto", metavar="auto|interpreter|scalar|simd", help="how to execute (default auto)"
    )
    made.add_argument("--max-instructions", type=positive, metavar="K", help="stop every lane after K instructions")
    add_memory(made)
    add_surroundings(made)
    add_input(made)
    return made


def main(arguments: Sequence[str]) -> int:
    options = parse_guest(parser(), arguments)
    from vmjit.cli.inputs import read_inputs
    from vmjit.profiling import profiled
    from vmjit.source_lines import SourceLines
    from vmjit.unwinding import Unwinder

    program = vmjit.load(options.program, options.isa)
    for path in (options.speedscope, options.plot):
        prepare_file(path)
    machine = guest_machine(options, program, read_inputs(options.input, None), tier=options.tier)
    profile = profiled(
        machine,
        interval=options.interval,
        max_instructions=options.max_instructions,
        unwinder=Unwinder(options.program),
    )
    from vmjit.places import CodeSymbols

    shown = _Shown(profile, CodeSymbols(program), SourceLines.of(options.program), options.rows)
    if options.json:
        print(json.dumps(shown.object()))
    else:
        shown.print()
    if options.speedscope is not None:
        Path(options.speedscope).write_text(json.dumps(shown.speedscope(options.program)), encoding="utf-8")
    if options.plot is not None:
        shown.plot(options.plot)
    return 0


class _Shown:
    """A profile in words and pictures."""

    def __init__(self, profile: Profile, symbols: CodeSymbols, lines: SourceLines, rows: int) -> None:
        self.profile, self.symbols, self.lines, self.rows = profile, symbols, lines, rows

    def function(self, pc: int) -> str:
        name = self.symbols.name(pc)
        return name.partition("+")[0] if name is not None else f"{pc & -4096:#x}…"

    def functions(self) -> list[tuple[str, float]]:
        found = self.profile.by_function(self.function)
        total = max(self.profile.total, 1)
        ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        return [(name, count / total) for name, count in ordered]

    def blocks(self) -> list[dict[str, Any]]:
        total = max(self.profile.total, 1)
        return [
            {
                "address": block,
                "place": self.symbols.place(block),
                "share": count / total,
                "agreement": self.profile.agreement(block),
                "line": self.lines.text(block),
            }
            for block, count in self.profile.blocks.most_common()
        ]

    def tiers(self) -> dict[str, float]:
        total = max(sum(self.profile.tiers.values()), 1)
        return {name: count / total for name, count in self.profile.tiers.items()}

    def object(self) -> dict[str, Any]:
        return {
            "instructions": self.profile.instructions,
            "samples": self.profile.total,
            "tiers": self.tiers(),
            "functions": [{"name": name, "share": share} for name, share in self.functions()],
            "blocks": self.blocks(),
        }

    def print(self) -> None:
        from rich.table import Table

        from vmjit.cli.console import stdout_console

        console = stdout_console()
        tiers = ", ".join(f"{name} {share:.1%}" for name, share in self.tiers().items() if share)
        console.print(f"{self.profile.instructions:,} instructions, looked at {self.profile.total:,} times; {tiers}")
        table = Table("function", box=None)
        table.add_column("instructions", justify="right")
        for name, share in self.functions()[: self.rows]:
            table.add_row(name, f"{share:.1%}")
        console.print(table)
        lined = bool(self.lines)
        table = Table("block", *(["line"] if lined else []), box=None)
        table.add_column("instructions", justify="right")
        table.add_column("agreement", justify="right")
        for block in self.blocks()[: self.rows]:
            named = [block["place"], *([block["line"]] if lined else [])]
            table.add_row(*named, f"{block['share']:.1%}", f"{block['agreement']:.0%}")
        console.print(table)

    def speedscope(self, name: str) -> dict[str, Any]:
        """The file format of speedscope.app: stacks with how often they were seen."""
        frames: dict[tuple[str, str], int] = {}
        samples, weights = [], []
        for stack, count in sorted(self.profile.stacks.items()):
            keys = [(self.function(pc), self.lines.text(pc).rpartition(":")[0]) for pc in reversed(stack)]
            samples.append([frames.setdefault(key, len(frames)) for key in keys])
            weights.append(count)
        total = sum(weights)
        return {
            "$schema": "https://www.speedscope.app/file-format-schema.json",
            "shared": {"frames": [{"name": n, **({"file": file} if file else {})} for n, file in frames]},
            "profiles": [
                {
                    "type": "sampled",
                    "name": name,
                    "unit": "none",
                    "startValue": 0,
                    "endValue": total,
                    "samples": samples,
                    "weights": weights,
                }
            ],
            "name": name,
            "exporter": f"vmjit {vmjit.__version__}",
        }

    def plot(self, path: str) -> None:
        """Functions by their share of instructions, and blocks by that and their agreement."""
        try:
            import matplotlib
        except ImportError as error:
            raise ArgumentError('matplotlib is not installed; install it with: pip install "vmjit[bench]"') from error
        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 0.35 * self.rows + 1.5), layout="constrained")
        functions = self.functions()[: self.rows][::-1]
        left.barh([name for name, _ in functions], [100 * share for _, share in functions], color="#4c72b0")
        left.set_xlabel("instructions, %")
        blocks = self.blocks()[: self.rows][::-1]
        colours = pyplot.colormaps["viridis"]([block["agreement"] for block in blocks])
        right.barh([block["place"] for block in blocks], [100 * block["share"] for block in blocks], color=colours)
        right.set_xlabel("instructions, %; colour: agreement of lanes, dark 0, light 1")
        figure.savefig(path)
        pyplot.close(figure)
