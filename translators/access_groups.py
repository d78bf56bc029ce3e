"""Accesses that one check can decide: those at constant distances from one value of one register.

Function prologues, stack slots, the fields of a structure and the steps of a pointer come in such groups. When the
check fails, the lane goes where each access is checked for itself; so a group may cover accesses that would not have
been reached.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from vmjit.ir.block import Block
from vmjit.ir.values import Const, Op, Register, Temp

# Accesses farther apart than this are not of one object.
_MAX_EXTENT = 2048

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Access(Generic[Key]):
    """An op that accesses memory at a distance from a register's value; `key` tells it from the others."""

    key: Key
    op: Op
    distance: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.op.type.bits // 8


@dataclass(frozen=True, eq=False)
class AccessGroup:
    """Accesses at `low` to `hi` (exclusive) from a register's value. `low` is a multiple of the word.

    `alignment`, of the widest access, is what the register's value must be a multiple of.
    """

    register: int
    low: int
    hi: int
    alignment: int
    stores: bool


def group_of(register: int, accesses: Sequence[Access[Key]], word: int) -> AccessGroup | None:
    """The group of all these accesses; None where one check cannot decide for them."""
    low = min(a.distance for a in accesses) // word * word
    hi = max(a.distance + a.size for a in accesses)
    if hi - low > _MAX_EXTENT or any(a.distance % a.size for a in accesses):
        return None
    stores = any(a.op.name == "store" for a in accesses)
    return AccessGroup(register, low, hi, max(a.size for a in accesses), stores)


def access_groups(
    block: Block, stack: int | None, *, loads: bool = False, widest: int = 64
) -> dict[int, tuple[AccessGroup, int]]:
    """The groups of a block: for accesses in one, by identity of the op, the group and the distance.

    Without `loads`, a group without a store is left out unless it is on the stack: loads may be from the shared image,
    where the check for a lane's own memory would fail each time. Accesses of more than `widest` bits are left out.
    """
    type_ = block.registers.type
    versions = [0] * len(block.registers)
    found: dict[tuple[int, int], list[Access[int]]] = {}
    for instruction in block.instructions:
        places: dict[Temp, tuple[int, int]] = {}  # temporary -> (register, distance)
        for op in instruction.ops:
            if op.name == "add" and isinstance(op.args[0], Register) and isinstance(op.args[1], Const):
                if isinstance(op.dest, Temp):
                    places[op.dest] = (op.args[0].index, type_.signed(op.args[1].value))
            elif op.name in ("load", "store") and op.type.bits <= widest:
                address = op.args[0]
                place = places.get(address) if isinstance(address, Temp) else None
                if isinstance(address, Register):
                    place = (address.index, 0)
                if place is not None and place[0] != block.registers.zero:
                    register, distance = place
                    key = (register, versions[register])
                    found.setdefault(key, []).append(Access(id(op), op, distance))
            if isinstance(op.dest, Register):
                versions[op.dest.index] += 1
    members: dict[int, tuple[AccessGroup, int]] = {}
    for (register, _), accesses in found.items():
        wanted = loads or register == stack or any(a.op.name == "store" for a in accesses)
        group = group_of(register, accesses, type_.bits // 8) if len(accesses) > 1 and wanted else None
        if group is not None:
            members.update({a.key: (group, a.distance) for a in accesses})
    return members
