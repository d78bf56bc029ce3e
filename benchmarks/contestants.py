"""What is compared: vmjit's tiers, QEMU's user mode and the native build, behind one interface."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.guests.build import BENCHMARKS, BIN_DIR, FLOAT_BENCHMARKS, FLOAT_TARGETS, TARGETS

ISAS = tuple(target.name for target in TARGETS)
"""Of the guests that compute with integers."""
FLOAT_ISAS = tuple(target.name for target in FLOAT_TARGETS)

QEMU = {isa: f"qemu-riscv{isa[2:4]}" for isa in (*ISAS, *FLOAT_ISAS)}

# Guest memory of a lane: heap and stack. The guests need 2 KiB of stack.
LANE_MEMORY = "64KiB"

# Runs, and seconds of them, after which a vmjit contestant is measured even if the compiler still has something to do;
# and how many in a row have to be alike, and for how long, until it is warm before that. What is compiled before it ran
# is compiled anew once it was entered often, which takes a while where it is entered rarely.
_WARM_RUNS = 24
_WARM_SECONDS = 6.0
_ALIKE_RUNS = 3
_ALIKE_SECONDS = 1.0

Inputs = Sequence[bytes]


def make_input(seed: int, repeat: int) -> bytes:
    """A guest's standard input."""
    return struct.pack("<II", seed & 0xFFFFFFFF, repeat)


def runs_on(guest: str, isa: str) -> bool:
    """Whether a guest is built for an ISA."""
    return guest in (FLOAT_BENCHMARKS if isa in FLOAT_ISAS else BENCHMARKS)


def elf_path(guest: str, isa: str) -> Path:
    return BIN_DIR / f"{guest}.{isa}.elf"


@dataclass(frozen=True)
class Run:
    """One measured run.

    seconds: what the contestant's own clock says: vmjit's `result.seconds`, CPU time of the others.
    cpu_seconds: CPU time of all its threads.
    answer: 4 bytes a lane, one lane after the other.
    every: the answers are those of every so-manieth lane, from the first on.
    instructions: guest instructions retired by all lanes, 0 where the contestant cannot say.
    tiers: vmjit's instructions by tier.
    """

    seconds: float
    cpu_seconds: float
    answer: bytes
    instructions: int = 0
    tiers: dict[str, int] = field(default_factory=dict)
    every: int = 1


class Contestant(Protocol):
    """Runs one guest. `inputs` has one input a lane."""

    name: str

    def warm(self, inputs: Inputs) -> None:
        """Do what is done once, such as compiling, so that `measure` does not see it."""

    def measure(self, inputs: Inputs) -> Run: ...

    def close(self) -> None: ...


class VmjitContestant:
    """A machine of this project, reset between runs."""

    def __init__(self, name: str, elf: Path, tier: str, lanes: int, threads: int | None) -> None:
        import vmjit

        self.name = name
        self._lanes = lanes
        self._machine = vmjit.Machine(vmjit.load(elf), lanes, tier=tier, memory=LANE_MEMORY, threads=threads)

    def warm(self, inputs: Inputs) -> None:
        """Run until runs in a row compile nothing and have the same share of each tier."""
        last, alike, spent, since = None, 0, 0.0, 0.0
        for _ in range(_WARM_RUNS):
            run = self.measure(inputs)
            spent += run.seconds
            shares = [round(retired / max(run.instructions, 1), 2) for retired in run.tiers.values()]
            settled = (shares, self._machine.statistics.compiles)
            if settled != last:
                last, alike, since = settled, 0, spent - run.seconds
            alike += 1
            if (alike >= _ALIKE_RUNS and spent - since >= _ALIKE_SECONDS) or spent > _WARM_SECONDS:
                return

    def measure(self, inputs: Inputs) -> Run:
        """One run. What it has compiled is waited for afterwards, so that it does not take time from who comes next."""
        from vmjit.compile_thread import COMPILE_THREAD

        machine = self._machine
        machine.reset()
        machine.set_input(list(inputs))
        before = time.process_time()
        result = machine.run()
        cpu_seconds = time.process_time() - before
        COMPILE_THREAD.wait()
        answer = b"".join(result.output(lane).ljust(4, b"?") for lane in range(self._lanes))
        return Run(result.seconds, cpu_seconds, answer, result.instructions, dict(result.tiers))

    def close(self) -> None:
        pass


class Qemu:
    """`qemu-riscv32` or `qemu-riscv64` with one program.

    User and system time count together: the kernel knows their sum exactly and samples only how it is divided.
    """

    def __init__(self, elf: Path, isa: str) -> None:
        self._command = [QEMU[isa], str(elf)]

    def run(self, data: bytes) -> tuple[float, bytes]:
        """CPU seconds of one process, and its answer."""
        with subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(data)
            process.stdin.close()
            answer = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_utime + usage.ru_stime, answer


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
        return Run(seconds, seconds, answer)

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
        return Run(seconds, seconds, b"".join(answers), every=self._every)

    def close(self) -> None:
        pass


class Sampled:
    """Another contestant with every so-manieth lane only; its time is scaled to all of them."""

    def __init__(self, inner: Contestant, every: int) -> None:
        self.name = inner.name
        self._inner = inner
        self._every = every

    def warm(self, inputs: Inputs) -> None:
        self._inner.warm(inputs[:: self._every])

    def measure(self, inputs: Inputs) -> Run:
        some = inputs[:: self._every]
        run = self._inner.measure(some)
        scale = len(inputs) / len(some)
        # The lanes that are left out have data of their own: the number of instructions is not that of all lanes.
        return Run(run.seconds * scale, run.cpu_seconds * scale, run.answer, 0, run.tiers, self._every)

    def close(self) -> None:
        self._inner.close()


class NativeContestant:
    """The same C compiled for this machine; any number of inputs in one process, which times its own calls."""

    def __init__(self, name: str, program: Path) -> None:
        self.name = name
        self._program = program

    def warm(self, inputs: Inputs) -> None:
        self.measure(inputs)

    def measure(self, inputs: Inputs) -> Run:
        stream = b"".join(struct.pack("<I", len(data)) + data for data in inputs)
        done = subprocess.run([self._program], input=stream, capture_output=True, check=True)
        seconds = max(float(done.stderr), 1e-9)
        return Run(seconds, seconds, done.stdout)

    def close(self) -> None:
        pass


def missing_peers(isas: Sequence[str]) -> dict[str, str]:
    """The tools that are not installed, and what stays empty therefore."""
    missing = {QEMU[isa]: f"not installed, no qemu column for {isa}" for isa in isas if not shutil.which(QEMU[isa])}
    if not shutil.which("gcc"):
        missing["gcc"] = "not installed, no native columns"
    return missing
