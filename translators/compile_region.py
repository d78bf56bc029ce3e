"""Tier 1, scalar: a region as one function of the handlers' convention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from vmjit.block_counters import BlockCounters, Counter
from vmjit.ir.block import Block
from vmjit.ir.registers import RegisterFile
from vmjit.ir.types import Type
from vmjit.ir.values import Const, Op
from vmjit.kernels.emit import (
    I32,
    I64,
    PTR,
    Callee,
    Handler,
    Value,
    add_to_counter,
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
    Frame,
    register_offset,
)
from vmjit.kernels.memory import SLOW_LOAD_TYPE, SLOW_STORE_TYPE, load_at, store_at
from vmjit.translators.access_groups import AccessGroup, access_groups
from vmjit.translators.compile_counted_loop import LoopWithoutChecks
from vmjit.translators.counted_loops import CountedLoop, counted_loops
from vmjit.translators.exact_floats import EXACT_FLOAT_TYPE
from vmjit.translators.guest_locations import GuestLocations
from vmjit.translators.lowering import Temps, constant, int_type
from vmjit.translators.memory_ways import MemoryWays
from vmjit.translators.pointer_origins import PointerOrigins, origin_of
from vmjit.translators.region_body import RegionBody, RegionContext, WindowPlan
from vmjit.translators.regions import Region
from vmjit.translators.return_points import return_points


@dataclass(frozen=True)
class RegionModule:
    """LLVM IR of a region. Its link table has the records of `Region.link_targets`, in that order."""

    ir: str
    symbol: str


REGION_SYMBOL = "region"


class RegionEmitter(RegionBody):
    optimised = True
    """Whether LLVM's passes are run on it."""

    def __init__(
        self,
        region: Region,
        registers: RegisterFile,
        windows: WindowPlan,
        locations: GuestLocations | None = None,
        counters: BlockCounters | None = None,
    ) -> None:
        self.counters = counters
        self.module = ir.Module(name="region")
        self.handler = Handler(
            self.module,
            REGION_SYMBOL,
            int_type(registers.type.bits),
            linkage="external",
            located=locations is not None,
        )
        super().__init__(region, registers, windows, self.handler.builder, locations)
        self.links = {pc: i for i, pc in enumerate(region.link_targets())}
        self.exits: dict[Any, Any] = {}
        self.leaving: _BlockExit | None = None
        self.return_points = return_points(region)
        self.counted: LoopWithoutChecks | None = None
        self.rolled: CountedLoop | None = None

    # -- the function as a whole

    def emit(self) -> RegionModule:
        b, handler = self.builder, self.handler
        record = field_pointer(b, handler.ip, -SLOT_BYTES)
        entry = load_field(b, handler.frame, Frame.ENTRY, PTR)
        self.link_table = load_field(b, entry, ENTRY_LINKS, PTR)
        self.shared_base = load_field(b, handler.frame, Frame.WINDOW1_BASE, PTR)
        self.origins = PointerOrigins(self.region, self.registers, self.windows) if self.windows.paged else None
        self.memory = MemoryWays(b, self.xlen, handler.frame, handler.base, self.shared_base, self.windows)
        self.load_cells()
        # The block that leads here was paid for at its interpreted size; the region pays by its own blocks.
        self.entered_with = b.add(handler.remaining, self.record_size(record))
        b.store(self.entered_with, self.remaining)
        self.dispatch(load_field(b, entry, ENTRY_NUMBER))
        self.emit_blocks()
        for exit_ in self.exits.values():
            exit_.finish()
        return RegionModule(str(self.module), REGION_SYMBOL)

    def load_cells(self) -> None:
        for index in self.cells:
            register = load_field(self.builder, self.handler.frame, register_offset(index), self.register_type(index))
            self.store_register(index, register)

    # -- loops

    def emit_blocks(self) -> None:
        loops = counted_loops(self.region, self.needs)
        inside = {pc for loop in loops.values() for pc in loop.body}
        for pc in self.region.blocks:
            if pc in loops:
                self._emit_loop(loops[pc])
            elif pc not in inside:
                self.emit_block(pc, self.starts[pc], checked=True)

    def _emit_loop(self, loop: CountedLoop) -> None:
        """Twice: without checks, where they were made in front, and as it is."""
        b, starts = self.builder, self.starts
        checked = b.append_basic_block(f"checked_{loop.head:x}")
        labels = {pc: b.append_basic_block(f"counted_{pc:x}") for pc in loop.body}
        b.position_at_end(starts[loop.head])
        self.counted = LoopWithoutChecks(self, loop)
        b.cbranch(self.counted.holds, labels[loop.head], checked)
        self.counted.enter(labels[loop.head], b.block)
        self.starts = {**starts, **labels}
        for pc in loop.body:
            self.emit_block(pc, labels[pc], checked=False)
        self.counted = None
        self.rolled = loop
        self.starts = {**starts, loop.head: checked}
        for pc in loop.body:
            self.emit_block(pc, self.starts[pc], checked=True)
        self.rolled = None
        self.starts = starts

    def _emit_terminator(self, pc: int, block: Block, temps: Temps, size: int) -> None:
        if self.counted is None or pc != self.counted.loop.latch:
            super()._emit_terminator(pc, block, temps, size)
            return
        head = Const(self.counted.loop.head, self.registers.type)
        (outside,) = (t for t in block.terminator.targets if t != head)
        self.counted.close(self._branch_target(outside))

    def indirect_goals(self, pc: int) -> list[int]:
        if self.region.blocks[pc].terminator.data == "return":
            return self.return_points.get(pc, [])
        return super().indirect_goals(pc)

    def completed(self, pc: int) -> None:
        if self.counters is not None:
            address = self.counters.address(self.region.blocks[pc], Counter.ALONE)
            add_to_counter(self.builder, address, ir.Constant(I64, 1))

    def record_size(self, record: Value) -> Value:
        return self.builder.zext(load_field(self.builder, record, RECORD_SIZE, I32), I64)

    def link(self, pc: int) -> Value:
        """The record of the block at a guest address, from the link table."""
        return load_field(self.builder, self.link_table, 8 * self.links[pc], PTR)

    def context(self, pc: int, size: int) -> RegionContext:
        return _CpuRegionContext(self, pc, size)

    def branch(self, condition: Value, then: Any, otherwise: Any, *, rare: bool | None = None) -> None:
        branch = self.builder.cbranch(condition, then, otherwise)
        if self.rolled is not None and self.starts[self.rolled.head] in (then, otherwise):
            branch.keep_rolled()
        if rare is not None:
            assume_rare(branch, taken_rare=rare)

    # -- exits: one copy of the code that stores the registers for each way of leaving and set of written registers

    def _exit(self, kind: type[_Exit]) -> Any:
        """The exit of a kind for the registers that may have been written by now."""
        key = (kind, self.to_store())
        exit_ = self.exits.get(key)
        if exit_ is None:
            exit_ = self.exits[key] = kind(self, key[1])
        return exit_

    def to_store(self) -> frozenset[int]:
        """The registers that an exit here has to store."""
        return frozenset(self.dirty)

    def leave_to(self, pc: int) -> None:
        """Exit to the block at a guest address."""
        self._exit(_ExitToBlock).leave(self.link(pc))

    def leave_to_address(self, address: Value, site: int, *, computed: bool) -> None:
        """Exit to a computed guest address; `site` is the block that computed it."""
        self._exit(_ExitToComputed if computed else _ExitToReturn).leave(address, ir.Constant(I64, site))

    def leave_to_instruction(self, pc: int, number: int, paid: int) -> None:
        """Exit to the interpreter at instruction `number` of block `pc`, of which `paid` were paid for."""
        if self.leaving is None:
            self.leaving = _BlockExit(self, pc)
        self.leaving.leave(number, paid)

    def emit_block(self, pc: int, start: Any, *, checked: bool) -> None:
        super().emit_block(pc, start, checked=checked)
        if self.leaving is not None:
            self.leaving.finish()
            self.leaving = None

    def store_state(self, dirty: frozenset[int], remaining: Value) -> None:
        b, frame = self.builder, self.handler.frame
        for index in sorted(dirty):
            store_field(b, frame, register_offset(index), self.load_register(index))
        done = load_field(b, frame, Frame.COMPILED)
        store_field(b, frame, Frame.COMPILED, b.add(done, b.sub(self.entered_with, remaining)))


class _BlockExit:
    """Where the ways of leaving one block at an instruction meet: only what the block writes differs between them."""

    def __init__(self, emitter: RegionEmitter, pc: int) -> None:
        self.emitter = emitter
        self.pc = pc
        self.block = emitter.function.append_basic_block(f"leave_{pc:x}")
        with emitter.builder.goto_block(self.block):
            self.offset, self.paid = (emitter.builder.phi(I64) for _ in range(2))

    def leave(self, number: int, paid: int) -> None:
        b = self.emitter.builder
        self.offset.add_incoming(ir.Constant(I64, SLOT_BYTES * number), b.block)
        self.paid.add_incoming(ir.Constant(I64, paid), b.block)
        b.branch(self.block)

    def finish(self) -> None:
        e = self.emitter
        e.builder.position_at_end(self.block)
        e._exit(_ExitToSlot).leave(e.link(self.pc), self.offset, self.paid)


class _Exit:
    """One way of leaving, with one set of registers to store; its operands arrive from the places that leave."""

    operand_types: tuple[Any, ...] = ()

    def __init__(self, emitter: RegionEmitter, dirty: frozenset[int]) -> None:
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
        store_field(b, frame, Frame.TAIL_START, offset)
        handler.leave(load_field(b, frame, Frame.GOTO_SLOT, PTR), ip=record, remaining=left)


class _CpuRegionContext(RegionContext):
    """Memory windows as constants, contiguous on the host."""

    def __init__(self, emitter: RegionEmitter, pc: int, size: int) -> None:
        super().__init__(emitter, pc, size)
        self.emitter = emitter
        block = emitter.region.blocks[pc]
        # Memory that compiled code looks up is not decided for several accesses: each may be somewhere else.
        grouped = not emitter.windows.more
        self._groups = access_groups(block, block.registers.stack, loads=True) if grouped else {}
        self._starts: dict[AccessGroup, Value] = {}

    def limit(self) -> Value:
        return load_field(self.builder, self.emitter.handler.frame, Frame.LIMIT)

    def exact_float(self, args: list[Value]) -> tuple[Value, Value] | None:
        b = self.builder
        function = Callee(load_field(b, self.emitter.handler.frame, Frame.EXACT_FLOAT, PTR), EXACT_FLOAT_TYPE)
        # It is said to touch no memory, so that what was loaded before need not be loaded again.
        found = b.call(function, args, attributes="nounwind memory(none)")
        return b.extract_value(found, 0), b.extract_value(found, 1)

    def load(self, op: Op, address: Value) -> Value:
        b, type_ = self.builder, op.type
        llvm_type = int_type(type_.bits)
        if (place := self._decided(op, address)) is not None:
            return b.load(place, typ=llvm_type, align=1)
        done = b.append_basic_block("loaded")
        ways = self._ways(op, address, type_.bits // 8, shared=True)

        tried = 0

        def access(place: tuple[Value, Value]) -> Value:
            nonlocal tried
            tried += 1
            value = load_at(b, place[0], place[1], llvm_type)
            return self._opaque(value) if tried > 1 and self.emitter.optimised else value

        incoming = self.through_windows(ways, access, done)
        if self.emitter.windows.more:
            incoming.append((self._slow_load(type_, address), b.block))
            b.branch(done)
        else:
            self.leave_here()
        return self.joined(llvm_type, incoming, done)

    def store(self, op: Op, address: Value, value: Value) -> None:
        b, type_ = self.builder, op.type
        if (place := self._decided(op, address)) is not None:
            b.store(value, place, align=1)
            return
        done = b.append_basic_block("stored")
        ways = self._ways(op, address, type_.bits // 8, shared=False)
        tried = 0

        def access(place: tuple[Value, Value]) -> None:
            nonlocal tried
            tried += 1
            kept = self._opaque(value) if tried > 1 and self.emitter.optimised else value
            store_at(b, place[0], place[1], kept)

        self.through_windows(ways, access, done)
        if self.emitter.windows.more:
            self._slow_call(Frame.SLOW_STORE, SLOW_STORE_TYPE, type_, address, self._wide(value))
            b.branch(done)
        else:
            self.leave_here()
        b.position_at_end(done)

    def _decided(self, op: Op, address: Value) -> Value | None:
        """Where an access takes place that needs no check, or that one check for a group decides."""
        counted = self.emitter.counted
        if counted is not None and (place := counted.place(op, address)) is not None:
            return place
        if id(op) not in self._groups:
            return None
        group, distance = self._groups[id(op)]
        if group not in self._starts:
            self._starts[group] = self._group_start(group, op, address, distance)
        return element(self.builder, self._starts[group], ir.Constant(I64, distance - group.low), int_type(8))

    def _group_start(self, group: AccessGroup, op: Op, address: Value, distance: int) -> Value:
        """Where the lowest access of a group is on the host; leaves here unless all are in one window."""
        b = self.builder
        lowest = b.add(address, constant(self.emitter.registers.type, group.low - distance))
        done = b.append_basic_block("all")
        extent = group.hi - group.low
        ways = self.emitter.memory.ways(
            lowest, extent, origin=origin_of(self.emitter.origins, [op]), shared=not group.stores, stores=group.stores
        )
        incoming = self.through_windows(ways, lambda place: element(b, place[0], place[1], int_type(8)), done)
        self.leave_here()
        return self.joined(PTR, incoming, done)

    def _ways(self, op: Op, address: Value, size: int, *, shared: bool) -> Iterator[tuple[Any, Value]]:
        """((base, offset), whether the access lies inside) of each window."""
        origin = origin_of(self.emitter.origins, [op])
        return self.emitter.memory.ways(address, size, origin=origin, shared=shared, stores=not shared)

    def _opaque(self, value: Value) -> Value:
        """The same value, hidden from LLVM: it would make one load of those in two windows, and then has to compute an
        address for it that the usual one does not need."""
        return self.builder.asm(ir.FunctionType(value.type, [value.type]), "", "=r,0", [value], side_effect=False)

    def _wide(self, value: Value) -> Value:
        return value if value.type.width == 64 else self.builder.zext(value, I64)

    def _slow_call(self, field: Frame, type_: Any, access: Type, address: Value, last: Value) -> None:
        """Call the interpreter's slow access; where it refuses, the interpreter will meet the fault again."""
        b, frame = self.builder, self.emitter.handler.frame
        function = Callee(load_field(b, frame, field, PTR), type_)
        mask = ir.Constant(I64, self.emitter.registers.type.mask)
        good = b.call(function, [frame, self._wide(address), ir.Constant(I64, access.bits // 8), mask, last])
        refused, fine = b.append_basic_block("refused"), b.append_basic_block("fine")
        self.body.branch(good, fine, refused, rare=False)
        b.position_at_end(refused)
        self.leave_here()
        b.position_at_end(fine)

    def _slow_load(self, type_: Type, address: Value) -> Value:
        b = self.builder
        out = field_pointer(b, self.emitter.handler.frame, Frame.STOP_PC)
        self._slow_call(Frame.SLOW_LOAD, SLOW_LOAD_TYPE, type_, address, out)
        value = b.load(out, typ=I64)
        return value if type_.bits == 64 else b.trunc(value, int_type(type_.bits))


def emit_region(
    region: Region,
    registers: RegisterFile,
    windows: WindowPlan,
    locations: GuestLocations | None = None,
    counters: BlockCounters | None = None,
) -> RegionModule:
    """Lower a region to LLVM IR, with debug locations and counters of its blocks if there are any."""
    return RegionEmitter(region, registers, windows, locations, counters).emit()
