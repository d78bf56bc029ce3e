"""Short forward branches that a lane group takes without parting: it runs both ways, each for its lanes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vmjit.ir.values import Const, Register
from vmjit.translators.region_body import walk
from vmjit.translators.regions import Region

# Instructions of one way, at most: parting and meeting again costs about as much as some dozens.
_MAX_INSTRUCTIONS = 16

# Ops that cannot be done for some of a group's lanes.
_NOT_PREDICATED = frozenset({"store_if", "trap_if", "retired"})


@dataclass(frozen=True)
class Hammock:
    """A branch whose ways meet again at once.

    `taken` is the block for lanes for which the condition holds (None: they skip what the others do), `other` the one
    for the others, `join` where they meet.
    """

    taken: int | None
    other: int | None
    join: int

    @property
    def ways(self) -> tuple[tuple[bool, int], ...]:
        """(whether the condition holds, block) of each way that has one."""
        found = ((True, self.taken), (False, self.other))
        return tuple((holds, pc) for holds, pc in found if pc is not None)


def hammocks(region: Region) -> dict[int, Hammock]:
    """The hammocks of a region by the block that branches."""
    predecessors: dict[int, set[int]] = {}
    for pc in region.blocks:
        for following in region.successors(pc):
            predecessors.setdefault(following, set()).add(pc)

    def way(pc: int, after: int) -> int | None:
        """Where a block leads to, if it can be run for some lanes and only comes behind `after`."""
        block = region.blocks.get(pc)
        if block is None or predecessors.get(pc) != {after} or block.terminator.name != "jump" or pc <= after:
            return None
        if len(block.instructions) > _MAX_INSTRUCTIONS or any(op.name in _NOT_PREDICATED for op in block.ops()):
            return None
        return next(iter(block.successors()), None)

    found = {}
    for pc, block in region.blocks.items():
        if block.terminator.name != "branch":
            continue
        taken, other = (t.value for t in block.terminator.targets if isinstance(t, Const))
        past_taken, past_other = way(taken, pc), way(other, pc)
        if past_other == taken and taken in region.blocks:
            found[pc] = Hammock(None, other, taken)
        elif past_taken == other and other in region.blocks:
            found[pc] = Hammock(taken, None, other)
        elif past_taken is not None and past_taken == past_other and past_taken in region.blocks:
            found[pc] = Hammock(taken, other, past_taken)
    return found


def written(region: Region, pcs: Iterable[int]) -> set[int]:
    """The registers that blocks write."""
    return {op.dest.index for pc in pcs for op in region.blocks[pc].ops() if isinstance(op.dest, Register)}


def budget_needs_both_ways(hammocks: Mapping[int, Hammock], region: Region) -> dict[int, int]:
    """As `budget_needs`, where a branch may be run with both of its ways, on which there are no checks then."""
    checks, postorder = walk(region)
    longest: dict[int, int] = {}
    for pc in postorder:
        size = len(region.blocks[pc].instructions)
        ways = [longest[s] for s in region.successors(pc) if s not in checks]
        if pc in hammocks:
            hammock = hammocks[pc]
            size += sum(len(region.blocks[way].instructions) for _, way in hammock.ways)
            ways.append(0 if hammock.join in checks else longest[hammock.join])
        longest[pc] = size + max(ways, default=0)
    return {pc: longest[pc] for pc in checks}
