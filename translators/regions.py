"""Region formation: which blocks around a hot one are compiled as one unit.

Grown from a seed along the control flow graph, the most visited blocks first, through calls into the callee and on to
the return point, until a limit of guest instructions. What was never visited stays outside: leaving to it costs an
exit, compiling it costs time and registers.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from vmjit.ir.block import Block
from vmjit.ir.values import Const, Terminator

MAX_REGION_INSTRUCTIONS = 512
MAX_REGION_BLOCKS = 160


class CodeView(Protocol):
    """What region formation needs to know of the code."""

    def block(self, pc: int) -> Block:
        """The block at a guest address, as long as the interpreter's."""

    def visits(self, pc: int) -> int:
        """How often the block at `pc` was entered, as far as counted; 0 if never."""

    def indirect_targets(self, pc: int) -> Iterable[int]:
        """Where the computed jump at the end of the block at `pc` has gone, as far as known."""


@dataclass
class Region:
    """Blocks by address. Lanes may enter at `entries`; `returns` are the return points of calls made inside."""

    entries: list[int]
    blocks: dict[int, Block]
    returns: set[int] = field(default_factory=set)
    indirect: dict[int, list[int]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(len(b.instructions) for b in self.blocks.values())

    def successors(self, pc: int) -> list[int]:
        """Blocks of the region that control may reach from block `pc` without leaving the region."""
        block = self.blocks[pc]
        found = [t for t in block.successors() if t in self.blocks]
        if block.terminator.name == "indirect":
            found += self.indirect_goals(pc)
        return found

    def link_targets(self) -> tuple[int, ...]:
        """Guest addresses that the region may leave to, in the order of its link table: outside blocks, and its own
        (where it leaves to one of their instructions)."""
        targets = set(self.blocks)
        for block in self.blocks.values():
            if block.terminator.name in ("jump", "branch"):
                targets.update(block.successors())
        return tuple(sorted(targets))

    def indirect_goals(self, pc: int) -> list[int]:
        """Blocks of the region that the computed jump at the end of block `pc` is compared with."""
        if self.blocks[pc].terminator.data == "return":
            return sorted(r for r in self.returns if r in self.blocks)
        return self.indirect.get(pc, [])


def is_call(block: Block) -> bool:
    """True for a block whose terminator leaves the address behind it in a link register."""
    if block.terminator.name == "indirect":
        return block.terminator.data == "call"
    if block.terminator.name != "jump" or not block.instructions:
        return False
    return any(op.name == "copy" and op.args == (Const(block.end, op.type),) for op in block.instructions[-1].ops)


def form_region(
    code: CodeView,
    seed: int,
    *,
    wanted: Callable[[int], bool] | None = None,
    max_instructions: int = MAX_REGION_INSTRUCTIONS,
) -> Region:
    """Grow a region from the block at `seed`. `wanted` decides about blocks; by default those that were visited."""
    wanted = wanted or (lambda pc: code.visits(pc) > 0)
    chosen: dict[int, Block] = {}
    covered = 0
    calls: set[int] = set()
    unresolved_returns: set[int] = set()
    indirect: dict[int, list[int]] = {}
    queue: list[tuple[int, int, int]] = [(0, 0, seed)]
    order = 0
    while queue and covered < max_instructions and len(chosen) < MAX_REGION_BLOCKS:
        _, _, pc = heapq.heappop(queue)
        if pc in chosen:
            continue
        block = code.block(pc)
        if covered and covered + len(block.instructions) > max_instructions:
            continue
        chosen[pc] = block
        covered += len(block.instructions)
        following = [t for t in block.successors() if wanted(t)]
        if block.terminator.name == "indirect" and block.terminator.data != "return":
            goals = [t for t in code.indirect_targets(pc) if wanted(t)]
            indirect[pc] = goals
            following += goals
        if is_call(block):
            calls.add(block.end)
            if wanted(block.end):
                following.append(block.end)
            if block.terminator.name == "indirect":
                unresolved_returns.add(block.end)
        for target in following:
            order += 1
            heapq.heappush(queue, (-code.visits(target), order, target))
    blocks = _split(chosen)
    region = Region([seed], blocks, {r for r in calls if r in blocks})
    for pc, goals in indirect.items():
        # The jump stands at the end of the last piece of a block that was split.
        region.indirect[_piece_with_end(blocks, chosen[pc])] = [g for g in goals if g in blocks]
    region.entries += sorted(_outside_returns(region, unresolved_returns) - {seed})
    return region


def _outside_returns(region: Region, unresolved: set[int]) -> set[int]:
    """Return points of calls whose callee is not inside: control comes back to them from elsewhere."""
    found = {r for r in unresolved if r in region.blocks}
    for block in region.blocks.values():
        if block.terminator.name == "jump" and is_call(block):
            (callee,) = block.successors()
            if callee not in region.blocks and block.end in region.blocks:
                found.add(block.end)
    return found


def _split(chosen: dict[int, Block]) -> dict[int, Block]:
    """Cut every block where another one starts, so that no instruction is compiled twice."""
    blocks: dict[int, Block] = {}
    for pc, block in chosen.items():
        pieces = block.instructions
        for i, instruction in enumerate(pieces):
            if i and instruction.pc in chosen:
                target = Const(instruction.pc, block.registers.type)
                blocks[pc] = Block(pc, block.registers, pieces[:i], Terminator("jump", (), (target,)))
                break
        else:
            blocks[pc] = block
    return blocks


def _piece_with_end(blocks: dict[int, Block], whole: Block) -> int:
    last = whole.instructions[-1].pc
    for pc, block in blocks.items():
        if block.instructions[-1].pc == last and block.terminator == whole.terminator:
            return pc
    return whole.pc
