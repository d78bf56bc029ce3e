"""Tier 1, vector: a region run by a lane group in SIMD registers, every lane an element of each vector.

There are two versions of a region. The *convergent* one is for a whole group in step and carries no masks: values that
are the same in all lanes are held once (`lane_forms.py`), accesses at one address are one vector access, and a branch
that lanes disagree on leaves the region. The *masked* one runs any lanes of the group, from any block; it assumes
nothing of registers and gives way at blocks where other lanes wait, so that lanes which parted meet again.

What is not plain computation leaves to the interpreter, as in the scalar tier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llvmlite import ir

from vmjit.block_counters import BlockCounters, Counter
from vmjit.ir.block import Block, GuestInstruction
from vmjit.ir.ops import FLOAT_OPS
from vmjit.ir.registers import RegisterFile
from vmjit.ir.types import INTEGER_BY_BITS, Type
from vmjit.ir.values import Const, Op, Operand, Register, Temp, Terminator
from vmjit.kernels.emit import I32, I64, PTR, Value, add_to_counter, assume_rare, element, load_field, store_field
from vmjit.kernels.interleaved import LaneVectors
from vmjit.kernels.layout import GROUP_INTERPRET, GROUP_LEFT, GROUP_UNFIT, GroupFrame
from vmjit.translators.guest_locations import GuestLocations
from vmjit.translators.if_conversion import Hammock, budget_needs_both_ways, written
from vmjit.translators.lane_forms import NARROW_BITS, Form, Known, LaneForms, decide, is_copy, known_constant
from vmjit.translators.lowering import LOWERINGS, Builder, int_type
from vmjit.translators.region_body import WindowPlan, budget_needs, registers_used, written_before
from vmjit.translators.regions import Region
from vmjit.translators.return_points import return_points
from vmjit.translators.simd_accesses import SimdAccesses
from vmjit.translators.simd_floats import SimdFloats
from vmjit.translators.value_ranges import ValueRanges
from vmjit.translators.vector_unit import VectorUnit

SIMD_TYPE = ir.FunctionType(I64, [PTR, I64, I64])
"""(group frame, number of the entry, instructions that the lanes may run) -> how many of these are left."""

CONVERGENT_SYMBOL = "convergent"
MASKED_SYMBOL = "masked"


# Instructions of a way without accesses that are done without asking whether a lane takes it.
_SHORT = 3


@dataclass(frozen=True, slots=True)
class Held:
    """A value of a group: an integer if it is uniform, else a vector, whose elements have 32 bits if it is narrow."""

    value: Value
    known: Known

    @property
    def uniform(self) -> bool:
        return self.known.form.uniform


class SimdRegion:
    """Emits one version of a region as the function `symbol` of `module`. `assumed` are the forms of registers at the
    entries, None for the masked version."""

    def __init__(
        self,
        module: Any,
        symbol: str,
        region: Region,
        registers: RegisterFile,
        windows: WindowPlan,
        unit: VectorUnit,
        assumed: Mapping[int, Form] | None,
        locations: GuestLocations | None = None,
        counters: BlockCounters | None = None,
    ) -> None:
        self.counters = counters
        self.region = region = replace(region, returning=return_points(region))
        self.registers = registers
        self.windows = windows
        self.xlen = registers.type
        self.masked = assumed is None
        self.entries = list(region.blocks) if self.masked else region.entries
        function = self.function = ir.Function(module, SIMD_TYPE, symbol)
        function.attributes.add("nounwind")
        self.locations = locations
        if locations is not None:
            locations.attach(function)
        self.frame, self.number, self.entered_with = function.args
        self.builder: Builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.lanes = LaneVectors(self.builder, unit.lanes, gathers=unit.gathers)
        self.ranges = ValueRanges(region, registers)
        shared = (windows.shared_lo, windows.shared_size)
        self.forms = LaneForms(_entered_at(region, self.entries), registers, assumed or {}, self.ranges, shared)
        self.needs = budget_needs_both_ways(self.forms.hammocks, _entered_at(region, self.entries))
        self.heads = set(budget_needs(region)) | set(region.entries)
        self.dirty_at = written_before(_entered_at(region, self.entries), registers)
        read, written = registers_used(region, registers)
        self.used = sorted(read | written)
        self._cells: dict[tuple[int, str], Any] = {}
        b = self.builder
        self.remaining = b.alloca(I64, name="remaining")
        self.lag = b.alloca(self.lanes.type(32), name="lag")
        self.predicate: Value | None = None
        self.behind: int | Held | None = None
        self.coming: dict[int, Any] = {}
        self.body_of = {pc: function.append_basic_block(f"block_{pc:x}") for pc in region.blocks}
        self.starts = (
            {pc: function.append_basic_block(f"enter_{pc:x}") for pc in region.blocks} if self.masked else self.body_of
        )
        self.exits: dict[Any, _Exit] = {}
        # Of the block being emitted:
        self.pc = self.size = self.index = 0
        self.form: dict[int, Form] = {}
        self.values: dict[int, Held] = {}
        self.dirty: set[int] = set()

    # -- the function as a whole

    def emit(self) -> None:
        b = self.builder
        b.store(self.entered_with, self.remaining)
        b.store(self.lanes.number(32, 0), self.lag)
        self.accesses = SimdAccesses(self)
        self.active: Value | None = None
        if self.masked:
            bits = load_field(b, self.frame, GroupFrame.MASK)
            self.active = self.lanes.from_bits(bits)
            self.wait_pc = load_field(b, self.frame, GroupFrame.WAIT_PC)
            self.lanes.activate(self.active)
            self.whole = b.icmp_unsigned("==", bits, ir.Constant(I64, (1 << self.lanes.count) - 1))
        self._load_registers()
        self.floats = SimdFloats(self)
        switch = b.switch(self.number, self.body_of[self.entries[0]])
        for number, pc in enumerate(self.entries[1:], 1):
            switch.add_case(ir.Constant(I64, number), self.body_of[pc])
        for pc in self.region.blocks:
            if pc in self.forms.at:
                self._emit_block(pc)
            else:
                for start in {self.starts[pc], self.body_of[pc]}:
                    b.position_at_end(start)
                    b.unreachable()
        for exit_ in self.exits.values():
            exit_.finish()

    def _register_pointer(self, index: int) -> Value:
        size = self.lanes.count * self.registers.storage.bits // 8
        return element(self.builder, self.frame, ir.Constant(I64, GroupFrame.REGISTERS + index * size), ir.IntType(8))

    def _load_registers(self) -> None:
        """Registers into their cells, and out again where they are not as assumed."""
        b, stored = self.builder, self.lanes.type(self.registers.storage.bits)
        forms = self.forms.at[self.entries[0]]
        unfit: Value | None = None
        for index in self.used:
            form = forms[index]
            type_ = self.registers.type_of(index)
            wide = self.lanes.type(type_.bits)
            vector = b.load(self._register_pointer(index), typ=stored, align=self.registers.storage.bits // 8)
            vector = self.resized(vector, type_.bits)
            differs: Value | None = None
            if form.uniform:
                value = b.extract_element(vector, ir.Constant(I32, 0))
                differs = b.xor(vector, self.lanes.splat(value))
            else:
                value = vector
            if form.narrow and type_.bits > NARROW_BITS:
                low = b.trunc(vector, self.lanes.type(NARROW_BITS))
                unlike = b.xor(b.sext(low, wide), vector)
                differs = unlike if differs is None else b.or_(differs, unlike)
                value = value if form.uniform else low
            if differs is not None:
                differs = self.resized(differs, self.registers.storage.bits)
                unfit = differs if unfit is None else b.or_(unfit, differs)
            b.store(value, self._cell(index, form))
        if unfit is not None:
            bad = self.lanes.any(b.icmp_unsigned("!=", unfit, ir.Constant(stored, None)))
            wrong, right = b.append_basic_block("unfit"), b.append_basic_block("fit")
            assume_rare(b.cbranch(bad, wrong, right), taken_rare=True)
            b.position_at_end(wrong)
            none = self.lanes.number(32, 0)
            b.store(none, element(b, self.frame, ir.Constant(I64, GroupFrame.LAG), ir.IntType(8)), align=4)
            store_field(b, self.frame, GroupFrame.STATUS, ir.Constant(I64, GROUP_UNFIT))
            b.ret(self.entered_with)
            b.position_at_end(right)

    def _held_type(self, type_: Type, form: Form) -> Any:
        if form.uniform:
            return int_type(type_.bits)
        return self.lanes.type(min(type_.bits, NARROW_BITS) if form.narrow else type_.bits)

    def _cell(self, index: int, form: Form) -> Any:
        """Where a register is kept between blocks, for a form that it has there."""
        type_ = self._held_type(self.registers.type_of(index), form)
        key = (index, str(type_))
        if key not in self._cells:
            with self.builder.goto_entry_block():
                self._cells[key] = self.builder.alloca(type_, name=f"{self.registers.names[index]}_")
        return self._cells[key]

    # -- values

    def constant(self, type_: Type, value: int) -> Held:
        return Held(ir.Constant(int_type(type_.bits), value & type_.mask), known_constant(type_, value))

    def held(self, value: Value, type_: Type, form: Form) -> Held:
        return Held(value, Known(type_, form))

    def resized(self, value: Value, bits: int) -> Value:
        """A vector with elements of another width, sign-extended or cut."""
        type_ = self.lanes.type(bits)
        have = value.type.element.width
        b = self.builder
        return value if have == bits else b.sext(value, type_) if have < bits else b.trunc(value, type_)

    def vector(self, held: Held, bits: int | None = None) -> Value:
        """As a vector, of elements of `bits` bits if given, else as wide as it is held."""
        type_ = held.known.type
        if not held.uniform:
            return held.value if bits is None else self.resized(held.value, bits)
        bits = bits if bits is not None else self._held_type(type_, Form(False, held.known.form.narrow)).element.width
        value = held.value if bits >= type_.bits else self.builder.trunc(held.value, int_type(bits))
        return self.lanes.splat(value)

    def as_form(self, held: Held, form: Form) -> Value:
        """The value as a cell of this form holds it, which is not more special than its own."""
        if form.uniform:
            return held.value
        return self.vector(held, self._held_type(held.known.type, form).element.width)

    def operand(self, operand: Operand) -> Held:
        if isinstance(operand, Const):
            return self.constant(operand.type, operand.value)
        if isinstance(operand, Temp):
            return self.temps[operand]
        assert isinstance(operand, Register)
        if operand.index == self.registers.zero:
            return self.constant(self.xlen, 0)
        if operand.index not in self.values:
            form, type_ = self.form[operand.index], self.registers.type_of(operand.index)
            value = self.builder.load(self._cell(operand.index, form), typ=self._held_type(type_, form))
            self.values[operand.index] = self.held(value, type_, form)
        return self.values[operand.index]

    def write_register(self, index: int, held: Held) -> None:
        if index == self.registers.zero:
            return
        if self.predicate is not None:
            held = self._blended(self.predicate, held, self.operand(Register(index)))
        if index == self.registers.float_status and held is not self.floats.accrued:
            self.floats.set_limits(held)
        self.dirty.add(index)
        self.values[index] = held
        self.form[index] = held.known.form
        self.builder.store(held.value, self._cell(index, held.known.form))

    def _blended(self, condition: Value, new: Held, old: Held) -> Held:
        """The new value in the lanes for which a condition holds."""
        form = Form(uniform=False, narrow=new.known.form.narrow and old.known.form.narrow)
        value = self.builder.select(condition, self.as_form(new, form), self.as_form(old, form))
        return self.held(value, new.known.type, form)

    # -- blocks

    def _emit_block(self, pc: int) -> None:
        b, block = self.builder, self.region.blocks[pc]
        self.pc, self.size, self.index = pc, len(block.instructions), 0
        self.form, self.values, self.dirty = dict(self.forms.at[pc]), {}, set(self.dirty_at[pc])
        self._locate(block.instructions[0].pc if block.instructions else None)
        if self.masked:
            b.position_at_end(self.starts[pc])
            yield_ = b.icmp_unsigned("<=", self.wait_pc, ir.Constant(I64, pc))
            if pc in self.heads:
                yield_ = b.or_(yield_, self.whole)
            away = b.append_basic_block("away")
            b.cbranch(yield_, away, self.body_of[pc])
            b.position_at_end(away)
            self._leave(ir.Constant(I64, pc))
        b.position_at_end(self.body_of[pc])
        remaining = b.load(self.remaining, typ=I64)
        if pc in self.needs:
            lacking = b.icmp_signed("<", remaining, ir.Constant(I64, self.needs[pc]))
            short, enough = b.append_basic_block("short"), b.append_basic_block("enough")
            assume_rare(b.cbranch(lacking, short, enough), taken_rare=True)
            b.position_at_end(short)
            self._leave(ir.Constant(I64, pc), GROUP_INTERPRET)
            b.position_at_end(enough)
        b.store(b.sub(remaining, ir.Constant(I64, self.size)), self.remaining)
        self._emit_instructions(block.instructions)
        self._count(pc)
        self._emit_terminator()
        self._locate(None)

    def _count(self, pc: int) -> None:
        """Count the lanes that take part in block `pc` here, if blocks are counted."""
        if self.counters is None:
            return
        b, bits = self.builder, self.lanes.active_bits
        wide = b.zext(bits, I64) if self.lanes.count < 64 else bits
        block = self.region.blocks[pc]
        some = b.zext(b.icmp_unsigned("!=", wide, ir.Constant(I64, 0)), I64)
        add_to_counter(b, self.counters.address(block, Counter.GROUPS), some)
        add_to_counter(b, self.counters.address(block, Counter.LANES), b.ctpop(wide))

    def _locate(self, pc: int | None) -> None:
        """What is emitted from now on belongs to the instruction at `pc`, or to none."""
        if self.locations is not None:
            self.locations.at(self.builder, pc)

    def _emit_instructions(self, instructions: Sequence[GuestInstruction]) -> None:
        b = self.builder
        for self.index, instruction in enumerate(instructions):
            self.temps: dict[Temp, Held] = {}
            self._locate(instruction.pc)
            if any(op.name == "retired" for op in instruction.ops):  # each lane has a count of its own
                self.leave_here()
                b.position_at_end(b.append_basic_block("never"))
            for op in instruction.ops:
                self._run(op)

    def _run(self, op: Op) -> None:
        args = [self.operand(a) for a in op.args]
        if op.name == "load":
            result = self.accesses.load(op, args[0])
        elif op.name == "store":
            self.accesses.store(op, args[0], args[1])
            return
        elif op.name == "store_if":
            self.accesses.store_if(op, args)
            return
        elif op.name == "trap_if":
            self.leave_if(self._any(args[0]))
            return
        elif op.name == "retired":
            result = self.held(self.lanes.undefined(op.type.bits), op.type, Form(False, narrow=False))
        elif op.name in FLOAT_OPS:
            result = self.floats.compute(op, args)
        elif op.name == "accrued":
            result = self.floats.status_behind()
        else:
            result = self._compute(op, args)
        if isinstance(op.dest, Temp):
            self.temps[op.dest] = result
        elif isinstance(op.dest, Register):
            self.write_register(op.dest.index, result)

    def _compute(self, op: Op, args: list[Held]) -> Held:
        """A pure op: once if all its operands are uniform, else in vectors of the width it can be done in."""
        bits, form = decide(op, [a.known for a in args], self.ranges.results.get(id(op)))
        result_type = op.dest.type if isinstance(op.dest, Temp) else op.type
        if is_copy(op, [a.known for a in args]):
            return Held(args[0].value, Known(result_type, form, args[0].known.constant))
        b = self.builder
        if form.uniform:
            return self.held(LOWERINGS[op.name](b, op.type, [a.value for a in args]), result_type, form)
        if op.name in ("zext", "sext", "trunc"):
            return self.held(self._converted(op, args[0], bits), result_type, form)
        at = INTEGER_BY_BITS[bits]
        vectors = [self.vector(a, min(bits, a.known.type.bits) if a.known.type.bits > 1 else None) for a in args]
        value = LOWERINGS[op.name](b, at, vectors)
        if result_type.bits > 1:
            value = self.resized(value, self._held_type(result_type, form).element.width)
        return self.held(value, result_type, form)

    def _converted(self, op: Op, arg: Held, bits: int) -> Value:
        """A change of width of a vector: to `bits` bits."""
        source, type_ = self.vector(arg), self.lanes.type(bits)
        have = source.type.element.width
        if op.name == "trunc" or have >= bits:
            return source if have == bits else self.builder.trunc(source, type_)
        return getattr(self.builder, op.name)(source, type_)

    # -- conditions

    def _any(self, condition: Held) -> Value:
        """Whether a condition holds for one of the lanes that take part."""
        return condition.value if condition.uniform else self.lanes.any(condition.value)

    def leave_if(self, condition: Value) -> None:
        b = self.builder
        away, on = b.append_basic_block("away"), b.append_basic_block("on")
        assume_rare(b.cbranch(condition, away, on), taken_rare=True)
        b.position_at_end(away)
        self.leave_here()
        b.position_at_end(on)

    # -- control

    def _flow_to(self, target: int) -> None:
        """Go to a block, with the registers in the cells it looks for them in; else leave for it."""
        if target not in self.region.blocks:
            self._leave(ir.Constant(I64, target))
            return
        b = self.builder
        for index in self.used:
            wanted = self.forms.at[target][index]
            if wanted != self.form[index]:
                b.store(self.as_form(self.operand(Register(index)), wanted), self._cell(index, wanted))
        b.branch(self.starts[target])

    def _with_values_kept(self, emit: Callable[[], None]) -> None:
        """Emit something on a side way: what it loads does not dominate what follows."""
        kept = dict(self.values)
        emit()
        self.values = kept

    def _edge(self, target: int) -> Any:
        """An LLVM block that flows to a target."""
        b = self.builder
        edge = b.append_basic_block("edge")
        with b.goto_block(edge):
            self._with_values_kept(lambda: self._flow_to(target))
        return edge

    def _emit_terminator(self) -> None:
        b, block = self.builder, self.region.blocks[self.pc]
        terminator = block.terminator
        if terminator.name == "jump":
            (target,) = terminator.targets
            assert isinstance(target, Const)
            self._flow_to(target.value)
        elif terminator.name == "branch":
            taken, other = (t.value for t in terminator.targets if isinstance(t, Const))
            condition = self.operand(terminator.args[0])
            if condition.uniform:
                b.cbranch(condition.value, self._edge(taken), self._edge(other))
            elif self.pc in self.forms.hammocks:
                self._emit_hammock(self.forms.hammocks[self.pc], condition.value)
            else:
                self._branch_or_part(condition.value, taken, other)
        elif terminator.name == "indirect":
            self._emit_indirect(self.operand(terminator.args[0]))
        else:
            self.leave_here()

    def _emit_hammock(self, hammock: Hammock, condition: Value) -> None:
        """Run all ways, each block for the lanes that come to it, if there are any."""
        b, pc, branch = self.builder, self.pc, self.region.blocks[self.pc].terminator
        outside = self.lanes.active
        address = self._returned_to(hammock, condition)
        self.coming = {way: self._mask_cell(way) for way in hammock.blocks}
        for cell in self.coming.values():
            b.store(self.lanes.number(32, 0), cell)
        self._send_on(branch, condition, outside)
        for way in hammock.blocks:
            mine = b.icmp_signed("<", b.load(self.coming.pop(way), typ=self.lanes.type(32)), self.lanes.number(32, 0))
            before = dict(self.form)
            wanted = {
                i: Form(uniform=False, narrow=before[i].narrow and self._form_after(way, before)[i].narrow)
                for i in written(self.region, [way]) - {self.registers.zero}
            }
            # What is written for some lanes has its form on both sides.
            for index, form in wanted.items():
                held = self.operand(Register(index))
                self.values[index] = self.held(self.as_form(held, form), held.known.type, form)
                self.form[index] = form
                b.store(self.values[index].value, self._cell(index, form))
            block = self.region.blocks[way]
            after = b.append_basic_block("after")
            if _is_worth_skipping(block):
                run = b.append_basic_block("way")
                b.cbranch(self.lanes.is_none(self.lanes.bits(mine)), after, run)
                b.position_at_end(run)
            kept = dict(self.values)
            self.pc, self.size, self.predicate = way, len(block.instructions), mine
            # Where the lanes are meanwhile that do not take this way: before theirs, or behind all.
            self.behind = address if hammock.join is None else hammock.join
            with self.lanes.only(mine):
                self._emit_way(block, mine, wanted)
            b.branch(after)
            b.position_at_end(after)
            self.values = {i: v for i, v in kept.items() if i not in wanted}
            self.predicate, self.pc = None, pc
        if hammock.join is not None:
            self._flow_to(hammock.join)
        else:
            assert hammock.returning is not None
            assert address is not None
            self.pc = hammock.returning
            self._emit_indirect(address)

    def _mask_cell(self, pc: int) -> Any:
        """Where it is kept which lanes come to a block of a hammock: -1 for those that do, else 0."""
        with self.builder.goto_entry_block():
            return self.builder.alloca(self.lanes.type(32), name=f"coming_{pc:x}")

    def _send_on(self, terminator: Terminator, condition: Value | None, mine: Value | None) -> None:
        """Note where the lanes go that are at the end of a block of a hammock."""
        b = self.builder
        targets = [t.value for t in terminator.targets if isinstance(t, Const)]
        ways = [(target, None) for target in targets]
        if condition is not None:
            taken, other = targets
            ways = [(taken, condition), (other, b.not_(condition))]
        for target, goes in ways:
            if target not in self.coming:
                continue
            parts = [part for part in (mine, goes) if part is not None]
            go = parts[0] if len(parts) == 1 else b.and_(*parts)
            cell, type_ = self.coming[target], self.lanes.type(32)
            b.store(b.or_(b.load(cell, typ=type_), b.sext(go, type_)), cell)

    def _returned_to(self, hammock: Hammock, condition: Value) -> Held | None:
        """The address that all ways of a hammock return to, if they meet at a return; where that would trap, the lanes
        part."""
        if hammock.returning is None:
            return None
        b, block = self.builder, self.region.blocks[hammock.returning]
        kept, self.temps = self.temps, {}
        for op in block.instructions[-1].ops:
            if op.name == "trap_if":
                part, on = b.append_basic_block("part"), b.append_basic_block("on")
                assume_rare(b.cbranch(self._any(self.operand(op.args[0])), part, on), taken_rare=True)
                b.position_at_end(part)
                self._part(condition)
                b.position_at_end(on)
            else:
                self._run(op)
        address = self.operand(block.terminator.args[0])
        self.temps = kept
        return address

    def _emit_way(self, block: Block, mine: Value, wanted: Mapping[int, Form]) -> None:
        """Run a block for some lanes; the others lag behind by its instructions."""
        b = self.builder
        b.store(b.sub(b.load(self.remaining, typ=I64), ir.Constant(I64, self.size)), self.remaining)
        skipped = b.select(mine, self.lanes.number(32, 0), self.lanes.number(32, self.size))
        b.store(b.add(b.load(self.lag, typ=self.lanes.type(32)), skipped), self.lag)
        returns = block.terminator.name == "indirect"
        self._emit_instructions(block.instructions[:-1] if returns else block.instructions)
        self._count(self.pc)
        condition: Value | None = None
        if block.terminator.name == "branch":
            condition = self.vector(self.operand(block.terminator.args[0]))
        if block.terminator.name in ("branch", "jump"):
            self._send_on(block.terminator, condition, mine)
        for index, form in wanted.items():
            b.store(self.as_form(self.values[index], form), self._cell(index, form))
            self.form[index] = form

    def _form_after(self, pc: int, before: Mapping[int, Form]) -> dict[int, Form]:
        """The forms of registers behind a block that is run with these before it."""
        state = dict(before)
        self.forms.follow(pc, state)
        return state

    def _branch_or_part(self, condition: Value, taken: int, other: int) -> None:
        b = self.builder
        mixed, part = b.append_basic_block("mixed"), b.append_basic_block("part")
        holds = self.lanes.bits(condition)
        b.cbranch(self.lanes.is_all(holds), self._edge(taken), mixed)
        b.position_at_end(mixed)
        b.cbranch(self.lanes.is_none(holds), self._edge(other), part)
        b.position_at_end(part)
        self._part(condition)

    def _part(self, condition: Value) -> None:
        """Leave, each lane for the side of the branch that it takes."""
        lanes = self.lanes
        targets = self.region.blocks[self.pc].terminator.targets
        taken, other = (lanes.number(64, t.value) for t in targets if isinstance(t, Const))
        self._leave_apart(self.builder.select(condition, taken, other))

    def _emit_indirect(self, address: Held) -> None:
        b = self.builder
        if address.uniform:
            first = address.value
        else:
            addresses = self.vector(address, self.xlen.bits)
            same, first = self.lanes.all_same(addresses)
            together, apart = b.append_basic_block("together"), b.append_basic_block("apart")
            b.cbranch(same, together, apart)
            b.position_at_end(apart)
            wide = addresses if self.xlen.bits == 64 else b.zext(addresses, self.lanes.type(64))
            self._leave_apart(wide)
            b.position_at_end(together)
        elsewhere = b.append_basic_block("elsewhere")
        goals = [(g, self._edge(g)) for g in self.region.indirect_goals(self.pc)]
        switch = b.switch(first, elsewhere)
        for goal, edge in goals:
            switch.add_case(ir.Constant(first.type, goal), edge)
        b.position_at_end(elsewhere)
        self._leave(first if self.xlen.bits == 64 else b.zext(first, I64))

    # -- exits

    def _exit(self, kind: type[_Exit]) -> Any:
        key = (kind, frozenset((i, self.form[i]) for i in self.dirty))
        if key not in self.exits:
            self.exits[key] = kind(self, {i: self.form[i] for i in sorted(self.dirty)})
        return self.exits[key]

    def _leave(self, pc: Value, status: int = GROUP_LEFT, refund: int = 0) -> None:
        """All lanes that take part are at one pc."""
        self._exit(_ExitTogether).leave(pc, ir.Constant(I64, status), ir.Constant(I64, refund))

    def _leave_apart(self, pcs: Value) -> None:
        self._exit(_ExitApart).leave(pcs, ir.Constant(I64, GROUP_LEFT))

    def leave_here(self) -> None:
        """To the interpreter, at the instruction being emitted; lanes that take the other way are behind it."""
        pc = self.region.blocks[self.pc].instructions[self.index].pc
        refund = self.size - self.index
        if self.predicate is None:
            self._leave(ir.Constant(I64, pc), GROUP_INTERPRET, refund)
            return
        b, lanes = self.builder, self.lanes
        back = b.select(self.predicate, lanes.number(32, 0), lanes.number(32, refund))
        b.store(b.sub(b.load(self.lag, typ=lanes.type(32)), back), self.lag)
        b.store(b.add(b.load(self.remaining, typ=I64), ir.Constant(I64, refund)), self.remaining)
        if isinstance(self.behind, Held):
            address = self.vector(self.behind, self.xlen.bits)
            pcs = address if self.xlen.bits == 64 else b.zext(address, lanes.type(64))
        else:
            assert self.behind is not None
            pcs = lanes.number(64, self.behind)
        for way, cell in self.coming.items():
            comes = b.icmp_signed("<", b.load(cell, typ=lanes.type(32)), lanes.number(32, 0))
            pcs = b.select(comes, lanes.number(64, way), pcs)
        pcs = b.select(self.predicate, lanes.number(64, pc), pcs)
        self._exit(_ExitApart).leave(pcs, ir.Constant(I64, GROUP_INTERPRET))

    def store_state(self, dirty: Mapping[int, Form], pcs: Value, status: Value) -> None:
        b = self.builder
        for index, form in dirty.items():
            type_, stored = self.registers.type_of(index), self.lanes.type(self.registers.storage.bits)
            value = b.load(self._cell(index, form), typ=self._held_type(type_, form))
            vector = self.vector(self.held(value, type_, form), type_.bits)
            self._merge(self._register_pointer(index), b.zext(vector, stored))
        self._merge(element(b, self.frame, ir.Constant(I64, GroupFrame.PCS), ir.IntType(8)), pcs)
        lag = b.load(self.lag, typ=self.lanes.type(32))
        b.store(lag, element(b, self.frame, ir.Constant(I64, GroupFrame.LAG), ir.IntType(8)), align=4)
        store_field(b, self.frame, GroupFrame.STATUS, status)

    def _merge(self, pointer: Value, vector: Value) -> None:
        """Store a vector for the lanes that take part."""
        b, align = self.builder, vector.type.element.width // 8
        if self.active is not None:
            vector = b.select(self.active, vector, b.load(pointer, typ=vector.type, align=align))
        b.store(vector, pointer, align=align)


class _Exit:
    """One way of leaving, with one set of registers to store; its operands arrive from the places that leave."""

    def __init__(self, region: SimdRegion, dirty: Mapping[int, Form]) -> None:
        self.region = region
        self.dirty = dirty
        self.block = region.function.append_basic_block("exit")
        with region.builder.goto_block(self.block):
            self.operands = [region.builder.phi(t) for t in self.types()]

    def types(self) -> tuple[Any, ...]:
        raise NotImplementedError

    def leave(self, *values: Value) -> None:
        b = self.region.builder
        for phi, value in zip(self.operands, values, strict=True):
            phi.add_incoming(value, b.block)
        b.branch(self.block)

    def finish(self) -> None:
        b = self.region.builder
        b.position_at_end(self.block)
        self.emit()

    def emit(self) -> None:
        raise NotImplementedError


class _ExitTogether(_Exit):
    def types(self) -> tuple[Any, ...]:
        return (I64, I64, I64)

    def emit(self) -> None:
        region = self.region
        pc, status, refund = self.operands
        region.store_state(self.dirty, region.lanes.splat(pc), status)
        b = region.builder
        b.ret(b.add(b.load(region.remaining, typ=I64), refund))


class _ExitApart(_Exit):
    def types(self) -> tuple[Any, ...]:
        return (self.region.lanes.type(64), I64)

    def emit(self) -> None:
        region = self.region
        region.store_state(self.dirty, *self.operands)
        region.builder.ret(region.builder.load(region.remaining, typ=I64))


def _is_worth_skipping(block: Block) -> bool:
    """Whether a way costs more than to ask whether lanes take it."""
    return len(block.instructions) > _SHORT or any(op.name in ("load", "store") for op in block.ops())


def _entered_at(region: Region, entries: list[int]) -> Region:
    return Region(list(entries), region.blocks, region.returns, region.indirect, region.returning)


@dataclass(frozen=True)
class SimdModule:
    """LLVM IR of one version of a region; its entries' numbers are their places in `entries`."""

    ir: str
    symbol: str
    entries: tuple[int, ...]


def emit_simd_region(
    region: Region,
    registers: RegisterFile,
    windows: WindowPlan,
    unit: VectorUnit,
    assumed: Mapping[int, Form] | None,
    locations: GuestLocations | None = None,
    counters: BlockCounters | None = None,
) -> SimdModule:
    """Lower a region for groups of lanes: the convergent version, or the masked one if `assumed` is None. With debug
    locations and counters of its blocks if there are any."""
    module = ir.Module(name="simd_region")
    symbol = MASKED_SYMBOL if assumed is None else CONVERGENT_SYMBOL
    emitter = SimdRegion(module, symbol, region, registers, windows, unit, assumed, locations, counters)
    emitter.emit()
    return SimdModule(str(module), symbol, tuple(emitter.entries))
