"""AMD: a region's registers live in the lane's frame, not in SSA values that go from block to block.

LLVM linearises branches that lanes may take differently, and a value that is handed to one block then lives through all
that come between: a region of a hundred instructions had a thousand spills. So guest registers stay where they are in
memory, and only from where a value is known on all ways in is it taken from there. What is stored where is known here
and not to LLVM, for which a guest's store may change any register.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llvmlite import ir

from vmjit.translators.control_flow import reverse_postorder, targets

Value = Any
Known = dict[Any, Value]  # by cell, its value


def keep_registers_in_memory(function: Any, cells: Mapping[Any, Value]) -> None:
    """Give each cell (an alloca) of a function another address, a value of its entry block; drop needless loads."""
    order = reverse_postorder(function.entry_basic_block)
    ways_in: dict[Any, list[Any]] = {block: [] for block in order}
    for block in order:
        for target in targets(block.terminator):
            ways_in[target].append(block)
    at_end: dict[Any, Known] = {}
    replaced: dict[Value, Value] = {}
    for block in order:
        known = _agreed([at_end.get(b, {}) for b in ways_in[block]])
        at_end[block] = _forward(block, cells, known, replaced)
    for block in function.blocks:
        _drop_overwritten(block, cells)
        for instruction in block.instructions:
            if isinstance(instruction, ir.PhiInstr):
                instruction.incomings = [(_final(v, replaced), b) for v, b in instruction.incomings]
            instruction.operands = [cells.get(o, _final(o, replaced)) for o in instruction.operands]
        block.instructions[:] = [i for i in block.instructions if i not in replaced and i not in cells]


def _agreed(states: list[Known]) -> Known:
    """What is known on all ways in. A way back has no state yet, so that nothing is known where loops close."""
    if not states:
        return {}
    first, *others = states
    return {cell: value for cell, value in first.items() if all(s.get(cell) == value for s in others)}


def _forward(block: Any, cells: Mapping[Any, Value], known: Known, replaced: dict[Value, Value]) -> Known:
    """What is known behind a block; `replaced` gets the loads of what is known, with it."""
    for instruction in block.instructions:
        if isinstance(instruction, ir.StoreInstr) and instruction.operands[1] in cells:
            known[instruction.operands[1]] = instruction.operands[0]
        elif isinstance(instruction, ir.LoadInstr) and instruction.operands[0] in cells:
            cell = instruction.operands[0]
            if cell in known:
                replaced[instruction] = known[cell]
            known.setdefault(cell, instruction)
    return known


def _drop_overwritten(block: Any, cells: Mapping[Any, Value]) -> None:
    """Remove stores that another one in the block follows: loads between them have the value already."""
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
