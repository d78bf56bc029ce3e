"""Who is compared, behind one interface, and what a measured run tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

Inputs = Sequence[bytes]
"""Standard inputs, one an instance."""

PHASES = ("reset", "input", "run", "output")
"""What an instance costs once everything is warm: going back to the start, its input, its run, its answer."""


@dataclass(frozen=True)
class Run:
    """One measured run of all instances.

    seconds: wall-clock time of what is compared. cpu_seconds: CPU time of all threads.
    answers: one an instance, or one of every so-manieth (`every`), from the first on.
    instructions: guest instructions retired by all instances, 0 where the contestant cannot say.
    tiers: vmjit's instructions by tier.
    phases: seconds of all instances by the names of PHASES, as far as the contestant can tell them apart.
    fixed: what all instances would have cost with no work to do, all phases together; 0: not known.
    """

    seconds: float
    cpu_seconds: float
    answers: Sequence[bytes]
    instructions: int = 0
    tiers: dict[str, int] = field(default_factory=dict)
    every: int = 1
    phases: dict[str, float] = field(default_factory=dict)
    fixed: float = 0.0


@dataclass(frozen=True)
class First:
    """What it takes from nothing to the first answer.

    seconds: all of it. compile_seconds: CPU seconds of compilers, also beside the run; None: not to be told apart.
    memory: bytes an instance.
    """

    seconds: float
    compile_seconds: float | None
    memory: float | None


class Contestant(Protocol):
    """Runs one guest. `inputs` has one input an instance."""

    @property
    def name(self) -> str: ...

    def warm(self, inputs: Inputs) -> None:
        """Do what is done once, such as compiling, so that `measure` does not see it."""

    def measure(self, inputs: Inputs) -> Run: ...

    def close(self) -> None: ...


class Peer(Contestant, Protocol):
    """A contestant that can also say what its beginning costs."""

    def first(self, inputs: Inputs) -> First:
        """From nothing to the first answer; asked at most once, and before anything else."""


def answer_of(output: bytes, status: int) -> bytes:
    """An instance's answer: what it wrote, and how it ended unless that is with 0; a negative status is a signal's."""
    return output if status == 0 else output + b"\n[status %d]" % status


class ByCpu:
    """Another contestant by the CPU time of all its threads, which does not see what else the machine does."""

    def __init__(self, inner: Contestant) -> None:
        self.name = inner.name
        self._inner = inner

    def warm(self, inputs: Inputs) -> None:
        self._inner.warm(inputs)

    def measure(self, inputs: Inputs) -> Run:
        run = self._inner.measure(inputs)
        return replace(run, seconds=run.cpu_seconds)

    def close(self) -> None:
        self._inner.close()


class Sampled:
    """Another contestant with every so-manieth instance only; its times are scaled to all of them."""

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
        # The instances that are left out have data of their own: the number of instructions is not that of all.
        return replace(
            run,
            seconds=run.seconds * scale,
            cpu_seconds=run.cpu_seconds * scale,
            instructions=0,
            every=self._every,
            phases={name: seconds * scale for name, seconds in run.phases.items()},
        )

    def close(self) -> None:
        self._inner.close()
