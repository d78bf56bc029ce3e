"""Result files as tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.measure import waited_share
from benchmarks.results_file import Cost, Reached, Results, Row, Summary, geometric_mean
from benchmarks.targets import figures, mips, of_kind, ratio

# A one-core contestant that waits longer than this was not alone on its core.
_WAITED_TOO_LONG = 0.1

TARGET_COLUMNS = ("", "isa", "must reach", "reached", "met")


def number(value: float) -> str:
    """Three significant digits, or the whole number where it has more."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


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


def summary_lines(rows: Sequence[Row], part: str) -> list[tuple[str, dict[str, str]]]:
    """(label, text by contestant or ratio): mean and worst guest of those that agree, of those that part, and of all.

    Of rows whose answers agree; kinds without guests are left out, and "all" where there is only one kind.
    """
    of = mips if part == "contestants" else ratio
    kinds = [kind for kind in ("agree", "part") if of_kind(rows, kind)]
    lines = []
    for kind in (*kinds, "") if len(kinds) > 1 else kinds:
        label = f"guests that {kind}" if kind else "all guests"
        mean: dict[str, str] = {}
        worst: dict[str, str] = {}
        for name in names_in(rows, part):
            found = figures(of_kind(rows, kind), of(name))
            if (value := geometric_mean([figure for figure, _ in found])) is not None:
                lowest, guest = min(found)
                mean[name], worst[name] = number(value), f"{number(lowest)} {guest}"
        lines += [(f"{label}: geom. mean", mean), (f"{label}: worst", worst)]
    return lines


def speeds_table(title: str, rows: Sequence[Row], absent: Sequence[str] = ()) -> Table:
    """Million guest instructions a second by guest. `absent` are contestants that could not take part."""
    names = [*names_in(rows, "contestants"), *absent]
    table = _new_table(title, names)
    for row in rows:
        if row["agree"]:
            table.add_row(row["guest"], *(cell(mips_of(row, name)) for name in names))
        else:
            table.add_row(f"[red]{row['guest']}", "[red]see below")
    return _with_summaries(table, rows, names, "contestants")


def ratios_table(title: str, rows: Sequence[Row]) -> Table:
    """Speed ratios by guest."""
    names = names_in(rows, "ratios")
    table = _new_table(title, names)
    for row in rows:
        if row["agree"]:
            table.add_row(row["guest"], *(cell(row["ratios"].get(name)) for name in names))
    return _with_summaries(table, rows, names, "ratios")


def _new_table(title: str, names: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("guest")
    for name in names:
        table.add_column(name, justify="right", min_width=max(map(len, name.split())))
    return table


def _with_summaries(table: Table, rows: Sequence[Row], names: Sequence[str], part: str) -> Table:
    for label, texts in summary_lines(rows, part):
        if label.endswith("mean"):
            table.add_section()
        table.add_row(label, *(texts.get(name, "") for name in names))
    return table


def busy_rows(results: Results) -> list[str]:
    """The measurements during which something else had the core."""
    found = []
    for row in (*results["one_lane"], *results["batch"], *results["many_lanes"]):
        for name in row["contestants"]:
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


def target_cells(target: Reached) -> list[str]:
    """What, ISA, what must be reached, what was, and whether that is enough."""
    goal = f"{'≤' if target['at_most'] else '≥'} {target['goal']:g}"
    if target["reached"] is None:
        return [target["what"], target["isa"], goal, "not measured", ""]
    figure = f"{number(target['reached'])} {target['guest']}".strip()
    return [target["what"], target["isa"], goal, figure, "yes" if target["met"] else "no"]


def targets_table(targets: Sequence[Reached]) -> Table:
    """What must be reached, and what was."""
    table = Table(title="what it must reach", title_justify="left")
    for name in TARGET_COLUMNS:
        table.add_column(name, justify="left" if name in ("", "isa") else "right")
    colours = {True: "green", False: "red", None: "dim"}
    for target in targets:
        table.add_row(*target_cells(target), style=colours[target["met"]])
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
