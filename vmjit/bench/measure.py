"""One guest with one number of instances: who takes part, how much work is given, and the rounds."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from vmjit.bench.contestants import ByCpu, Contestant, First, Inputs, Run, Sampled
from vmjit.bench.guests import BenchGuest
from vmjit.bench.results_file import Entry, Ratio, Row
from vmjit.bench.rounds import Say, choose_repeat, disagreement, run_rounds, time_per_repeat
from vmjit.bench.spread import Spread, paired_ratio

# What an instance executes at least, about.
_LANE_INSTRUCTIONS = 500_000

# How often it is looked again whether a run takes as long as it should.
_LOOKS = 3

# How much longer the work of a sample takes than its starts, and how often it is repeated for that at most.
_ABOVE_START = 3.0
_LONGEST = 10_000


@dataclass(frozen=True)
class Taking:
    """A contestant that takes part: how it is called, `kind` ("vmjit" or "peer"), what it is, whether only `every`
    so-manieth instance is run; what its fresh starts took. idle: one of its kind for runs without work, where those
    would change what it does with work; None: itself."""

    contestant: Contestant
    kind: str
    what: str
    every: int = 1
    firsts: Sequence[First] = field(default_factory=tuple)
    idle: Contestant | None = None

    @property
    def name(self) -> str:
        return self.contestant.name


class StartApart:
    """Another contestant; its seconds are those of the work alone.

    What a run with no work costs is measured beside each and taken off. Where the work of a few instances is too short
    for that, the same with `longer` times the work is measured too.

    Behind another contestant's turn, caches hold nothing of this one, which costs up to a quarter of a start. Where
    `idle` is another than `inner`, both meet that; else a first run without work, which is not counted, does.
    """

    def __init__(self, inner: Contestant, idle: Contestant, no_work: Inputs, much: Inputs, longer: int) -> None:
        self.name = inner.name
        self._inner, self._idle = inner, idle
        self._no_work, self._much, self._longer = no_work, much, longer

    def warm(self, inputs: Inputs) -> None:
        self._idle.warm(self._no_work)
        self._inner.warm(inputs)

    def measure(self, inputs: Inputs) -> Run:
        if self._idle is self._inner:
            self._idle.measure(self._no_work)
        idle = self._idle.measure(self._no_work)
        run = self._inner.measure(inputs)
        more = self._inner.measure(self._much) if self._longer > 1 else run
        return replace(
            run,
            seconds=(more.seconds - idle.seconds) / self._longer,
            cpu_seconds=(more.cpu_seconds - idle.cpu_seconds) / self._longer,
            instructions=max(0, run.instructions - idle.instructions),
            fixed=sum(idle.phases.values()),
        )

    def close(self) -> None:
        self._inner.close()


class Nothing:
    """A contestant that does nothing: what the clock and the way to it cost."""

    name = "nothing"

    def warm(self, inputs: Inputs) -> None:
        pass

    def measure(self, inputs: Inputs) -> Run:
        started, before = time.perf_counter(), time.process_time()
        for _ in inputs:
            pass
        cpu_seconds = time.process_time() - before
        return Run(time.perf_counter() - started, cpu_seconds, ())

    def close(self) -> None:
        pass


def overhead(rounds: int) -> list[float]:
    """Seconds that are measured of what does nothing, by round."""
    return [run.seconds for run in run_rounds([Nothing()], [b""], rounds)[Nothing.name]]


def measure_row(
    guest: BenchGuest,
    lanes: int,
    takings: Sequence[Taking],
    *,
    rounds: int,
    seconds: float,
    clock: str,
    repeat: int | None,
    absent: Mapping[str, str],
    say: Say,
) -> Row:
    """All contestants with the same inputs, in turns. `seconds`: what a run is to take, about, where `repeat`, how
    often a bundled guest does its work, is not given."""
    contestants: list[Contestant] = [_timed(taking.contestant, taking.every, clock) for taking in takings]
    chosen = repeat or 1
    if guest.bundled:
        if not guest.idle:
            say("how fast everybody is")
            chosen = repeat or _repeat(guest, lanes, takings, contestants, seconds)
        contestants = [
            _without_start(guest, lanes, chosen, one, taking, clock, seconds)
            for one, taking in zip(contestants, takings, strict=True)
        ]
    inputs = guest.inputs(lanes, chosen)
    for contestant in contestants:
        say(f"warming {contestant.name}")
        contestant.warm(inputs)
    say(f"{rounds} rounds")
    runs = run_rounds(contestants, inputs, rounds)
    return make_row(guest, lanes, chosen, takings, runs, absent)


def _timed(one: Contestant, every: int, clock: str) -> Contestant:
    timed = ByCpu(one) if clock == "cpu" else one
    return timed if every == 1 else Sampled(timed, every)


def _repeat(
    guest: BenchGuest, lanes: int, takings: Sequence[Taking], contestants: Sequence[Contestant], seconds: float
) -> int:
    """How often the guest does its work: for about so many seconds, and never so little that what a run costs once
    decides. Who runs only a sample of many has no say in it."""
    asked = [one for taking, one in zip(takings, contestants, strict=True) if taking.kind == "vmjit" or lanes == 1]
    least = 1

    def inputs_of(repeat: int) -> Inputs:
        return guest.inputs(lanes, repeat)

    for one in asked:
        one.warm(inputs_of(1))
        if counted := one.measure(inputs_of(1)).instructions:
            least = max(1, round(_LANE_INSTRUCTIONS * lanes / counted))
    repeat = choose_repeat({one.name: time_per_repeat(one, inputs_of, first=least) for one in asked}, seconds, least)
    for _ in range(_LOOKS):
        # What was measured while something was compiled is no measure.
        for one in asked:
            one.warm(inputs_of(repeat))
        times = {one.name: min(one.measure(inputs_of(repeat)).seconds for _ in range(2)) / repeat for one in asked}
        before, repeat = repeat, choose_repeat(times, seconds, least)
        if repeat < 1.5 * before:
            break
    return repeat


def _without_start(
    guest: BenchGuest, lanes: int, repeat: int, one: Contestant, taking: Taking, clock: str, seconds: float
) -> StartApart:
    """With as much work for a sample that it is well above what starts cost, and what those differ by."""
    idle = one if taking.idle is None else _timed(taking.idle, taking.every, clock)
    no_work = guest.inputs(lanes, 0)
    longer = 1
    if taking.every > 1 and not guest.idle:
        idle.warm(no_work)
        start = min(idle.measure(no_work).seconds for _ in range(3))
        wanted = max(seconds * taking.every, _ABOVE_START * start)
        while longer < _LONGEST:
            work = one.measure(guest.inputs(lanes, repeat * longer)).seconds - start
            if work >= wanted:
                break
            longer = math.ceil(longer * min(max(wanted / max(work, 1e-9), 2), 8))
    return StartApart(one, idle, no_work, guest.inputs(lanes, repeat * longer), longer)


def make_row(
    guest: BenchGuest,
    lanes: int,
    repeat: int,
    takings: Sequence[Taking],
    runs: Mapping[str, Sequence[Run]],
    absent: Mapping[str, str],
) -> Row:
    """Put a row together. Where answers differ, nothing is set in relation."""
    problem = disagreement(runs)
    entries = {taking.name: _entry(taking, runs[taking.name], lanes) for taking in takings}
    return {
        "guest": guest.name,
        "isa": guest.isa,
        "lanes": lanes,
        "repeat": repeat if guest.bundled else 1,
        "start_apart": guest.bundled,
        "instructions": max((run.instructions for of in runs.values() for run in of), default=0),
        "agree": not problem,
        "problem": problem,
        "entries": entries,
        "ratios": {} if problem else ratios_of(entries),
        "absent": dict(absent),
    }


def failed_row(guest: BenchGuest, lanes: int, error: Exception) -> Row:
    """A row that could not be measured."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    row = make_row(guest, lanes, 1, (), {}, {})
    return {**row, "agree": False, "problem": said}


def _entry(taking: Taking, runs: Sequence[Run], lanes: int) -> Entry:
    phases = list(dict.fromkeys(name for run in runs for name in run.phases))
    return {
        "kind": taking.kind,
        "what": taking.what,
        "every": runs[0].every,
        "steady": [run.seconds for run in runs],
        "cpu": [run.cpu_seconds for run in runs],
        "instance": [sum(run.phases.values()) / lanes for run in runs if run.phases],
        "fixed": [run.fixed / lanes for run in runs if run.fixed],
        "phases": {name: statistics.median(run.phases.get(name, 0.0) for run in runs) / lanes for name in phases},
        "first": [first.seconds for first in taking.firsts],
        "compile": [first.compile_seconds for first in taking.firsts if first.compile_seconds is not None],
        "memory": [first.memory for first in taking.firsts if first.memory is not None],
    }


def ratios_of(entries: Mapping[str, Entry]) -> dict[str, Ratio]:
    """Each of vmjit's contestants to each peer, and the others of vmjit's to its first."""
    ours = [name for name, entry in entries.items() if entry["kind"] == "vmjit"]
    pairs = [(name, peer) for name in ours for peer in entries if peer not in ours]
    pairs += [(name, ours[0]) for name in ours[1:]]
    found = {}
    for first, second in pairs:
        ratio = paired_ratio(entries[first]["steady"], entries[second]["steady"])
        if ratio is not None:
            found[f"{first} : {second}"] = as_ratio(ratio)
    return found


def as_ratio(ratio: Spread) -> Ratio:
    return {
        "median": ratio.median,
        "low": ratio.low,
        "high": ratio.high,
        "coverage": ratio.coverage,
        "differs": ratio.differs,
    }
