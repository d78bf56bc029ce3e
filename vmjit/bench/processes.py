"""Programs of this computer as contestants: a process for each instance, or one for all records of a native build."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vmjit.bench.contestants import First, Inputs, Run, answer_of
from vmjit.bench.peak_memory import peak_memory


@dataclass(frozen=True)
class Ended:
    """A process that has ended. Its user and system time count together: the kernel knows their sum exactly and samples
    only how it is divided."""

    seconds: float
    cpu_seconds: float
    output: bytes
    status: int


def run_process(command: Sequence[str], data: bytes) -> Ended:
    """Run a command on an input. Raises OSError where it cannot be started."""
    with _file_of(data) as source:
        started = time.perf_counter()
        with subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            output = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
    return Ended(seconds, usage.ru_utime + usage.ru_stime, output, process.returncode)


@contextlib.contextmanager
def _file_of(data: bytes) -> Iterator[IO[bytes]]:
    """An input as a file: a pipe that nobody empties would have to be fed beside reading the output."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        yield file


class EachAProcess:
    """A process for each instance; its start is in all its figures but where a guest can be told to do no work."""

    def __init__(self, name: str, command: Sequence[str], build: Callable[[], float] | None = None) -> None:
        """`build` makes what the command runs and gives its seconds."""
        self.name = name
        self._command = list(command)
        self._build = build

    def first(self, inputs: Inputs) -> First:
        built = self._build() if self._build is not None else None
        ended = run_process(self._command, inputs[0])
        with _file_of(inputs[0]) as source:
            return First((built or 0.0) + ended.seconds, built, peak_memory(self._command, source))

    def warm(self, inputs: Inputs) -> None:
        run_process(self._command, inputs[0])

    def measure(self, inputs: Inputs) -> Run:
        ended = [run_process(self._command, data) for data in inputs]
        seconds = sum(one.seconds for one in ended)
        answers = [answer_of(one.output, one.status) for one in ended]
        return Run(seconds, sum(one.cpu_seconds for one in ended), answers, phases={"run": seconds})

    def close(self) -> None:
        pass


class AllRecords:
    """A native build of a bundled guest, which takes any number of inputs in one process and times its own calls."""

    def __init__(self, name: str, program: Path, build: Callable[[], float] | None = None) -> None:
        self.name = name
        self._program = program
        self._build = build

    def first(self, inputs: Inputs) -> First:
        built = self._build() if self._build is not None else None
        started = time.perf_counter()
        self.measure(inputs[:1])
        seconds = time.perf_counter() - started
        with _file_of(_records(inputs[:1])) as source:
            return First((built or 0.0) + seconds, built, peak_memory([str(self._program)], source))

    def warm(self, inputs: Inputs) -> None:
        self.measure(inputs)

    def measure(self, inputs: Inputs) -> Run:
        """The calls' CPU and wall-clock seconds; the process around them is in the phases alone."""
        started = time.perf_counter()
        done = subprocess.run([self._program], input=_records(inputs), capture_output=True, check=True)
        whole = time.perf_counter() - started
        cpu_seconds, seconds = (max(float(text), 1e-9) for text in done.stderr.split())
        answers = [done.stdout[at : at + 4] for at in range(0, len(done.stdout), 4)]
        return Run(seconds, cpu_seconds, answers, phases={"run": whole})

    def close(self) -> None:
        pass


def _records(inputs: Inputs) -> bytes:
    return b"".join(struct.pack("<I", len(data)) + data for data in inputs)
