"""What every target's compiled region has in common: blocks, budgets and the registers to store at each exit.

Guest registers are loaded once on entry, live in SSA values inside and are stored once on exit, only those the region
writes. The budget is checked on entry and where loops close. Whatever is not plain computation (a fault, an
environment call, the end of the budget) leaves to the interpreter at that very instruction with the state as before
it, so that everything exact is in one place. A target says where lane state is and how a lane leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from vmjit.ir.block import Block
from vmjit.ir.ops import FLOAT_OPS
from vmjit.ir.registers import RegisterFile
from vmjit.ir.values import Const, Op, Operand, Register, RegisterSlot
from vmjit.translators.float_ops import as_bits, emit_float_op, limit_of
from vmjit.translators.guest_locations import GuestLocations
from vmjit.translators.lowering import Builder, Temps, Value, constant, int_type
from vmjit.translators.regions import Region

I64 = ir.IntType(64)


@dataclass(frozen=True)
class PageWindows:
    """What of the private window compiled code finds as it is, of lanes whose mappings change.

    The private window's first `data_size` bytes and the stack can always be read and written. Behind the data is the
    heap, as far as the lane's `AddressSpaceRow` says. Everything else in the hull is asked for by page; all in bytes.
    """

    data_size: int
    stack_lo: int
    stack_size: int
    hull_lo: int
    hull_size: int


@dataclass(frozen=True)
class WindowPlan:
    """The memory windows as constants of the compiled code: guest address and size in bytes; size 0: none.

    `more` says that the program has memory outside the two windows, which compiled code then looks up in place
    instead of leaving to the interpreter. With `paged`, the size of the private window is that it can come to have.
    """

    private_lo: int
    private_size: int
    shared_lo: int
    shared_size: int
    more: bool
    paged: PageWindows | None = None

    @property
    def sure_size(self) -> int:
        """Bytes of the private window that can always be read and written."""
        return self.private_size if self.paged is None else self.paged.data_size


class RegionBody:
    """Emits a region's blocks with `builder`, which stands where the region's registers have yet to be loaded.

    Whoever uses it loads the registers into `cells`, the budget into `remaining`, goes to the blocks with `dispatch`
    and calls `emit_blocks`.
    """

    def __init__(
        self,
        region: Region,
        registers: RegisterFile,
        windows: WindowPlan,
        builder: Builder,
        locations: GuestLocations | None = None,
    ) -> None:
        self.region = region
        self.locations = locations
        if locations is not None:
            locations.attach(builder.function)
        self.registers = registers
        self.windows = windows
        self.xlen = int_type(registers.type.bits)
        self.builder = builder
        self.function = builder.function
        self.needs = budget_needs(region)
        self.dirty: set[int] = set()
        self.dirty_at: Mapping[int, frozenset[int]] = {}
        self.cells: dict[int, Value] = {}
        self.limits: dict[int, Value] = {}  # where the limits of float results are kept, by width
        with builder.goto_entry_block():
            self.place_registers()
            self.remaining = builder.alloca(I64, name="remaining")
            for bits in limits_asked(region):
                self.limits[bits] = builder.alloca(int_type(bits), name="limit")
        self.starts = {pc: self.function.append_basic_block(f"block_{pc:x}") for pc in region.blocks}

    # -- where registers are

    def place_registers(self) -> None:
        """Have cells for the region's registers, and know which of them an exit has to store."""
        self.dirty_at = written_before(self.region, self.registers)
        read, written = registers_used(self.region, self.registers)
        names = self.registers.names
        used = sorted(read | written)
        self.doubles = double_registers(self.region)
        self.cells = {i: self.builder.alloca(self.cell_type(i), name=names[i]) for i in used}

    def register_type(self, index: int) -> Any:
        return int_type(self.registers.type_of(index).bits)

    def cell_type(self, index: int) -> Any:
        """What a register is kept as: doubles as such, so that they go around loops in float registers."""
        return ir.DoubleType() if index in self.doubles else self.register_type(index)

    def load_register(self, index: int) -> Value:
        """A guest register's value here."""
        return as_bits(self.builder, self.builder.load(self.cells[index], typ=self.cell_type(index)))

    def store_register(self, index: int, value: Value) -> None:
        """Change a guest register's value."""
        self.builder.store(self.builder.bitcast(value, self.cell_type(index)), self.cells[index])

    # -- what a target says

    def context(self, pc: int, size: int) -> RegionContext:
        """The lane state that the ops of block `pc` act on."""
        raise NotImplementedError

    def locate(self, pc: int | None) -> None:
        """What is emitted from now on belongs to the instruction at `pc`, or to none."""
        if self.locations is not None:
            self.locations.at(self.builder, pc)

    def completed(self, pc: int) -> None:
        """Emit what is to be done each time that block `pc` ran, but for its terminator."""

    def indirect_goals(self, pc: int) -> list[int]:
        """Blocks of the region that the computed jump at the end of block `pc` is compared with."""
        return self.region.indirect_goals(pc)

    def leave_to(self, pc: int) -> None:
        """Exit to the block at a guest address."""
        raise NotImplementedError

    def leave_to_address(self, address: Value, site: int, *, computed: bool) -> None:
        """Exit to a computed guest address; `site` is the block that computed it."""
        raise NotImplementedError

    def leave_to_instruction(self, pc: int, number: int, paid: int) -> None:
        """Exit to the interpreter at instruction `number` of block `pc`, of which `paid` were paid for."""
        raise NotImplementedError

    def branch(self, condition: Value, then: Any, otherwise: Any, *, rare: bool | None = None) -> None:
        """Go to one of two LLVM blocks; `rare` says whether `then` is an exception, None that nothing is known."""
        self.builder.cbranch(condition, then, otherwise)

    # -- blocks

    def dispatch(self, number: Value) -> None:
        """Go to the entry with this number, registers loaded."""
        b, entries = self.builder, self.region.entries
        if self.limits:
            assert self.registers.float_status is not None
            self.set_limits(self.load_register(self.registers.float_status))
        if len(entries) == 1:
            b.branch(self.starts[entries[0]])
            return
        switch = b.switch(number, self.starts[entries[0]])
        for i, pc in enumerate(entries[1:], 1):
            switch.add_case(ir.Constant(number.type, i), self.starts[pc])

    def set_limits(self, status: Value) -> None:
        """Have the limits of float results that the status register says."""
        for bits, cell in self.limits.items():
            self.builder.store(limit_of(self.builder, status, bits), cell)

    def emit_blocks(self) -> None:
        for pc in self.region.blocks:
            self.emit_block(pc, self.starts[pc], checked=True)

    def emit_block(self, pc: int, start: Any, *, checked: bool) -> None:
        """Emit block `pc` into the LLVM block `start`, if `checked` with the check of the budget where one belongs."""
        b, block = self.builder, self.region.blocks[pc]
        b.position_at_end(start)
        self.locate(block.instructions[0].pc if block.instructions else None)
        self.dirty = set(self.dirty_at.get(pc, ()))
        remaining = b.load(self.remaining, typ=I64)
        if checked and pc in self.needs:
            short, enough = b.append_basic_block("short"), b.append_basic_block("enough")
            lacking = b.icmp_signed("<", remaining, ir.Constant(I64, self.needs[pc]))
            self.branch(lacking, short, enough, rare=True)
            b.position_at_end(short)
            self.leave_to_instruction(pc, 0, 0)
            b.position_at_end(enough)
        size = len(block.instructions)
        b.store(b.sub(remaining, ir.Constant(I64, size)), self.remaining)
        context = self.context(pc, size)
        temps = Temps(context)
        for number, instruction in enumerate(block.instructions):
            context.number = number
            self.locate(instruction.pc)
            temps = Temps(context)
            temps.run(instruction.ops)
        self.completed(pc)
        self._emit_terminator(pc, block, temps, size)
        self.locate(None)

    def _branch_target(self, target: Operand) -> Any:
        """The LLVM block for a static target: inside the region, or a new one that leaves."""
        assert isinstance(target, Const)
        if target.value in self.starts:
            return self.starts[target.value]
        b = self.builder
        outside = b.append_basic_block("outside")
        with b.goto_block(outside):
            self.leave_to(target.value)
        return outside

    def _emit_terminator(self, pc: int, block: Block, temps: Temps, size: int) -> None:
        b, terminator = self.builder, block.terminator
        if terminator.name == "jump":
            b.branch(self._branch_target(terminator.targets[0]))
        elif terminator.name == "branch":
            taken, other = (self._branch_target(t) for t in terminator.targets)
            self.branch(temps.value(terminator.args[0]), taken, other)
        elif terminator.name == "indirect":
            address = temps.value(terminator.args[0])
            elsewhere = b.append_basic_block("elsewhere")
            switch = b.switch(address, elsewhere)
            for goal in self.indirect_goals(pc):
                switch.add_case(ir.Constant(self.xlen, goal), self.starts[goal])
            b.position_at_end(elsewhere)
            self.leave_to_address(address, block.instructions[-1].pc, computed=terminator.data != "return")
        else:
            self.leave_to_instruction(pc, size - 1, size)


class RegionContext:
    """Lane state as a region sees it: registers in SSA values. A target adds memory and the budget's limit."""

    def __init__(self, body: RegionBody, pc: int, size: int) -> None:
        self.body = body
        self.builder = body.builder
        self.pc = pc
        self.size = size
        self.number = 0
        self.accrued: Value | None = None
        self._values: dict[int, Value] = {}  # registers as this block has them: fewer loads for LLVM to see through

    # -- what a target says

    def limit(self) -> Value:
        """The retired count at which the budget is used up, an i64."""
        raise NotImplementedError

    def load(self, op: Op, address: Value) -> Value:
        raise NotImplementedError

    def store(self, op: Op, address: Value, value: Value) -> None:
        raise NotImplementedError

    # -- what all have

    def operand(self, operand: Operand) -> Value:
        assert isinstance(operand, Register)
        if operand.index == self.body.registers.zero:
            return constant(self.body.registers.type, 0)
        if operand.index not in self._values:
            self._values[operand.index] = self.body.load_register(operand.index)
        return self._values[operand.index]

    def write_register(self, register: Register | RegisterSlot, value: Value) -> None:
        assert isinstance(register, Register)
        if register.index != self.body.registers.zero:
            self.body.dirty.add(register.index)
            self._values[register.index] = value
            self.body.store_register(register.index, value)
            if register.index == self.body.registers.float_status and value is not self.accrued:
                self.status_changed(value)

    def retired(self) -> Value:
        b = self.builder
        left = b.add(b.load(self.body.remaining, typ=I64), ir.Constant(I64, self.size - self.number))
        return b.sub(self.limit(), left)

    def exact_float(self, args: list[Value]) -> tuple[Value, Value] | None:
        """See `float_ops.FloatContext`; a target that has no exact way in compiled code leaves for it."""
        self.leave_here()
        return None

    # -- floats

    def float_op(self, op: Op, args: list[Value]) -> Value:
        return emit_float_op(self, op, args)

    def float_limit(self, bits: int, status: Value) -> Value:
        return self.builder.load(self.body.limits[bits], typ=int_type(bits))

    def rare(self, condition: Value, then: Any, otherwise: Any) -> None:
        self.body.branch(condition, then, otherwise, rare=True)

    def status_changed(self, status: Value) -> None:
        self.body.set_limits(status)

    def refuse(self) -> None:
        self.leave_here()

    def leave_here(self) -> None:
        self.body.leave_to_instruction(self.pc, self.number, self.size)

    def through_windows(
        self, ways: Iterable[tuple[Any, Value]], access: Callable[[Any], Value], done: Any
    ) -> list[tuple[Value, Any]]:
        """Try one window after the other: (place, whether the access may be made there); go to `done` where it was.

        Gives what each access gave with the block it comes from; afterwards the builder stands where none was made.
        """
        b = self.builder
        found = []
        for place, inside in ways:
            hit, miss = b.append_basic_block("hit"), b.append_basic_block("miss")
            self.body.branch(inside, hit, miss, rare=False)
            b.position_at_end(hit)
            found.append((access(place), b.block))
            b.branch(done)
            b.position_at_end(miss)
        return found

    def joined(self, type_: Any, incoming: Iterable[tuple[Value, Any]], done: Any) -> Value:
        """The value that arrives at `done`; of a load that nothing can satisfy there is none."""
        b = self.builder
        incoming = list(incoming)
        b.position_at_end(done)
        if not incoming:
            b.unreachable()
            b.position_at_end(b.append_basic_block("never"))
            return ir.Constant(type_, 0)
        value = b.phi(type_)
        for result, block in incoming:
            value.add_incoming(result, block)
        return value

    def trap_if(self, condition: Value, kind: str, address: Value) -> None:
        b = self.builder
        trap, fine = b.append_basic_block("trap"), b.append_basic_block("fine")
        self.body.branch(condition, trap, fine, rare=True)
        b.position_at_end(trap)
        self.leave_here()
        b.position_at_end(fine)


def double_registers(region: Region) -> set[int]:
    """The registers that are operands of float ops on binary64."""
    ops = (op for block in region.blocks.values() for op in block.ops() if op.name in FLOAT_OPS and op.type.bits == 64)
    integers = ("stof", "utof", "fcvt")
    return {a.index for op in ops if op.name not in integers for a in op.args[:-2] if isinstance(a, Register)}


def limits_asked(region: Region) -> list[int]:
    """The widths of the results of float ops."""
    ops = (op for block in region.blocks.values() for op in block.ops())
    return sorted({op.type.bits for op in ops if op.name in FLOAT_OPS and op.type.bits > 16})


def registers_used(region: Region, registers: RegisterFile) -> tuple[set[int], set[int]]:
    read: set[int] = set()
    written: set[int] = set()
    for block in region.blocks.values():
        for op in block.ops():
            read.update(a.index for a in op.args if isinstance(a, Register))
            if isinstance(op.dest, Register):
                written.add(op.dest.index)
        read.update(a.index for a in block.terminator.args if isinstance(a, Register))
    return read - {registers.zero}, written - {registers.zero}


def written_before(region: Region, registers: RegisterFile) -> dict[int, frozenset[int]]:
    """The registers that may have been written on the way to each block, since the region was entered."""
    own = {
        pc: frozenset(op.dest.index for op in block.ops() if isinstance(op.dest, Register)) - {registers.zero}
        for pc, block in region.blocks.items()
    }
    before: dict[int, frozenset[int]] = {pc: frozenset() for pc in region.blocks}
    todo = list(region.blocks)
    while todo:
        pc = todo.pop()
        after = before[pc] | own[pc]
        for following in region.successors(pc):
            if not after <= before[following]:
                before[following] |= after
                todo.append(following)
    return before


def budget_needs(region: Region) -> dict[int, int]:
    """Where the budget is checked, and how much must be there: the longest way to the next check.

    Checks stand at the entries and at the targets of retreating edges of a depth-first walk: every cycle has one.
    """
    checks, postorder = walk(region)
    longest: dict[int, int] = {}
    for pc in postorder:
        ways = [longest[s] for s in region.successors(pc) if s not in checks]
        longest[pc] = len(region.blocks[pc].instructions) + max(ways, default=0)
    return {pc: longest[pc] for pc in checks}


def walk(region: Region) -> tuple[set[int], list[int]]:
    """(entries and targets of retreating edges, all blocks in postorder)."""
    checks = set(region.entries)
    state: dict[int, int] = {}
    postorder: list[int] = []
    for root in [*region.entries, *region.blocks]:
        if root in state:
            continue
        state[root] = 1
        stack = [(root, iter(region.successors(root)))]
        while stack:
            pc, successors = stack[-1]
            for following in successors:
                if state.get(following) == 1:
                    checks.add(following)
                elif following not in state:
                    state[following] = 1
                    stack.append((following, iter(region.successors(following))))
                    break
            else:
                state[pc] = 2
                postorder.append(pc)
                stack.pop()
    return checks, postorder
