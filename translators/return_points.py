"""Where the returns of a region's functions lead to: behind the calls of just those functions.

A return that was compared with every return point would be an edge to each, and every register a choice at each end.
"""

from __future__ import annotations

from vmjit.translators.regions import Region, is_call


def return_points(region: Region) -> dict[int, list[int]]:
    """By block that returns, the return points inside that its function was called from."""
    found: dict[int, set[int]] = {}
    returning: dict[int, frozenset[int]] = {}
    for pc, block in region.blocks.items():
        if is_call(block) and block.end in region.returns and block.end in region.blocks:
            callees = region.indirect.get(pc, []) if block.terminator.name == "indirect" else block.successors()
            for callee in callees:
                if callee in region.blocks:
                    if callee not in returning:
                        returning[callee] = _returns_of(region, callee)
                    for place in returning[callee]:
                        found.setdefault(place, set()).add(block.end)
    return {pc: sorted(goals) for pc, goals in found.items()}


def _returns_of(region: Region, callee: int) -> frozenset[int]:
    """The blocks that a function returns from, its tail calls' too."""
    seen: set[int] = set()
    found: set[int] = set()
    todo = [callee]
    while todo:
        pc = todo.pop()
        if pc in seen or pc not in region.blocks:
            continue
        seen.add(pc)
        block = region.blocks[pc]
        if is_call(block):
            todo.append(block.end)
        elif block.terminator.name == "indirect" and block.terminator.data == "return":
            found.add(pc)
        else:
            todo.extend(region.successors(pc))
    return frozenset(found)
