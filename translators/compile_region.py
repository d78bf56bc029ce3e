"""Tier 1, scalar: a region as one function of the handlers' convention.

Guest registers are loaded once on entry, live in SSA values inside and are stored once on exit, only those the region
writes. The budget is checked on entry and where loops close. Whatever is not plain computation (a fault, an
environment call, the end of the budget) leaves to the interpreter at that very instruction with the state as before
it, so that everything exact is in one place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from vmjit.ir.block import Block
from vmjit.ir.registers import RegisterFile
from vmjit.ir.types import Type
from vmjit.ir.values import Const, Operand, Register, RegisterSlot
from vmjit.kernels.emit import (
    I32,
    I64,
    PTR,
    Callee,
    Handler,
    Value,
    assume_rare,
    element,
    field_pointer,
    load_field,
    store_field,
)
from vmjit.kernels.layout import (
    ENTRY_LINKS,
    ENTRY_NUMBER,
    RECORD_SIZE,
    SLOT_BYTES,
    SLOT_HANDLER,
    Frame,
    register_offset,
)
from vmjit.kernels.memory import SLOW_LOAD_TYPE, SLOW_STORE_TYPE, Window, load_at, store_at, window_offset
from vmjit.translators.lowering import Temps, int_type
from vmjit.translators.regions import Region


@dataclass(frozen=True)
class WindowPlan:
    """The memory windows as constants of the compiled code: guest address and size in bytes; size 0: none.

    `more` says that the program has memory outside the two windows, which compiled code then looks up in place
    instead of leaving to the interpreter.
    """

    private_lo: int
    private_size: int
    shared_lo: int
    shared_size: int
    more: bool


@dataclass(frozen=True)
class RegionModule:
    """LLVM IR of a region. Its link table has the records of `Region.link_targets`, in that order."""

    ir: str
    symbol: str


REGION_SYMBOL = "region"


class _RegionEmitter:
    def __init__(self, region: Region, registers: RegisterFile, windows: WindowPlan) -> None:
        self.region = region
        self.registers = registers
        self.windows = windows
        self.xlen = int_type(registers.type.bits)
        self.module = ir.Module(name="region")
        self.handler = Handler(self.module, REGION_SYMBOL, self.xlen, linkage="external")
        self.builder = self.handler.builder
        self.function = self.handler.function
        self.links = {pc: i for i, pc in enumerate(region.link_targets())}
        self.needs = _needs(region)
        self.dirty: set[int] = set()
        self.dirty_at = _written_before(region, registers)
        self.exits: dict[Any, Any] = {}
        read, written = _registers_used(region, registers)
        self.cells = {i: self.builder.alloca(self.xlen, name=registers.names[i]) for i in sorted(read | written)}
        self.remaining = self.builder.alloca(I64, name="remaining")

    # -- the function as a whole

    def emit(self) -> RegionModule:
        b, handler = self.builder, self.handler
        record = field_pointer(b, handler.ip, -SLOT_BYTES)
        entry = load_field(b, handler.frame, Frame.ENTRY, PTR)
        self.link_table = load_field(b, entry, ENTRY_LINKS, PTR)
        self.shared_base = load_field(b, handler.frame, Frame.WINDOW1_BASE, PTR)
        for index, cell in self.cells.items():
            b.store(load_field(b, handler.frame, register_offset(index), self.xlen), cell)
        # The block that leads here was paid for at its interpreted size; the region pays by its own blocks.
        self.entered_with = b.add(handler.remaining, self.record_size(record))
        b.store(self.entered_with, self.remaining)
        self.entry_number = load_field(b, entry, ENTRY_NUMBER)
        self.starts = {pc: self.function.append_basic_block(f"block_{pc:x}") for pc in self.region.blocks}
        entries = self.region.entries
        if len(entries) == 1:
            b.branch(self.starts[entries[0]])
        else:
            switch = b.switch(self.entry_number, self.starts[entries[0]])
            for number, pc in enumerate(entries[1:], 1):
                switch.add_case(ir.Constant(I64, number), self.starts[pc])
        for pc, block in self.region.blocks.items():
            self._emit_block(pc, block)
        for exit_ in self.exits.values():
            exit_.finish()
        return RegionModule(str(self.module), REGION_SYMBOL)

    def record_size(self, record: Value) -> Value:
        return self.builder.zext(load_field(self.builder, record, RECORD_SIZE, I32), I64)

    def link(self, pc: int) -> Value:
        """The record of the block at a guest address, from the link table."""
        return load_field(self.builder, self.link_table, 8 * self.links[pc], PTR)

    # -- exits: one copy of the code that stores the registers for each way of leaving and set of written registers

    def _exit(self, kind: type[_Exit]) -> Any:
        """The exit of a kind for the registers that may have been written by now."""
        key = (kind, frozenset(self.dirty))
        exit_ = self.exits.get(key)
        if exit_ is None:
            exit_ = self.exits[key] = kind(self, frozenset(self.dirty))
        return exit_

    def leave_to(self, pc: int) -> None:
        """Exit to the block at a guest address."""
        self._exit(_ExitToBlock).leave(self.link(pc))

    def leave_to_address(self, address: Value, site: int, *, computed: bool) -> None:
        """Exit to a computed guest address; `site` is the block that computed it."""
        self._exit(_ExitToComputed if computed else _ExitToReturn).leave(address, ir.Constant(I64, site))

    def leave_to_instruction(self, pc: int, number: int, paid: int) -> None:
        """Exit to the interpreter at instruction `number` of block `pc`, of which `paid` were paid for."""
        offset = ir.Constant(I64, SLOT_BYTES * number)
        self._exit(_ExitToSlot).leave(self.link(pc), offset, ir.Constant(I64, paid))

    def store_state(self, dirty: frozenset[int], remaining: Value) -> None:
        b, frame = self.builder, self.handler.frame
        for index in sorted(dirty):
            store_field(b, frame, register_offset(index), b.load(self.cells[index], typ=self.xlen))
        done = load_field(b, frame, Frame.COMPILED)
        store_field(b, frame, Frame.COMPILED, b.add(done, b.sub(self.entered_with, remaining)))

    # -- blocks

    def _emit_block(self, pc: int, block: Block) -> None:
        b = self.builder
        b.position_at_end(self.starts[pc])
        self.dirty = set(self.dirty_at[pc])
        remaining = b.load(self.remaining, typ=I64)
        if pc in self.needs:
            short, enough = b.append_basic_block("short"), b.append_basic_block("enough")
            lacking = b.icmp_signed("<", remaining, ir.Constant(I64, self.needs[pc]))
            assume_rare(b.cbranch(lacking, short, enough), taken_rare=True)
            b.position_at_end(short)
            self.leave_to_instruction(pc, 0, 0)
            b.position_at_end(enough)
        b.store(b.sub(remaining, ir.Constant(I64, len(block.instructions))), self.remaining)
        size = len(block.instructions)
        context = _RegionContext(self, pc, size)
        temps = Temps(context)
        for number, instruction in enumerate(block.instructions):
            context.number = number
            temps = Temps(context)
            temps.run(instruction.ops)
        self._emit_terminator(pc, block, temps, size)

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
            b.cbranch(temps.value(terminator.args[0]), taken, other)
        elif terminator.name == "indirect":
            address = temps.value(terminator.args[0])
            elsewhere = b.append_basic_block("elsewhere")
            switch = b.switch(address, elsewhere)
            for goal in self.region.indirect_goals(pc):
                switch.add_case(ir.Constant(self.xlen, goal), self.starts[goal])
            b.position_at_end(elsewhere)
            self.leave_to_address(address, block.instructions[-1].pc, computed=terminator.data != "return")
        else:
            self.leave_to_instruction(pc, size - 1, size)


class _Exit:
    """One way of leaving, with one set of registers to store; its operands arrive from the places that leave."""

    operand_types: tuple[Any, ...] = ()

    def __init__(self, emitter: _RegionEmitter, dirty: frozenset[int]) -> None:
        self.emitter = emitter
        self.dirty = dirty
        self.block = emitter.function.append_basic_block("exit")
        with emitter.builder.goto_block(self.block):
            self.operands = [emitter.builder.phi(t) for t in self.types()]

    def types(self) -> tuple[Any, ...]:
        return self.operand_types

    def leave(self, *values: Value) -> None:
        b = self.emitter.builder
        for phi, value in zip(self.operands, values, strict=True):
            phi.add_incoming(value, b.block)
        b.branch(self.block)

    def finish(self) -> None:
        self.emitter.builder.position_at_end(self.block)
        self.emit()

    def emit(self) -> None:
        raise NotImplementedError


class _ExitToBlock(_Exit):
    operand_types = (PTR,)

    def emit(self) -> None:
        e = self.emitter
        b, frame = e.builder, e.handler.frame
        remaining = b.load(e.remaining, typ=I64)
        e.store_state(self.dirty, remaining)
        tail, count = (load_field(b, frame, f, PTR) for f in (Frame.GOTO_TAIL, Frame.GOTO_COUNT))
        e.handler.goto(self.operands[0], tail=tail, count=count, remaining=remaining)


class _ExitToReturn(_Exit):
    target = Frame.GOTO_INDIRECT

    def types(self) -> tuple[Any, ...]:
        return (self.emitter.xlen, I64)

    def emit(self) -> None:
        e = self.emitter
        b, frame = e.builder, e.handler.frame
        address, site = self.operands
        remaining = b.load(e.remaining, typ=I64)
        e.store_state(self.dirty, remaining)
        if self.target is Frame.GOTO_COMPUTED:
            store_field(b, frame, Frame.SITE, site)
        pc = address if e.xlen.width == 64 else b.zext(address, I64)
        e.handler.leave(load_field(b, frame, self.target, PTR), ip=b.inttoptr(pc, PTR), remaining=remaining)


class _ExitToComputed(_ExitToReturn):
    target = Frame.GOTO_COMPUTED


class _ExitToSlot(_Exit):
    operand_types = (PTR, I64, I64)

    def emit(self) -> None:
        e = self.emitter
        b, handler, frame = e.builder, e.handler, e.handler.frame
        record, offset, paid = self.operands
        refunded = b.add(b.load(e.remaining, typ=I64), paid)
        executed = b.lshr(offset, ir.Constant(I64, 5))
        e.store_state(self.dirty, b.sub(refunded, executed))
        left = b.sub(refunded, e.record_size(record))
        short, enough = b.append_basic_block("short"), b.append_basic_block("enough")
        b.cbranch(b.icmp_signed("<", left, ir.Constant(I64, 0)), short, enough)
        b.position_at_end(short)
        store_field(b, frame, Frame.TAIL_START, offset)
        handler.leave(load_field(b, frame, Frame.GOTO_TAIL, PTR), ip=record, remaining=left)
        b.position_at_end(enough)
        slot = element(b, field_pointer(b, record, SLOT_BYTES), offset, int_type(8))
        handler.leave(load_field(b, slot, SLOT_HANDLER, PTR), ip=slot, remaining=left)


class _RegionContext:
    """Lane state as a region sees it: registers in SSA values, memory windows as constants."""

    def __init__(self, emitter: _RegionEmitter, pc: int, size: int) -> None:
        self.emitter = emitter
        self.builder = emitter.builder
        self.pc = pc
        self.size = size
        self.number = 0

    def operand(self, operand: Operand) -> Value:
        assert isinstance(operand, Register)
        if operand.index == self.emitter.registers.zero:
            return ir.Constant(self.emitter.xlen, 0)
        return self.builder.load(self.emitter.cells[operand.index], typ=self.emitter.xlen)

    def write_register(self, register: Register | RegisterSlot, value: Value) -> None:
        assert isinstance(register, Register)
        if register.index != self.emitter.registers.zero:
            self.emitter.dirty.add(register.index)
            self.builder.store(value, self.emitter.cells[register.index])

    def retired(self) -> Value:
        b = self.builder
        limit = load_field(b, self.emitter.handler.frame, Frame.LIMIT)
        left = b.add(b.load(self.emitter.remaining, typ=I64), ir.Constant(I64, self.size - self.number))
        return b.sub(limit, left)

    def _leave_here(self) -> None:
        self.emitter.leave_to_instruction(self.pc, self.number, self.size)

    def trap_if(self, condition: Value, kind: str, address: Value) -> None:
        b = self.builder
        trap, fine = b.append_basic_block("trap"), b.append_basic_block("fine")
        assume_rare(b.cbranch(condition, trap, fine), taken_rare=True)
        b.position_at_end(trap)
        self._leave_here()
        b.position_at_end(fine)

    def _windows(self, *, shared: bool) -> list[tuple[Window, int]]:
        e, xlen = self.emitter, self.emitter.xlen
        found = []
        if e.windows.private_size:
            lo = ir.Constant(xlen, e.windows.private_lo)
            found.append((Window(e.handler.base, lo, None), e.windows.private_size))
        if shared and e.windows.shared_size:
            lo = ir.Constant(xlen, e.windows.shared_lo)
            found.append((Window(e.shared_base, lo, None), e.windows.shared_size))
        return found

    def load(self, type_: Type, address: Value) -> Value:
        b, llvm_type = self.builder, int_type(type_.bits)
        done = b.append_basic_block("loaded")
        incoming: list[tuple[Value, Any]] = []
        for window, size in self._windows(shared=True):
            offset, inside = window_offset(b, window, address, type_.bits // 8, exact=size)
            hit, miss = b.append_basic_block("hit"), b.append_basic_block("miss")
            assume_rare(b.cbranch(inside, hit, miss), taken_rare=False)
            b.position_at_end(hit)
            incoming.append((load_at(b, window.base, offset, llvm_type), b.block))
            b.branch(done)
            b.position_at_end(miss)
        if self.emitter.windows.more:
            incoming.append((self._slow_load(type_, address), b.block))
            b.branch(done)
        else:
            self._leave_here()
        b.position_at_end(done)
        if not incoming:
            b.unreachable()
            b.position_at_end(b.append_basic_block("never"))
            return ir.Constant(llvm_type, 0)
        value = b.phi(llvm_type)
        for result, block in incoming:
            value.add_incoming(result, block)
        return value

    def store(self, type_: Type, address: Value, value: Value) -> None:
        b = self.builder
        done = b.append_basic_block("stored")
        for window, size in self._windows(shared=False):
            offset, inside = window_offset(b, window, address, type_.bits // 8, exact=size)
            hit, miss = b.append_basic_block("hit"), b.append_basic_block("miss")
            assume_rare(b.cbranch(inside, hit, miss), taken_rare=False)
            b.position_at_end(hit)
            store_at(b, window.base, offset, value)
            b.branch(done)
            b.position_at_end(miss)
        if self.emitter.windows.more:
            self._slow_call(Frame.SLOW_STORE, SLOW_STORE_TYPE, type_, address, self._wide(value))
            b.branch(done)
        else:
            self._leave_here()
        b.position_at_end(done)

    def _wide(self, value: Value) -> Value:
        return value if value.type.width == 64 else self.builder.zext(value, I64)

    def _slow_call(self, field: Frame, type_: Any, access: Type, address: Value, last: Value) -> None:
        """Call the interpreter's slow access; where it refuses, the interpreter will meet the fault again."""
        b, frame = self.builder, self.emitter.handler.frame
        function = Callee(load_field(b, frame, field, PTR), type_)
        mask = ir.Constant(I64, self.emitter.registers.type.mask)
        good = b.call(function, [frame, self._wide(address), ir.Constant(I64, access.bits // 8), mask, last])
        refused, fine = b.append_basic_block("refused"), b.append_basic_block("fine")
        assume_rare(b.cbranch(good, fine, refused), taken_rare=False)
        b.position_at_end(refused)
        self._leave_here()
        b.position_at_end(fine)

    def _slow_load(self, type_: Type, address: Value) -> Value:
        b = self.builder
        out = field_pointer(b, self.emitter.handler.frame, Frame.STOP_PC)
        self._slow_call(Frame.SLOW_LOAD, SLOW_LOAD_TYPE, type_, address, out)
        value = b.load(out, typ=I64)
        return value if type_.bits == 64 else b.trunc(value, int_type(type_.bits))


def _registers_used(region: Region, registers: RegisterFile) -> tuple[set[int], set[int]]:
    read: set[int] = set()
    written: set[int] = set()
    for block in region.blocks.values():
        for op in block.ops():
            read.update(a.index for a in op.args if isinstance(a, Register))
            if isinstance(op.dest, Register):
                written.add(op.dest.index)
        read.update(a.index for a in block.terminator.args if isinstance(a, Register))
    return read - {registers.zero}, written - {registers.zero}


def _written_before(region: Region, registers: RegisterFile) -> dict[int, frozenset[int]]:
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


def _needs(region: Region) -> dict[int, int]:
    """Where the budget is checked, and how much must be there: the longest way to the next check.

    Checks stand at the entries and at the targets of retreating edges of a depth-first walk: every cycle has one.
    """
    checks, postorder = _walk(region)
    longest: dict[int, int] = {}
    for pc in postorder:
        ways = [longest[s] for s in region.successors(pc) if s not in checks]
        longest[pc] = len(region.blocks[pc].instructions) + max(ways, default=0)
    return {pc: longest[pc] for pc in checks}


def _walk(region: Region) -> tuple[set[int], list[int]]:
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


def emit_region(region: Region, registers: RegisterFile, windows: WindowPlan) -> RegionModule:
    """Lower a region to LLVM IR."""
    return _RegionEmitter(region, registers, windows).emit()
