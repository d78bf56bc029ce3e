"""A counted loop on the CPU: decide everything in front, then run it without a check.

The copy without checks counts its iterations in a 64-bit number, and says what goes on in equal steps in terms of that
number, so that LLVM may unroll and vectorise it. Where anything in front does not hold, the loop as it is runs.
"""

from __future__ import annotations

from typing import Any, Protocol

from llvmlite import ir

from vmjit.ir.values import Op
from vmjit.kernels.emit import I1, I8, I64, Builder, Value, element
from vmjit.translators.counted_loops import MAX_STEP, CountedLoop, Linear, LoopAccesses
from vmjit.translators.memory_ways import MemoryWays
from vmjit.translators.origins import Origin
from vmjit.translators.pointer_origins import PointerOrigins, origin_of
from vmjit.translators.regions import Region


class Emitter(Protocol):
    """What is asked of the region around it."""

    builder: Builder
    xlen: Any
    remaining: Value
    needs: dict[int, int]
    memory: MemoryWays
    region: Region
    origins: PointerOrigins | None

    def load_register(self, index: int) -> Value:
        """A guest register's value here."""

    def store_register(self, index: int, value: Value) -> None:
        """Change a guest register's value."""


class LoopWithoutChecks:
    """The values of one loop that stay the same. Made where the loop is entered; `holds` decides which copy runs."""

    def __init__(self, emitter: Emitter, loop: CountedLoop) -> None:
        self.emitter = emitter
        self.loop = loop
        self.builder = b = emitter.builder
        self.xlen = emitter.xlen
        self.zero = ir.Constant(I64, 0)
        self.first: dict[int, Value] = {}  # registers in front of the loop
        self.conditions: list[Value] = []
        self.last = self._count()
        self.left = b.load(emitter.remaining, typ=I64)
        cost = b.add(
            b.mul(self.last, ir.Constant(I64, loop.size)), ir.Constant(I64, max(emitter.needs[loop.head], loop.size))
        )
        self._require(b.icmp_signed("<=", cost, self.left))
        for sum_, step in loop.narrow:
            self._require_narrow(sum_, step)
        self.starts = {group: self._start(group) for group in loop.groups}
        self.steps = {r: self._value(s) for r, s in loop.steps.items() if s.terms or s.low}
        self.paces = {group: self._wide(group.step) for group in loop.groups}
        self.registers = {r: self._register(r) for r in self.steps}
        holds = ir.Constant(I1, 1)
        for condition in self.conditions:
            holds = b.and_(holds, condition)
        self.holds = holds

    # -- in front of the loop

    def _require(self, condition: Value) -> None:
        self.conditions.append(condition)

    def _register(self, index: int) -> Value:
        if index not in self.first:
            self.first[index] = self.emitter.load_register(index)
        return self.first[index]

    def _value(self, sum_: Linear) -> Value:
        """A sum's lowest value in the first iteration."""
        b = self.builder
        value = ir.Constant(self.xlen, sum_.low & (1 << self.xlen.width) - 1)
        for register, by in sum_.terms:
            term = self._register(register)
            if by != 1:
                term = b.mul(term, ir.Constant(self.xlen, by & (1 << self.xlen.width) - 1))
            value = b.add(term, value)
        return value

    def _wide(self, step: Linear) -> Value:
        """A step as an i64, between -MAX_STEP and MAX_STEP."""
        b = self.builder
        if not step.terms:
            return ir.Constant(I64, step.low)
        value = self._value(step)
        if self.xlen.width == 64:
            biased = b.add(value, ir.Constant(I64, MAX_STEP))
            self._require(b.icmp_unsigned("<", biased, ir.Constant(I64, 2 * MAX_STEP)))
            return value
        return b.sext(value, I64)

    def _count(self) -> Value:
        """How many iterations follow the first, an i64 below 2^32."""
        b, loop, xlen = self.builder, self.loop, self.xlen
        start, bound = self._value(loop.moving), self._value(loop.bound)
        down = not loop.pace.terms and loop.pace.low < 0
        distance = b.sub(start, bound) if down else b.sub(bound, start)
        wide = distance if xlen.width == 64 else b.zext(distance, I64)
        if loop.pace.terms:
            pace = self._wide(loop.pace)
            self._require(b.icmp_signed(">", pace, self.zero))
            pace = b.select(b.icmp_signed(">", pace, self.zero), pace, ir.Constant(I64, 1))
        else:
            pace = ir.Constant(I64, abs(loop.pace.low))
        if loop.relation == "ne":
            self._require(b.icmp_unsigned("<", wide, ir.Constant(I64, MAX_STEP)))
            if pace.constant > 1:
                self._require(b.icmp_unsigned("==", b.and_(wide, ir.Constant(I64, pace.constant - 1)), self.zero))
            return b.udiv(wide, pace)
        compare = b.icmp_signed if loop.signed else b.icmp_unsigned
        goes_on = compare({"lt": "<", "le": "<=", "gt": ">", "ge": ">="}[loop.relation], start, bound)
        self._require(b.or_(b.icmp_unsigned("<", wide, ir.Constant(I64, MAX_STEP)), b.not_(goes_on)))
        self._require(self._does_not_wrap(bound, pace, down=down))
        strict = loop.relation in ("lt", "gt")
        more = b.sub(pace, ir.Constant(I64, 1)) if strict else pace
        short = b.select(goes_on, wide, self.zero)
        # Bounded where it is used: what is beyond was refused.
        short = b.and_(short, ir.Constant(I64, MAX_STEP - 1))
        return b.select(goes_on, b.udiv(b.add(short, more), pace), self.zero)

    def _does_not_wrap(self, bound: Value, pace: Value, *, down: bool) -> Value:
        """Whether the moving value stops behind the bound before it wraps."""
        b, bits = self.builder, self.xlen.width
        step = pace if bits == 64 else b.trunc(pace, self.xlen)
        if self.loop.signed:
            limit = ir.Constant(self.xlen, 1 << bits - 1 if down else (1 << bits - 1) - 1)
        else:
            limit = ir.Constant(self.xlen, 0 if down else (1 << bits) - 1)
        room = b.sub(bound, limit) if down else b.sub(limit, bound)
        return b.icmp_unsigned(">=", room, step)

    def _require_narrow(self, sum_: Linear, step: Linear) -> None:
        b = self.builder
        start = self._value(sum_)
        end = b.add(start, b.mul(self.last, self._wide(step)))
        for value in (start, end):
            biased = b.add(value, ir.Constant(I64, 1 << 31))
            self._require(b.icmp_unsigned("<", biased, ir.Constant(I64, 1 << 32)))

    def _start(self, group: LoopAccesses) -> Value:
        """Where the lowest access of the first iteration is on the host."""
        b = self.builder
        first = self._value(Linear(group.terms, group.low, group.low))
        moved = b.mul(self.last, self._wide(group.step))
        steps = bool(group.step.terms or group.step.low)
        found = self.emitter.memory.loop_start(
            first,
            moved if steps else None,
            group.high - group.low,
            origin=self._origin(group),
            shared=not group.stores,
            stores=group.stores,
        )
        if found is None:
            self._require(ir.Constant(I1, 0))
            return ir.Constant(ir.PointerType(), None)
        self._require(found[1])
        return found[0]

    def _origin(self, group: LoopAccesses) -> Origin:
        emitter = self.emitter
        ops = (op for pc in self.loop.body for op in emitter.region.blocks[pc].ops() if id(op) in self.loop.members)
        return origin_of(emitter.origins, (op for op in ops if self.loop.members[id(op)][0] is group))

    # -- in the loop

    def enter(self, label: Any, before: Any) -> None:
        """Begin the head of the copy: what goes on in equal steps is said by the number of the iteration."""
        b = self.builder
        b.position_at_end(label)
        self.label = label
        self.number = b.phi(I64)
        self.number.add_incoming(self.zero, before)
        narrow = self.number if self.xlen.width == 64 else b.trunc(self.number, self.xlen)
        for register, step in self.steps.items():
            value = b.add(self.registers[register], b.mul(narrow, step))
            self.emitter.store_register(register, value)
        if self.loop.even:
            spent = b.mul(self.number, ir.Constant(I64, self.loop.size))
            b.store(b.sub(self.left, spent), self.emitter.remaining)

    def close(self, outside: Any) -> None:
        """End the last block of the copy."""
        b = self.builder
        self.number.add_incoming(b.add(self.number, ir.Constant(I64, 1), flags=("nuw", "nsw")), b.block)
        b.cbranch(b.icmp_unsigned("!=", self.number, self.last), self.label, outside)

    def place(self, op: Op, address: Value) -> Value | None:
        """Where an access takes place on the host; None for one that was not decided in front."""
        if id(op) not in self.loop.members:
            return None
        b = self.builder
        group, sum_ = self.loop.members[id(op)]
        moved = b.mul(self.number, self.paces[group])
        place = element(b, self.starts[group], moved, I8)
        if sum_.exact:
            return element(b, place, ir.Constant(I64, sum_.low - group.low), I8)
        # An index: how far it is from the lowest one.
        lowest = self._value(Linear(group.terms, group.low, group.low))
        narrow = moved if self.xlen.width == 64 else b.trunc(moved, self.xlen)
        within = b.sub(address, b.add(lowest, narrow))
        return element(b, place, within if self.xlen.width == 64 else b.zext(within, I64), I8)
