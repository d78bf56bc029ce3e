"""Accesses of a block that one check can decide: those at constant distances from one value of one register.

Function prologues, stack slots and the fields of a structure come in such groups. When the check fails, the lane leaves
to the interpreter at the first access, which meets whatever is wrong in its own time; so a group may cover accesses
that would not have been reached.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmjit.ir.block import Block
from vmjit.ir.values import Const, Op, Register, Temp

# Accesses farther apart than this are not of one object.
_MAX_EXTENT = 2048


@dataclass(frozen=True, eq=False)
class AccessGroup:
    """Accesses at `lo` to `hi` (exclusive) from a register's value. `alignment` is that of the widest, in bytes.

    `low` is `lo` rounded down to a multiple of the word.
    """

    register: int
    low: int
    hi: int
    alignment: int
    members: dict[int, int]
    """Distance of each access by the identity of its op."""


@dataclass
class _Candidate:
    register: int
    members: list[tuple[Op, int]]


def access_groups(block: Block, stack: int | None) -> list[AccessGroup]:
    """The groups of a block.

    A group without a store is left out unless it is on the stack: loads may be from the shared image, where the check
    for a lane's own memory would fail each time.
    """
    type_ = block.registers.type
    versions = [0] * len(block.registers)
    found: dict[tuple[int, int], _Candidate] = {}
    for instruction in block.instructions:
        places: dict[Temp, tuple[int, int]] = {}  # temporary -> (register, distance)
        for op in instruction.ops:
            if op.name == "add" and isinstance(op.args[0], Register) and isinstance(op.args[1], Const):
                if isinstance(op.dest, Temp):
                    places[op.dest] = (op.args[0].index, type_.signed(op.args[1].value))
            elif op.name in ("load", "store"):
                address = op.args[0]
                place = places.get(address) if isinstance(address, Temp) else None
                if isinstance(address, Register):
                    place = (address.index, 0)
                if place is not None and place[0] != block.registers.zero:
                    register, distance = place
                    key = (register, versions[register])
                    found.setdefault(key, _Candidate(register, [])).members.append((op, distance))
            if isinstance(op.dest, Register):
                versions[op.dest.index] += 1
    made = (_group(c, type_.bits // 8, stack) for c in found.values())
    return [group for group in made if group is not None]


def _group(candidate: _Candidate, word: int, stack: int | None) -> AccessGroup | None:
    members = candidate.members
    sizes = [op.type.bits // 8 for op, _ in members]
    lo = min(distance for _, distance in members)
    hi = max(distance + size for (_, distance), size in zip(members, sizes, strict=True))
    aligned = all(distance % size == 0 for (_, distance), size in zip(members, sizes, strict=True))
    written = any(op.name == "store" for op, _ in members)
    on_stack = candidate.register == stack
    # Only the stack pointer is known to be a multiple of the word where nothing as wide as that is accessed.
    whole_words = on_stack or max(sizes) == word
    if len(members) < 2 or not aligned or hi - lo > _MAX_EXTENT or not (written or on_stack) or not whole_words:
        return None
    distances = {id(op): distance for op, distance in members}
    return AccessGroup(candidate.register, lo // word * word, hi, max(sizes), distances)
