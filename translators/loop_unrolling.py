"""Which loops of a region are compiled as several iterations in a row, and what they access.

Iterations in a row share one check of the budget, and those of their accesses that are at constant distances from one
register's value at the head share one check of the address, whatever the iterations add to it. Where a check fails, the
loop as it is runs one iteration and comes back to the checks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from vmjit.ir.values import Const, Op, Operand, Register, Temp
from vmjit.translators.access_groups import Access, AccessGroup, group_of
from vmjit.translators.regions import Region

# Longer loops spend little on their checks.
_MAX_BODY = 80
_MAX_UNROLLED = 160
_MAX_COPIES = 4

# As long as this, where it takes more iterations to come from one whole word to the next.
_MAX_STEPPING = 128

# All loops of one region together may add this many instructions.
_MAX_ADDED = 512


@dataclass(frozen=True)
class UnrolledLoop:
    """`body` is the loop's blocks, `head` first, each behind those that lead to it within an iteration."""

    head: int
    body: tuple[int, ...]
    size: int
    copies: int
    groups: tuple[AccessGroup, ...]
    members: Mapping[tuple[int, int], tuple[AccessGroup, int]]
    """By copy and identity of an op: its group and its distance."""
    stepping: AccessGroup | None
    """A group of parts of words whose register comes to a multiple of the word as the iterations go on, and is one
    again after all copies: where it is not one, the loop as it is runs until it is."""
    loads: frozenset[AccessGroup]
    """The groups of loads only."""


def unrolled_loops(region: Region, heads: set[int]) -> dict[int, UnrolledLoop]:
    """The loops that are worth it, by their heads; `heads` are the blocks where the budget is checked."""
    predecessors = predecessors_of(region)
    found: dict[int, UnrolledLoop] = {}
    left = _MAX_ADDED
    for head in sorted(heads):
        body = innermost_body(region, heads, predecessors, head)
        size = sum(len(region.blocks[pc].instructions) for pc in body)
        copies = min(_MAX_COPIES, _MAX_UNROLLED // size) if body and size <= _MAX_BODY else 0
        if copies >= 1 and copies * size <= left:
            loop = _with_accesses(region, predecessors, head, body, size, copies)
            if loop.stepping is None and 2 * copies * size <= min(_MAX_STEPPING, left):
                longer = _with_accesses(region, predecessors, head, body, size, 2 * copies)
                if longer.stepping is not None:
                    loop, copies = longer, 2 * copies
            if copies > 1 or loop.groups:
                left -= copies * size
                found[head] = loop
    return found


def predecessors_of(region: Region) -> dict[int, set[int]]:
    """The blocks of the region that may come before each."""
    found: dict[int, set[int]] = {pc: set() for pc in region.blocks}
    for pc in region.blocks:
        for following in region.successors(pc):
            found[following].add(pc)
    return found


def innermost_body(
    region: Region, heads: Collection[int], predecessors: Mapping[int, set[int]], head: int, most: int = _MAX_BODY
) -> tuple[int, ...]:
    """The blocks of the innermost loop at `head`, each behind those that lead to it within an iteration.

    Nothing where it is none, can be entered elsewhere, or has more than `most` instructions.
    """
    inside = {head}
    around = _reached_without(region, head)
    todo = [p for p in predecessors[head] if p not in around]
    if not todo:
        return ()
    while todo:
        pc = todo.pop()
        if pc in inside:
            continue
        if pc in heads or region.blocks[pc].terminator.name not in ("jump", "branch"):
            return ()
        inside.add(pc)
        todo.extend(predecessors[pc])
        if sum(len(region.blocks[p].instructions) for p in inside) > most:
            return ()
    if region.blocks[head].terminator.name not in ("jump", "branch"):
        return ()
    ordered: list[int] = []
    waiting = {pc: len([p for p in predecessors[pc] if p in inside]) for pc in inside if pc != head}
    ready = [head]
    while ready:
        pc = ready.pop()
        ordered.append(pc)
        for following in set(region.successors(pc)) & waiting.keys():
            waiting[following] -= 1
            if not waiting[following]:
                ready.append(following)
    return tuple(ordered) if len(ordered) == len(inside) else ()


def _reached_without(region: Region, head: int) -> set[int]:
    """The blocks that can be reached without passing `head`; it dominates the others."""
    seen = {head}
    todo = list(region.entries)
    while todo:
        pc = todo.pop()
        if pc not in seen:
            seen.add(pc)
            todo.extend(region.successors(pc))
    return seen - {head}


Place = tuple[int, int]  # a register's value at the head, and the distance from it


def _with_accesses(
    region: Region, predecessors: Mapping[int, set[int]], head: int, body: tuple[int, ...], size: int, copies: int
) -> UnrolledLoop:
    registers = region.blocks[head].registers
    before: dict[int, Place] = {i: (i, 0) for i in range(len(registers)) if i != registers.zero}
    accesses: dict[int, list[Access[tuple[int, int]]]] = {}
    steps: dict[int, int] = {}
    for copy in range(copies):
        after: dict[int, dict[int, Place]] = {}
        for pc in body:
            places = before if pc == head else _meet([after[p] for p in predecessors[pc]])
            after[pc] = dict(places)
            for op, (register, distance) in _accesses(region, pc, after[pc]):
                accesses.setdefault(register, []).append(Access((copy, id(op)), op, distance))
        before = _meet([after[p] for p in predecessors[head] if p in after])
        if not copy:
            steps = {r: distance for r, (register, distance) in before.items() if r == register}
    word = registers.type.bits // 8
    groups, members, stepping = [], {}, None
    loads: set[AccessGroup] = set()
    for register, found in accesses.items():
        group = group_of(register, found, word)
        if group is not None and len(found) > 1:
            groups.append(group)
            members.update({access.key: (group, access.distance) for access in found})
            if all(access.op.name == "load" for access in found):
                loads.add(group)
            step = steps.get(register, 0)
            if 0 < 2 * abs(step) < word and not copies * step % word and group.alignment < word:
                stepping = stepping or group
    return UnrolledLoop(head, body, size, copies, tuple(groups), members, stepping, frozenset(loads))


def _accesses(region: Region, pc: int, places: dict[int, Place]) -> list[tuple[Op, Place]]:
    """Accesses of a block whose place is known; leaves in `places` what is known behind it."""
    found = []
    type_ = region.blocks[pc].registers.type
    for instruction in region.blocks[pc].instructions:
        temps: dict[Temp, Place] = {}

        def place(operand: Operand, temps: dict[Temp, Place] = temps) -> Place | None:
            if isinstance(operand, Temp):
                return temps.get(operand)
            return places.get(operand.index) if isinstance(operand, Register) else None

        for op in instruction.ops:
            known: Place | None = None
            if op.name == "copy" or (op.name == "add" and isinstance(op.args[1], Const)):
                start = place(op.args[0])
                step = op.args[1].value if len(op.args) > 1 and isinstance(op.args[1], Const) else 0
                if start is not None and op.type == type_:
                    known = (start[0], type_.signed((start[1] + step) & type_.mask))
            elif op.name in ("load", "store"):
                where = place(op.args[0])
                if where is not None and op.type.bits <= type_.bits:  # what is wider lies in two words
                    found.append((op, where))
            if isinstance(op.dest, Temp) and known is not None:
                temps[op.dest] = known
            elif isinstance(op.dest, Register):
                places.pop(op.dest.index, None)
                if known is not None:
                    places[op.dest.index] = known
    return found


def _meet(states: list[dict[int, Place]]) -> dict[int, Place]:
    first, *others = states
    return {r: p for r, p in first.items() if all(o.get(r) == p for o in others)}
