"""What is compared: vmjit's tiers, QEMU's user mode and the native build, behind one interface."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

from benchmarks.guests.build import BENCHMARKS, FLOAT_BENCHMARKS, FLOAT_TARGETS, TARGETS
from vmjit.bench.contestants import ByCpu, Contestant, Inputs, Run
from vmjit.bench.guests import LANE_MEMORY, make_input
from vmjit.bench.machines import MachineContestant
from vmjit.bench.peers import qemu_of
from vmjit.bench.processes import AllRecords, run_process

ISAS = tuple(target.name for target in TARGETS)
"""Of the guests that compute with integers."""
FLOAT_ISAS = tuple(target.name for target in FLOAT_TARGETS)

QEMU = {isa: qemu_of(int(isa[2:4])) for isa in (*ISAS, *FLOAT_ISAS)}


def runs_on(guest: str, isa: str) -> bool:
    """Whether a guest is built for an ISA."""
    return guest in (FLOAT_BENCHMARKS if isa in FLOAT_ISAS else BENCHMARKS)


class VmjitContestant(MachineContestant):
    """A machine of this project on the CPU, reset between runs."""

    def __init__(self, name: str, elf: Path, tier: str, lanes: int, threads: int | None) -> None:
        settings = {"device": "auto", "tier": tier, "memory": LANE_MEMORY, "threads": threads}
        super().__init__(name, elf, lanes, settings)


class Qemu:
    """`qemu-riscv32` or `qemu-riscv64` with one program."""

    def __init__(self, elf: Path, isa: str) -> None:
        self._command = [QEMU[isa], str(elf)]

    def run(self, data: bytes) -> tuple[float, bytes]:
        """CPU seconds of one process, and its answer."""
        ended = run_process(self._command, data)
        return ended.cpu_seconds, ended.output


class QemuContestant:
    """One process a run.

    What a run with repeat=1 costs is taken off, so that neither the process start nor QEMU's translation is charged.
    """

    def __init__(self, name: str, elf: Path, isa: str) -> None:
        self.name = name
        self._qemu = Qemu(elf, isa)

    def warm(self, inputs: Inputs) -> None:
        self._qemu.run(inputs[0])

    def measure(self, inputs: Inputs) -> Run:
        (data,) = inputs
        seed, repeat = struct.unpack("<II", data)
        shorter = 1 if repeat > 1 else 0
        start_up, _ = self._qemu.run(make_input(seed, shorter))
        total, answer = self._qemu.run(data)
        seconds = max(total - start_up, 1e-6) * repeat / (repeat - shorter)
        return Run(seconds, seconds, [answer])

    def close(self) -> None:
        pass


class QemuSample:
    """What QEMU would take for all inputs of a batch, from a few of them.

    A process for each of thousands of short inputs would measure how processes start. So `every` so-manieth input is
    run twice, as it is, which gives the answer, and with `longer` times its repeats; the difference is what the repeats
    cost without start and translation. It is scaled to the input's own repeats and to all inputs.
    """

    def __init__(self, name: str, elf: Path, isa: str, every: int, longer: int) -> None:
        self.name = name
        self._qemu = Qemu(elf, isa)
        self._every = every
        self._longer = longer

    def warm(self, inputs: Inputs) -> None:
        self._qemu.run(inputs[0])

    def measure(self, inputs: Inputs) -> Run:
        answers = []
        spent = 0.0
        for data in inputs[:: self._every]:
            seed, repeat = struct.unpack("<II", data)
            start_up, answer = self._qemu.run(data)
            total, _ = self._qemu.run(make_input(seed, repeat * self._longer))
            spent += (total - start_up) / (self._longer - 1)
            answers.append(answer)
        seconds = max(spent, 1e-6) * len(inputs) / len(answers)
        return Run(seconds, seconds, answers, every=self._every)

    def close(self) -> None:
        pass


def native_contestant(name: str, program: Path) -> Contestant:
    """The same C compiled for this machine, by the CPU time of its calls."""
    return ByCpu(AllRecords(name, program))


def missing_peers(isas: Sequence[str]) -> dict[str, str]:
    """The tools that are not installed, and what stays empty therefore."""
    missing = {QEMU[isa]: f"not installed, no qemu column for {isa}" for isa in isas if not shutil.which(QEMU[isa])}
    if not shutil.which("gcc"):
        missing["gcc"] = "not installed, no native columns"
    return missing
