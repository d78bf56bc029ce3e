"""Where lanes spend their instructions: their pcs, looked at again and again after so many retired instructions.

What is counted is instructions and not time, so a profile is the same each time; lanes run compiled in between. Between
two looks lie as many instructions on the average as are asked for, but never the same number, so that loops of some
length do not stand out or hide.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vmjit.checks import check_on_cpu
from vmjit.cpu_engine import CpuEngine
from vmjit.ir.values import Const
from vmjit.lane_bytes import LaneBytes
from vmjit.machine import Machine
from vmjit.stops import Stop
from vmjit.unwinding import Unwinder

Lanes = NDArray[np.intp]

_UNWOUND = (1, 2, 8)  # ra, sp, fp
# Lanes whose callers are looked for, at each look.
_MOST_STACKS = 16


@dataclass
class Profile:
    """What was seen.

    samples: looks at a lane, by its pc. together: by block, the sum over looks at a lane of the share of running lanes
    that were in the block too; divided by the block's samples it is their agreement. stacks: looks by call stack, the
    innermost address first; with many lanes some of them stand for all. tiers: instructions by tier.
    """

    samples: Counter[int] = field(default_factory=Counter)
    blocks: Counter[int] = field(default_factory=Counter)
    together: dict[int, float] = field(default_factory=dict)
    stacks: Counter[tuple[int, ...]] = field(default_factory=Counter)
    tiers: Counter[str] = field(default_factory=Counter)
    instructions: int = 0
    looks: list[tuple[NDArray[np.uint64], NDArray[np.intp]]] = field(default_factory=list)
    """At each time, the lanes' pcs and how many lanes were there."""

    @property
    def total(self) -> int:
        return self.samples.total()

    def agreement(self, block: int) -> float:
        """Of the lanes that run, how many are in a block when one is, on the average."""
        return self.together[block] / self.blocks[block]

    def by_function(self, name: Callable[[int], str]) -> Mapping[str, int]:
        """Looks by the name of what they were in."""
        found: Counter[str] = Counter()
        for pc, count in self.samples.items():
            found[name(pc)] += count
        return found


def profiled(
    machine: Machine,
    *,
    interval: int = 10_000,
    max_instructions: int | None = None,
    unwinder: Unwinder | None = None,
) -> Profile:
    """Run a machine, as `Machine.run` does, and look at its lanes every `interval` instructions on the average."""
    check_on_cpu(machine.device, "profiled")
    found = Profile()
    random = np.random.default_rng(1)
    left = max_instructions
    while left is None or left > 0:
        step = int(random.integers(interval // 2 + 1, interval + interval // 2 + 2))
        result = machine.run(step if left is None else min(step, left))
        found.instructions += int(result.retired.sum())
        found.tiers.update(result.tiers)
        if left is not None:
            left -= step
        going = np.flatnonzero(result.stop == Stop.BUDGET)
        if not len(going):
            break
        _look(machine, going, found, unwinder)
    _count_blocks(machine, found)
    return found


def _look(machine: Machine, lanes: Lanes, found: Profile, unwinder: Unwinder | None) -> None:
    state = machine._state
    pcs, counts = np.unique(state.pc[lanes], return_counts=True)
    found.looks.append((pcs, counts))
    found.samples.update(dict(zip(pcs.tolist(), counts.tolist(), strict=True)))
    if unwinder is None:
        return
    for lane in lanes[:: -(-len(lanes) // _MOST_STACKS)].tolist():
        pc = int(state.pc[lane])
        registers = {i: int(state.registers[i, lane]) for i in _UNWOUND}
        stack = (pc, *unwinder.callers(pc, registers, LaneBytes(machine, lane).peek))
        found.stacks[stack] += 1


def _count_blocks(machine: Machine, found: Profile) -> None:
    """What was seen, by the blocks that it was in."""
    starts = _block_starts(machine)
    for pcs, counts in found.looks:
        inside: Counter[int] = Counter()
        for pc, count in zip(pcs.tolist(), counts.tolist(), strict=True):
            place = bisect_right(starts, pc) - 1
            inside[starts[place] if place >= 0 else pc] += count
        lanes = int(counts.sum())
        for block, count in inside.items():
            found.blocks[block] += count
            found.together[block] = found.together.get(block, 0.0) + count * count / lanes


def _block_starts(machine: Machine) -> list[int]:
    """Where control can come to from elsewhere. Lanes that stopped in the midst of a block have another begin there,
    which counts for none."""
    engine = machine._engine
    assert isinstance(engine, CpuEngine)
    starts = {machine.program.entry, *machine.program.symbols.values()}
    for space in engine.spaces:
        for pc in list(space.records):
            block = space.block(pc)
            last = block.instructions[-1]
            behind = last.pc + last.size
            targets = {t.value for t in block.terminator.targets if isinstance(t, Const)}
            if block.terminator.name != "jump" or targets != {behind}:  # else it was only too long
                starts |= {behind, *targets}
    return sorted(starts)
