"""What is known of values in a region, whatever the lane: bounds, and the rest modulo a power of two.

A forward analysis over the region's blocks: nothing is known of registers where lanes enter, and what ways meet with is
what holds on all of them. It decides for accesses of tables and globals, at compile time, which memory they are in
and that they are aligned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce

from vmjit.ir.block import GuestInstruction
from vmjit.ir.registers import RegisterFile
from vmjit.ir.types import Type
from vmjit.ir.values import Const, Op, Operand, Register, Temp
from vmjit.translators.regions import Region

# A block's bounds are given up when they still grow after this many visits: they are a loop's.
_PATIENCE = 3

_NO_LIMIT = 1 << 64  # modulo this, a register's value is itself


@dataclass(frozen=True, slots=True)
class Range:
    """Unsigned values from `lo` to `hi`, both included, all of them `rest` modulo `step`, a power of two."""

    lo: int
    hi: int
    step: int = 1
    rest: int = 0

    @property
    def divisor(self) -> int:
        """The greatest power of two that is known to divide the values."""
        return self.rest & -self.rest or self.step

    def inside(self, lo: int, size: int) -> bool:
        return lo <= self.lo and self.hi < lo + size

    def outside(self, lo: int, size: int) -> bool:
        return self.hi < lo or lo + size <= self.lo

    def join(self, other: Range) -> Range:
        step = min(self.step, other.step)
        differ = (self.rest - other.rest) % step
        step = differ & -differ or step
        return Range(min(self.lo, other.lo), max(self.hi, other.hi), step, self.rest % step)


def anything(type_: Type, step: int = 1, rest: int = 0) -> Range:
    return Range(0, type_.mask, step, rest)


def exactly(value: int) -> Range:
    return Range(value, value, _NO_LIMIT, value)


def _fitted(type_: Type, lo: int, hi: int, step: int, rest: int = 0) -> Range:
    """Exact results from `lo` to `hi`, `rest` modulo `step`, taken modulo the width."""
    if lo >> type_.bits != hi >> type_.bits:
        lo, hi = 0, type_.mask
    step = min(step, 1 << type_.bits)
    return Range(lo & type_.mask, hi & type_.mask, step, rest % step)


def _add(t: Type, a: Range, b: Range) -> Range:
    return _fitted(t, a.lo + b.lo, a.hi + b.hi, min(a.step, b.step), a.rest + b.rest)


def _sub(t: Type, a: Range, b: Range) -> Range:
    return _fitted(t, a.lo - b.hi, a.hi - b.lo, min(a.step, b.step), a.rest - b.rest)


def _mul(t: Type, a: Range, b: Range) -> Range:
    return _fitted(t, a.lo * b.lo, a.hi * b.hi, a.divisor * b.divisor)


def _and(t: Type, a: Range, b: Range) -> Range:
    return Range(0, min(a.hi, b.hi), max(a.divisor, b.divisor))


def _or(t: Type, a: Range, b: Range) -> Range:
    return Range(0, (1 << max(a.hi, b.hi).bit_length()) - 1, min(a.divisor, b.divisor))


def _shl(t: Type, a: Range, b: Range) -> Range:
    if b.lo != b.hi:
        return anything(t, min(a.divisor, 1 << t.bits))
    by = b.lo % t.bits
    return _fitted(t, a.lo << by, a.hi << by, a.step << by, a.rest << by)


def _shr(t: Type, a: Range, b: Range) -> Range:
    if b.lo != b.hi:
        return Range(0, a.hi)
    by = b.lo % t.bits
    return Range(a.lo >> by, a.hi >> by, max(a.divisor >> by, 1))


def _sext(t: Type, a: Range, narrow: Type) -> Range:
    if a.hi <= narrow.mask >> 1:
        return a
    step = min(a.step, 1 << narrow.bits)
    return anything(t, step, a.rest % step)


def _trunc(t: Type, a: Range) -> Range:
    return _fitted(t, a.lo, a.hi, a.step, a.rest)


_RULES: dict[str, Callable[..., Range]] = {
    "copy": lambda t, a: a,
    "zext": lambda t, a: a,
    "trunc": _trunc,
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "and": _and,
    "or": _or,
    "xor": _or,
    "shl": _shl,
    "shr": _shr,
    "select": lambda t, c, a, b: a.join(b),
}

State = dict[int, Range]  # by register; nothing is known of those left out


class ValueRanges:
    """By identity of the op: `addresses` are those of loads and stores, `results` what other ops give, where something
    is known of it. `at` are the registers where each block starts."""

    def __init__(self, region: Region, registers: RegisterFile) -> None:
        self.region = region
        self.registers = registers
        self.addresses: dict[int, Range] = {}
        self.results: dict[int, Range] = {}
        self.at: dict[int, State] = {pc: {} for pc in region.entries}
        visits = dict.fromkeys(region.blocks, 0)
        todo = list(region.entries)
        while todo:
            pc = todo.pop()
            visits[pc] += 1
            after = self._after(pc)
            for following in region.successors(pc):
                joined = self._joined(following, after, bounds=visits[following] < _PATIENCE)
                if joined is not None:
                    self.at[following] = joined
                    if following not in todo:
                        todo.append(following)

    def register(self, pc: int, index: int) -> Range:
        """What is known of a register where block `pc` starts."""
        return self.at.get(pc, {}).get(index, anything(self.registers.type_of(index)))

    def entering(self, head: int, body: Iterable[int], index: int) -> Range:
        """What is known of a register when a loop of blocks `body` is come to from outside."""
        nothing = anything(self.registers.type_of(index))
        outside = [p for p in self.at if p not in body and head in self.region.successors(p)]
        found = [self._after(p).get(index, nothing) for p in outside]
        if head in self.region.entries or not found:
            return nothing
        return reduce(Range.join, found)

    def _joined(self, pc: int, state: State, *, bounds: bool) -> State | None:
        """What holds at a block when `state` may come to it too; None if that changes nothing."""
        if pc not in self.at:
            return dict(state)
        before, joined = self.at[pc], {}
        for register, known in before.items():
            if register in state:
                found = known.join(state[register])
                if not bounds and (found.lo, found.hi) != (known.lo, known.hi):
                    found = anything(self.registers.type_of(register), found.step, found.rest)
                if found != anything(self.registers.type_of(register)):
                    joined[register] = found
        return joined if joined != before else None

    def _after(self, pc: int) -> State:
        state = dict(self.at[pc])
        for instruction in self.region.blocks[pc].instructions:
            self._run(instruction, state)
        return state

    def _run(self, instruction: GuestInstruction, state: State) -> None:
        temps: dict[Temp, Range] = {}

        def known(operand: Operand) -> Range:
            if isinstance(operand, Const):
                return exactly(operand.value)
            if isinstance(operand, Temp):
                return temps.get(operand, anything(operand.type))
            assert isinstance(operand, Register)
            if operand.index == self.registers.zero:
                return exactly(0)
            return state.get(operand.index, anything(self.registers.type_of(operand.index)))

        for op in instruction.ops:
            if op.name in ("load", "store", "store_if"):
                self.addresses[id(op)] = known(op.args[1 if op.name == "store_if" else 0])
            found = self.results[id(op)] = self._result(op, [known(a) for a in op.args])
            if isinstance(op.dest, Temp):
                temps[op.dest] = found
            elif isinstance(op.dest, Register):
                state[op.dest.index] = found

    def _result(self, op: Op, args: Iterable[Range]) -> Range:
        if op.name == "sext":
            (value,), source = args, op.args[0]
            return _sext(op.type, value, source.type) if isinstance(source, (Temp, Const)) else anything(op.type)
        rule = _RULES.get(op.name)
        return rule(op.type, *args) if rule else anything(op.type if op.dest else self.registers.type)
