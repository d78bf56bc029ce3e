"""What the README has from result files: `python -m benchmarks.readme` writes all tables and plots anew."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.readme_table import readme_text, replaced
from benchmarks.results_file import RESULTS_DIR, Results, load
from vmjit.bench.plots import sweeps
from vmjit.bench.results_file import load as load_bench
from vmjit.bench.svg import DotPlot, Plot, Series, standalone

ROOT = RESULTS_DIR.parents[1]
PLOTS_DIR = RESULTS_DIR / "plots"

TABLES = {"benchmarks": "2026-11-30-epyc-avx512-2-cores.json", "floats": "2026-11-29-floats-epyc-2-cores.json"}
"""The result file of each part of the README."""
BY_GUEST = "benchmarks"
"""The part whose batch is plotted by guest."""
LANES = "2026-11-30-lanes.json"
"""A sweep over numbers of lanes, by `vmjit bench`."""

_RATIO = "auto : native"


def by_guest(results: Results) -> DotPlot:
    """How many times as fast as native code a batch is, by guest and ISA, best first."""
    rows = [row for row in results["batch"] if row["agree"] and _RATIO in row["ratios"]]
    isas = list(dict.fromkeys(row["isa"] for row in rows))
    best = {row["guest"]: row["ratios"][_RATIO]["median"] for row in rows if row["isa"] == isas[0]}
    guests = sorted(best, key=lambda guest: -best[guest])
    series = []
    for isa in isas:
        ratios = {row["guest"]: row["ratios"][_RATIO] for row in rows if row["isa"] == isa}
        points = [(float(n), r["median"], r["min"], r["max"]) for n, g in enumerate(guests) if (r := ratios.get(g))]
        series.append(Series(isa, points))
    lanes = max(row["lanes"] for row in rows)
    title = f"{lanes:,} lanes on one core, against native code run once an input"
    return DotPlot(title, "times as fast as native (median and range of the rounds)", guests, series)


def plots() -> dict[str, str]:
    """The plots' files and what they hold."""
    drawn: dict[str, Plot] = {"by-guest.svg": by_guest(load(RESULTS_DIR / TABLES[BY_GUEST]))}
    for plot in sweeps(load_bench(RESULTS_DIR / LANES)):
        drawn[f"lanes-{plot.title.split()[0]}.svg"] = plot
    return {name: standalone(plot) for name, plot in drawn.items()}


def tables(readme: str) -> str:
    """The README with the tables of TABLES."""
    for section, file in TABLES.items():
        readme = replaced(readme, readme_text(load(RESULTS_DIR / file)), section)
    return readme


def differing(readme: Path, folder: Path) -> list[str]:
    """What is not as the result files say."""
    text = readme.read_text()
    found = [] if tables(text) == text else ["the tables"]
    for name, svg in plots().items():
        if not (folder / name).is_file() or (folder / name).read_text() != svg:
            found.append(f"the plot {name}")
        if f"{folder.name}/{name})" not in text:
            found.append(f"the plot {name}, which is not shown")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 where `--check` finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say what is not as the result files have it")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", metavar="FILE", help="another README")
    parser.add_argument("--plots", type=Path, default=PLOTS_DIR, metavar="DIR", help="another folder of plots")
    options = parser.parse_args(arguments)
    if options.check:
        found = differing(options.readme, options.plots)
        for what in found:
            print(f"{options.readme.name}: not as measured: {what} (python -m benchmarks.readme writes it)")
        return 1 if found else 0
    options.readme.write_text(tables(options.readme.read_text()))
    options.plots.mkdir(exist_ok=True)
    for name, svg in plots().items():
        (options.plots / name).write_text(svg)
    return 0


if __name__ == "__main__":
    sys.exit(main())
