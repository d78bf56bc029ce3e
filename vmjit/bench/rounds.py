"""How contestants are measured: one input for all, in turns, and their answers compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from vmjit.bench.contestants import Contestant, Inputs, Run
from vmjit.bench.spread import geometric_mean

Say = Callable[[str], None]

# A calibration run is long enough to be trusted at this length.
_CALIBRATION_SECONDS = 0.02
_MAX_REPEAT = 1 << 28

# How much longer than the target the slowest contestant may take.
_SLOWEST = 4.0


def time_per_repeat(contestant: Contestant, inputs_of: Callable[[int], Inputs], first: int = 16) -> float:
    """Seconds that one repeat takes, from the shortest run that can be trusted; `inputs_of` gives the inputs for a
    number of repeats, of which `first` is tried first."""
    repeat = first
    while True:
        seconds = contestant.measure(inputs_of(repeat)).seconds
        if seconds >= _CALIBRATION_SECONDS or repeat >= _MAX_REPEAT:
            return seconds / repeat
        repeat *= 4


def choose_repeat(seconds_per_repeat: Mapping[str, float], target: float, least: int = 2) -> int:
    """The input for all contestants of a row.

    Their speeds differ by a factor of fifty, so that no input suits all: the geometric mean of their times is the
    target, unless the slowest would then take more than four times that. Never fewer than `least`.
    """
    times = list(seconds_per_repeat.values())
    mean = geometric_mean(times)
    if mean is None:
        return least
    repeat = min(target / mean, _SLOWEST * target / max(times))
    return min(max(least, round(repeat)), _MAX_REPEAT)


def run_rounds(contestants: Sequence[Contestant], inputs: Inputs, rounds: int) -> dict[str, list[Run]]:
    """A B C C B A A B C …: what the machine does meanwhile hits all of them alike, also what drifts."""
    runs: dict[str, list[Run]] = {c.name: [] for c in contestants}
    for turn in range(rounds):
        for contestant in contestants if turn % 2 == 0 else reversed(contestants):
            runs[contestant.name].append(contestant.measure(inputs))
    return runs


def disagreement(runs: Mapping[str, Sequence[Run]]) -> str:
    """Who gave another answer or another count than the rest, in words; empty if all agree.

    Contestants that answer for a sample of the instances are compared in these.
    """
    problems = []
    widest = math.lcm(*(run.every for of in runs.values() for run in of))
    answers = {tuple(run.answers[:: widest // run.every]) for of in runs.values() for run in of}
    whole = {tuple(run.answers) for of in runs.values() for run in of if run.every == 1}
    if len(answers) > 1 or len(whole) > 1:
        problems.append("answers differ: " + ", ".join(f"{n} {_answer(of)}" for n, of in runs.items()))
    counts = {run.instructions for of in runs.values() for run in of if run.instructions}
    if len(counts) > 1:
        problems.append(f"retired counts differ: {', '.join(str(c) for c in sorted(counts))}")
    return "; ".join(problems)


def _answer(runs: Sequence[Run]) -> str:
    answers = tuple(runs[0].answers)
    if any(tuple(run.answers) != answers for run in runs):
        return "not the same in every round"
    whole = b"".join(answers)
    begin = whole[:16].decode("latin1")
    shown = repr(begin) if all(c.isascii() and (c.isprintable() or c.isspace()) for c in begin) else whole[:8].hex()
    return shown + ("…" if len(whole) > (16 if shown[0] == "'" else 8) else "")
