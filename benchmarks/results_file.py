"""The result file: JSON, written by `run`, read by everything that prints."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

RESULTS_DIR = Path(__file__).resolve().parent / "results"
SCHEMA = 1


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
    """One of the small costs."""

    name: str
    unit: str
    value: Summary


class Results(TypedDict):
    """The whole file."""

    schema: int
    machine: dict[str, str | int]
    options: dict[str, Any]
    missing: dict[str, str]
    one_lane: list[Row]
    batch: list[Row]
    small_costs: list[Cost]


def summarise(values: Sequence[float]) -> Summary:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def geometric_mean(values: Iterable[float]) -> float | None:
    """None for no values."""
    logs = [math.log(v) for v in values if v > 0]
    return math.exp(sum(logs) / len(logs)) if logs else None


def all_agree(results: Results) -> bool:
    return all(row["agree"] for row in (*results["one_lane"], *results["batch"]))


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
