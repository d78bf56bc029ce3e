"""AMD: a region's registers live in the lane's frame, not in SSA values that go from block to block.

LLVM linearises branches that lanes may take differently, and a value that is handed to one block then lives through all
that come between: a region of a hundred instructions had a thousand spills. So guest registers stay where they are in
memory, and only from where a value is known on all ways in is it taken from there. What is stored where is known here
and not to LLVM, for which a guest's store may change any register.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llvmlite import ir

Value = Any
Known = dict[Any, Value]  # by cell, its value


def keep_registers_in_memory(cells: Mapping[Any, Value], barriers: Iterable[Any]) -> None:
    """Give each cell (an alloca) of one function another address, a value of its entry block.

    Loads of what is known become that value; nothing is known where the blocks `barriers` start.
    """
    (function,) = {cell.function for cell in cells}
    ways_in: dict[Any, list[Any]] = {block: [] for block in function.blocks}
    for block in function.blocks:
        for target in _targets(block.terminator):
            ways_in[target].append(block)
    at_end = _known_at_end(cells, ways_in, set(barriers))
    replaced: dict[Value, Value] = {}
    for block in function.blocks:
        _forward(block, cells, _known_at_start(block, ways_in, at_end, set(barriers)) or {}, replaced)
    _drop_overwritten(function, cells)
    for block in function.blocks:
        for instruction in block.instructions:
            if isinstance(instruction, ir.PhiInstr):
                instruction.incomings = [(_final(v, replaced), b) for v, b in instruction.incomings]
            instruction.operands = [cells.get(o, _final(o, replaced)) for o in instruction.operands]
        block.instructions[:] = [i for i in block.instructions if i not in replaced and i not in cells]


def _targets(terminator: Any) -> list[Any]:
    cases = [block for _, block in getattr(terminator, "cases", ())]
    default = [terminator.default] if hasattr(terminator, "default") else []
    return [*dict.fromkeys([*(o for o in terminator.operands if isinstance(o, ir.Block)), *default, *cases])]


def _known_at_end(cells: Mapping[Any, Value], ways_in: Mapping[Any, list[Any]], barriers: set[Any]) -> dict[Any, Known]:
    at_end: dict[Any, Known] = {}
    changed = True
    while changed:
        changed = False
        for block in ways_in:
            before = _known_at_start(block, ways_in, at_end, barriers)
            if before is None:
                continue
            after = _forward(block, cells, before, {})
            if at_end.get(block) != after:
                at_end[block] = after
                changed = True
    return at_end


def _known_at_start(
    block: Any, ways_in: Mapping[Any, list[Any]], at_end: Mapping[Any, Known], barriers: set[Any]
) -> Known | None:
    """What all ways in agree on; None where no way is known yet."""
    if block in barriers or not ways_in[block]:
        return {}
    states = [at_end[b] for b in ways_in[block] if b in at_end]
    if not states:
        return None
    first, *others = states
    return {cell: value for cell, value in first.items() if all(s.get(cell) == value for s in others)}


def _forward(block: Any, cells: Mapping[Any, Value], known: Known, replaced: dict[Value, Value]) -> Known:
    """What is known behind a block; `replaced` gets the loads of what is known, with it."""
    known = dict(known)
    for instruction in block.instructions:
        if isinstance(instruction, ir.StoreInstr) and instruction.operands[1] in cells:
            known[instruction.operands[1]] = instruction.operands[0]
        elif isinstance(instruction, ir.LoadInstr) and instruction.operands[0] in cells:
            cell = instruction.operands[0]
            if cell in known:
                replaced[instruction] = known[cell]
            known.setdefault(cell, instruction)
    return known


def _drop_overwritten(function: Any, cells: Mapping[Any, Value]) -> None:
    """Remove stores that another one in the same block follows: loads between them have the value already."""
    for block in function.blocks:
        kept: list[Any] = []
        later: set[Any] = set()
        for instruction in reversed(block.instructions):
            cell = instruction.operands[1] if isinstance(instruction, ir.StoreInstr) else None
            if cell in later:
                continue
            if cell in cells:
                later.add(cell)
            kept.append(instruction)
        block.instructions[:] = reversed(kept)


def _final(value: Value, replaced: Mapping[Value, Value]) -> Value:
    while value in replaced:
        value = replaced[value]
    return value
