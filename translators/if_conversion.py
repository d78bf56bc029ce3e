"""Branches that a lane group takes without parting: it runs all ways to where they meet, each for its lanes."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vmjit.ir.block import Block, GuestInstruction
from vmjit.ir.values import Operand, Register
from vmjit.translators.region_body import walk
from vmjit.translators.regions import Region

# Instructions of one block and of all ways: parting and meeting again costs about as much as some dozens.
_MAX_INSTRUCTIONS = 16
_MAX_ALL = 64

# Ops that cannot be done for some of a group's lanes.
_NOT_PREDICATED = frozenset({"store_if", "trap_if", "retired"})


@dataclass(frozen=True)
class Hammock:
    """A branch whose ways meet again soon, and no other way leads into.

    `blocks` are those between, each behind all that lead to it. They meet at the block `join`, or, where that is None,
    at a return: `returning` is one of the blocks that end with it, and all of them return to the same address.
    """

    blocks: tuple[int, ...]
    join: int | None
    returning: int | None = None

    def goals(self, region: Region) -> list[int]:
        """The blocks of the region that control may come to behind it."""
        if self.join is not None:
            return [self.join]
        assert self.returning is not None
        return region.successors(self.returning)


# A node of the graph that is asked where ways meet: a block, a return (by what it computes), or outside (None).
_Return = tuple[tuple[str, tuple[Operand, ...]], ...]
_Node = int | _Return | None


def returning_instruction(block: Block) -> GuestInstruction | None:
    """The last instruction of a block, if that is a return that changes no register."""
    if block.terminator.name != "indirect" or block.terminator.data != "return":
        return None
    last = block.instructions[-1]
    return None if any(isinstance(op.dest, Register) for op in last.ops) else last


def _graph(region: Region) -> dict[_Node, list[_Node]]:
    graph: dict[_Node, list[_Node]] = {None: []}
    for pc, block in region.blocks.items():
        last = returning_instruction(block)
        if last is not None:
            node = tuple((op.name, op.args) for op in last.ops)
            graph[pc] = [node]
            graph.setdefault(node, [None])
        elif block.terminator.name in ("jump", "branch"):
            graph[pc] = [t if t in region.blocks else None for t in block.successors()]
        else:
            graph[pc] = [None]
    return graph


def _meeting_points(graph: dict[_Node, list[_Node]]) -> dict[_Node, _Node]:
    """The first node that all ways from a node come to (its immediate postdominator), of those that have one."""
    order = sorted(graph, key=lambda n: n if isinstance(n, int) else 1 << 65)
    number = {node: i for i, node in enumerate(order)}
    everything = (1 << len(order)) - 1
    behind = dict.fromkeys(order, everything)
    behind[None] = 1 << number[None]
    changed = True
    while changed:
        changed = False
        for node in reversed(order):
            if not graph[node]:
                continue
            common = everything
            for following in graph[node]:
                common &= behind[following]
            common |= 1 << number[node]
            if common != behind[node]:
                behind[node] = common
                changed = True
    by_set = {bits: node for node, bits in behind.items()}
    found = {}
    for node, bits in behind.items():
        rest = bits & ~(1 << number[node])
        if rest in by_set:
            found[node] = by_set[rest]
    return found


def hammocks(region: Region) -> dict[int, Hammock]:
    """The hammocks of a region by the block that branches."""
    branching = [pc for pc, block in region.blocks.items() if block.terminator.name == "branch"]
    if not branching:
        return {}
    graph = _graph(region)
    meeting = _meeting_points(graph)
    predecessors: dict[int, set[int]] = {}
    for pc in region.blocks:
        for following in region.successors(pc):
            predecessors.setdefault(following, set()).add(pc)
    found = {}
    for pc in branching:
        join = meeting.get(pc)
        blocks = _between(region, graph, predecessors, pc, join) if join is not None else None
        if not blocks:
            continue
        if isinstance(join, int):
            found[pc] = Hammock(blocks, join)
        elif not _reads(join) & written(region, blocks):
            returning = next(p for p in blocks if graph[p] == [join])
            found[pc] = Hammock(blocks, None, returning)
    return found


def _reads(node: _Node) -> set[int]:
    assert isinstance(node, tuple)
    return {arg.index for _, args in node for arg in args if isinstance(arg, Register)}


def _between(
    region: Region, graph: dict[_Node, list[_Node]], predecessors: Mapping[int, set[int]], pc: int, join: _Node
) -> tuple[int, ...] | None:
    """The blocks on the ways from block `pc` to where they meet, each behind those that lead to it; None if they cannot
    be run for some lanes or are too many, or lead in a circle."""
    inside: set[int] = set()
    todo = [n for n in graph[pc] if n != join]
    size = 0
    while todo:
        node = todo.pop()
        if node in inside:
            continue
        if not isinstance(node, int) or node == pc:
            return None
        block = region.blocks[node]
        size += len(block.instructions)
        if len(block.instructions) > _MAX_INSTRUCTIONS or size > _MAX_ALL or not _can_be_predicated(block):
            return None
        inside.add(node)
        todo.extend(n for n in graph[node] if n != join)
    waiting = {node: len(predecessors[node] - {pc}) for node in inside}
    if any(not predecessors[node] <= inside | {pc} for node in inside):
        return None
    ready = [node for node, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    order = []
    while ready:
        node = heapq.heappop(ready)
        order.append(node)
        for following in {n for n in graph[node] if isinstance(n, int) and n in inside}:
            waiting[following] -= 1
            if waiting[following] == 0:
                heapq.heappush(ready, following)
    return tuple(order) if len(order) == len(inside) else None


def _can_be_predicated(block: Block) -> bool:
    instructions = block.instructions
    if block.terminator.name == "indirect":
        if returning_instruction(block) is None:
            return False
        # The return itself is done for all lanes at once.
        instructions = instructions[:-1]
    return not any(op.name in _NOT_PREDICATED for i in instructions for op in i.ops)


def written(region: Region, pcs: Iterable[int]) -> set[int]:
    """The registers that blocks write."""
    return {op.dest.index for pc in pcs for op in region.blocks[pc].ops() if isinstance(op.dest, Register)}


def budget_needs_both_ways(hammocks: Mapping[int, Hammock], region: Region) -> dict[int, int]:
    """As `budget_needs`, where a branch may be run with all of its ways, on which there are no checks then."""
    checks, postorder = walk(region)
    longest: dict[int, int] = {}
    for pc in postorder:
        size = len(region.blocks[pc].instructions)
        ways = [longest[s] for s in region.successors(pc) if s not in checks]
        if pc in hammocks:
            hammock = hammocks[pc]
            inside = sum(len(region.blocks[way].instructions) for way in hammock.blocks)
            ways += [inside + (0 if s in checks else longest[s]) for s in hammock.goals(region)] or [inside]
        longest[pc] = size + max(ways, default=0)
    return {pc: longest[pc] for pc in checks}
