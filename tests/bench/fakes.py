"""Contestants that take planted times on no clock at all."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

from vmjit.bench.contestants import Inputs, Run
from vmjit.bench.guests import BenchGuest, bundled_guest
from vmjit.bench.measure import Taking, measure_row
from vmjit.bench.results_file import Results, Row, empty_results

MACHINE = {
    "cpu": "A processor",
    "cores": 2,
    "date": "2026-11-30",
    "vmjit": "1",
    "python": "3",
    "llvm": "22",
    "commit": "",
}
OPTIONS = {"cores": 1, "rounds": 7, "clock": "wall"}


class Fake:
    """`start` seconds an instance and `work` a repeat, of which each run takes up to `noise` more or less, as a share.

    log: what was done by whom, if somebody keeps it.
    """

    def __init__(
        self,
        name: str,
        work: float,
        start: float = 0.0,
        noise: float = 0.0,
        answer: Callable[[bytes], bytes] = lambda data: data[:4],
        log: list[str] | None = None,
    ) -> None:
        self.name = name
        self._work, self._start, self._noise, self._answer, self._log = work, start, noise, answer, log
        self._random = random.Random(name)

    def warm(self, inputs: Inputs) -> None:
        pass

    def measure(self, inputs: Inputs) -> Run:
        if self._log is not None:
            self._log.append(self.name)
        repeats = sum(struct.unpack("<II", data)[1] for data in inputs)
        seconds = len(inputs) * self._start + repeats * self._work
        seconds *= 1 + self._random.uniform(-self._noise, self._noise)
        answers = [self._answer(data) for data in inputs]
        return Run(seconds, seconds, answers, 1000 * repeats + 10 * len(inputs), phases={"run": seconds})

    def close(self) -> None:
        pass


def row(
    ours: Fake, *peers: Fake, guest: BenchGuest | None = None, lanes: int = 4, every: int = 1, **options: Any
) -> Row:
    """A row of one of vmjit's contestants and peers, of which only `every` so-manieth instance is run."""
    takings = [Taking(ours, "vmjit", ""), *(Taking(peer, "peer", "", every) for peer in peers)]
    settings: dict[str, Any] = {"rounds": 7, "seconds": 0.1, "clock": "wall", "repeat": None, "absent": {}, **options}
    return measure_row(guest or bundled_guest("crc32"), lanes, takings, say=lambda _: None, **settings)


def results(rows: Sequence[Row]) -> Results:
    found = empty_results(MACHINE, OPTIONS, {"icicle": "not installed"})
    found["overhead"] = [1e-9] * 7
    found["rows"] = list(rows)
    return found
