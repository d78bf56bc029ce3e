"""The README's tables from a result file: `python -m benchmarks.readme_table benchmarks/results/FILE.json`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.report import by_kind, groups, mips_of, names_in, summaries, target_lines
from benchmarks.results_file import Results, Row, load
from vmjit.bench.spread import number

SECTIONS = ("benchmarks", "floats")
"""Parts of the README that tables go into: the guests that compute with integers, and those with floats."""

# What the README shows; the result file has the rest.
_SPEEDS = ("interpreter", "scalar", "simd", "auto", "two cores", "all cores", "qemu", "native")
_RATIOS = ("scalar : qemu", "scalar : native", "auto : qemu", "auto : native", "auto : scalar", "two cores : auto")


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The first column to the left, the others, which are numbers, to the right."""
    parts = [header, ["---", *["---:"] * (len(header) - 1)], *lines]
    return "\n".join("| " + " | ".join(part) + " |" for part in parts)


def rows_markdown(rows: Sequence[Row]) -> str:
    """Medians by guest, their geometric means and the worst of them by kind of guest."""
    speeds = [name for name in _SPEEDS if name in names_in(rows, "contestants")]
    ratios = [name for name in _RATIOS if name in names_in(rows, "ratios")]
    lines = []
    for kind, of in by_kind(rows):
        for row in of if kind != "all" else ():
            if not row["agree"]:
                lines.append([row["guest"], *["answers differ"] * (len(speeds) + len(ratios))])
                continue
            found = [mips_of(row, name) for name in speeds] + [row["ratios"].get(name) for name in ratios]
            lines.append([row["guest"], *("" if s is None else number(s["median"]) for s in found)])
        (speed_means, _), (ratio_means, worst) = summaries(of, "contestants"), summaries(of, "ratios")
        for label, speed_texts, ratio_texts in (("mean", speed_means, ratio_means), ("worst", {}, worst)):
            texts = [speed_texts.get(name, "") for name in speeds] + [ratio_texts.get(name, "") for name in ratios]
            lines.append([f"**{kind}: {label}**", *(text and f"**{text}**" for text in texts)])
    return markdown_table(["guest", *(f"{name}, MIPS" for name in speeds), *ratios], lines)


def conditions(results: Results) -> str:
    """On what and how this was measured."""
    machine = results["machine"]
    options = results["options"]
    cpu = " Times of vmjit on one core are CPU time." if options.get("clock") == "cpu" else ""
    peers = [f"{name} {machine[key]}" for key, name in (("qemu", "QEMU"), ("gcc", "gcc")) if machine[key]]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}; vmjit {machine['vmjit']}, "
        f"Python {machine['python']}, LLVM {machine['llvm']}{''.join(', ' + p for p in peers)}. "
        f"Medians of {options['runs']} rounds, means are geometric; MIPS are millions of guest instructions a second. "
        "Lanes of guests that agree take the same way whatever their input, those of guests that part do not." + cpu
    )


def readme_text(results: Results) -> str:
    """All of it, without the markers."""
    parts = [conditions(results)]
    title: Callable[[str, int], str]
    for part, title in (
        (results["one_lane"], lambda isa, _: f"One lane on one core, {isa}:"),
        (results["batch"], lambda isa, lanes: f"{lanes:,} lanes with an input each, all lanes together, {isa}:"),
    ):
        for (isa, lanes), rows in groups(part).items():
            parts += [title(isa, lanes), rows_markdown(rows)]
    for heading, costs in (("Compile time", results["compile_costs"]), ("Small costs", results["small_costs"])):
        if costs:
            lines = [[cost["name"], f"{number(cost['value']['median'])} {cost['unit']}"] for cost in costs]
            parts += [f"{heading}:", markdown_table(["cost", "median"], lines)]
    if targets := results["targets"]:
        parts += ["What it must reach:", markdown_table(*target_lines(targets))]
    return "\n\n".join(parts)


def markers(section: str) -> tuple[str, str]:
    return f"<!-- {section}:begin -->", f"<!-- {section}:end -->"


def replaced(readme: str, text: str, section: str = SECTIONS[0]) -> str:
    """The README with `text` between the markers. ValueError where they are missing or in the wrong order."""
    first, last = markers(section)
    begin, end = readme.find(first), readme.find(last)
    if begin < 0 or end < begin:
        raise ValueError(f"there is no {first} … {last}")
    return f"{readme[: begin + len(first)]}\n{text}\n{readme[end:]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 where `--check` finds a difference, 2 where a file is not what it should be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme_table", description=__doc__)
    parser.add_argument("results", type=Path, help="a result file")
    parser.add_argument("--write", type=Path, metavar="README", help="put the tables between the file's markers")
    parser.add_argument("--check", type=Path, metavar="README", help="only say whether the file has these tables")
    parser.add_argument("--section", choices=SECTIONS, default=SECTIONS[0], help="which markers (benchmarks)")
    options = parser.parse_args(arguments)
    try:
        text = readme_text(load(options.results))
        if options.check:
            readme = options.check.read_text()
            same = replaced(readme, text, options.section) == readme
            print(f"{options.check} {'has' if same else 'does not have'} the tables of {options.results}")
            return 0 if same else 1
        if options.write:
            options.write.write_text(replaced(options.write.read_text(), text, options.section))
            return 0
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
