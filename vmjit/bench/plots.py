"""What is plotted of a result file, and the files that plots are saved in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vmjit.bench.crossings import words
from vmjit.bench.results_file import Entry, Results, Row, names_of
from vmjit.bench.spread import spread
from vmjit.bench.svg import LinePlot, Series, standalone
from vmjit.errors import ArgumentError

SUFFIXES = (".svg", ".png")

# Points of one contestant, for a row; nothing where it has none.
_Point = Callable[[Row, Entry], tuple[float, float, float, float] | None]


def sweeps(results: Results) -> list[LinePlot]:
    """For each guest that was run with several numbers of lanes: what an instance costs over them."""
    rows: dict[tuple[str, str], list[Row]] = {}
    for row in results["rows"]:
        if row["agree"]:
            rows.setdefault((row["guest"], row["isa"]), []).append(row)
    found = []
    for (guest, isa), of in rows.items():
        if len(of) > 1:
            title = f"{guest} {isa}: the work of an instance, start apart"
            if not of[0]["start_apart"]:
                title = f"{guest} {isa}: an instance, start and all"
            marks = [
                (float(c["lanes"]), words(c))
                for c in results["crossings"]
                if c["lanes"] is not None and isa.startswith(f"rv{c['xlen']}")
            ]
            found.append(LinePlot(title, "instances", "µs an instance's repeat", _series(of, _steady), marks))
    return found


def _steady(row: Row, entry: Entry) -> tuple[float, float, float, float] | None:
    scale = 1e6 / row["lanes"] / max(row["repeat"], 1)
    values = [seconds * scale for seconds in entry["steady"]]
    if min(values, default=0.0) <= 0:
        return None
    found = spread(values)
    return float(row["lanes"]), found.median, found.low, found.high


def _series(rows: Sequence[Row], point: _Point) -> list[Series]:
    found = []
    for name in names_of(rows):
        points = [point(row, row["entries"][name]) for row in rows if name in row["entries"]]
        if there := sorted(one for one in points if one is not None):
            found.append(Series(name, there))
    return found


def plot_name(path: str) -> str:
    """The path if a plot can be saved there, by its suffix; `ArgumentError` where it cannot."""
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise ArgumentError(f"{path}: a plot is saved as {' or '.join(SUFFIXES)}")
    if suffix == ".png":
        _pyplot()
    return path


def save_plots(plots: Sequence[LinePlot], path: str) -> list[Path]:
    """One file for each plot: the path, and for the next ones with -2 and so on before the suffix."""
    first = Path(path)
    paths = [first, *(first.with_stem(f"{first.stem}-{n}") for n in range(2, len(plots) + 1))]
    for plot, where in zip(plots, paths, strict=False):
        if first.suffix == ".svg":
            where.write_text(standalone(plot), encoding="utf-8")
        else:
            _save_png(plot, where)
    return paths[: len(plots)]


def _pyplot() -> object:
    try:
        import matplotlib
    except ImportError as error:
        raise ArgumentError('matplotlib is not installed; install it with: pip install "vmjit[bench]"') from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save_png(plot: LinePlot, path: Path) -> None:
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")  # type: ignore[attr-defined]
    for series in plot.series:
        x, y = [p[0] for p in series.points], [p[1] for p in series.points]
        errors = [[p[1] - p[2] for p in series.points], [p[3] - p[1] for p in series.points]]
        axes.errorbar(x, y, yerr=errors, marker="o", label=series.name)
    for where, text in plot.marks:
        axes.axvline(where, linestyle="--", color="gray", label=text)
    axes.set(xscale="log", yscale="log", title=plot.title, xlabel=plot.x, ylabel=plot.y)
    axes.legend()
    figure.savefig(path)
    pyplot.close(figure)  # type: ignore[attr-defined]
