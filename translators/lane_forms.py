"""How a lane group holds each value of a region: once for all lanes or in a vector, in 32 bits or in all.

Counters, pointers and the stack pointer are most often the same in all lanes: held once, they cost what they cost in a
scalar program, and an access at such an address is one vector access. Programs for 64 bits compute mostly with 32-bit
numbers, which fill half as many vector registers. Both are found by a forward analysis over the region's blocks, from
what is assumed of the registers where lanes enter; the entry checks its assumptions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vmjit.ir.block import GuestInstruction
from vmjit.ir.ops import FLOAT_OPS
from vmjit.ir.registers import RegisterFile
from vmjit.ir.types import Type
from vmjit.ir.values import Const, Op, Operand, Register, Temp
from vmjit.translators.if_conversion import hammocks, written
from vmjit.translators.regions import Region
from vmjit.translators.value_ranges import Range, ValueRanges

NARROW_BITS = 32


@dataclass(frozen=True, slots=True)
class Form:
    """`uniform`: one value for all lanes. `narrow`: the sign extension of its low 32 bits, and held as these."""

    uniform: bool
    narrow: bool

    def join(self, other: Form) -> Form:
        return Form(self.uniform and other.uniform, self.narrow and other.narrow)


def assumed_forms(registers: RegisterFile, uniform: int, narrow: int) -> dict[int, Form]:
    """The forms of all registers, from a bit each."""
    wide = [registers.type_of(i).bits > NARROW_BITS for i in range(len(registers))]
    return {i: Form(bool(uniform >> i & 1), bool(narrow >> i & 1) or not is_wide) for i, is_wide in enumerate(wide)}


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an operand: its type and form, and its value if that is a constant."""

    type: Type
    form: Form
    constant: int | None = None


def varying(type_: Type) -> Form:
    """The form of a value of which nothing is known."""
    return Form(uniform=False, narrow=type_.bits <= NARROW_BITS)


def fits_narrow(type_: Type, value: int) -> bool:
    return type_.bits <= NARROW_BITS or -(1 << 31) <= type_.signed(value) < 1 << 31


def known_constant(type_: Type, value: int) -> Known:
    return Known(type_, Form(uniform=True, narrow=fits_narrow(type_, value)), value & type_.mask)


_COMPARISONS = frozenset({"eq", "ne", "lts", "ltu", "ges", "geu"})
_BITWISE = frozenset({"and", "or", "xor"})

# The low 32 bits of their results follow from those of their operands.
_LOW_FROM_LOW = frozenset({"add", "sub", "mul"})


def is_copy(op: Op, args: Sequence[Known]) -> bool:
    """Whether an op gives its first operand: `addi rd, rs, 0` moves a register."""
    return op.name == "copy" or (op.name in ("add", "or", "xor", "sub") and args[1].constant == 0)


def decide(op: Op, args: Sequence[Known], result: Range | None = None) -> tuple[int, Form]:
    """(bits that lanes compute a pure op in, form of its result); `result` is what is known of that.

    A comparison's bits are those of its operands. Sign extension keeps the order of numbers, signed and unsigned, so
    narrow ones are compared in 32 bits.
    """
    uniform = all(a.form.uniform for a in args)
    bits = op.type.bits
    if bits <= NARROW_BITS:
        return bits, Form(uniform, narrow=True)
    wide = [a for a in args if a.type.bits > NARROW_BITS]
    narrow = all(a.form.narrow for a in wide)
    if op.name in _COMPARISONS:
        return (NARROW_BITS if narrow else bits), Form(uniform, narrow=True)
    bounded = result is not None and result.hi < 1 << (NARROW_BITS - 1)
    if is_copy(op, args):
        narrow = args[0].form.narrow
    elif bounded and (op.name in _LOW_FROM_LOW or _is_short_shift(op, args)):
        narrow = True
    elif op.name == "add" and args[0].constant == 0:  # `addi rd, zero, 5` loads a constant
        narrow = args[1].form.narrow
    elif op.name in _BITWISE:
        masked = op.name == "and" and any(a.constant is not None and a.constant < 1 << 31 for a in args)
        narrow = narrow or masked
    elif op.name in ("shr", "sar"):
        amount = args[1].constant
        if amount is not None and amount % bits > NARROW_BITS - (op.name == "sar"):
            return bits, Form(uniform, narrow=True)
        narrow = narrow and op.name == "sar" and amount is not None
    elif op.name == "zext":
        narrow = args[0].type.bits < NARROW_BITS
    elif op.name not in ("sext", "select"):
        narrow = False
    return (NARROW_BITS if narrow else bits), Form(uniform, narrow)


def _is_short_shift(op: Op, args: Sequence[Known]) -> bool:
    return op.name == "shl" and args[1].constant is not None and args[1].constant < NARROW_BITS


def float_form(op: Op, args: Sequence[Known]) -> Form:
    """The form of a float op's result. The status register behind it is as uniform, and small."""
    return Form(
        all(a.form.uniform for a in args), narrow=isinstance(op.dest, Temp) and op.dest.type.bits <= NARROW_BITS
    )


State = dict[int, Form]


class LaneForms:
    """`at[pc]` has the forms of all registers where block `pc` starts; blocks that no entry leads to have none.

    `entered` is what is assumed of registers at the entries; of those left out, nothing. `ranges` tells which loads are
    from the shared image, so that all lanes read the same at the same address. `reloads` are loads by identity of the
    op that read a register's value back from the stack: whether it is the same in all lanes still is checked there.
    """

    def __init__(
        self,
        region: Region,
        registers: RegisterFile,
        entered: Mapping[int, Form],
        ranges: ValueRanges,
        shared: tuple[int, int],
    ) -> None:
        self.region = region
        self.registers = registers
        self.ranges = ranges
        self.shared = shared
        self.reloads: dict[int, Form] = {}
        self.hammocks = hammocks(region)
        # What is stored on the stack, by the distance from where the stack pointer is when the region is entered.
        self._slots: dict[int, Form] = {}
        self._status = Form(uniform=False, narrow=True)
        start = {i: entered.get(i, varying(registers.type_of(i))) for i in range(len(registers))}
        self.at: dict[int, State] = {}
        while True:
            before = dict(self._slots)
            self.at = {pc: dict(start) for pc in region.entries}
            # How far the stack pointer is from where it was at the first entry; None where that is not known.
            self._depths: dict[int, int | None] = dict.fromkeys(region.entries[1:])
            self._depths[region.entries[0]] = 0
            todo = list(region.entries)
            while todo:
                pc = todo.pop()
                for following, after in self._flows(pc):
                    if self._join(following, after) and following not in todo:
                        todo.append(following)
            if before == self._slots:
                break

    def _join(self, pc: int, state: State) -> bool:
        """Have `state` come to a block; whether that changes what holds there."""
        old, depth = self.at.get(pc), self._depths.get(pc)
        self.at[pc] = dict(state) if old is None else {i: f.join(state[i]) for i, f in old.items()}
        self._depths[pc] = self._depth if old is None or self._depth == depth else None
        return self.at[pc] != old or self._depths[pc] != depth

    def _flows(self, pc: int) -> list[tuple[int, State]]:
        """The blocks that follow, with the forms of registers there."""
        state = dict(self.at[pc])
        self._depth = self._depths[pc]
        condition = self._run_block(pc, state)
        hammock = self.hammocks.get(pc)
        if hammock is None or condition is None or condition.uniform:
            return [(following, state) for following in self.region.successors(pc)]
        for way in hammock.blocks:
            before = dict(state)
            self._run_block(way, state)
            # What only some lanes have written differs between lanes.
            for index in written(self.region, [way]) - {self.registers.zero}:
                state[index] = Form(uniform=False, narrow=state[index].narrow and before[index].narrow)
        return [(following, state) for following in hammock.goals(self.region)]

    def follow(self, pc: int, state: State) -> None:
        """Change the forms of registers to those behind a block."""
        self._depth = self._depths.get(pc)
        self._run_block(pc, state)

    def _run_block(self, pc: int, state: State) -> Form | None:
        """Follow a block's instructions; the form of its branch's condition, if it ends with one."""
        block = self.region.blocks[pc]
        temps: dict[Temp, Known] = {}
        for instruction in block.instructions:
            temps = self._run(instruction, state)
        if block.terminator.name != "branch":
            return None
        (condition,) = block.terminator.args
        return temps[condition].form if isinstance(condition, Temp) else Form(uniform=True, narrow=True)

    def _run(self, instruction: GuestInstruction, state: State) -> dict[Temp, Known]:
        """Follow an instruction; gives what is known of its temporaries."""
        temps: dict[Temp, Known] = {}
        places: dict[Temp, int] = {}
        type_ = self.registers.type

        def known(operand: Operand) -> Known:
            if isinstance(operand, Const):
                return known_constant(operand.type, operand.value)
            if isinstance(operand, Temp):
                return temps[operand]
            assert isinstance(operand, Register)
            if operand.index == self.registers.zero:
                return known_constant(type_, 0)
            return Known(self.registers.type_of(operand.index), state[operand.index])

        for op in instruction.ops:
            args = [known(a) for a in op.args]
            self._note_place(op, places)
            if op.name == "store":
                self._note_store(op, args[1].form, places)
            if op.dest is None:
                continue
            found = self._form_of(op, args, places)
            if isinstance(op.dest, Temp):
                constant = args[0].constant if op.name == "copy" else None
                temps[op.dest] = Known(op.dest.type, found, constant)
            elif isinstance(op.dest, Register) and op.dest.index != self.registers.zero:
                state[op.dest.index] = found
        return temps

    def _form_of(self, op: Op, args: Sequence[Known], places: Mapping[Temp, int]) -> Form:
        """The form of an op's result."""
        if op.name == "load":
            return self.loaded(op, args[0].form, places)
        if op.name == "retired":
            return Form(uniform=False, narrow=False)
        if op.name in FLOAT_OPS:
            found = float_form(op, args)
            self._status = Form(found.uniform, narrow=True)
            return found
        if op.name == "accrued":
            return self._status
        return decide(op, args, self.ranges.results.get(id(op)))[1]

    def loaded(self, op: Op, address: Form, places: Mapping[Temp, int] | None = None) -> Form:
        """The form of a load's result."""
        found = varying(op.type)
        if not address.uniform:
            return found
        window = self.ranges.addresses.get(id(op))
        if window is not None and window.inside(*self.shared):
            return Form(uniform=True, narrow=found.narrow)
        if places is not None:
            place = places.get(op.args[0]) if isinstance(op.args[0], Temp) else None
            if place in self._slots and op.type is self.registers.type and self._slots[place].uniform:
                self.reloads[id(op)] = self._slots[place]
            else:
                self.reloads.pop(id(op), None)
        return self.reloads.get(id(op), found)

    def _note_place(self, op: Op, places: dict[Temp, int]) -> None:
        """Remember addresses at constant distances from the stack pointer, and where that goes."""
        stack = self.registers.stack
        if stack is None or not (isinstance(op.dest, Temp) or op.dest == Register(stack)):
            return
        place: int | None = None
        if op.name == "add" and op.args[0] == Register(stack) and isinstance(op.args[1], Const):
            place = None if self._depth is None else self._depth + self.registers.type.signed(op.args[1].value)
        if op.dest == Register(stack):
            self._depth = place
        elif isinstance(op.dest, Temp) and place is not None:
            places[op.dest] = place

    def _note_store(self, op: Op, value: Form, places: Mapping[Temp, int]) -> None:
        place = places.get(op.args[0]) if isinstance(op.args[0], Temp) else None
        if place is not None and op.type is self.registers.type:
            old = self._slots.get(place)
            self._slots[place] = value if old is None else old.join(value)
