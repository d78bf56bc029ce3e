"""What is shown of a result file: sheets of text, which the terminal and the page print alike."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from vmjit.bench.compare import BROKEN, FASTER, SLOWER, Change, row_name
from vmjit.bench.contestants import PHASES
from vmjit.bench.crossings import words
from vmjit.bench.results_file import Entry, Results, Row
from vmjit.bench.spread import RESOLUTION, number, paired_ratio, percent, ratio_text, spread

# Below this many times what measuring nothing measures, a time says nothing.
_TRUSTED = 100


@dataclass(frozen=True)
class Sheet:
    """A table; its first column is text, the others are figures. notes are lines below it."""

    title: str
    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


EXPLANATIONS = (
    "steady state: the work of all instances once everything is warm, median ± noise; with the start taken off where "
    "the guest can be told to do no work.",
    "ratio: how many times as fast the first is, median of the rounds' ratios and the interval that holds it in 95 of "
    f"100 cases; none where that interval holds 1, or all but holds it (by {percent(RESOLUTION)}).",
    "an instance: reset, input, run and output of one, with all its repeats; start: the same with no work.",
    "first result: from the program's file to the first answer with nothing of it compiled before. vmjit: of all "
    "instances with one repeat of their work; imports and the interpreter for the ISA, which is compiled once for an "
    "installation, apart; what compiles beside it shares its cores. native: gcc and one run. Others: one run.",
    "compile: CPU time of compilers. vmjit: of all that was compiled until the end, also beside the run. native: gcc.",
    "memory: what an instance takes. vmjit and emulators: what the process grew by, compilers included, by the "
    "instances. Processes: the most that one had resident.",
)


def sheets(results: Results) -> list[Sheet]:
    """Two for each row: speeds, and what else it costs."""
    return [sheet for row in results["rows"] for sheet in (speed_sheet(row, results), *cost_sheets(row))]


def speed_sheet(row: Row, results: Results) -> Sheet:
    """One guest with one number of instances."""
    title = f"{row_name(row)}, {_times(row['repeat'])}" if row["start_apart"] else row_name(row)
    if not row["agree"]:
        return Sheet(title, ["", ""], [], [f"no figures: {row['problem']}"])
    first = next(iter(row["entries"]))
    counted = bool(row["instructions"])
    header = ["", "steady state", *(["MIPS"] if counted else []), f"{first} : it", "an instance", "its start"]
    least = _TRUSTED * statistics.median(results["overhead"] or [0.0])
    lines = []
    for name, entry in row["entries"].items():
        cells = [name, steady_text(entry, least), *([mips_text(row, entry, least)] if counted else [])]
        cells.append("" if name == first else ratio_to(row, first, name, least))
        lines.append([*cells, _median_time(entry["instance"]), _median_time(entry["fixed"])])
    return Sheet(title, header, lines, _notes(row))


def _times(repeat: int) -> str:
    return f"{repeat:,} repeats" if repeat != 1 else "1 repeat"


def cost_sheets(row: Row) -> list[Sheet]:
    """What an instance's time consists of, and what is paid once; none for a row without figures."""
    if not row["agree"]:
        return []
    lines = []
    for name, entry in row["entries"].items():
        parts = [time_text(entry["phases"][part]) if part in entry["phases"] else "" for part in PHASES]
        memory = bytes_text(statistics.median(entry["memory"])) if entry["memory"] else ""
        lines.append([name, *parts, _median_time(entry["first"]), _median_time(entry["compile"]), memory])
    header = ["", *PHASES, "first result", "compile", "memory"]
    return [Sheet(f"{row_name(row)}: an instance, and what is paid once", header, lines)]


def _notes(row: Row) -> list[str]:
    notes = [f"{name}: not there, it {why}" for name, why in row["absent"].items()]
    if sampled := [f"{n} 1 in {e['every']:,}" for n, e in row["entries"].items() if e["every"] > 1]:
        notes.append(f"a sample of the instances, scaled to all: {', '.join(sampled)}")
    if not row["start_apart"]:
        notes.append("the start of each instance is in its steady state")
    return notes


def steady_text(entry: Entry, least: float) -> str:
    found = spread(entry["steady"])
    if found.median <= least:
        return f"nothing (below {time_text(least)})" if least > 0 else "nothing"
    around = max(found.high - found.median, found.median - found.low) / found.median
    return f"{time_text(found.median)} ±{percent(around)}" if found.told else time_text(found.median)


def mips_text(row: Row, entry: Entry, least: float) -> str:
    median = statistics.median(entry["steady"])
    return number(row["instructions"] / median / 1e6) if median > least else ""


def ratio_to(row: Row, first: str, second: str, least: float) -> str:
    """How many times as fast the first is, or why that is not told."""
    times = [row["entries"][name]["steady"] for name in (first, second)]
    if min(statistics.median(of) for of in times) <= least:
        return ratio_text(None)
    return ratio_text(paired_ratio(*times))


def comparison_sheet(changes: Sequence[Change], gone: Sequence[str]) -> Sheet:
    """Old against new; what changed comes first."""
    order = {BROKEN: 0, SLOWER: 1, FASTER: 2}
    lines = []
    for change in sorted(changes, key=lambda c: order.get(c.verdict, 3)):
        figure = f"{change.figure}, by {change.by}" if change.by else change.figure
        times = number(change.ratio) if change.ratio else ""
        lines.append([change.row, change.contestant, figure, times, change.verdict])
    notes = [f"{name}: only in the old file" for name in gone]
    return Sheet("old to new", ["", "contestant", "figure", "times as good", "beyond noise"], lines, notes)


def remarks(results: Results) -> list[str]:
    """What holds for all sheets: who is missing, what measuring costs, where devices cross."""
    whats = {name: entry["what"] for row in results["rows"] for name, entry in row["entries"].items()}
    found = [f"{name}: {what}" for name, what in (*whats.items(), *results["missing"].items())]
    if results["overhead"]:
        found.append(f"measuring nothing measures {time_text(statistics.median(results['overhead']))}")
    return [*found, *(words(crossing) for crossing in results["crossings"])]


def conditions(results: Results) -> str:
    """On what and how this was measured, in a line."""
    machine, options = results["machine"], results["options"]
    tools = [f"{key} {machine[key]}" for key in ("qemu", "gcc", "unicorn", "icicle") if machine.get(key)]
    commit = str(machine.get("commit", ""))
    place, _, changed = commit.partition("+")
    return ", ".join(
        [
            f"{machine['cpu']}, {machine['cores']} cores, of which {options['cores']} used",
            str(machine["date"]),
            f"vmjit {machine['vmjit']}" + (f" at {place[:12]}{' with changes' if changed else ''}" if commit else ""),
            f"Python {machine['python']}",
            f"LLVM {machine['llvm']}",
            *tools,
            f"{options['rounds']} rounds, {options['clock']} time",
        ]
    )


def time_text(seconds: float) -> str:
    if not seconds:
        return "0 s"
    for limit, scale, unit in ((1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if abs(seconds) < limit:
            return f"{number(seconds * scale)} {unit}"
    return f"{number(seconds)} s"


def bytes_text(size: float) -> str:
    for limit, scale, unit in ((1 << 10, 1, "B"), (1 << 20, 1 << 10, "KiB"), (1 << 30, 1 << 20, "MiB")):
        if abs(size) < limit:
            return f"{number(size / scale)} {unit}"
    return f"{number(size / (1 << 30))} GiB"


def _median_time(values: Sequence[float]) -> str:
    return time_text(statistics.median(values)) if values else ""
