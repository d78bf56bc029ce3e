"""The same cases on vmjit's tiers: many harts as the lanes of one machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.differential.oracles import machine, settle
from vmjit.cases.hart import Outcome
from vmjit.cases.tier_run import Start, outcomes, set_lanes
from vmjit.program import Program

__all__ = ["Run", "Start", "run_on_tier"]


@dataclass(frozen=True)
class Run:
    """What became of the lanes in one run of a machine; `compiled` counts instructions retired in compiled code."""

    label: str
    outcomes: list[Outcome]
    compiled: int


def run_on_tier(program: Program, starts: list[Start], tier: str, limit: int) -> Iterator[Run]:
    """One lane a start. "auto" is run three times, so that lanes are interpreted first and meet compiled code at last."""
    m = machine(program, len(starts), tier, threads=1)
    m._engine.environment = None  # environment calls stop the lane
    runs = 3 if tier == "auto" else 1
    for number in range(1, runs + 1):
        if number > 1:
            settle()
            m.reset()
        set_lanes(m, starts)
        result = m.run(limit)
        yield Run(f"{tier}, run {number}", outcomes(m, result), result.tiers["scalar"])
