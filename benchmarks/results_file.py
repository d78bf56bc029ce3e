"""The result file: JSON, written by `run`, read by everything that prints."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

RESULTS_DIR = Path(__file__).resolve().parent / "results"
SCHEMA = 2


class Summary(TypedDict):
    """Of several measurements of one thing."""

    median: float
    min: float
    max: float


class ContestantResult(TypedDict):
    """One contestant in a row. `seconds` has one element a round; `cpu_seconds` belongs to them."""

    seconds: list[float]
    cpu_seconds: list[float]
    mips: Summary
    compiled_share: float | None


class Row(TypedDict):
    """One guest on one ISA with one number of lanes. Ratios are speeds: above 1, the one named first is faster."""

    guest: str
    isa: str
    lanes: int
    repeat: int
    instructions: int
    agree: bool
    problem: str
    contestants: dict[str, ContestantResult]
    ratios: dict[str, Summary]


class Cost(TypedDict):
    """What something costs that is no run of a guest."""

    name: str
    unit: str
    value: Summary


class Reached(TypedDict):
    """One line of what vmjit must reach. `reached` and `met` are None where it was not measured."""

    what: str
    isa: str
    goal: float
    at_most: bool
    reached: float | None
    met: bool | None
    guest: str


class Results(TypedDict):
    """The whole file.

    one_lane, batch, many_lanes: the rows of the parts that run guests. targets: what must be reached, beside what was.
    """

    schema: int
    machine: dict[str, str | int]
    options: dict[str, Any]
    missing: dict[str, str]
    one_lane: list[Row]
    batch: list[Row]
    many_lanes: list[Row]
    compile_costs: list[Cost]
    small_costs: list[Cost]
    targets: list[Reached]


def summarise(values: Sequence[float]) -> Summary:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def empty_results(machine: Mapping[str, str | int], options: Mapping[str, Any], missing: Mapping[str, str]) -> Results:
    """A result file in which nothing was measured yet."""
    return {
        "schema": SCHEMA,
        "machine": dict(machine),
        "options": dict(options),
        "missing": dict(missing),
        "one_lane": [],
        "batch": [],
        "many_lanes": [],
        "compile_costs": [],
        "small_costs": [],
        "targets": [],
    }


def all_agree(results: Results) -> bool:
    return all(row["agree"] for row in (*results["one_lane"], *results["batch"], *results["many_lanes"]))


def save(results: Results, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


def load(path: Path) -> Results:
    """Raises ValueError for a file of another kind or schema."""
    data = json.loads(path.read_text())
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError(f"{path.name} is no result file of schema {SCHEMA}")
    missing = Results.__required_keys__ - data.keys()
    if missing:
        raise ValueError(f"{path.name} lacks {', '.join(sorted(missing))}")
    results: Results = data  # type: ignore[assignment]
    return results
