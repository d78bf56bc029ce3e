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
from vmjit.translators.origins import SeenPointers

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
    """Blocks by address. Lanes may enter at `entries`; `returns` are the return points of calls made inside.

    `returning` has, by block that returns, those of its function's calls (`return_points.py`); None if that is not
    known, and any return may lead to any of them. `seen` is where registers led once when lanes came to a block, of
    those of which that was noted: a guess for the order in which memory is tried.
    """

    entries: list[int]
    blocks: dict[int, Block]
    returns: set[int] = field(default_factory=set)
    indirect: dict[int, list[int]] = field(default_factory=dict)
    returning: dict[int, list[int]] | None = None
    seen: dict[int, SeenPointers] = field(default_factory=dict)

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
            targets.update(block.successors())
        return tuple(sorted(targets))

    def indirect_goals(self, pc: int) -> list[int]:
        """Blocks of the region that the computed jump at the end of block `pc` is compared with."""
        if self.blocks[pc].terminator.data == "return":
            if self.returning is not None:
                return self.returning.get(pc, [])
            return sorted(r for r in self.returns if r in self.blocks)
        return self.indirect.get(pc, [])


def is_call(block: Block) -> bool:
    """True for a block whose terminator leaves the address behind it in a link register."""
    if block.terminator.name == "indirect":
        return block.terminator.data == "call"
    if block.terminator.name != "jump" or not block.instructions:
        return False
    return any(op.name == "copy" and op.args == (Const(block.end, op.type),) for op in block.instructions[-1].ops)


@dataclass(frozen=True)
class Growth:
    """How a region grows.

    `wanted` decides about blocks beside the seed. `inline_up_to` bounds the guest instructions of a callee that is
    grown into (None: any that is wanted). With `whole_function`, jumps back before the seed are followed too.
    """

    wanted: Callable[[int], bool]
    max_instructions: int = MAX_REGION_INSTRUCTIONS
    inline_up_to: int | None = None
    whole_function: bool = False


def visited(code: CodeView, max_instructions: int = MAX_REGION_INSTRUCTIONS) -> Growth:
    """Grow into what has run, and into calls wherever they lead."""
    return Growth(lambda pc: code.visits(pc) > 0, max_instructions)


class _Grower:
    """The walk that chooses a region's blocks.

    Each block is reached with a floor: the lowest address that jumps from it are followed to. For the seed and what it
    leads to, that is the seed, so that the seed heads every loop it is in: a region that also held the loop around its
    seed's would be one loop with two ways back, which LLVM can do nothing with. The loop around becomes hot in its own
    time, and its region holds the inner one whole. A callee's floor is its first block.
    """

    def __init__(self, code: CodeView, seed: int, growth: Growth) -> None:
        self.code = code
        self.growth = growth
        self.chosen: dict[int, Block] = {}
        self.calls: set[int] = set()  # return points of calls inside
        self.from_outside: set[int] = set()  # blocks that control comes back to from elsewhere
        self.indirect: dict[int, list[int]] = {}
        self._covered: set[int] = set()  # instructions; blocks overlap where one starts inside another
        self._queue: list[tuple[int, int, int, int]] = []
        self._push(seed, 0 if growth.whole_function else seed)
        while self._queue and len(self._covered) < growth.max_instructions and len(self.chosen) < MAX_REGION_BLOCKS:
            _, _, pc, floor = heapq.heappop(self._queue)
            if pc not in self.chosen:
                self._choose(pc, floor)

    def _push(self, pc: int, floor: int) -> None:
        heapq.heappush(self._queue, (-self.code.visits(pc), len(self._queue), pc, floor))

    def _follow(self, target: int, floor: int) -> None:
        if self.growth.wanted(target) and target >= floor:
            self._push(target, floor)

    def _choose(self, pc: int, floor: int) -> None:
        block = self.code.block(pc)
        covered = self._covered.union(i.pc for i in block.instructions)
        if self._covered and len(covered) > self.growth.max_instructions:
            return
        self.chosen[pc] = block
        self._covered = covered
        terminator = block.terminator
        if is_call(block):
            self.calls.add(block.end)
            for callee in block.successors():
                if _inlined(self.code, callee, self.growth):
                    self._follow(callee, 0 if self.growth.whole_function else callee)
            if terminator.name == "indirect":
                self.from_outside.add(block.end)
            self._follow(block.end, floor)
        elif terminator.name in ("ecall", "fence_i"):
            self.from_outside.add(block.end)
            self._follow(block.end, floor)
        else:
            for target in block.successors():
                self._follow(target, floor)
        if terminator.name == "indirect" and terminator.data != "return":
            called = terminator.data == "call"
            self.indirect[pc] = [t for t in self.code.indirect_targets(pc) if self.growth.wanted(t)]
            for target in self.indirect[pc]:
                self._follow(target, target if called and not self.growth.whole_function else floor)


def form_region(code: CodeView, seed: int, growth: Growth) -> Region:
    """Grow a region from the block at `seed`, the most visited blocks first."""
    grown = _Grower(code, seed, growth)
    blocks = split_blocks(grown.chosen)
    region = Region([seed], blocks, {r for r in grown.calls if r in blocks})
    for pc, goals in grown.indirect.items():
        # The jump stands at the end of the last piece of a block that was split.
        region.indirect[_piece_with_end(blocks, grown.chosen[pc])] = [g for g in goals if g in blocks]
    region.entries += sorted(_entered_from_outside(region, grown.from_outside) - {seed})
    return region


def loop_head(code: CodeView, pc: int) -> int:
    """The first block of the innermost loop around the block at `pc`; `pc` itself if it is in none.

    Loops are told by jumps back: compilers lay a loop out from its first block to the jump back to it.
    """
    best = -1
    seen: set[int] = set()
    todo = [pc]
    while todo and len(seen) < MAX_REGION_BLOCKS:
        place = todo.pop()
        if place in seen:
            continue
        seen.add(place)
        block = code.block(place)
        if is_call(block) or block.terminator.name in ("ecall", "fence_i"):
            goals = [block.end]
        else:
            goals = [*block.successors(), *code.indirect_targets(place)]
        for target in goals:
            if code.visits(target) == 0:
                continue
            if best < target <= pc <= place and target <= place:
                best = target
            todo.append(target)
    return best if best >= 0 else pc


def _inlined(code: CodeView, callee: int, growth: Growth) -> bool:
    """Whether a callee is grown into: by its size, counted up to its returns; one that calls on is not small."""
    if growth.inline_up_to is None:
        return True
    size = 0
    seen: set[int] = set()
    todo = [callee]
    while todo:
        pc = todo.pop()
        if pc in seen:
            continue
        seen.add(pc)
        if not growth.wanted(pc):
            return False
        block = code.block(pc)
        size += len(block.instructions)
        leaves = block.terminator.name == "indirect" and block.terminator.data == "return"
        if size > growth.inline_up_to or is_call(block) or (not block.successors() and not leaves):
            return False
        todo.extend(block.successors())
    return True


def _entered_from_outside(region: Region, known: set[int]) -> set[int]:
    """`known` and the return points of calls whose callee is not inside."""
    found = known & set(region.blocks)
    for block in region.blocks.values():
        if block.terminator.name == "jump" and is_call(block):
            (callee,) = block.successors()
            if callee not in region.blocks and block.end in region.blocks:
                found.add(block.end)
    return found


def split_blocks(chosen: dict[int, Block]) -> dict[int, Block]:
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


# How far a branch reaches, in bytes, whose other way is taken into a region though it never ran.
_SHORT_REACH = 64


def with_short_ways(code: CodeView, region: Region) -> Region:
    """A region with the other ways of its short branches forward, which had not run when it was formed.

    One lane goes there once in a while; in a group, one of many does, and all would leave for it.
    """
    chosen = dict(region.blocks)
    todo = list(chosen)
    while todo and len(chosen) < MAX_REGION_BLOCKS:
        block = chosen[todo.pop()]
        if block.terminator.name != "branch":
            continue
        for target in block.successors():
            if target not in chosen and block.end <= target <= block.end + _SHORT_REACH:
                chosen[target] = code.block(target)
                todo.append(target)
    if len(chosen) == len(region.blocks):
        return region
    blocks = split_blocks(chosen)
    indirect = {_piece_with_end(blocks, chosen[pc]): goals for pc, goals in region.indirect.items()}
    return Region(list(region.entries), blocks, set(region.returns), indirect, seen=region.seen)
