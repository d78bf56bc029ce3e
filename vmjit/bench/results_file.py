"""The result file of `vmjit bench`: JSON, read by everything that shows or compares."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from vmjit.errors import ArgumentError

KIND = "vmjit bench"

# What a file tells of the machine and the options in any case.
_MACHINE = ("cpu", "cores", "date", "vmjit", "python", "llvm")
_OPTIONS = ("cores", "rounds", "clock")
SCHEMA = 1


class Entry(TypedDict):
    """One contestant in a row. Lists of `steady` to `fixed` have one element a round, the others one a fresh start.

    kind: "vmjit" or "peer"; what: its version, and what it is. every: each so-manieth instance was run, times are
    scaled to all. steady: seconds of all instances' work, without their start where the guest can be told to do none
    (`start_apart` of the row). cpu: the same in CPU time. instance: seconds an instance takes with all its phases, and
    `fixed` those with no work to do. phases: medians of seconds an instance, by name. first: seconds from nothing to
    the first answer; compile: CPU seconds of compilers, of vmjit's until the end; memory: bytes an instance.
    """

    kind: str
    what: str
    every: int
    steady: list[float]
    cpu: list[float]
    instance: list[float]
    fixed: list[float]
    phases: dict[str, float]
    first: list[float]
    compile: list[float]
    memory: list[float]


class Ratio(TypedDict):
    """How many times as fast the first is, by pairs of rounds; `differs`: beyond the noise."""

    median: float
    low: float
    high: float
    coverage: float
    differs: bool


class Row(TypedDict):
    """One guest with one number of instances. instructions: guest instructions of the steady part, 0 if not known."""

    guest: str
    isa: str
    lanes: int
    repeat: int
    start_apart: bool
    instructions: int
    agree: bool
    problem: str
    entries: dict[str, Entry]
    ratios: dict[str, Ratio]
    absent: dict[str, str]


class Crossing(TypedDict):
    """From how many lanes on a device was faster than the CPU, at all numbers measured above too; None: never.

    measured: lanes, seconds on the CPU and on the device, copies included; geometric means over the guests.
    """

    device: str
    xlen: int
    lanes: int | None
    measured: list[tuple[int, float, float]]


class Results(TypedDict):
    """The whole file. overhead: seconds that measuring nothing measures."""

    kind: str
    schema: int
    machine: dict[str, str | int]
    options: dict[str, Any]
    missing: dict[str, str]
    overhead: list[float]
    rows: list[Row]
    crossings: list[Crossing]


def empty_results(machine: Mapping[str, str | int], options: Mapping[str, Any], missing: Mapping[str, str]) -> Results:
    """A result file in which nothing was measured yet."""
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "machine": dict(machine),
        "options": dict(options),
        "missing": dict(missing),
        "overhead": [],
        "rows": [],
        "crossings": [],
    }


def names_of(rows: Sequence[Row], kind: str = "") -> list[str]:
    """Contestants in the order in which they come, of one kind or all."""
    return list(dict.fromkeys(n for row in rows for n, e in row["entries"].items() if not kind or e["kind"] == kind))


def save(results: Results, path: Path) -> None:
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> Results:
    """Raises `ArgumentError` for a file of another kind or schema, OSError where it cannot be read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        data = None
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise ArgumentError(f"{path} is no result file of vmjit bench")
    if data.get("schema") != SCHEMA:
        raise ArgumentError(f"{path} has schema {data.get('schema')}, this version reads {SCHEMA}")
    if problem := _lacking(data):
        raise ArgumentError(f"{path} lacks {problem}")
    results: Results = data  # type: ignore[assignment]
    return results


def _lacking(data: dict[str, Any]) -> str:
    """The first thing that should be in the file and is not; empty if all is there."""
    parts: list[tuple[str, Any, Iterable[str]]] = [
        ("", data, Results.__required_keys__),
        ("the machine's ", data.get("machine"), _MACHINE),
        ("the options' ", data.get("options"), _OPTIONS),
    ]
    rows = data.get("rows")
    for row in rows if isinstance(rows, list) else [None]:
        parts.append(("a row's ", row, Row.__required_keys__))
        entries = row.get("entries") if isinstance(row, dict) else None
        for name, entry in entries.items() if isinstance(entries, dict) else [("a row's entry", None)]:
            parts.append((f"{name}'s ", entry, Entry.__required_keys__))
    for of, part, keys in parts:
        missing = sorted(set(keys) - part.keys()) if isinstance(part, dict) else sorted(keys)
        if missing:
            return of + ", ".join(missing)
    return ""


def all_agree(results: Results) -> bool:
    return all(row["agree"] for row in results["rows"])
