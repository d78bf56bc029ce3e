"""Tier 0 on the CPU: an interpreter whose handlers are the table's lowerings.

Each distinct template of the ISA's rows becomes one handler: a small function that fetches its operands from its slot
of the code stream, runs the template's ops and jumps to the next slot's handler. So one dispatch executes one guest
instruction, whatever its number of ops; a handler of a fused pair executes two. Every handler with memory accesses has
a second, slow version, which it leaves to when an access is in no window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from vmjit.ir.registers import RegisterFile
from vmjit.ir.types import Type
from vmjit.ir.values import ConstSlot, Op, Operand, Register, RegisterSlot, Terminator
from vmjit.kernels.emit import (
    I16,
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
from vmjit.kernels.lane_groups import emit_run_groups
from vmjit.kernels.lanes import emit_run_lane, emit_run_lanes
from vmjit.kernels.layout import (
    ENTRY_FUNCTION,
    ENTRY_VECTOR,
    HOOK_FAILS,
    HOOK_FAULTS,
    HOOK_STOPS,
    HOT_REGISTERS,
    JUMP_ENTRIES,
    MODE_INTERLEAVED,
    MODE_MEET,
    RECORD_COUNT,
    RECORD_ENTRY,
    RECORD_INTERPRET,
    RECORD_SIZE,
    SLOT_BYTES,
    SLOT_FOURTH_REGISTER,
    SLOT_HANDLER,
    SLOT_NUMBER,
    SLOT_OPERANDS,
    SLOT_REGISTERS,
    STOP_CALL,
    STOP_FENCE_I,
    STOP_HOOK_FAILED,
    STOP_NEED_CODE,
    STOP_RUNNING,
    VECTOR_OFF,
    Frame,
    Hot,
    VectorEntry,
    register_offset,
)
from vmjit.kernels.memory import Window, emit_pages_permit, emit_slow_access, load_at, store_at, window_offset
from vmjit.kernels.page_bits import one_page_permits
from vmjit.stops import TRAP_ACCESS, Stop
from vmjit.translators.exact_floats import emit_exact_float, emit_exact_floats
from vmjit.translators.float_ops import emit_float_op, limit_of
from vmjit.translators.lowering import Temps, int_type
from vmjit.translators.vector_unit import vector_unit

TemplateKey = tuple[tuple[Op, ...], Terminator | None]


@dataclass(frozen=True)
class FusedKey:
    """Two templates that one handler runs. `passed` is the register slot of the second that names the register which
    the first writes (with `RegisterSlot(0)`), None where nothing is known of their registers."""

    first: TemplateKey
    second: TemplateKey
    passed: int | None = None


# Ops that can leave a handler for its slow version.
_MEMORY_OPS = frozenset({"load", "store", "store_if"})

_STOPS = {
    "ebreak": int(Stop.EBREAK),
    "unsupported": int(Stop.UNSUPPORTED),
    "ecall": STOP_CALL,
    "fence_i": STOP_FENCE_I,
}


# Templates that are no row's: code that goes on without a jump, fetches that fault, unknown bytes.


def link_jump(xlen: Type) -> TemplateKey:
    """The pseudo instruction behind a block that was cut short: go on at link 0."""
    return ((), Terminator("jump", (), (ConstSlot(0, xlen),)))


def fetch_fault(xlen: Type) -> TemplateKey:
    """The fetch itself faults, at the address in constant 0."""
    return ((), Terminator("trap", (ConstSlot(0, xlen),), (), "fetch"))


UNSUPPORTED: TemplateKey = ((), Terminator("unsupported"))
NEED_CODE = "need_code"
ENTER_COMPILED = "enter_compiled"
CALL_HOOK = "call_hook"
_REMEMBER = "remember"


def template_key(ops: tuple[Op, ...], terminator: Terminator | None) -> TemplateKey:
    """Handlers are shared by all templates that differ only in hints."""
    if terminator is not None and terminator.name == "indirect":
        terminator = Terminator("indirect", terminator.args)
    return (ops, terminator)


def remembered(key: TemplateKey) -> TemplateKey:
    """The variant of a computed jump's handler that remembers where it went, for region formation."""
    ops, terminator = key
    assert terminator is not None
    return (ops, Terminator(terminator.name, terminator.args, (), _REMEMBER))


@dataclass(frozen=True)
class InterpreterModule:
    """LLVM IR of the interpreter; its symbol `handlers` has the handlers of `keys`, then those of `fused`."""

    ir: str
    keys: tuple[TemplateKey, ...]
    fused: tuple[FusedKey, ...]
    symbols: tuple[str, ...]


EXACT_FLOAT, EXACT_FLOATS = "exact_float", "exact_floats"
PAGES_PERMIT = "pages_permit"

_EXPORTED = (
    "handlers",
    "run_lanes",
    "run_groups",
    "separate_groups",
    "goto_tail",
    "goto_slot",
    "goto_count",
    "goto_indirect",
    "goto_computed",
    "slow_load",
    "slow_store",
    PAGES_PERMIT,
    NEED_CODE,
    ENTER_COMPILED,
    CALL_HOOK,
)


def exported(registers: RegisterFile) -> tuple[str, ...]:
    """The symbols of the interpreter for these registers."""
    return _EXPORTED if registers.float_status is None else (*_EXPORTED, EXACT_FLOAT, EXACT_FLOATS)


class _HandlerContext:
    """Lane state as a handler sees it: registers in the frame, operands in the slot."""

    def __init__(
        self, shared: _Shared, handler: Handler, slow: Any | None, rest_slot: int, known: Mapping[int, Value]
    ) -> None:
        self.known = known  # register slots whose values need not be read from the frame
        self.written: Value | None = None  # what register slot 0 was set to
        self.accrued: Value | None = None
        self.shared = shared
        self.handler = handler
        self.builder = handler.builder
        self.slow = slow  # None: this is the slow version
        self.rest_slot = rest_slot

    # -- operands

    def operand(self, operand: Operand) -> Value:
        b = self.builder
        if isinstance(operand, ConstSlot):
            return load_field(b, self.handler.ip, SLOT_OPERANDS + 8 * operand.slot, int_type(operand.type.bits))
        if isinstance(operand, Register) and operand.index == self.shared.registers.zero:
            return ir.Constant(self.shared.xlen, 0)
        assert isinstance(operand, Register | RegisterSlot)
        if isinstance(operand, RegisterSlot) and operand.slot in self.known:
            return self.known[operand.slot]
        return b.load(self._register(operand), typ=self._type_of(operand))

    def _type_of(self, operand: Register | RegisterSlot) -> Any:
        if isinstance(operand, Register):
            return int_type(self.shared.registers.type_of(operand.index).bits)
        return int_type(operand.type.bits) if operand.type else self.shared.xlen

    def _register(self, register: Register | RegisterSlot) -> Value:
        b = self.builder
        if isinstance(register, Register):
            return field_pointer(b, self.handler.frame, register_offset(register.index))
        place = SLOT_REGISTERS + 2 * register.slot if register.slot < 3 else SLOT_FOURTH_REGISTER
        offset = load_field(b, self.handler.ip, place, I16)
        return b.gep(self.handler.frame, [b.zext(offset, I64)], source_etype=int_type(8))

    def write_register(self, register: Register | RegisterSlot, value: Value) -> None:
        self.builder.store(value, self._register(register))
        if isinstance(register, RegisterSlot) and register.slot == 0:
            self.written = value

    def retired(self) -> Value:
        b = self.builder
        limit = load_field(b, self.handler.frame, Frame.LIMIT)
        rest = load_field(b, self.handler.ip, SLOT_OPERANDS + 8 * self.rest_slot)
        return b.sub(limit, b.add(self.handler.remaining, rest))

    # -- floats

    def float_op(self, op: Op, args: list[Value]) -> Value:
        return emit_float_op(self, op, args)

    def float_limit(self, bits: int, status: Value) -> Value:
        return limit_of(self.builder, status, bits)

    def rare(self, condition: Value, then: Any, otherwise: Any) -> None:
        assume_rare(self.builder.cbranch(condition, then, otherwise), taken_rare=True)

    def exact_float(self, args: list[Value]) -> tuple[Value, Value]:
        found = self.builder.call(self.shared.exact_float, args)
        return self.builder.extract_value(found, 0), self.builder.extract_value(found, 1)

    def status_changed(self, status: Value) -> None:
        """What the status says is asked at each operation."""

    def refuse(self) -> None:
        self.handler.stop(Stop.UNSUPPORTED)

    # -- memory

    def _window1(self) -> Window:
        b, frame, xlen = self.builder, self.handler.frame, self.shared.xlen
        return Window(
            load_field(b, frame, Frame.WINDOW1_BASE, PTR),
            load_field(b, frame, Frame.WINDOW1_LO, xlen),
            load_field(b, frame, Frame.WINDOW1_LIMIT, xlen),
        )

    def load(self, op: Op, address: Value) -> Value:
        type_ = op.type
        if self.slow is None:
            return self._load_slowly(type_, address)
        b, llvm_type = self.builder, int_type(type_.bits)
        blocks = {name: b.append_basic_block(name) for name in ("private", "other", "shared", "neither", "loaded")}
        window0 = Window(self.handler.base, self.handler.lo, self.handler.limit)
        offset, inside = window_offset(b, window0, address, type_.bits // 8)
        assume_rare(b.cbranch(inside, blocks["private"], blocks["other"]), taken_rare=False)
        b.position_at_end(blocks["private"])
        value0 = load_at(b, self.handler.base, offset, llvm_type)
        b.branch(blocks["loaded"])
        b.position_at_end(blocks["other"])
        window1 = self._window1()
        offset, inside = window_offset(b, window1, address, type_.bits // 8)
        assume_rare(b.cbranch(inside, blocks["shared"], blocks["neither"]), taken_rare=False)
        b.position_at_end(blocks["shared"])
        value1 = load_at(b, window1.base, offset, llvm_type)
        b.branch(blocks["loaded"])
        b.position_at_end(blocks["neither"])
        place = self._by_page(address, type_.bits // 8, Frame.READABLE)
        value2 = b.load(place, typ=llvm_type, align=1)
        permitted = b.block
        b.branch(blocks["loaded"])
        b.position_at_end(blocks["loaded"])
        value = b.phi(llvm_type)
        value.add_incoming(value0, blocks["private"])
        value.add_incoming(value1, blocks["shared"])
        value.add_incoming(value2, permitted)
        return value

    def _by_page(self, address: Value, size: int, bits: Frame) -> Value:
        """Where an access is in private memory of which each page is asked for; leaves for the slow version unless it
        may be made there."""
        b, frame, xlen = self.builder, self.handler.frame, self.shared.xlen
        hull, permitted, slow = (b.append_basic_block(name) for name in ("hull", "permitted", "slow"))
        lo, limit = (load_field(b, frame, field, xlen) for field in (Frame.HULL_LO, Frame.HULL_LIMIT))
        offset, inside = window_offset(b, Window(None, lo, limit), address, size)
        assume_rare(b.cbranch(inside, hull, slow), taken_rare=False)
        b.position_at_end(hull)
        allowed = one_page_permits(b, load_field(b, frame, bits, PTR), offset, size)
        assume_rare(b.cbranch(allowed, permitted, slow), taken_rare=False)
        b.position_at_end(slow)
        self.handler.leave(self.slow)
        b.position_at_end(permitted)
        return element(b, load_field(b, frame, Frame.HULL_BASE, PTR), offset, int_type(8))

    def store(self, op: Op, address: Value, value: Value) -> None:
        type_ = op.type
        if self.slow is None:
            self._store_slowly(type_, address, value)
            return
        b = self.builder
        private, other, stored = (b.append_basic_block(name) for name in ("private", "other", "stored"))
        window0 = Window(self.handler.base, self.handler.lo, self.handler.limit)
        offset, inside = window_offset(b, window0, address, type_.bits // 8)
        assume_rare(b.cbranch(inside, private, other), taken_rare=False)
        b.position_at_end(other)
        b.store(value, self._by_page(address, type_.bits // 8, Frame.WRITABLE), align=1)
        b.branch(stored)
        b.position_at_end(private)
        store_at(b, self.handler.base, offset, value)
        b.branch(stored)
        b.position_at_end(stored)

    def _wide(self, value: Value) -> Value:
        return value if value.type.width == 64 else self.builder.zext(value, I64)

    def _slow_call(self, function: Any, type_: Type, address: Value, last: Value) -> None:
        b = self.builder
        size, mask = ir.Constant(I64, type_.bits // 8), ir.Constant(I64, self.shared.registers.type.mask)
        good = b.call(function, [self.handler.frame, self._wide(address), size, mask, last])
        self._stop_unless(good)

    def _stop_unless(self, good: Value) -> None:
        b = self.builder
        fault, fine = b.append_basic_block("fault"), b.append_basic_block("fine")
        assume_rare(b.cbranch(good, fine, fault), taken_rare=False)
        b.position_at_end(fault)
        self.handler.stop(Stop.FAULT)
        b.position_at_end(fine)

    def _load_slowly(self, type_: Type, address: Value) -> Value:
        b = self.builder
        out = field_pointer(b, self.handler.frame, Frame.STOP_PC)  # free while the lane runs
        self._slow_call(self.shared.slow_load, type_, address, out)
        value = b.load(out, typ=I64)
        return value if type_.bits == 64 else b.trunc(value, int_type(type_.bits))

    def _store_slowly(self, type_: Type, address: Value, value: Value) -> None:
        self._slow_call(self.shared.slow_store, type_, address, self._wide(value))

    def trap_if(self, condition: Value, kind: str, address: Value) -> None:
        b = self.builder
        trap, fine = b.append_basic_block("trap"), b.append_basic_block("fine")
        assume_rare(b.cbranch(condition, trap, fine), taken_rare=True)
        b.position_at_end(trap)
        self.stop_with_fault(kind, address)
        b.position_at_end(fine)

    def stop_with_fault(self, kind: str, address: Value) -> None:
        b = self.builder
        store_field(b, self.handler.frame, Frame.ADDRESS, self._wide(address))
        store_field(b, self.handler.frame, Frame.ACCESS, ir.Constant(I64, int(TRAP_ACCESS[kind])))
        self.handler.stop(Stop.FAULT)


class _Shared:
    """What all handlers of one interpreter have in common."""

    def __init__(self, module: Any, registers: RegisterFile, handlers: int) -> None:
        self.module = module
        self.registers = registers
        self.xlen = int_type(registers.type.bits)
        self.slow: dict[TemplateKey, Any] = {}
        self.slow_load, self.slow_store = emit_slow_access(module)
        emit_pages_permit(module, PAGES_PERMIT)
        if registers.float_status is not None:
            self.exact_float = emit_exact_float(module, EXACT_FLOAT)
            emit_exact_floats(module, EXACT_FLOATS, self.exact_float)
        self.handlers = ir.GlobalVariable(module, ir.ArrayType(PTR, handlers), "handlers")
        self.goto_tail = self._emit_goto_tail()
        self._emit_goto_slot()
        self.goto_count = self._emit_goto_count()
        self.goto_indirect = self._emit_goto_indirect()
        self.goto_computed = self._emit_goto_computed()
        self._emit_enter_compiled()
        self._emit_call_hook()

    def handler(self, name: str, linkage: str = "internal") -> Handler:
        return Handler(self.module, name, self.xlen, linkage=linkage)

    def goto(self, handler: Handler, record: Value) -> None:
        handler.goto(record, tail=self.goto_tail, count=self.goto_count)

    def _emit_goto_tail(self) -> Any:
        """The budget ends inside this block (ip is its record): run a copy of the part that it covers.

        `remaining` stays as if the whole block had been paid for, so that a stop anywhere in the copy finds the right
        count by the same side table as in the block itself.
        """
        stop = self.handler("budget_stop")
        stop.stop(Stop.BUDGET)
        handler = self.handler("goto_tail", "external")
        handler.function.attributes.add("noinline")
        b = handler.builder
        self._end_slice(handler)
        size = b.zext(load_field(b, handler.ip, RECORD_SIZE, I32), I64)
        instructions = b.add(handler.remaining, size)
        store_field(b, handler.frame, Frame.TAIL_RECORD, b.ptrtoint(handler.ip, I64))
        scratch = field_pointer(b, handler.frame, Frame.SCRATCH)
        source = field_pointer(b, handler.ip, SLOT_BYTES)
        head, body, done = (b.append_basic_block(n) for n in ("head", "body", "done"))
        entry = b.block
        size = b.shl(instructions, ir.Constant(I64, SLOT_BYTES.bit_length() - 1))
        b.branch(head)
        b.position_at_end(head)
        offset = b.phi(I64)
        offset.add_incoming(ir.Constant(I64, 0), entry)
        b.cbranch(b.icmp_unsigned("<", offset, size), body, done)
        b.position_at_end(body)
        slot, copy = (element(b, base, offset, int_type(8)) for base in (source, scratch))
        # The last slot's pair is not whole: here every instruction has its own handler.
        number = b.zext(load_field(b, slot, SLOT_NUMBER, I16), I64)
        store_field(b, copy, SLOT_HANDLER, b.load(element(b, self.handlers, number, PTR), typ=PTR))
        for field in range(SLOT_REGISTERS, SLOT_BYTES, 8):
            store_field(b, copy, field, load_field(b, slot, field))
        offset.add_incoming(b.add(offset, ir.Constant(I64, SLOT_BYTES)), body)
        b.branch(head)
        b.position_at_end(done)
        b.store(b.ptrtoint(stop.function, I64), element(b, scratch, size, int_type(8)))
        start = load_field(b, handler.frame, Frame.TAIL_START)
        store_field(b, handler.frame, Frame.TAIL_START, ir.Constant(I64, 0))
        first = element(b, scratch, start, int_type(8))
        # The first slot's handler is its own, not the record's: the record may lead to compiled code.
        handler.leave(load_field(b, first, SLOT_HANDLER, PTR), ip=first)
        return handler.function

    def _end_slice(self, handler: Handler) -> None:
        """A slice that is no budget ends at the start of a block (ip is its record) that is not run to its end, or that
        compiled code gives back: a lane that went on from the middle of a block would be looking for code there."""
        b, frame = handler.builder, handler.frame
        slice_ = load_field(b, frame, Frame.SLICE)
        at_start = b.icmp_unsigned("==", load_field(b, frame, Frame.TAIL_START), ir.Constant(I64, 0))
        may = b.and_(b.icmp_unsigned("!=", slice_, ir.Constant(I64, 0)), at_start)
        pause, on = b.append_basic_block("pause"), b.append_basic_block("on")
        size = b.zext(load_field(b, handler.ip, RECORD_SIZE, I32), I64)
        # A lane that has not moved goes on, or it never would.
        moved = b.icmp_unsigned("!=", b.add(handler.remaining, size), slice_)
        b.cbranch(b.and_(may, moved), pause, on)
        b.position_at_end(pause)
        record = handler.ip
        handler.advance()
        handler.stop(Stop.BUDGET)
        handler.ip = record
        b.position_at_end(on)

    def _emit_goto_slot(self) -> None:
        """Run a block (ip is its record, already paid for) from the slot at TAIL_START on."""
        handler = self.handler("goto_slot", "external")
        handler.function.attributes.add("noinline")
        b, frame = handler.builder, handler.frame
        short, enough = b.append_basic_block("short"), b.append_basic_block("enough")
        b.cbranch(b.icmp_signed("<", handler.remaining, ir.Constant(I64, 0)), short, enough)
        b.position_at_end(short)
        handler.leave(self.goto_tail)
        b.position_at_end(enough)
        self._end_slice(handler)
        start = load_field(b, frame, Frame.TAIL_START)
        store_field(b, frame, Frame.TAIL_START, ir.Constant(I64, 0))
        slot = element(b, field_pointer(b, handler.ip, SLOT_BYTES), start, int_type(8))
        handler.leave(load_field(b, slot, SLOT_HANDLER, PTR), ip=slot)

    def _emit_goto_count(self) -> Any:
        """Count a visit of the block (ip is its record, already paid for); at the last one, report it as hot."""
        handler = self.handler("goto_count", "external")
        handler.function.attributes.add("noinline")
        b = handler.builder
        count = b.sub(load_field(b, handler.ip, RECORD_COUNT, I32), ir.Constant(I32, 1))
        store_field(b, handler.ip, RECORD_COUNT, count)
        report, enter = b.append_basic_block("report"), b.append_basic_block("enter")
        b.cbranch(b.icmp_unsigned("==", count, ir.Constant(I32, 0)), report, enter)
        b.position_at_end(report)
        ring = load_field(b, handler.frame, Frame.HOT, PTR)
        position = b.atomic_rmw("add", field_pointer(b, ring, Hot.HEAD), ir.Constant(I64, 1), "monotonic")
        place = b.and_(position, load_field(b, ring, Hot.MASK))
        row = element(b, load_field(b, ring, Hot.REGISTERS, PTR), place, ir.ArrayType(I64, HOT_REGISTERS))
        four = ir.VectorType(I64, 4)
        for offset in range(0, 8 * HOT_REGISTERS, 32):
            registers = b.load(field_pointer(b, handler.frame, Frame.REGISTERS + offset), typ=four, align=8)
            b.store(registers, field_pointer(b, row, offset), align=8)
        b.store(b.ptrtoint(handler.ip, I64), element(b, field_pointer(b, ring, Hot.ENTRIES), place, I64))
        b.branch(enter)
        b.position_at_end(enter)
        handler.enter(handler.ip, handler.remaining)
        return handler.function

    def _emit_goto_indirect(self) -> Any:
        """Go to the guest address in ip, or stop there for code."""
        handler = self.handler("goto_indirect", "external")
        b = handler.builder
        frame = handler.frame
        address = b.ptrtoint(handler.ip, I64)
        offset = b.sub(address, load_field(b, frame, Frame.CODE_LO))
        near, found, far, missing = (b.append_basic_block(n) for n in ("near", "found", "far", "missing"))
        assume_rare(
            b.cbranch(b.icmp_unsigned("<", offset, load_field(b, frame, Frame.CODE_SIZE)), near, far), taken_rare=False
        )
        b.position_at_end(near)
        record = self._table_entry(b, load_field(b, frame, Frame.CODE_TABLE, PTR), offset)
        known = b.icmp_unsigned("!=", b.ptrtoint(record, I64), ir.Constant(I64, 0))
        assume_rare(b.cbranch(known, found, missing), taken_rare=False)
        b.position_at_end(found)
        handler.goto(record, tail=self.goto_tail, count=self.goto_count)
        b.position_at_end(far)
        self._search_more_spans(handler, address, missing)
        b.position_at_end(missing)
        handler.stop(STOP_NEED_CODE, pc=address)
        return handler.function

    def _emit_enter_compiled(self) -> None:
        """The handler of records that have compiled code: enter it, leaving word of the entry in the frame.

        A lane that looks for its group stops where that can go on in SIMD registers; one whose memory is interleaved
        interprets the block.
        """
        handler = self.handler(ENTER_COMPILED, "external")
        b, frame = handler.builder, handler.frame
        entry = load_field(b, handler.ip, RECORD_ENTRY - SLOT_BYTES, PTR)
        mode = load_field(b, frame, Frame.MODE)
        special, look, enter, stay, meet, interpret = (
            b.append_basic_block(n) for n in ("special", "look", "enter", "stay", "meet", "interpret")
        )
        assume_rare(b.cbranch(b.icmp_unsigned("!=", mode, ir.Constant(I64, 0)), special, enter), taken_rare=True)
        b.position_at_end(special)
        meets = b.icmp_unsigned("!=", b.and_(mode, ir.Constant(I64, MODE_MEET)), ir.Constant(I64, 0))
        b.cbranch(meets, look, stay)
        b.position_at_end(look)
        vector = load_field(b, entry, ENTRY_VECTOR)
        known = b.append_basic_block("known")
        b.cbranch(b.icmp_unsigned("!=", vector, ir.Constant(I64, 0)), known, stay)
        b.position_at_end(known)
        state = load_field(b, b.inttoptr(vector, PTR), VectorEntry.STATE)
        b.cbranch(b.icmp_unsigned("!=", state, ir.Constant(I64, VECTOR_OFF)), meet, stay)
        b.position_at_end(meet)
        handler.stop(STOP_RUNNING)
        b.position_at_end(stay)
        interleaved = b.icmp_unsigned("!=", b.and_(mode, ir.Constant(I64, MODE_INTERLEAVED)), ir.Constant(I64, 0))
        b.cbranch(interleaved, interpret, enter)
        b.position_at_end(interpret)
        handler.leave(load_field(b, handler.ip, RECORD_INTERPRET - SLOT_BYTES, PTR))
        b.position_at_end(enter)
        store_field(b, frame, Frame.ENTRY, b.ptrtoint(entry, I64))
        handler.leave(load_field(b, entry, ENTRY_FUNCTION, PTR))

    def _emit_call_hook(self) -> None:
        """The handler of the slot before a hooked instruction's: call the function in constant 0 with the registers and
        the frame. It takes nothing off the budget, so its block has that instruction alone."""
        handler = self.handler(CALL_HOOK, "external")
        b, frame = handler.builder, handler.frame
        store_field(b, frame, Frame.HOOK_FAULT, ir.Constant(I64, 0))
        function = load_field(b, handler.ip, SLOT_OPERANDS, PTR)
        callee = Callee(function, ir.FunctionType(I64, [PTR, I64]))
        registers = field_pointer(b, frame, Frame.REGISTERS)
        outcome = b.call(callee, [registers, b.ptrtoint(frame, I64)])
        for value, stop in (
            (HOOK_STOPS, Stop.ARRIVED),
            (HOOK_FAULTS, Stop.FAULT),
            (HOOK_FAILS, STOP_HOOK_FAILED),
        ):
            stopped, rest = b.append_basic_block("stopped"), b.append_basic_block("rest")
            found = b.icmp_unsigned("==", outcome, ir.Constant(I64, value))
            assume_rare(b.cbranch(found, stopped, rest), taken_rare=True)
            b.position_at_end(stopped)
            handler.stop(stop)
            b.position_at_end(rest)
        slot = field_pointer(b, handler.ip, SLOT_BYTES)
        handler.leave(load_field(b, slot, SLOT_HANDLER, PTR), ip=slot)

    def _emit_goto_computed(self) -> Any:
        """As goto_indirect, remembering (SITE, target) in the worker's ring."""
        handler = self.handler("goto_computed", "external")
        b, frame = handler.builder, handler.frame
        count = load_field(b, frame, Frame.JUMP_COUNT)
        store_field(b, frame, Frame.JUMP_COUNT, b.add(count, ir.Constant(I64, 1)))
        place = b.shl(b.and_(count, ir.Constant(I64, JUMP_ENTRIES - 1)), ir.Constant(I64, 4))
        entry = element(b, load_field(b, frame, Frame.JUMPS, PTR), place, int_type(8))
        store_field(b, entry, 0, load_field(b, frame, Frame.SITE))
        store_field(b, entry, 8, b.ptrtoint(handler.ip, I64))
        handler.leave(self.goto_indirect)
        return handler.function

    def _table_entry(self, b: Any, table: Value, offset: Value) -> Value:
        return b.load(element(b, table, b.lshr(offset, ir.Constant(I64, 1)), PTR), typ=PTR)

    def _search_more_spans(self, handler: Handler, address: Value, missing: Any) -> None:
        """Programs with several distant executable segments: look through the others."""
        b, frame = handler.builder, handler.frame
        spans, count = load_field(b, frame, Frame.CODE_MORE, PTR), load_field(b, frame, Frame.CODE_MORE_COUNT)
        before = b.block
        head, body, inside, found, following = (
            b.append_basic_block(n) for n in ("head", "body", "inside", "more_found", "next")
        )
        b.branch(head)
        b.position_at_end(head)
        index = b.phi(I64)
        index.add_incoming(ir.Constant(I64, 0), before)
        b.cbranch(b.icmp_unsigned("<", index, count), body, missing)
        b.position_at_end(body)
        span = element(b, spans, b.mul(index, ir.Constant(I64, 24)), int_type(8))
        offset = b.sub(address, load_field(b, span, 0))
        b.cbranch(b.icmp_unsigned("<", offset, load_field(b, span, 8)), inside, following)
        b.position_at_end(following)
        index.add_incoming(b.add(index, ir.Constant(I64, 1)), following)
        b.branch(head)
        b.position_at_end(inside)
        record = self._table_entry(b, load_field(b, span, 16, PTR), offset)
        b.cbranch(b.icmp_unsigned("!=", b.ptrtoint(record, I64), ir.Constant(I64, 0)), found, missing)
        b.position_at_end(found)
        handler.goto(record, tail=self.goto_tail, count=self.goto_count)

    # -- one handler

    def emit_template(self, name: str, key: TemplateKey) -> Any:
        slow = None
        if any(op.name in _MEMORY_OPS for op in key[0]):
            handler = self.handler(f"{name}.slow")
            self._finish(handler, *self._run(handler, key, None), key)
            slow = self.slow[key] = handler.function
        handler = self.handler(name)
        self._finish(handler, *self._run(handler, key, slow), key)
        return handler.function

    def emit_fused(self, name: str, pair: FusedKey) -> Any:
        """Emit a handler of two instructions; what one of them leaves for is as if each had its own handler."""
        handler = self.handler(name)
        first, _ = self._run(handler, pair.first, self.slow.get(pair.first))
        handler.advance()
        known = {} if pair.passed is None else {pair.passed: first.written}
        self._finish(handler, *self._run(handler, pair.second, self.slow.get(pair.second), known), pair.second)
        return handler.function

    def _run(
        self, handler: Handler, key: TemplateKey, slow: Any | None, known: Mapping[int, Value] | None = None
    ) -> tuple[_HandlerContext, Temps]:
        """Emit a template's ops."""
        slots = {a.slot for op in key[0] for a in op.args if isinstance(a, ConstSlot)}
        context = _HandlerContext(self, handler, slow, len(slots), known or {})
        temps = Temps(context)
        temps.run(key[0])
        return context, temps

    def _finish(self, handler: Handler, context: _HandlerContext, temps: Temps, key: TemplateKey) -> None:
        """Emit how a handler goes on after a template."""
        terminator = key[1]
        b = handler.builder
        if terminator is None:
            following = field_pointer(b, handler.ip, SLOT_BYTES)
            handler.leave(load_field(b, following, SLOT_HANDLER, PTR), ip=following)
        elif terminator.name == "jump":
            self.goto(handler, self._link(handler, terminator.targets[0]))
        elif terminator.name == "branch":
            taken, other = b.append_basic_block("taken"), b.append_basic_block("other")
            b.cbranch(temps.value(terminator.args[0]), taken, other)
            for block, target in ((taken, terminator.targets[0]), (other, terminator.targets[1])):
                b.position_at_end(block)
                self.goto(handler, self._link(handler, target))
        elif terminator.name == "indirect":
            address = temps.value(terminator.args[0])
            if terminator.data == _REMEMBER:
                store_field(b, handler.frame, Frame.SITE, b.ptrtoint(handler.ip, I64))
            target = self.goto_computed if terminator.data == _REMEMBER else self.goto_indirect
            handler.leave(target, ip=b.inttoptr(context._wide(address), PTR))
        elif terminator.name == "trap":
            context.stop_with_fault(terminator.data, temps.value(terminator.args[0]))
        else:
            # An environment call and a fence retire when they are handled, the others do not.
            retires = terminator.name in ("ecall", "fence_i")
            left = b.sub(handler.remaining, ir.Constant(I64, 1)) if retires else handler.remaining
            handler.stop(_STOPS[terminator.name], remaining=left)

    def _link(self, handler: Handler, target: Operand) -> Value:
        assert isinstance(target, ConstSlot)
        return load_field(handler.builder, handler.ip, SLOT_OPERANDS + 8 * target.slot, PTR)


def interpreter_keys(registers: RegisterFile, templates: list[TemplateKey]) -> list[TemplateKey]:
    """The templates that the interpreter has handlers for, in the order of its table."""
    xlen = registers.type
    jumps = [remembered(key) for key in templates if key[1] is not None and key[1].name == "indirect"]
    return list(dict.fromkeys([*templates, *jumps, link_jump(xlen), fetch_fault(xlen), UNSUPPORTED]))


def build_interpreter(
    registers: RegisterFile, templates: list[TemplateKey], fused: Sequence[FusedKey] = ()
) -> InterpreterModule:
    """The interpreter for an ISA's register file, the templates of its rows, and the pairs of them to fuse."""
    module = ir.Module(name=f"interpreter_{registers.name}")
    keys = interpreter_keys(registers, templates)
    shared = _Shared(module, registers, len(keys) + len(fused))
    handlers = [shared.emit_template(f"handler{i}", key) for i, key in enumerate(keys)]
    handlers += [shared.emit_fused(f"fused{i}", pair) for i, pair in enumerate(fused)]
    need_code = shared.handler(NEED_CODE, "external")
    need_code.stop(STOP_NEED_CODE)
    shared.handlers.global_constant = True
    shared.handlers.initializer = ir.Constant(shared.handlers.value_type, [f.bitcast(PTR) for f in handlers])
    stateful = [i for i in range(len(registers)) if i != registers.zero]
    storage = int_type(registers.storage.bits)
    run_lane = emit_run_lane(module, shared.xlen, storage, stateful, shared.goto_indirect)
    emit_run_lanes(module, run_lane)
    emit_run_groups(module, storage, stateful, run_lane, vector_unit().lanes)
    return InterpreterModule(str(module), tuple(keys), tuple(fused), exported(registers))
