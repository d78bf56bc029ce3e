"""The parts of a benchmark that run guests: one lane, a batch of lanes with an input each, and many lanes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contestants import QEMU, QemuContestant, QemuSample, VmjitContestant, native_contestant, runs_on
from benchmarks.measure import make_row
from benchmarks.results_file import Row
from vmjit.bench.contestants import Contestant, Sampled
from vmjit.bench.cores import pinned
from vmjit.bench.guests import SEED, elf_path, make_input, seeded_inputs
from vmjit.bench.remote import ContestantError, RemoteContestant
from vmjit.bench.rounds import Say, choose_repeat, run_rounds, time_per_repeat

# One of each nature is enough to see what the number of lanes does: computing, bound by memory, calling, parsing.
MANY_LANES_GUESTS = ("calls", "crc32", "csv", "ising")

TWO_CORES = "two cores"
ALL_CORES = "all cores"

# What a guest's repeat takes, about, where none of vmjit's contestants says it.
_REPEAT_INSTRUCTIONS = 100_000.0

# What a batch takes at least.
_BATCH_SECONDS = 0.08

# QEMU runs this many inputs of a batch, each for about as many instructions.
_QEMU_INPUTS = 16
_QEMU_INSTRUCTIONS = 20_000_000


@dataclass(frozen=True)
class Plan:
    """What to measure, and how."""

    guests: Sequence[str]
    isas: Sequence[str]
    tiers: Sequence[str]
    runs: int
    seconds: float
    clock: str
    lanes: int
    lane_instructions: int
    """About how many guest instructions a lane of a batch executes."""
    many: int
    """The number of lanes that `lanes` is compared with, a multiple of it, on MANY_LANES_GUESTS."""
    cores: Sequence[int]
    native: Path | None
    """The folder with the native builds, None without gcc."""

    @property
    def one_lane_tiers(self) -> list[str]:
        """The tiers for a single lane, which fills no vector register."""
        return [tier for tier in self.tiers if tier != "simd"]

    @property
    def many_guests(self) -> list[str]:
        """The guests that are run with many lanes."""
        return [guest for guest in self.guests if guest in MANY_LANES_GUESTS] or list(self.guests)

    def cases(self, guests: Sequence[str]) -> list[tuple[str, str]]:
        """Guests with the ISAs that they are built for."""
        return [(guest, isa) for isa in self.isas for guest in guests if runs_on(guest, isa)]

    def repeats(self, each: float) -> int:
        """How often a lane of a batch repeats what takes `each` instructions."""
        return max(1, round(self.lane_instructions / each))

    @property
    def batch_tiers(self) -> list[str]:
        """The tiers for thousands of lanes, which are worth compiling for."""
        return [tier for tier in self.tiers if tier != "interpreter"]


@contextlib.contextmanager
def _closing(contestants: Sequence[Contestant]) -> Iterator[None]:
    try:
        yield
    finally:
        for contestant in contestants:
            contestant.close()


def _failed(guest: str, isa: str, lanes: int, error: Exception) -> Row:
    row = make_row(guest, isa, lanes, 0, {}, (), {})
    return {**row, "agree": False, "problem": str(error).strip().splitlines()[-1]}


def one_lane_pairs(tiers: Sequence[str]) -> list[tuple[str, str]]:
    """Which speeds are set in relation."""
    return [*((t, "qemu") for t in tiers), *((t, "native") for t in tiers), ("qemu", "native")]


def measure_one_lane(plan: Plan, guest: str, isa: str, say: Say) -> Row:
    """All contestants of one guest on the first core."""
    core = plan.cores[:1]
    contestants: list[Contestant] = []
    with pinned(core), _closing(contestants):
        try:
            for tier in plan.one_lane_tiers:
                say(f"{guest} {isa}: warming {tier}")
                contestants.append(RemoteContestant(core, VmjitContestant, tier, elf_path(guest, isa), tier, 1, 1))
            if shutil.which(QEMU[isa]):
                contestants.append(QemuContestant("qemu", elf_path(guest, isa), isa))
            if plan.native:
                contestants.append(native_contestant("native", plan.native / guest))
            speeds = {}
            for contestant in contestants:
                say(f"{guest} {isa}: warming {contestant.name}")
                contestant.warm([make_input(SEED, 64)])
                speeds[contestant.name] = time_per_repeat(contestant, lambda repeat: [make_input(SEED, repeat)])
            repeat = choose_repeat(speeds, plan.seconds)
            inputs = [make_input(SEED, repeat)]
            say(f"{guest} {isa}: measuring {repeat} repeats")
            for contestant in contestants:
                contestant.warm(inputs)
            runs = run_rounds(contestants, inputs, plan.runs)
        except (ContestantError, OSError) as error:
            return _failed(guest, isa, 1, error)
    clocks = dict.fromkeys(plan.one_lane_tiers, plan.clock)
    return make_row(guest, isa, 1, repeat, runs, one_lane_pairs(plan.one_lane_tiers), clocks)


def batch_pairs(tiers: Sequence[str]) -> list[tuple[str, str]]:
    """Which speeds of a batch are set in relation."""
    chosen = [("auto", tier) for tier in tiers if tier != "auto"] if "auto" in tiers else []
    return [
        *((tier, "native") for tier in tiers),
        *((tier, "qemu") for tier in tiers),
        *chosen,
        *((cores, "auto") for cores in (TWO_CORES, ALL_CORES)),
    ]


def _batch_contestants(plan: Plan, guest: str, isa: str) -> Iterator[Contestant]:
    """Tiers on the first core, `auto` on two and on all, one after the other; native code and QEMU come later."""
    elf = elf_path(guest, isa)
    for tier in plan.batch_tiers:
        yield RemoteContestant(plan.cores[:1], VmjitContestant, tier, elf, tier, plan.lanes, 1)
    if "auto" in plan.batch_tiers:
        for name, cores in ((TWO_CORES, plan.cores[:2]), (ALL_CORES, plan.cores)):
            # On a machine of two cores these are all.
            if len(cores) > (1 if name == TWO_CORES else 2):
                yield RemoteContestant(cores, VmjitContestant, name, elf, "auto", plan.lanes, None)


def measure_batch(plan: Plan, guest: str, isa: str, say: Say) -> Row:
    """vmjit's tiers, native code once per input, and QEMU by a sample; every lane has its own seed.

    All repeat their work until a lane has `plan.lane_instructions` and the fastest tier takes _BATCH_SECONDS, so that
    what a run costs once does not decide.
    """
    lanes = plan.lanes
    contestants: list[Contestant] = []
    with pinned(plan.cores[:1]), _closing(contestants):
        try:
            once = seeded_inputs(lanes, 1)
            each, longer = _REPEAT_INSTRUCTIONS, 1.0
            for contestant in _batch_contestants(plan, guest, isa):
                contestants.append(contestant)
                say(f"{guest} {isa}: {lanes:,} lanes, warming {contestant.name}")
                each = contestant.measure(once).instructions / lanes
                inputs = seeded_inputs(lanes, plan.repeats(each))
                contestant.warm(inputs)
                longer = max(longer, _BATCH_SECONDS / contestant.measure(inputs).seconds)
            repeat = round(plan.repeats(each) * longer)
            inputs = seeded_inputs(lanes, repeat)
            for contestant in contestants if longer > 1 else ():
                contestant.warm(inputs)
            if plan.native:
                contestants.append(native_contestant("native", plan.native / guest))
            if shutil.which(QEMU[isa]):
                times = max(2, round(_QEMU_INSTRUCTIONS / (each * repeat)))
                every = max(1, lanes // _QEMU_INPUTS)
                contestants.append(QemuSample("qemu", elf_path(guest, isa), isa, every, times))
            say(f"{guest} {isa}: {lanes:,} lanes, {repeat} repeats")
            run_rounds(contestants, inputs, 1)
            runs = run_rounds(contestants, inputs, plan.runs)
        except (ContestantError, OSError) as error:
            return _failed(guest, isa, lanes, error)
    clocks = {**dict.fromkeys(plan.batch_tiers, plan.clock), TWO_CORES: "run", ALL_CORES: "run"}
    return make_row(guest, isa, lanes, repeat, runs, batch_pairs(plan.batch_tiers), clocks)


def measure_many(plan: Plan, guest: str, isa: str, say: Say) -> Row:
    """Whether lanes cost the same where there are more of them: `auto` on one core, a batch's work a lane.

    The fewer are every so-manieth of the many, and their time is scaled to all.
    """
    core, elf = plan.cores[:1], elf_path(guest, isa)
    many, few = many_names(plan)
    repeat, inputs = 1, seeded_inputs(plan.many, 1)
    contestants: list[Contestant] = []
    with pinned(core), _closing(contestants):
        try:
            say(f"{guest} {isa}: {plan.many:,} lanes")
            contestants.append(RemoteContestant(core, VmjitContestant, many, elf, "auto", plan.many, 1))
            fewer = RemoteContestant(core, VmjitContestant, few, elf, "auto", plan.lanes, 1)
            contestants.append(Sampled(fewer, plan.many // plan.lanes))
            repeat = plan.repeats(contestants[0].measure(inputs).instructions / plan.many)
            inputs = seeded_inputs(plan.many, repeat)
            for contestant in contestants:
                contestant.warm(inputs)
            runs = run_rounds(contestants, inputs, plan.runs)
        except (ContestantError, OSError) as error:
            return _failed(guest, isa, plan.many, error)
    return make_row(guest, isa, plan.many, repeat, runs, [(few, many)], dict.fromkeys((few, many), plan.clock))


def many_names(plan: Plan) -> tuple[str, str]:
    return f"{plan.many:,} lanes", f"{plan.lanes:,} lanes"


def one_lane_rows(plan: Plan, say: Say) -> list[Row]:
    return [measure_one_lane(plan, guest, isa, say) for guest, isa in plan.cases(plan.guests)]


def batch_rows(plan: Plan, say: Say) -> list[Row]:
    return [measure_batch(plan, guest, isa, say) for guest, isa in plan.cases(plan.guests)]


def many_rows(plan: Plan, say: Say) -> list[Row]:
    return [measure_many(plan, guest, isa, say) for guest, isa in plan.cases(plan.many_guests)]
