"""The two parts of a benchmark: one lane on one core, and a batch of lanes with an input each."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contestants import (
    QEMU,
    Contestant,
    NativeContestant,
    QemuContestant,
    VmjitContestant,
    elf_path,
    make_input,
)
from benchmarks.measure import Say, choose_repeat, make_row, run_rounds, time_per_repeat
from benchmarks.remote import ContestantError, RemoteContestant
from benchmarks.results_file import Row

# The seed of the one-lane part; the batch has the seeds from here on.
SEED = 12345

ONE_CORE = "one core"
ALL_CORES = "all cores"


@dataclass(frozen=True)
class Plan:
    """What to measure, and how."""

    guests: Sequence[str]
    isas: Sequence[str]
    tiers: Sequence[str]
    runs: int
    seconds: float
    clock: str
    cores: Sequence[int]
    native: Path | None
    """The folder with the native builds, None without gcc."""


@contextlib.contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """This process, and those it starts, on these cores."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


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
            for tier in plan.tiers:
                say(f"{guest} {isa}: warming {tier}")
                contestants.append(RemoteContestant(core, VmjitContestant, tier, elf_path(guest, isa), tier, 1, 1))
            if shutil.which(QEMU[isa]):
                contestants.append(QemuContestant("qemu", elf_path(guest, isa), isa))
            if plan.native:
                contestants.append(NativeContestant("native", plan.native / guest))
            speeds = {}
            for contestant in contestants:
                say(f"{guest} {isa}: warming {contestant.name}")
                contestant.warm([make_input(SEED, 64)])
                speeds[contestant.name] = time_per_repeat(contestant, SEED)
            repeat = choose_repeat(speeds, plan.seconds)
            inputs = [make_input(SEED, repeat)]
            say(f"{guest} {isa}: measuring {repeat} repeats")
            for contestant in contestants:
                contestant.warm(inputs)
            runs = run_rounds(contestants, inputs, plan.runs)
        except (ContestantError, OSError) as error:
            return _failed(guest, isa, 1, error)
    clocks = dict.fromkeys(plan.tiers, plan.clock)
    return make_row(guest, isa, 1, repeat, runs, one_lane_pairs(plan.tiers), clocks)


BATCH_PAIRS = ((ONE_CORE, "native"), (ALL_CORES, "native"), (ALL_CORES, ONE_CORE))


def measure_batch(plan: Plan, guest: str, isa: str, lanes: int, say: Say) -> Row:
    """vmjit on one core and on all, native code once per input on one core; every lane has its own seed."""
    core = plan.cores[:1]
    inputs = [make_input(SEED + lane, 1) for lane in range(lanes)]
    contestants: list[Contestant] = []
    elf = elf_path(guest, isa)
    with pinned(core), _closing(contestants):
        try:
            say(f"{guest} {isa}: {lanes} lanes")
            contestants.append(RemoteContestant(core, VmjitContestant, ONE_CORE, elf, "auto", lanes, 1))
            contestants.append(RemoteContestant(plan.cores, VmjitContestant, ALL_CORES, elf, "auto", lanes, None))
            if plan.native:
                contestants.append(NativeContestant("native", plan.native / guest))
            for contestant in contestants:
                contestant.warm(inputs)
            runs = run_rounds(contestants, inputs, plan.runs)
        except (ContestantError, OSError) as error:
            return _failed(guest, isa, lanes, error)
    return make_row(guest, isa, lanes, 1, runs, BATCH_PAIRS, {ONE_CORE: plan.clock})


def one_lane_rows(plan: Plan, say: Say) -> list[Row]:
    return [measure_one_lane(plan, guest, isa, say) for isa in plan.isas for guest in plan.guests]


def batch_rows(plan: Plan, lanes: int, say: Say) -> list[Row]:
    return [measure_batch(plan, guest, isa, lanes, say) for isa in plan.isas for guest in plan.guests]
