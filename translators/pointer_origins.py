"""Which memory the accesses of a region are in, most likely: by what their addresses are computed from.

A guess, which orders the windows that an access tries. A forward analysis over the region's blocks: what is computed
from the stack pointer is on the stack, and from a constant in the program's data, with whatever index, in the data.
Of what comes from elsewhere (an argument, what was loaded) is known where it led once, when its block became hot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from vmjit.ir.block import GuestInstruction
from vmjit.ir.registers import RegisterFile
from vmjit.ir.values import Const, Op, Operand, Register, Temp
from vmjit.translators.origins import Origin
from vmjit.translators.region_body import WindowPlan
from vmjit.translators.regions import Region

# A constant so near to a window points into it: compilers make addresses of two parts.
_NEAR = 1 << 11


# Registers that functions leave as they were.
_SAVED = re.compile(r"s\d+|gp|tp")

# What is known of a value: a constant, or where a pointer leads; None: nothing.
_Known = int | Origin | None
_State = dict[int, _Known]  # by register; nothing is known of those left out


class PointerOrigins:
    """`of` gives each access's, for lanes whose mappings change."""

    def __init__(self, region: Region, registers: RegisterFile, windows: WindowPlan) -> None:
        self.region, self.registers = region, registers
        paged = windows.paged
        self._windows = [(windows.shared_lo, windows.shared_size, Origin.SHARED)]
        if paged is not None:
            data_end = windows.private_lo + paged.data_size
            self._windows.append((paged.hull_lo, data_end - paged.hull_lo, Origin.DATA))
        self._found: dict[int, Origin] = {}
        self._saved = [i for name, i in registers.aliases.items() if _SAVED.fullmatch(name)]
        self._link = registers.aliases.get("ra")
        self._at: dict[int, _State] = {}
        self._seen = {pc: seen.origins() for pc, seen in region.seen.items()}
        followed = {t for pc in region.blocks for t in (*self._successors(pc), *self._behind_call(pc))}
        # Where a loop is entered is no news if the region also comes there by itself.
        self._follow([pc for pc in region.blocks if pc not in followed])
        for pc in region.blocks:
            if pc not in self._at:
                self._follow([pc])

    def _follow(self, starts: list[int]) -> None:
        """Go on from blocks of which nothing is known."""
        todo = list(starts)
        self._at.update({pc: {} for pc in starts})
        while todo:
            pc = todo.pop()
            after = self._after(pc, self._at[pc])
            kept = {i: after[i] for i in self._saved if i in after}
            ways = [(t, after) for t in self._successors(pc)] + [(t, kept) for t in self._behind_call(pc)]
            for following, state in ways:
                joined = state if following not in self._at else self._joined(self._at[following], state)
                if following not in self._at or joined != self._at[following]:
                    self._at[following] = dict(joined)
                    todo.append(following)

    def _successors(self, pc: int) -> list[int]:
        """But for where a function returns to: what it leaves there is known from where it was called."""
        terminator = self.region.blocks[pc].terminator
        returns = terminator.name == "indirect" and terminator.data == "return"
        return [] if returns else self.region.successors(pc)

    def _behind_call(self, pc: int) -> list[int]:
        """The block that a call at the end of a block comes back to, which finds the registers that the ABI saves."""
        block = self.region.blocks[pc]
        last = block.instructions[-1]
        calls = any(isinstance(op.dest, Register) and op.dest.index == self._link for op in last.ops)
        behind = last.pc + last.size
        return [behind] if calls and behind in self.region.blocks and block.terminator.name != "branch" else []

    def of(self, op: Op) -> Origin:
        return self._found.get(id(op), Origin.UNKNOWN)

    def _after(self, pc: int, before: _State) -> _State:
        state: _State = {**self._seen.get(pc, {}), **{i: known for i, known in before.items() if known is not None}}
        for instruction in self.region.blocks[pc].instructions:
            self._run(instruction, state)
        return state

    def _run(self, instruction: GuestInstruction, state: _State) -> None:
        temps: dict[Temp, _Known] = {}

        def known(operand: Operand) -> _Known:
            if isinstance(operand, Const):
                return operand.value
            if isinstance(operand, Temp):
                return temps.get(operand)
            if not isinstance(operand, Register):
                return None
            if operand.index == self.registers.stack:
                return Origin.STACK
            return 0 if operand.index == self.registers.zero else state.get(operand.index)

        for op in instruction.ops:
            if op.name in ("load", "store", "store_if"):
                self._found[id(op)] = self._origin(known(op.args[1 if op.name == "store_if" else 0])) or Origin.UNKNOWN
            result = self._result(op, [known(a) for a in op.args])
            if isinstance(op.dest, Temp):
                temps[op.dest] = result
            elif isinstance(op.dest, Register):
                state[op.dest.index] = result

    def _origin(self, known: _Known) -> Origin | None:
        if not isinstance(known, int):
            return known
        for lo, size, origin in self._windows:
            if size > 0 and lo - _NEAR <= known < lo + size + _NEAR:
                return origin
        return None

    def _joined(self, before: _State, after: _State) -> _State:
        """What holds whichever way a block is come to."""
        joined: _State = {}
        for register, known in before.items():
            other = after.get(register)
            if known == other:
                joined[register] = known
            elif known is not None and other is not None:
                origin = self._origin(known)
                joined[register] = origin if origin == self._origin(other) else None
        return {register: known for register, known in joined.items() if known is not None}

    def _result(self, op: Op, args: list[_Known]) -> _Known:
        if op.name in ("copy", "zext", "sext", "trunc"):
            return args[0]
        if op.name not in ("add", "sub", "and", "or"):
            return None
        first, second = args
        if isinstance(first, int) and isinstance(second, int):
            total = {"add": first + second, "sub": first - second, "and": first & second, "or": first | second}
            return total[op.name] & op.type.mask
        origins = {self._origin(first), self._origin(second)} - {None}
        if op.name == "sub":
            return self._origin(first)
        return origins.pop() if len(origins) == 1 else None


def origin_of(origins: PointerOrigins | None, ops: Iterable[Op]) -> Origin:
    """Of accesses that are decided together."""
    found = {origins.of(op) for op in ops} if origins is not None else set[Origin]()
    return found.pop() if len(found) == 1 else Origin.UNKNOWN
