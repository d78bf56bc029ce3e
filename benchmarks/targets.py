"""What vmjit must reach, each line with how it is read off a result file."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.compile_costs import HOT_LOOP, PIPELINE, cost_name
from benchmarks.contestants import FLOAT_ISAS, ISAS
from benchmarks.guests.build import ALL_BENCHMARKS
from benchmarks.results_file import Cost, Reached, Results, Row
from benchmarks.small_costs import RESET
from vmjit.bench.spread import geometric_mean

# A figure and the guest that it is of, empty where it is of several; None where nothing was measured.
Figure = tuple[float, str]
Read = Callable[[Results, str], Figure | None]

# What is one of a guest's figures in a row; None where the row does not have it.
Of = Callable[[Row], float | None]


@dataclass(frozen=True)
class Target:
    """One line. `goals` by ISA; a figure must be at least that, or `at_most`."""

    what: str
    goals: dict[str, float]
    read: Read
    at_most: bool = False


def ratio(name: str) -> Of:
    """The median of a speed ratio, rounds compared pairwise."""

    def of(row: Row) -> float | None:
        found = row["ratios"].get(name)
        return found["median"] if found else None

    return of


def mips(name: str) -> Of:
    def of(row: Row) -> float | None:
        found = row["contestants"].get(name)
        return found["mips"]["median"] if found else None

    return of


def against_best_tier(row: Row) -> float | None:
    """`auto` against the best that could have been chosen instead of it."""
    rivals = [name for name in row["ratios"] if name in ("auto : scalar", "auto : simd")]
    return min((row["ratios"][name]["median"] for name in rivals), default=None)


def of_kind(rows: Sequence[Row], lanes: str) -> list[Row]:
    """The rows of the guests whose lanes "agree" or "part"; all for ""."""
    return [row for row in rows if not lanes or ALL_BENCHMARKS[row["guest"]].lanes == lanes]


def figures(rows: Sequence[Row], of: Of) -> list[Figure]:
    """One a row that has the figure and whose contestants gave the same answers, with the guest."""
    return [(value, row["guest"]) for row in rows if row["agree"] and (value := of(row)) is not None]


def mean_of(part: str, of: Of, lanes: str = "") -> Read:
    """The geometric mean over the guests of one kind."""

    def read(results: Results, isa: str) -> Figure | None:
        mean = geometric_mean([value for value, _ in figures(_rows(results, part, isa, lanes), of)])
        return None if mean is None else (mean, "")

    return read


def worst_of(part: str, of: Of, lanes: str = "") -> Read:
    """The lowest of the guests of one kind."""
    return lambda results, isa: min(figures(_rows(results, part, isa, lanes), of), default=None)


def _rows(results: Results, part: str, isa: str, lanes: str) -> list[Row]:
    rows: dict[str, list[Row]] = {
        "one lane": results["one_lane"],
        "batch": results["batch"],
        "many lanes": results["many_lanes"],
    }
    return of_kind([row for row in rows[part] if row["isa"] == isa], lanes)


def _first_ratio(row: Row) -> float | None:
    """The only ratio of a row of the part "many lanes": speeds of a lane among few and among many."""
    return next((found["median"] for found in row["ratios"].values()), None)


def cost(name: Callable[[str], str], of: Callable[[Results], Sequence[Cost]]) -> Read:
    def read(results: Results, isa: str) -> Figure | None:
        wanted = name(isa)
        found = [c["value"]["median"] for c in of(results) if c["name"] == wanted]
        return (statistics.median(found), "") if found else None

    return read


def _both(rv32: float, rv64: float | None = None) -> dict[str, float]:
    return dict(zip(ISAS, (rv32, rv32 if rv64 is None else rv64), strict=True))


_NATIVE = ratio("auto : native")

TARGETS = (
    Target("batch, auto : native, guests that agree, mean", _both(3, 2), mean_of("batch", _NATIVE, "agree")),
    Target("batch, auto : native, guests that agree, worst", _both(0.8), worst_of("batch", _NATIVE, "agree")),
    Target("batch, auto : native, guests that part, mean", _both(0.6), mean_of("batch", _NATIVE, "part")),
    Target(
        "batch, auto : scalar, guests that part, worst",
        _both(0.9),
        worst_of("batch", ratio("auto : scalar"), "part"),
    ),
    Target("batch, auto : best other tier, worst", _both(0.9), worst_of("batch", against_best_tier)),
    Target("batch, auto : native, all guests, mean", _both(1.5, 1.2), mean_of("batch", _NATIVE)),
    Target("batch, auto : qemu, all guests, mean", _both(6, 4), mean_of("batch", ratio("auto : qemu"))),
    Target("batch, auto : qemu, floats, mean", dict.fromkeys(FLOAT_ISAS, 5), mean_of("batch", ratio("auto : qemu"))),
    Target("one lane, scalar : qemu, mean", _both(2), mean_of("one lane", ratio("scalar : qemu"))),
    Target("one lane, scalar : qemu, worst", _both(1.2), worst_of("one lane", ratio("scalar : qemu"))),
    Target("one lane, scalar : native, mean", _both(0.6), mean_of("one lane", ratio("scalar : native"))),
    Target("one lane, interpreter, MIPS, mean", _both(500), mean_of("one lane", mips("interpreter"))),
    Target("batch, two cores : one, mean", _both(1.85), mean_of("batch", ratio("two cores : auto"))),
    Target("many lanes : batch, cost of a lane, mean", _both(1.1), mean_of("many lanes", _first_ratio), at_most=True),
    Target(
        "compiling a hot loop of 500 instructions, cold, s",
        _both(0.25),
        cost(lambda isa: cost_name(HOT_LOOP, isa), lambda results: results["compile_costs"]),
        at_most=True,
    ),
    Target(
        "whole pipeline, cold, guest instructions/s",
        _both(4000),
        cost(lambda isa: cost_name(PIPELINE, isa), lambda results: results["compile_costs"]),
    ),
    Target(
        "reset of a lane that dirtied 4 KiB, µs",
        {"rv64imac": 1},
        cost(lambda _: RESET, lambda results: results["small_costs"]),
        at_most=True,
    ),
)


def reached(results: Results) -> list[Reached]:
    """Every target beside what was measured for it."""
    found: list[Reached] = []
    for target in TARGETS:
        for isa, goal in target.goals.items():
            figure = target.read(results, isa)
            value = figure[0] if figure else None
            met = None if value is None else (value <= goal if target.at_most else value >= goal)
            found.append(
                {
                    "what": target.what,
                    "isa": isa,
                    "goal": goal,
                    "at_most": target.at_most,
                    "reached": value,
                    "met": met,
                    "guest": figure[1] if figure else "",
                }
            )
    return found
