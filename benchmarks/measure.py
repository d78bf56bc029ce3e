"""Rows of a result file, compared round by round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.results_file import ContestantResult, Row, Summary, summarise
from vmjit.bench.contestants import Run
from vmjit.bench.rounds import disagreement

# Which of a run's two times counts.
CLOCKS = ("run", "cpu")


def speed_ratio(first: Sequence[float], second: Sequence[float]) -> Summary:
    """How many times as fast as the second the first is, from the seconds of each round."""
    return summarise([s / f for f, s in zip(first, second, strict=True)])


def make_row(
    guest: str,
    isa: str,
    lanes: int,
    repeat: int,
    runs: Mapping[str, Sequence[Run]],
    pairs: Sequence[tuple[str, str]],
    clocks: Mapping[str, str],
) -> Row:
    """Put a row together.

    `clocks` says by contestant which of CLOCKS counts; one that it does not name has the same time on both.
    """
    problem = disagreement(runs)
    instructions = max((run.instructions for of in runs.values() for run in of), default=0)
    contestants: dict[str, ContestantResult] = {}
    for name, of in runs.items():
        seconds = _seconds(of, clocks.get(name, "run"))
        tiers = of[-1].tiers
        contestants[name] = {
            "seconds": seconds,
            "cpu_seconds": [run.cpu_seconds for run in of],
            "mips": summarise([instructions / s / 1e6 for s in seconds]),
            "compiled_share": 1 - tiers["interpreter"] / max(sum(tiers.values()), 1) if tiers else None,
        }
    ratios = {}
    for first, second in pairs:
        if first in runs and second in runs:
            # CPU time only where neither has to be timed by the clock, as what runs on several cores has.
            asked = {clocks[name] for name in (first, second) if name in clocks}
            clock = "cpu" if asked == {"cpu"} else "run"
            ratios[f"{first} : {second}"] = speed_ratio(_seconds(runs[first], clock), _seconds(runs[second], clock))
    return {
        "guest": guest,
        "isa": isa,
        "lanes": lanes,
        "repeat": repeat,
        "instructions": instructions,
        "agree": not problem,
        "problem": problem,
        "contestants": contestants,
        "ratios": ratios,
    }


def _seconds(runs: Sequence[Run], clock: str) -> list[float]:
    return [run.cpu_seconds if clock == "cpu" else run.seconds for run in runs]


def waited_share(row: Row, name: str) -> float:
    """How much of its time a one-core contestant waited for the core: above some percent, the machine was busy."""
    result = row["contestants"][name]
    total = sum(result["seconds"])
    return max(0.0, 1 - sum(result["cpu_seconds"]) / total) if total else 0.0
