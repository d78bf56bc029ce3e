"""Loops whose iterations are counted before the first: what they step through and where they access memory.

An innermost loop whose last block compares a register that goes on in equal steps with one that stays. How often it
runs at most, that the budget covers it and that its accesses are in memory can then be decided once, in front.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from vmjit.ir.block import Block
from vmjit.ir.values import Const, Op, Operand, Register, Temp
from vmjit.translators.loop_unrolling import innermost_body, predecessors_of
from vmjit.translators.regions import Region

# Of longer loops a second copy costs more than the checks.
_MAX_BODY = 256

# Accesses farther apart than this are checked apart.
_MAX_EXTENT = 4096

# An index is bounded well enough up to here; steps and numbers of iterations are, so that 64 bits hold their products.
_MAX_INDEX = 1 << 14
MAX_STEP = 1 << 31


@dataclass(frozen=True)
class Linear:
    """A sum of registers as they are at the loop's head, times `terms`, and something from `low` to `high`."""

    terms: tuple[tuple[int, int], ...]
    low: int
    high: int

    @property
    def exact(self) -> bool:
        return self.low == self.high

    def plus(self, other: Linear, factor: int = 1) -> Linear:
        terms = dict(self.terms)
        for register, by in other.terms:
            terms[register] = terms.get(register, 0) + factor * by
        ends = sorted((factor * other.low, factor * other.high))
        kept = tuple(sorted((r, by) for r, by in terms.items() if by))
        return Linear(kept, self.low + ends[0], self.high + ends[1])

    def times(self, factor: int) -> Linear:
        return _ZERO.plus(self, factor)


def number(value: int, high: int | None = None) -> Linear:
    return Linear((), value, value if high is None else high)


_ZERO = number(0)


@dataclass(frozen=True, eq=False)
class LoopAccesses:
    """Accesses at the same sum of registers, from `low` to `high` (exclusive) beside it, that go on by `step`."""

    terms: tuple[tuple[int, int], ...]
    low: int
    high: int
    step: Linear
    stores: bool


@dataclass
class CountedLoop:
    """`body` is its blocks, `head` first; `latch` is the last, which goes on while `moving` `relation` `bound`."""

    head: int
    body: tuple[int, ...]
    latch: int
    size: int
    """The most instructions of an iteration; of every iteration if `even`."""
    even: bool
    relation: str
    """ne, lt, le, gt or ge"""
    signed: bool
    moving: Linear
    bound: Linear
    pace: Linear
    """What `moving` changes by in an iteration."""
    steps: Mapping[int, Linear]
    """The registers that go on in equal steps."""
    narrow: tuple[tuple[Linear, Linear], ...]
    """Sums, with their steps, that hold only while they fit 32 bits with sign."""
    groups: list[LoopAccesses] = field(default_factory=list)
    members: dict[int, tuple[LoopAccesses, Linear]] = field(default_factory=dict)
    """By identity of an op: its group and its address."""


def counted_loops(region: Region, heads: Collection[int]) -> dict[int, CountedLoop]:
    """The counted loops by their heads; `heads` are the blocks where the budget is checked."""
    predecessors = predecessors_of(region)
    found = {}
    for head in heads:
        body = innermost_body(region, heads, predecessors, head, _MAX_BODY)
        loop = _Analysis(region, predecessors, body).loop() if body else None
        if loop is not None:
            found[head] = loop
    return found


_INVERSE = {"eq": "ne", "ne": "eq", "lts": "ges", "ges": "lts", "ltu": "geu", "geu": "ltu"}
_SWAPPED = {"ne": "ne", "lt": "gt", "ge": "le"}


# An op, the comparison that it makes and what of.
_Test = tuple[Op, str, Linear | None, Linear | None]


class _Analysis:
    """One iteration, as sums of what the registers are at the head."""

    def __init__(self, region: Region, predecessors: Mapping[int, set[int]], body: tuple[int, ...]) -> None:
        self.region = region
        self.body = body
        self.blocks = [region.blocks[pc] for pc in body]
        self.registers = self.blocks[0].registers
        self.type = self.registers.type
        self.predecessors = predecessors
        self.latches = [pc for pc in body if body[0] in region.successors(pc)]
        self.written = {o.dest.index for block in self.blocks for o in block.ops() if isinstance(o.dest, Register)} - {
            self.registers.zero
        }
        self.accesses: list[tuple[Op, Linear | None]] = []
        self.narrow: list[Linear] = []
        self.test: _Test | None = None
        self.shifted: dict[object, tuple[Linear, int]] = {}
        """Registers, by number, and temporaries that a sum was just shifted right to; the sum, and by how much."""

    def loop(self) -> CountedLoop | None:
        head = self.body[0]
        if len(self.latches) != 1 or self.region.blocks[self.latches[0]].terminator.name != "branch":
            return None
        (latch,) = self.latches
        after = self._run(latch)
        steps = {r: s for r in self.written if (s := self._step(r, after.get(r))) is not None}
        self.steps = steps
        condition = self._condition(latch)
        if condition is None:
            return None
        relation, signed, moving, bound, pace = condition
        narrow = [(sum_, self._stride(sum_)) for sum_ in dict.fromkeys(self.narrow)]
        if any(step is None for _, step in narrow):
            return None
        paths = self._paths(latch)
        loop = CountedLoop(
            head,
            self.body,
            latch,
            paths[1],
            paths[0] == paths[1],
            relation,
            signed,
            moving,
            bound,
            pace,
            steps,
            tuple((s, step) for s, step in narrow if step is not None),
        )
        self._group(loop)
        return loop if loop.groups or not self.accesses else None

    def _run(self, latch: int) -> dict[int, Linear]:
        """Walk an iteration; what is known of the registers at its end."""
        after: dict[int, dict[int, Linear]] = {}
        for pc, block in zip(self.body, self.blocks, strict=True):
            if pc == self.body[0]:
                state = {i: Linear(((i, 1),), 0, 0) for i in range(len(self.registers)) if i != self.registers.zero}
            else:
                first, *others = (after[p] for p in self.predecessors[pc])
                state = {r: s for r, s in first.items() if all(o.get(r) == s for o in others)}
            after[pc] = self._run_block(block, state, is_latch=pc == latch)
        return after[latch]

    def _run_block(self, block: Block, state: dict[int, Linear], *, is_latch: bool) -> dict[int, Linear]:
        state = dict(state)
        self.shifted = {}
        for instruction in block.instructions:
            temps: dict[Temp, Linear] = {}
            self.shifted = {r: s for r, s in self.shifted.items() if isinstance(r, int)}

            def known(operand: Operand, temps: dict[Temp, Linear] = temps) -> Linear | None:
                if isinstance(operand, Const):
                    return number(operand.type.signed(operand.value))
                if isinstance(operand, Temp):
                    return temps.get(operand)
                assert isinstance(operand, Register)
                return _ZERO if operand.index == self.registers.zero else state.get(operand.index)

            for op in instruction.ops:
                if op.name in ("load", "store"):
                    self.accesses.append((op, known(op.args[0])))
                elif op.name == "store_if":
                    self.accesses.append((op, None))
                if is_latch and op.name in _INVERSE and op.type == self.type:
                    self.test = self._below_power(op) or (op, op.name, known(op.args[0]), known(op.args[1]))
                self._note_shift(op, known(op.args[0]) if op.args else None)
                value = self._value(op, [known(a) for a in op.args])
                if isinstance(op.dest, Temp) and value is not None:
                    temps[op.dest] = value
                elif isinstance(op.dest, Register):
                    state.pop(op.dest.index, None)
                    if value is not None:
                        state[op.dest.index] = value
        return state

    def _note_shift(self, op: Op, value: Linear | None) -> None:
        key = op.dest.index if isinstance(op.dest, Register) else op.dest
        self.shifted.pop(key, None)
        if op.name == "shr" and op.type == self.type and isinstance(op.args[1], Const) and value is not None:
            self.shifted[key] = (value, op.args[1].value % op.type.bits)

    def _below_power(self, op: Op) -> _Test | None:
        """A comparison of x >> k with 0, which is one of x with 2^k."""
        name = {"eq": "ltu", "ne": "geu"}.get(op.name)
        zero = [isinstance(a, Register) and a.index == self.registers.zero for a in op.args]
        if name is None or not any(zero):
            return None
        other = op.args[zero.index(True) ^ 1]
        value, k = self.shifted.get(other.index if isinstance(other, Register) else other, (None, 0))
        return (op, name, value, number(1 << k)) if value is not None and k < self.type.bits - 1 else None

    def _value(self, op: Op, args: list[Linear | None]) -> Linear | None:
        """The result of an op as a sum, modulo the width of its type; of a narrower type only modulo that."""
        value = self._sum(op, args)
        if value is not None and value.high - value.low < _MAX_INDEX:
            return value
        bits = op.type.bits
        if op.name == "and" and isinstance(op.args[1], Const) and op.args[1].value < _MAX_INDEX:
            return number(0, op.args[1].value)
        if op.name == "shr" and isinstance(op.args[1], Const) and op.type.mask >> op.args[1].value % bits < _MAX_INDEX:
            return number(0, op.type.mask >> op.args[1].value % bits)
        if op.name in ("zext", "sext") and isinstance(op.args[0], Temp) and op.args[0].type.bits <= 8:
            mask = op.args[0].type.mask
            return number(0, mask) if op.name == "zext" else number(-(mask >> 1) - 1, mask >> 1)
        return None

    def _sum(self, op: Op, args: list[Linear | None]) -> Linear | None:
        first = args[0] if args else None
        if first is None:
            return None
        if op.name == "copy":
            return first
        if op.name in ("add", "sub") and args[1] is not None:
            return first.plus(args[1], 1 if op.name == "add" else -1)
        if op.name == "shl" and isinstance(op.args[1], Const):
            return first.times(1 << op.args[1].value % op.type.bits)
        if op.name == "trunc" and op.type.bits == 32:
            return first
        if op.name == "sext" and isinstance(op.args[0], Temp) and op.args[0].type.bits == 32:
            if first.terms or not -(1 << 31) <= first.low <= first.high < 1 << 31:
                if not first.exact:
                    return None
                self.narrow.append(first)
            return first
        return None

    def _step(self, register: int, after: Linear | None) -> Linear | None:
        """What a register changes by in an iteration, where that is the same in all."""
        if after is None:
            return None
        step = after.plus(Linear(((register, 1),), 0, 0), -1)
        fixed = step.exact and abs(step.low) < MAX_STEP and all(r not in self.written for r, _ in step.terms)
        return step if fixed else None

    def _stride(self, sum_: Linear) -> Linear | None:
        """What a sum changes by in an iteration; None where that is not always the same."""
        total = _ZERO
        for register, by in sum_.terms:
            if register in self.written:
                if register not in self.steps:
                    return None
                total = total.plus(self.steps[register], by)
        return total if abs(total.low) < MAX_STEP else None

    def _condition(self, latch: int) -> tuple[str, bool, Linear, Linear, Linear] | None:
        terminator = self.region.blocks[latch].terminator
        taken, other = (t.value for t in terminator.targets if isinstance(t, Const))
        if self.test is None or self.test[0].dest != terminator.args[0] or taken == other:
            return None
        _, name, left, right = self.test
        if left is None or right is None or not left.exact or not right.exact:
            return None
        name = name if taken == self.body[0] else _INVERSE[name]
        if name == "eq":
            return None
        relation, signed = name[:2], name.endswith("s") and len(name) == 3
        paces = self._stride(left), self._stride(right)
        if paces[0] == _ZERO and paces[1] is not None:
            left, right, relation, paces = right, left, _SWAPPED[relation], (paces[1], _ZERO)
        pace = paces[0]
        if pace is None or paces[1] != _ZERO or pace == _ZERO:
            return None
        return (relation, signed, left, right, pace) if self._can_count(relation, pace) else None

    def _can_count(self, relation: str, pace: Linear) -> bool:
        if relation == "ne":
            return not pace.terms and abs(pace.low).bit_count() == 1
        if pace.terms:
            return relation in ("lt", "le")
        return (pace.low > 0) == (relation in ("lt", "le"))

    def _paths(self, latch: int) -> tuple[int, int]:
        """The fewest and the most instructions of an iteration."""
        found: dict[int, tuple[int, int]] = {}
        for pc, block in zip(self.body, self.blocks, strict=True):
            before = [found[p] for p in self.predecessors[pc] if p in found] if pc != self.body[0] else [(0, 0)]
            size = len(block.instructions)
            found[pc] = (min(f for f, _ in before) + size, max(m for _, m in before) + size)
        return found[latch]

    def _group(self, loop: CountedLoop) -> None:
        steady = [(op, a) for op, a in self.accesses if a is not None and self._stride(a) is not None]
        by_terms: dict[tuple[tuple[int, int], ...], list[tuple[Op, Linear]]] = {}
        for op, address in steady:
            by_terms.setdefault(address.terms, []).append((op, address))
        for terms, found in by_terms.items():
            found.sort(key=lambda access: access[1].low)
            while found:
                low = found[0][1].low
                near = [a for a in found if _end(*a) - low <= _MAX_EXTENT]
                found = [a for a in found if _end(*a) - low > _MAX_EXTENT]
                if not near:
                    break
                step = self._stride(near[0][1])
                assert step is not None
                stores = any(op.name == "store" for op, _ in near)
                group = LoopAccesses(terms, low, max(_end(*a) for a in near), step, stores)
                loop.groups.append(group)
                loop.members.update({id(op): (group, address) for op, address in near})


def _end(op: Op, address: Linear) -> int:
    return address.high + op.type.bits // 8
