"""Control flow of emitted functions: which block follows which, and loops that have one head.

A region may be entered in the middle of a loop, and its returns go wherever it was called from: loops with several
heads. LLVM 20 ends the process over some of those on AMD. One head costs a few registers, so newer ones get them as
they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llvmlite import ir

Block = Any


def targets(terminator: Any) -> list[Block]:
    """The blocks that follow, each once."""
    found = [operand for operand in terminator.operands if isinstance(operand, ir.Block)]
    if isinstance(terminator, ir.SwitchInstr):
        found += [terminator.default, *(block for _, block in terminator.cases)]
    return list(dict.fromkeys(found))


def reverse_postorder(entry: Block) -> list[Block]:
    """The blocks that can be reached, each before those that follow it but for the ways back."""
    order: list[Block] = []
    seen = {entry}
    stack = [(entry, iter(targets(entry.terminator)))]
    while stack:
        block, following = stack[-1]
        unseen = next((t for t in following if t not in seen), None)
        if unseen is None:
            order.append(block)
            stack.pop()
        else:
            seen.add(unseen)
            stack.append((unseen, iter(targets(unseen.terminator))))
    return order[::-1]


def has_loops_of_several_heads(function: Any) -> bool:
    """Whether some way back goes to a block that can be gone around."""
    order = reverse_postorder(function.entry_basic_block)
    place = {block: i for i, block in enumerate(order)}
    back: dict[Block, set[Block]] = {}
    for block in order:
        for target in targets(block.terminator):
            if place[target] <= place[block]:
                back.setdefault(target, set()).add(block)
    return any(tails & _reached_around(function.entry_basic_block, head) for head, tails in back.items())


def _reached_around(entry: Block, avoided: Block) -> set[Block]:
    if entry is avoided:
        return set()
    seen, todo = {entry}, [entry]
    while todo:
        for target in targets(todo.pop().terminator):
            if target is not avoided and target not in seen:
                seen.add(target)
                todo.append(target)
    return seen


def go_through_one_head(function: Any, blocks: Iterable[Block]) -> None:
    """Replace every jump to one of `blocks`, which have no phis, by one to a switch over their numbers."""
    numbers = {block: ir.Constant(ir.IntType(32), i) for i, block in enumerate(dict.fromkeys(blocks))}
    before = list(function.blocks)
    head, nowhere = function.append_basic_block("head"), function.append_basic_block("nowhere")
    b = ir.IRBuilder(head)
    number = b.phi(ir.IntType(32))
    switch = b.switch(number, nowhere)
    for block, value in numbers.items():
        switch.add_case(value, block)
    ir.IRBuilder(nowhere).unreachable()
    for block in before:
        # Each has ways of its own: one that is shared could be entered from outside of a loop, as the block could.
        ways = {}
        for target in targets(block.terminator):
            if target in numbers:
                ways[target] = function.append_basic_block("way")
                number.add_incoming(numbers[target], ways[target])
                ir.IRBuilder(ways[target]).branch(head)
        _redirect(block.terminator, ways)


def _redirect(terminator: Any, ways: Mapping[Block, Block]) -> None:
    terminator.operands = [ways.get(o, o) if isinstance(o, ir.Block) else o for o in terminator.operands]
    if isinstance(terminator, ir.SwitchInstr):
        terminator.default = ways.get(terminator.default, terminator.default)
        terminator.cases = [(value, ways.get(block, block)) for value, block in terminator.cases]
