"""Tier 0 on devices: a loop around a switch over the instruction templates, lowered through the table.

Devices have neither tail calls nor, on NVIDIA, indirect branches worth having, so the handlers that are functions on
the CPU are the cases of one switch here. One iteration executes one guest instruction and costs one of the slice; a
jump looks its target up in the code space and gives way to compiled code where there is some.

Templates of straight code stand in the switch. Those that branch, because they access memory, and those that are long
code (divisions, wide products) are functions of their own: what they need would cost registers in every iteration.
All meet again in one block with what comes next, so that lanes are together again there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llvmlite import ir

from vmjit.ir.ops import FLOAT_OPS
from vmjit.ir.registers import RegisterFile
from vmjit.ir.types import Type
from vmjit.ir.values import ConstSlot, Op, Operand, Register, RegisterSlot
from vmjit.kernels.device_code import code_space, find_slot
from vmjit.kernels.device_layout import (
    GROUP,
    STOPPED,
    DeviceCode,
    DeviceMachine,
    DeviceSlot,
    LaneField,
    register_offset,
)
from vmjit.kernels.device_memory import (
    I1,
    I32,
    I64,
    DeviceWindow,
    emit_find,
    emit_slow_access,
    load_field,
    load_global,
    store_field,
    store_global,
    window_access,
)
from vmjit.kernels.device_outputs import emit_keep_output
from vmjit.kernels.layout import STOP_CALL, STOP_FENCE_I, STOP_NEED_CODE
from vmjit.stops import TRAP_ACCESS, Stop
from vmjit.translators.exact_floats import emit_device_exact_float
from vmjit.translators.float_ops import emit_float_op, limit_of
from vmjit.translators.interpreter import UNSUPPORTED, TemplateKey, fetch_fault
from vmjit.translators.join import Join
from vmjit.translators.lowering import Builder, Temps, Value, constant, int_type

INTERPRETER_TYPE = ir.FunctionType(I64, [I64, I64, I64, I64, I64])

# `template(registers, fields, memory, machine, slot)` gives what comes next: _STOP_HERE where the instruction faults,
# else _NEXT or _JUMP, where the lane's PC says where to.
_TEMPLATE_TYPE = ir.FunctionType(I32, [I64, I64, I64, I64, I64])

# Emits what `body` emits of a number so that lanes of one number are together, and gives what it gives.
TakeTurns = Callable[[Builder, Value, Callable[[Value], Sequence[Value]]], Sequence[Value]]

_STOPS = {
    "ebreak": int(Stop.EBREAK),
    "unsupported": int(Stop.UNSUPPORTED),
    "fence_i": STOP_FENCE_I,
}

# What comes after an instruction: the next slot; with a value, a jump to that address or a stop with that code. What is
# here does not retire. _ILLEGAL is what a template's function says of a rounding mode that is none.
_NEXT, _JUMP, _JUMP_HERE, _STOP, _STOP_HERE, _ILLEGAL = range(6)

_BRANCHING_OPS = frozenset({"load", "store", "store_if", "trap_if"}) | FLOAT_OPS
_LONG_OPS = frozenset({"divs", "divu", "rems", "remu", "clmul", "clmulh"})
_HIGH_PRODUCTS = frozenset({"mulhs", "mulhu", "mulhsu"})


def device_keys(registers: RegisterFile, templates: list[TemplateKey]) -> list[TemplateKey]:
    """The templates that the device interpreter has cases for, in the order of their numbers.

    Behind them comes one more case, the link: go on at the address in constant 0, at no cost.
    """
    return list(dict.fromkeys([*templates, fetch_fault(registers.type), UNSUPPORTED]))


def exact_float_name(registers: RegisterFile) -> str:
    """The name of the function for what a float op's instruction does not decide."""
    return f"{registers.name}_exact_float"


def _is_function(key: TemplateKey) -> bool:
    return any(
        op.name in _BRANCHING_OPS | _LONG_OPS or (op.name in _HIGH_PRODUCTS and op.type.bits == 64) for op in key[0]
    )


class DeviceInterpreter:
    """Emits the interpreter into the function that `builder` stands in; `emit` gives what the function returns.

    `take_turns` is for devices whose compiler puts branches that lanes take differently into nested masks: with it, the
    switch is over a number that all lanes at it share.
    """

    def __init__(
        self,
        registers: RegisterFile,
        keys: list[TemplateKey],
        builder: Builder,
        args: Any,
        take_turns: TakeTurns | None = None,
    ) -> None:
        self.registers = registers
        self.keys = keys
        self.builder = builder
        self.take_turns = take_turns
        *lane, self.left = args
        self.lane = _Lane(*lane)
        module, xlen = builder.module, registers.type.bits
        find = emit_find(module, registers.name, xlen)
        self.slow = emit_slow_access(module, registers.name, xlen, find)
        self.keep_output = emit_keep_output(module, registers, find)
        if registers.float_status is not None:
            emit_device_exact_float(module, exact_float_name(registers))

    def emit(self) -> Value:
        b = self.builder
        self.space = code_space(b, self.lane.machine, self.lane.fields)
        self.jump, self.head = Join(b, "jump", I64, I64, I1), Join(b, "head", I64, I64)
        self.stopped, self.leave = Join(b, "stopped", I64, I64, I64), Join(b, "leave", I64, I64)
        self.done = Join(b, "done", I64)
        self.jump.come(load_field(b, self.lane.fields, LaneField.PC), self.left, ir.Constant(I1, 0))
        self._emit_jump()
        self._emit_instruction()
        code, pc, left = self.stopped.begin()
        store_field(b, self.lane.fields, LaneField.STOP, code)
        store_field(b, self.lane.fields, LaneField.PC, pc)
        self.done.come(b.or_(left, ir.Constant(I64, STOPPED)))
        pc, left = self.leave.begin()
        store_field(b, self.lane.fields, LaneField.PC, pc)
        self.done.come(left)
        return self.done.begin()[0]

    def _emit_jump(self) -> None:
        """Go on at an address: at its slot, or out of here, to compiled code if `may_leave`."""
        b = self.builder
        pc, left, may_leave = self.jump.begin()
        known, missing = b.append_basic_block("known"), b.append_basic_block("missing")
        slot = find_slot(b, self.space.ranges, self.space.range_count, pc, known, missing)
        b.position_at_end(missing)
        self.stopped.come(ir.Constant(I64, STOP_NEED_CODE), pc, left)
        b.position_at_end(known)
        where = self._address(slot)
        visits = load_global(b, where, I32, DeviceSlot.VISITS)
        store_global(b, b.add(visits, ir.Constant(I32, 1)), where, DeviceSlot.VISITS)
        compiled = b.icmp_unsigned("!=", load_global(b, where, I32, DeviceSlot.ENTRY), ir.Constant(I32, 0))
        go, give_way = b.append_basic_block("go"), b.append_basic_block("give_way")
        b.cbranch(b.and_(compiled, may_leave), give_way, go)
        b.position_at_end(give_way)
        self.leave.come(pc, left)
        b.position_at_end(go)
        self.head.come(slot, left)

    def _emit_instruction(self) -> None:
        """Execute the instruction at a slot, unless the slice has ended, and go on."""
        b = self.builder
        slot, left = self.head.begin()
        run, used_up = b.append_basic_block("run"), b.append_basic_block("used_up")
        b.cbranch(b.icmp_signed("<=", left, ir.Constant(I64, 0)), used_up, run)
        b.position_at_end(used_up)
        self.leave.come(self._pc_of(slot), left)

        b.position_at_end(run)
        where = self._address(slot)
        number = load_global(b, where, I32, DeviceSlot.HANDLER)
        context = _TemplateContext(self.registers, b, self.lane, where, left=left)
        self.slot = slot
        take_turns = self.take_turns or (lambda _, number, body: body(number))
        action, value = take_turns(b, number, lambda number: self._emit_templates(context, number))

        after = b.sub(left, ir.Constant(I64, 1))
        following, other, jump, stop = (b.append_basic_block(n) for n in ("following", "other", "jumping", "stopping"))
        b.cbranch(b.icmp_unsigned("==", action, _action(_NEXT)), following, other)
        b.position_at_end(following)
        self.head.come(b.add(slot, ir.Constant(I64, 1)), after)
        b.position_at_end(other)
        b.cbranch(b.icmp_unsigned("<=", action, _action(_JUMP_HERE)), jump, stop)
        b.position_at_end(jump)
        here = b.icmp_unsigned("==", action, _action(_JUMP_HERE))
        self.jump.come(value, b.select(here, left, after), ir.Constant(I1, 1))
        b.position_at_end(stop)
        here = b.icmp_unsigned("==", action, _action(_STOP_HERE))
        self.stopped.come(value, self._pc_of(slot), b.select(here, left, after))

    def _address(self, slot: Value) -> Value:
        return self.builder.add(self.space.slots, self.builder.mul(slot, ir.Constant(I64, DeviceSlot.BYTES)))

    def _pc_of(self, slot: Value) -> Value:
        b = self.builder
        pcs = self.space.load(b, DeviceCode.SLOT_PCS)
        return load_global(b, b.add(pcs, b.mul(slot, ir.Constant(I64, 8))))

    # -- templates

    def _emit_templates(self, context: _TemplateContext, number: Value) -> Sequence[Value]:
        """The switch. Gives what comes next, and its address or code."""
        b = self.builder
        executed = Join(b, "executed", I32, I64)
        unknown, link = b.append_basic_block("unknown"), b.append_basic_block("link")
        switch = b.switch(number, unknown)
        b.position_at_end(unknown)
        b.unreachable()
        for i, key in enumerate(self.keys):
            case = b.append_basic_block(f"template{i}")
            switch.add_case(ir.Constant(I32, i), case)
            b.position_at_end(case)
            if _is_function(key):
                executed.come(*self._call_template(context, key, f"{self.registers.name}_template{i}"))
            else:
                executed.come(*self._emit_template(context, key))
        switch.add_case(ir.Constant(I32, len(self.keys)), link)
        b.position_at_end(link)
        executed.come(_action(_JUMP_HERE), load_global(b, context.where, offset=DeviceSlot.CONSTANTS))
        return executed.begin()

    def _call_template(self, context: _TemplateContext, key: TemplateKey, name: str) -> Sequence[Value]:
        b = self.builder
        function = _emit_template_function(b.module, key, self.registers, self.slow, name)
        action = b.call(function, [*self.lane, context.where])
        fault = ir.Constant(I64, int(Stop.FAULT))
        if any(op.name in FLOAT_OPS for op in key[0]):
            illegal = b.icmp_unsigned("==", action, _action(_ILLEGAL))
            action = b.select(illegal, _action(_STOP_HERE), action)
            return action, b.select(illegal, ir.Constant(I64, int(Stop.UNSUPPORTED)), fault)
        if key[1] is None:
            return action, fault
        target = load_field(b, self.lane.fields, LaneField.PC)
        self._remember_target(target)
        return action, b.select(b.icmp_unsigned("==", action, _action(_JUMP)), target, fault)

    def _emit_template(self, context: _TemplateContext, key: TemplateKey) -> Sequence[Value]:
        ops, terminator = key
        temps = Temps(context)
        temps.run(ops)
        if terminator is None:
            return _action(_NEXT), ir.Constant(I64, ir.Undefined)
        if terminator.name == "trap":
            context.record_fault(terminator.data, temps.value(terminator.args[0]))
            return _action(_STOP_HERE), ir.Constant(I64, int(Stop.FAULT))
        if terminator.name == "ecall":
            return self._emit_call()
        if terminator.name in _STOPS:
            # A fence retires when it is handled, as an environment call does; the others do not.
            retires = terminator.name == "fence_i"
            return _action(_STOP if retires else _STOP_HERE), ir.Constant(I64, _STOPS[terminator.name])
        if terminator.name == "branch":
            taken, other = (context.wide(temps.value(t)) for t in terminator.targets)
            return _action(_JUMP), self.builder.select(temps.value(terminator.args[0]), taken, other)
        if terminator.name == "jump":
            return _action(_JUMP), context.wide(temps.value(terminator.targets[0]))
        assert terminator.name == "indirect", terminator
        target = context.wide(temps.value(terminator.args[0]))
        self._remember_target(target)
        return _action(_JUMP), target

    def _emit_call(self) -> Sequence[Value]:
        """The host serves environment calls, unless all that is to be done is to keep what the lane writes: then the
        link behind the call's slot goes on."""
        b = self.builder
        kept = b.icmp_unsigned("!=", b.call(self.keep_output, self.lane), ir.Constant(I32, 0))
        return b.select(kept, _action(_NEXT), _action(_STOP)), ir.Constant(I64, STOP_CALL)

    def _remember_target(self, target: Value) -> None:
        """For forming regions: where the computed jump at this slot went. A hint, even where the jump faults."""
        b = self.builder
        targets = self.space.load(b, DeviceCode.SLOT_TARGETS)
        store_global(b, target, b.add(targets, b.mul(self.slot, ir.Constant(I64, 8))))


def _action(action: int) -> Value:
    return ir.Constant(I32, action)


class _Lane(NamedTuple):
    """Addresses: of a lane's first register, first 64-bit field and first byte of memory, and of the machine block."""

    registers: Value
    fields: Value
    memory: Value
    machine: Value


class _TemplateContext:
    """Lane state as a template sees it: registers in memory, operands in the slot at `where`.

    Only a function's context has `slow`, the functions for accesses that no window decides, and `faulted`, the block
    that ends it. What loads and `stores` too is not sought in the shared image, where stores are faults.
    """

    def __init__(
        self,
        registers: RegisterFile,
        builder: Builder,
        lane: _Lane,
        where: Value,
        slow: tuple[Any, Any] | None = None,
        faulted: Any = None,
        left: Value | None = None,
        stores: bool = False,
    ) -> None:
        self.registers = registers
        self.builder = builder
        self.lane = lane
        self.stores = stores
        self.where = where
        self.slow = slow
        self.faulted = faulted
        self.left = left
        self.xlen = int_type(registers.type.bits)
        self.accrued: Value | None = None
        self.register_word = load_global(builder, where, I32, DeviceSlot.REGISTERS)

    def narrow(self, value: Value) -> Value:
        return value if self.xlen.width == 64 else self.builder.trunc(value, self.xlen)

    def wide(self, value: Value) -> Value:
        return value if value.type.width == 64 else self.builder.zext(value, I64)

    def operand(self, operand: Operand) -> Value:
        b = self.builder
        if isinstance(operand, ConstSlot):
            number = load_global(b, self.where, offset=DeviceSlot.CONSTANTS + 8 * operand.slot)
            return number if operand.type.bits == 64 else b.trunc(number, int_type(operand.type.bits))
        if isinstance(operand, Register) and operand.index == self.registers.zero:
            return constant(self.registers.type, 0)
        assert isinstance(operand, Register | RegisterSlot)
        return load_global(b, self._register(operand), int_type(self._type_of(operand).bits))

    def _type_of(self, operand: Register | RegisterSlot) -> Type:
        if isinstance(operand, Register):
            return self.registers.type_of(operand.index)
        return operand.type or self.registers.type

    def _register(self, register: Register | RegisterSlot) -> Value:
        b, xlen = self.builder, self.registers.storage.bits
        if isinstance(register, Register):
            return b.add(self.lane.registers, ir.Constant(I64, register_offset(register.index, xlen)))
        index = b.and_(b.lshr(self.register_word, ir.Constant(I32, 8 * register.slot)), ir.Constant(I32, 0xFF))
        return b.add(self.lane.registers, b.mul(b.zext(index, I64), ir.Constant(I64, register_offset(1, xlen))))

    def write_register(self, register: Register | RegisterSlot, value: Value) -> None:
        store_global(self.builder, value, self._register(register))

    def retired(self) -> Value:
        b = self.builder
        return b.sub(load_field(b, self.lane.fields, LaneField.LIMIT), self.left)

    def record_fault(self, kind: str, address: Value) -> None:
        b = self.builder
        store_field(b, self.lane.fields, LaneField.FAULT_ADDRESS, self.wide(address))
        store_field(b, self.lane.fields, LaneField.ACCESS, ir.Constant(I64, int(TRAP_ACCESS[kind])))

    # -- in functions

    def float_op(self, op: Op, args: list[Value]) -> Value:
        return emit_float_op(self, op, args)

    def float_limit(self, bits: int, status: Value) -> Value:
        return limit_of(self.builder, status, bits)

    def rare(self, condition: Value, then: Any, otherwise: Any) -> None:
        self.builder.cbranch(condition, then, otherwise)

    def exact_float(self, args: list[Value]) -> tuple[Value, Value]:
        """The new status goes through the lane's register: functions give one value on devices."""
        assert self.registers.float_status is not None
        b = self.builder
        function = b.module.globals[exact_float_name(self.registers)]
        status = self._register(Register(self.registers.float_status))
        result = b.call(function, [*args, status])
        return result, b.zext(load_global(b, status, I32), I32)

    def status_changed(self, status: Value) -> None:
        """What the status says is asked at each operation."""

    def refuse(self) -> None:
        self.builder.ret(_action(_ILLEGAL))

    def load(self, op: Op, address: Value) -> Value:
        assert self.slow is not None
        b, type_ = self.builder, int_type(op.type.bits)
        loaded = Join(b, "loaded", type_)
        for shared in (False,) if self.stores else (False, True):
            places, inside = self._places(shared, address, type_)
            hit, miss = b.append_basic_block("hit"), b.append_basic_block("miss")
            b.cbranch(inside, hit, miss)
            b.position_at_end(hit)
            if len(places) == 1:
                loaded.come(load_global(b, places[0], type_))
            else:
                low, high = (b.zext(load_global(b, place, I32), I64) for place in places)
                loaded.come(b.or_(low, b.shl(high, ir.Constant(I64, 32))))
            b.position_at_end(miss)
        value = self._call_slow(self.slow[0], address, type_)
        loaded.come(value if type_.width == 64 else b.trunc(value, type_))
        return loaded.begin()[0]

    def store(self, op: Op, address: Value, value: Value) -> None:
        assert self.slow is not None
        b = self.builder
        stored = Join(b, "stored")
        places, inside = self._places(False, address, value.type)
        hit, miss = b.append_basic_block("hit"), b.append_basic_block("miss")
        b.cbranch(inside, hit, miss)
        b.position_at_end(hit)
        if len(places) == 1:
            store_global(b, value, places[0])
        else:
            store_global(b, b.trunc(value, I32), places[0])
            store_global(b, b.trunc(b.lshr(value, ir.Constant(I64, 32)), I32), places[1])
        stored.come()
        b.position_at_end(miss)
        self._call_slow(self.slow[1], address, value.type, self.wide(value))
        stored.come()
        stored.begin()

    def _places(self, shared: bool, address: Value, type_: Any) -> tuple[list[Value], Value]:
        """(where the words of an access are in a window, whether it may be made there). A number that is wider than the
        guest's words lies in two."""
        b, window = self.builder, self._window(shared=shared)
        if type_.width <= self.xlen.width:
            place, inside = window_access(b, window, address, type_.width // 8)
            return [place], inside
        following = b.add(address, ir.Constant(self.xlen, 4))
        (low, first), (high, second) = (window_access(b, window, at, 4) for at in (address, following))
        return [low, high], b.and_(first, second)

    def _window(self, *, shared: bool) -> DeviceWindow:
        b, machine = self.builder, self.lane.machine
        first = DeviceMachine.WINDOW1_LO if shared else DeviceMachine.WINDOW0_LO
        lo, offset = (load_global(b, machine, offset=first + 8 * i) for i in (0, 2))
        size = load_field(b, self.lane.fields, LaneField.SHARED if shared else LaneField.REACH)
        if shared:
            base = b.add(load_global(b, machine, offset=DeviceMachine.SHARED), offset)
        else:
            base = b.add(self.lane.memory, b.mul(offset, ir.Constant(I64, GROUP)))
        return DeviceWindow(base, self.narrow(lo), self.narrow(size), not shared)

    def _call_slow(self, function: Any, address: Value, type_: Any, *value: Value) -> Value:
        b, lane = self.builder, self.lane
        size = ir.Constant(I32, type_.width // 8)
        result = b.call(function, [lane.fields, lane.memory, lane.machine, self.wide(address), size, *value])
        fine = b.append_basic_block("fine")
        access = load_field(b, lane.fields, LaneField.ACCESS)
        b.cbranch(b.icmp_unsigned("==", access, ir.Constant(I64, 0)), fine, self.faulted)
        b.position_at_end(fine)
        return result

    def trap_if(self, condition: Value, kind: str, address: Value) -> None:
        b = self.builder
        trap, fine = b.append_basic_block("trap"), b.append_basic_block("fine")
        b.cbranch(condition, trap, fine)
        b.position_at_end(trap)
        self.record_fault(kind, address)
        b.branch(self.faulted)
        b.position_at_end(fine)


def _emit_template_function(
    module: Any, key: TemplateKey, registers: RegisterFile, slow: tuple[Any, Any], name: str
) -> Any:
    function = ir.Function(module, _TEMPLATE_TYPE, name)
    function.linkage = "internal"
    for attribute in ("nounwind", "noinline"):
        function.attributes.add(attribute)
    b = ir.IRBuilder(function.append_basic_block("entry"))
    faulted = b.append_basic_block("faulted")
    *lane, where = function.args
    stores = any(op.name in ("store", "store_if") for op in key[0])
    context = _TemplateContext(registers, b, _Lane(*lane), where, slow, faulted, stores=stores)
    temps = Temps(context)
    temps.run(key[0])
    if key[1] is not None:
        assert key[1].name == "indirect", key
        store_field(b, context.lane.fields, LaneField.PC, context.wide(temps.value(key[1].args[0])))
    b.ret(_action(_NEXT if key[1] is None else _JUMP))
    b.position_at_end(faulted)
    b.ret(_action(_STOP_HERE))
    return function


def emit_interpreter_function(
    registers: RegisterFile, keys: list[TemplateKey], module: Any, name: str, take_turns: TakeTurns | None = None
) -> Any:
    """Define the interpreter as an LLVM function of its own in `module`, for the targets that take LLVM IR."""
    function = ir.Function(module, INTERPRETER_TYPE, name)
    function.attributes.add("nounwind")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    b.ret(DeviceInterpreter(registers, keys, b, function.args, take_turns).emit())
    return function
