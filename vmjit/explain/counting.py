"""How often each instruction of a region ran, in which tier, by how many lanes, and where lanes parted.

The program runs twice. Once code counts its blocks, as lanes alone and as groups run them; once each lane is followed
from block to block by functions that are called where blocks begin, in the interpreter too. Lanes do the same in both
runs, so what the second has counted and the first has not was interpreted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from vmjit.block_counters import BlockCounters
from vmjit.cpu_engine import CpuEngine
from vmjit.errors import ArgumentError
from vmjit.ir.values import Const
from vmjit.kernels.emit import I64, PTR, load_field
from vmjit.kernels.layout import HOOK_GOES_ON, Frame
from vmjit.machine import Machine
from vmjit.translators.cpu import LoadedCode, cpu_target
from vmjit.translators.regions import Region

# An odd number by which sequences become numbers (Knuth, MMIX's generator).
_MIXER = 6364136223846793005


@dataclass(frozen=True)
class InstructionCount:
    """Of one instruction, all lanes together: how often it ran alone in compiled code, in SIMD registers (with how many
    groups) and in the interpreter, or so that compiled code left in the midst of the block. lanes: how many lanes ever
    ran it. A block in which the run ended counts as a whole."""

    alone: int
    grouped: int
    groups: int
    interpreted: int
    lanes: int

    @property
    def total(self) -> int:
        return self.alone + self.grouped + self.interpreted

    @property
    def active(self) -> float | None:
        """Lanes that took part when a group ran it, on the average; None: none did."""
        return self.grouped / self.groups if self.groups else None


@dataclass(frozen=True)
class BranchCount:
    """Of a conditional branch: how often it was taken and not, and how many lanes took it always, never and sometimes,
    of those that came to it. ways: how many different sequences of the two there were, so that with one no lane parted
    from another here."""

    taken: int
    passed: int
    always: int
    never: int
    sometimes: int
    ways: int

    @property
    def parts(self) -> bool:
        """Whether lanes went different ways here."""
        return self.ways > 1 and bool(self.sometimes or (self.always and self.never))


@dataclass(frozen=True)
class RunCounts:
    """What a run of so many lanes did in a region: by instruction, and by conditional branch, which is the last
    instruction of its block. tiers: instructions of the whole run by tier."""

    lanes: int
    instructions: dict[int, InstructionCount]
    branches: dict[int, BranchCount]
    tiers: dict[str, int]


class _Followed:
    """Where lanes go: a number by block and lane, and one by edge and lane."""

    def __init__(self, machine: Machine, region: Region) -> None:
        self.region = region
        outside = {t for pc in region.blocks for t in _ways(region, pc) if t not in region.blocks}
        self.blocks = [*sorted(region.blocks), *sorted(outside)]
        number = {pc: i for i, pc in enumerate(self.blocks)}
        self.edges = [(pc, t) for pc in sorted(region.blocks) for t in _ways(region, pc)]
        lanes = machine.lanes
        self.visits = np.zeros((len(self.blocks), lanes), np.uint64)
        self.gone = np.zeros((len(self.edges), lanes), np.uint64)
        # By block and lane: all ways that the lane took from there so far, as one number.
        self.ways = np.zeros((len(region.blocks), lanes), np.uint64)
        self._last = np.full(lanes, -1, np.int64)
        self._code = self._compiled(machine, number)
        machine._hooks.follow({pc: self._code.addresses[f"follow{i}"] for i, pc in enumerate(self.blocks)})

    def _compiled(self, machine: Machine, number: dict[int, int]) -> LoadedCode:
        """A function for each block, in the convention of compiled hooks."""
        module = ir.Module(name="follow")
        rows = machine._lane_memory.rows  # type: ignore[union-attr]
        first, stride = int(rows.ctypes.data), int(rows.strides[0]) if len(rows) > 1 else 1
        for i, pc in enumerate(self.blocks):
            function = ir.Function(module, ir.FunctionType(I64, [PTR, I64]), f"follow{i}")
            b = ir.IRBuilder(function.append_basic_block("entry"))
            memory = load_field(b, b.inttoptr(function.args[1], PTR), Frame.PRIVATE)
            lane = b.udiv(b.sub(memory, ir.Constant(I64, first)), ir.Constant(I64, stride))
            place = _element(b, self._last, lane)
            last = b.load(place, typ=I64)
            b.store(ir.Constant(I64, number[pc]), place)
            _add(b, self.visits[i], lane, ir.Constant(I64, 1))
            for edge, (source, target) in enumerate(self.edges):
                if target == pc:
                    came = b.icmp_unsigned("==", last, ir.Constant(I64, number[source]))
                    _add(b, self.gone[edge], lane, b.zext(came, I64))
                    ways = _element(b, self.ways[number[source]], lane)
                    before = b.load(ways, typ=I64)
                    after = b.mul(b.add(before, ir.Constant(I64, edge + 1)), ir.Constant(I64, _MIXER))
                    b.store(b.select(came, after, before), ways)
            b.ret(ir.Constant(I64, int(HOOK_GOES_ON)))
        symbols = tuple(f"follow{i}" for i in range(len(self.blocks)))
        return cpu_target().load(cpu_target().compile(str(module)), symbols)

    def visits_of(self, pc: int) -> NDArray[np.uint64]:
        """By lane."""
        row: NDArray[np.uint64] = self.visits[self.blocks.index(pc)]
        return row

    def branch(self, pc: int) -> BranchCount | None:
        """What the conditional branch at the end of a block did; None where there is none, or it leads on anyway."""
        ways = _ways(self.region, pc)
        if len(ways) != 2:
            return None
        taken, passed = (self.gone[self.edges.index((pc, target))] for target in ways)
        came = (taken + passed) > 0
        always, never = (int((came & (other == 0)).sum()) for other in (passed, taken))
        sometimes = int(came.sum()) - always - never
        different = len(np.unique(self.ways[self.blocks.index(pc)][came]))
        return BranchCount(int(taken.sum()), int(passed.sum()), always, never, sometimes, different)


def _ways(region: Region, pc: int) -> list[int]:
    """Where the conditional branch at the end of a block leads: if taken, and if not."""
    terminator = region.blocks[pc].terminator
    if terminator.name != "branch":
        return []
    return list(dict.fromkeys(t.value for t in terminator.targets if isinstance(t, Const)))


def _element(b: Any, array: NDArray[Any], index: Any) -> Any:
    base = b.inttoptr(ir.Constant(I64, int(array.ctypes.data)), PTR)
    return b.gep(base, [index], source_etype=I64)


def _add(b: Any, array: NDArray[Any], index: Any, more: Any) -> None:
    place = _element(b, array, index)
    b.store(b.add(b.load(place, typ=I64), more), place)


def counted_machine(make: Callable[[str], Machine], tier: str) -> tuple[Machine, BlockCounters]:
    """A machine whose compiled code counts its blocks. `make` gives one for a tier."""
    machine = make(tier)
    if not isinstance(machine._engine, CpuEngine):
        raise ArgumentError("lanes are counted on the CPU only")
    counters = BlockCounters()
    machine._engine.compiler.count_blocks(counters)
    return machine, counters


def count_run(
    counted: tuple[Machine, BlockCounters],
    tiers: dict[str, int],
    make: Callable[[str], Machine],
    region: Region,
    max_instructions: int | None,
) -> RunCounts:
    """What a run did in a region. `counted` ran, with these instructions by tier; `make` gives a machine for a tier
    that will do the same."""
    machine = make("interpreter")  # with so many places where it is left, compiling takes longer than it saves
    followed = _Followed(machine, region)
    machine.run(max_instructions)
    rows = counted[1].counts()
    instructions: dict[int, InstructionCount] = {}
    branches: dict[int, BranchCount] = {}
    for start, block in region.blocks.items():
        visits = followed.visits_of(start)
        for instruction in block.instructions:
            instructions[instruction.pc] = _of(instruction.pc, rows, visits)
        branch = followed.branch(start)
        if branch is not None:
            branches[block.instructions[-1].pc] = branch
    return RunCounts(machine.lanes, instructions, branches, dict(tiers))


def _of(pc: int, rows: Sequence[Any], visits: NDArray[np.uint64]) -> InstructionCount:
    inside = [count for first, last, count in rows if first <= pc <= last]
    alone, groups, grouped = (sum(getattr(c, what) for c in inside) for what in ("alone", "groups", "lanes"))
    interpreted = max(int(visits.sum()) - alone - grouped, 0)
    return InstructionCount(alone, grouped, groups, interpreted, int((visits > 0).sum()))
