"""Everything that a command line of `vmjit bench` asks for, measured."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmjit.bench.contestants import Contestant
from vmjit.bench.cores import pinned
from vmjit.bench.crossings import crossings_of
from vmjit.bench.guests import BenchGuest, memory_of
from vmjit.bench.machine_info import machine_info
from vmjit.bench.machines import MachineContestant
from vmjit.bench.measure import Taking, failed_row, measure_row, overhead
from vmjit.bench.peers import PeerKind, Surroundings
from vmjit.bench.remote import ContestantError, RemoteContestant
from vmjit.bench.results_file import Results, Row, empty_results
from vmjit.bench.rounds import Say
from vmjit.errors import VmjitError

CPU = "cpu"


@dataclass(frozen=True)
class Plan:
    """What to measure, and how.

    devices, tiers: one of vmjit's contestants each. settings: `vmjit.Machine`'s, for all of them. memory: heap and
    stack of an instance; None: what a guest of its kind has. cores: which to use. starts: how many fresh starts each
    contestant makes. repeat: how often a bundled guest does its work; None: as often as takes about `seconds`.
    """

    guests: Sequence[BenchGuest]
    lanes: Sequence[int]
    tiers: Sequence[str]
    devices: Sequence[str]
    peers: Sequence[PeerKind]
    missing: Mapping[str, str]
    settings: Mapping[str, Any]
    memory: str | None
    cores: Sequence[int]
    rounds: int
    starts: int
    seconds: float
    clock: str
    repeat: int | None = None
    twice: bool = False
    """vmjit's first contestant takes part a second time: both are equal, and so should their figures be."""


def contestant_name(device: str, tier: str) -> str:
    return f"vmjit {tier}" if device == CPU else f"vmjit {tier} on {device}"


def measure(plan: Plan, say: Say, save: Callable[[Results], None] = lambda _: None) -> Results:
    """All rows; `save` is called behind each."""
    results = empty_results(machine_info(), _recorded(plan), plan.missing)
    with pinned(plan.cores[:1]), tempfile.TemporaryDirectory() as scratch:
        results["overhead"] = overhead(plan.rounds)
        for guest in plan.guests:
            for lanes in plan.lanes:
                results["rows"].append(_row(plan, guest, lanes, Path(scratch), say))
                results["crossings"] = crossings_of(results["rows"], plan.devices, plan.tiers[0])
                save(results)
    return results


def _recorded(plan: Plan) -> dict[str, Any]:
    names = ("lanes", "tiers", "devices", "rounds", "starts", "seconds", "clock", "repeat", "memory")
    return {
        **{name: list(v) if isinstance(v := getattr(plan, name), tuple) else v for name in names},
        "guests": [f"{guest.name} {guest.isa}" for guest in plan.guests],
        "cores": len(plan.cores),
    }


def _row(plan: Plan, guest: BenchGuest, lanes: int, scratch: Path, say: Say) -> Row:
    def tell(what: str) -> None:
        say(f"{guest.name} {guest.isa}, {lanes:,} lanes: {what}")

    absent = {kind.name: why for kind in plan.peers if (why := kind.unable(guest))}
    takings: list[Taking] = []
    with contextlib.ExitStack() as stack:
        try:
            for taking in (*_ours(plan, guest, lanes, scratch, tell), *_peers(plan, guest, lanes, scratch, tell)):
                takings.append(taking)
                stack.callback(taking.contestant.close)
                if taking.idle is not None:
                    stack.callback(taking.idle.close)
            row = measure_row(
                guest,
                lanes,
                takings,
                rounds=plan.rounds,
                seconds=plan.seconds,
                clock=plan.clock,
                repeat=plan.repeat,
                absent=absent,
                say=tell,
            )
            for taking in takings:
                if taking.kind == "vmjit" and taking.firsts:
                    assert isinstance(taking.contestant, RemoteContestant)
                    row["entries"][taking.name]["compile"] = [taking.contestant.ask("compile_seconds")]
        except (ContestantError, VmjitError, OSError, MemoryError, subprocess.CalledProcessError) as error:
            return failed_row(guest, lanes, error)
    return row


def _ours(plan: Plan, guest: BenchGuest, lanes: int, scratch: Path, say: Say) -> Iterator[Taking]:
    for device in plan.devices:
        for tier in plan.tiers:
            say(f"starting {contestant_name(device, tier)}")
            # What is compiled for a device takes long: it is kept from one number of lanes to the next.
            kept = None if device == CPU else scratch / f"{guest.name}.{guest.isa}.{device}.{tier}".replace(":", "-")
            starts = plan.starts if kept is None or not kept.exists() else 0
            firsts = []
            for _ in range(starts - 1):
                with contextlib.closing(
                    _machine(plan, guest, lanes, device, tier, tempfile.mkdtemp(dir=scratch))
                ) as one:
                    firsts.append(one.first(guest.inputs(lanes, 1)))
            # The last of them is the one that is measured.
            one = _machine(plan, guest, lanes, device, tier, str(kept or tempfile.mkdtemp(dir=scratch)))
            if starts:
                firsts.append(one.first(guest.inputs(lanes, 1)))
            threads = len(plan.cores)
            what = f"vmjit's tier {tier} on {device}, {threads} thread{'s' if threads > 1 else ''}"
            yield Taking(one, "vmjit", what, firsts=firsts, idle=_idle(plan, guest, lanes, device, tier, scratch))
    if plan.twice:
        again = _machine(plan, guest, lanes, plan.devices[0], plan.tiers[0], tempfile.mkdtemp(dir=scratch), " again")
        idle = _idle(plan, guest, lanes, plan.devices[0], plan.tiers[0], scratch)
        yield Taking(again, "peer", "the same once more", idle=idle)


def _idle(plan: Plan, guest: BenchGuest, lanes: int, device: str, tier: str, scratch: Path) -> RemoteContestant | None:
    """A machine for runs without work: one that has both takes lanes in groups where they do not pay, and the other way
    round, since it goes by what it saw last. None for a guest that cannot be told to do no work."""
    if not guest.bundled:
        return None
    return _machine(plan, guest, lanes, device, tier, str(scratch / "idle"), " idle")


def _machine(
    plan: Plan, guest: BenchGuest, lanes: int, device: str, tier: str, cache: str, suffix: str = ""
) -> RemoteContestant:
    """A machine in a process of its own, whose cache of compiled code is the folder `cache`."""
    settings = {
        **plan.settings,
        "device": device,
        "tier": tier,
        "memory": memory_of(plan.memory, guest),
        "fallback": False,
    }
    settings |= {"threads": len(plan.cores), "arguments": guest.command_line}
    name = contestant_name(device, tier) + suffix
    arguments = (name, str(guest.elf), lanes, settings, guest.asked_isa, cache)
    return RemoteContestant(plan.cores, MachineContestant, *arguments)


def _peers(plan: Plan, guest: BenchGuest, lanes: int, scratch: Path, say: Say) -> Iterator[Taking]:
    where = Surroundings(plan.cores, scratch, memory_of(plan.memory, guest))
    for kind in plan.peers:
        if kind.unable(guest):
            continue
        firsts = []
        for _ in range(plan.starts):
            say(f"starting {kind.name}")
            fresh = kind.make(guest, where)
            with contextlib.closing(fresh):
                firsts.append(fresh.first(guest.inputs(1, 1)))
        contestant: Contestant = kind.make(guest, where)
        yield Taking(contestant, "peer", kind.what, kind.every(guest, lanes), firsts)
