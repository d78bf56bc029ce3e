"""Result files as tables on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.contestants import QEMU
from benchmarks.measure import waited_share
from benchmarks.parts import ALL_CORES, TWO_CORES
from benchmarks.results_file import Cost, Reached, Results, Row, Summary
from benchmarks.targets import figures, mips, of_kind, ratio
from vmjit.bench.spread import geometric_mean, number

# A one-core contestant that waits longer than this was not alone on its core.
_WAITED_TOO_LONG = 0.1


def cell(summary: Summary | None) -> str:
    """The median, and below it the range."""
    if summary is None:
        return ""
    return f"{number(summary['median'])}\n[dim]{number(summary['min'])}-{number(summary['max'])}[/dim]"


def names_in(rows: Sequence[Row], part: str) -> list[str]:
    """Names of contestants or ratios, in the order in which they come."""
    found: dict[str, None] = {}
    for row in rows:
        found.update(dict.fromkeys(row["contestants"] if part == "contestants" else row["ratios"]))
    return list(found)


def mips_of(row: Row, name: str) -> Summary | None:
    result = row["contestants"].get(name)
    return result["mips"] if result else None


def by_kind(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Kind and rows: "agree" and "part" as far as there are such guests, and "all" where there are both."""
    kinds = [(kind, found) for kind in ("agree", "part") if (found := of_kind(rows, kind))]
    return [*kinds, ("all", list(rows))] if len(kinds) > 1 else kinds


def summaries(rows: Sequence[Row], part: str) -> tuple[dict[str, str], dict[str, str]]:
    """Geometric mean, and the worst with its guest, by contestant or ratio; of rows whose answers agree."""
    of = mips if part == "contestants" else ratio
    mean: dict[str, str] = {}
    worst: dict[str, str] = {}
    for name in names_in(rows, part):
        found = figures(rows, of(name))
        if (value := geometric_mean([figure for figure, _ in found])) is not None:
            lowest, guest = min(found)
            mean[name], worst[name] = number(value), f"{number(lowest)} {guest}"
    return mean, worst


def speeds_table(title: str, rows: Sequence[Row], absent: Sequence[str] = ()) -> Table:
    """Million guest instructions a second by guest. `absent` are contestants that could not take part."""
    names = [*names_in(rows, "contestants"), *absent]
    return _filled(title, rows, names, "contestants", lambda row: [cell(mips_of(row, name)) for name in names])


def ratios_table(title: str, rows: Sequence[Row]) -> Table:
    """Speed ratios by guest."""
    names = names_in(rows, "ratios")
    return _filled(title, rows, names, "ratios", lambda row: [cell(row["ratios"].get(name)) for name in names])


def _filled(
    title: str, rows: Sequence[Row], names: Sequence[str], part: str, cells: Callable[[Row], Sequence[str]]
) -> Table:
    """Guests by kind, and below each kind its mean and its worst."""
    table = _new_table(title, names)
    for kind, of in by_kind(rows):
        for row in of if kind != "all" else ():
            if row["agree"]:
                table.add_row(row["guest"], *cells(row))
            else:
                table.add_row(f"[red]{row['guest']}", "[red]see below")
        table.add_section()
        for label, texts in zip(("mean", "worst"), summaries(of, part), strict=True):
            table.add_row(f"[bold]{kind}: {label}", *(texts.get(name, "") for name in names))
        table.add_section()
    return table


def _new_table(title: str, names: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("guest")
    for name in names:
        table.add_column(name, justify="right", min_width=max(map(len, name.split())))
    return table


def busy_rows(results: Results) -> list[str]:
    """The measurements during which something else had the core."""
    found = []
    for row in (*results["one_lane"], *results["batch"], *results["many_lanes"]):
        for name in row["contestants"].keys() - {TWO_CORES, ALL_CORES}:
            waited = waited_share(row, name)
            if waited > _WAITED_TOO_LONG:
                found.append(f"{row['guest']} {row['isa']} {name} {waited:.0%}")
    return found


def groups(rows: Sequence[Row]) -> dict[tuple[str, int], list[Row]]:
    """Rows by ISA and number of lanes, in order."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row["isa"], row["lanes"]), []).append(row)
    return found


def _print_rows(console: Console, what: str, rows: Sequence[Row], absent: Sequence[str]) -> None:
    missing = [name for name in absent if name not in names_in(rows, "contestants")]
    console.print(speeds_table(f"{what}: million guest instructions a second", rows, missing))
    console.print(ratios_table(f"{what}: speed ratios, pairwise by round", rows))
    for row in rows:
        if not row["agree"]:
            console.print(f"[red]{row['guest']} {row['isa']}: {row['problem']}", highlight=False)


def costs_table(title: str, costs: Sequence[Cost]) -> Table:
    """Costs that are no runs of guests."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column("median", justify="right")
    table.add_column("range", justify="right")
    for cost in costs:
        value = cost["value"]
        spread = f"{number(value['min'])}-{number(value['max'])}"
        table.add_row(cost["name"], f"{number(value['median'])} {cost['unit']}", spread)
    return table


def target_lines(targets: Sequence[Reached]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of a table: for each ISA what must be reached and what was, ✓ where that is enough, else ✗."""
    isas = [isa for isa in QEMU if any(t["isa"] == isa and t["met"] is not None for t in targets)]
    lines: dict[str, dict[str, list[str]]] = {}
    for target in targets:
        figure = "not measured"
        if target["reached"] is not None:
            mark = "✓" if target["met"] else "✗"
            figure = " ".join(filter(None, (number(target["reached"]), target["guest"], mark)))
        goal = f"{'≤' if target['at_most'] else '≥'} {target['goal']:g}"
        lines.setdefault(target["what"], {})[target["isa"]] = [goal, figure]
    header = ["", *(text for isa in isas for text in (isa, "reached"))]
    return header, [[what, *(text for isa in isas for text in of.get(isa, ["", ""]))] for what, of in lines.items()]


def targets_table(targets: Sequence[Reached]) -> Table:
    """What must be reached, and what was."""
    table = Table(title="what it must reach", title_justify="left")
    header, lines = target_lines(targets)
    for number_of_column, name in enumerate(header):
        table.add_column(name, justify="right" if number_of_column else "left")
    colours = {"✓": "[green]", "✗": "[red]"}
    for line in lines:
        table.add_row(*(colours.get(text[-1:], "") + text for text in line))
    return table


def print_report(results: Results, console: Console) -> None:
    """Everything that was measured."""
    for what, why in results["missing"].items():
        console.print(f"[yellow]{what}: {why}", highlight=False)
    for (isa, _), rows in groups(results["one_lane"]).items():
        _print_rows(console, f"{isa}, one lane, one core", rows, ("qemu", "native"))
    for (isa, lanes), rows in groups(results["batch"]).items():
        _print_rows(console, f"{isa}, {lanes:,} lanes with an input each, all lanes together", rows, ("qemu", "native"))
    for (isa, _), rows in groups(results["many_lanes"]).items():
        _print_rows(console, f"{isa}, one core, by the number of lanes", rows, ())
    for title, costs in (("compile time", results["compile_costs"]), ("small costs", results["small_costs"])):
        if costs:
            console.print(costs_table(title, costs))
    if results["targets"]:
        console.print(targets_table(results["targets"]))
    if busy := busy_rows(results):
        shown = ", ".join(busy[:8]) + (" …" if len(busy) > 8 else "")
        console.print(
            f"[yellow]the machine was busy; these waited for their core: {shown}. "
            "Repeat on a quiet machine, or with --clock cpu."
        )
