"""How contestants are measured: one input for all, in turns, compared round by round."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from benchmarks.contestants import Contestant, Inputs, Run, make_input
from benchmarks.results_file import ContestantResult, Row, Summary, geometric_mean, summarise

# Which of a run's two times counts.
CLOCKS = ("run", "cpu")

# A calibration run is long enough to be trusted at this length.
_CALIBRATION_SECONDS = 0.02
_FIRST_REPEAT = 16
_MAX_REPEAT = 1 << 28

# How much longer than the target the slowest contestant may take.
_SLOWEST = 4.0

Say = Callable[[str], None]


def time_per_repeat(contestant: Contestant, seed: int) -> float:
    """Seconds that one repeat takes, from the shortest run that can be trusted."""
    repeat = _FIRST_REPEAT
    while True:
        seconds = contestant.measure([make_input(seed, repeat)]).seconds
        if seconds >= _CALIBRATION_SECONDS or repeat >= _MAX_REPEAT:
            return seconds / repeat
        repeat *= 4


def choose_repeat(seconds_per_repeat: Mapping[str, float], target: float) -> int:
    """The input for all contestants of a row.

    Their speeds differ by a factor of fifty, so that no input suits all: the geometric mean of their times is the
    target, unless the slowest would then take more than four times that. At least 2, which QEMU's correction needs.
    """
    times = list(seconds_per_repeat.values())
    mean = geometric_mean(times)
    if mean is None:
        return 2
    repeat = min(target / mean, _SLOWEST * target / max(times))
    return min(max(2, round(repeat)), _MAX_REPEAT)


def run_rounds(contestants: Sequence[Contestant], inputs: Inputs, rounds: int) -> dict[str, list[Run]]:
    """A B C A B C …: what the machine does meanwhile hits all of them alike."""
    runs: dict[str, list[Run]] = {c.name: [] for c in contestants}
    for _ in range(rounds):
        for contestant in contestants:
            runs[contestant.name].append(contestant.measure(inputs))
    return runs


def speed_ratio(first: Sequence[float], second: Sequence[float]) -> Summary:
    """How many times as fast as the second the first is, from the seconds of each round."""
    return summarise([s / f for f, s in zip(first, second, strict=True)])


def disagreement(runs: Mapping[str, Sequence[Run]]) -> str:
    """Who gave another answer or another count than the rest, in words; empty if all agree.

    Contestants that answer for a sample of the lanes are compared in these.
    """
    problems = []
    widest = math.lcm(*(run.every for of in runs.values() for run in of))
    answers = {_answers(run, widest) for of in runs.values() for run in of}
    whole = {run.answer for of in runs.values() for run in of if run.every == 1}
    if len(answers) > 1 or len(whole) > 1:
        problems.append("answers differ: " + ", ".join(f"{n} {_answer(of)}" for n, of in runs.items()))
    counts = {run.instructions for of in runs.values() for run in of if run.instructions}
    if len(counts) > 1:
        problems.append(f"retired counts differ: {', '.join(str(c) for c in sorted(counts))}")
    return "; ".join(problems)


def _answers(run: Run, every: int) -> bytes:
    """The answers of every so-manieth lane, of those that the run has."""
    step = every // run.every
    return b"".join(run.answer[at : at + 4] for at in range(0, len(run.answer), 4 * step))


def _answer(runs: Sequence[Run]) -> str:
    answer = runs[0].answer
    if any(run.answer != answer for run in runs):
        return "not the same in every round"
    return answer[:8].hex() + ("…" if len(answer) > 8 else "")


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
