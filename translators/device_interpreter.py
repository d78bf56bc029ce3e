"""Tier 0 on devices: a loop around a switch over the instruction templates, lowered through the table.

Devices have neither tail calls nor, on NVIDIA, indirect branches worth having, so the handlers that are functions on
the CPU are the cases of one switch here. One iteration executes one guest instruction and costs one of the slice; a
jump looks its target up in the code space and gives way to compiled code where there is some.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from vmjit.ir.registers import RegisterFile
from vmjit.ir.values import ConstSlot, Op, Operand, Register, RegisterSlot, Terminator
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
    I32,
    I64,
    DeviceWindow,
    emit_slow_access,
    load_field,
    load_global,
    store_field,
    store_global,
    window_access,
)
from vmjit.kernels.layout import STOP_CALL, STOP_FENCE_I, STOP_NEED_CODE
from vmjit.stops import TRAP_ACCESS, Stop
from vmjit.translators.interpreter import UNSUPPORTED, TemplateKey, fetch_fault
from vmjit.translators.lowering import Builder, Temps, Value, constant, int_type

INTERPRETER_TYPE = ir.FunctionType(I64, [I64, I64, I64, I64, I64])

_STOPS = {
    "ebreak": int(Stop.EBREAK),
    "unsupported": int(Stop.UNSUPPORTED),
    "ecall": STOP_CALL,
    "fence_i": STOP_FENCE_I,
}


def device_keys(registers: RegisterFile, templates: list[TemplateKey]) -> list[TemplateKey]:
    """The templates that the device interpreter has cases for, in the order of their numbers.

    Behind them comes one more case, the link: go on at the address in constant 0, at no cost.
    """
    return list(dict.fromkeys([*templates, fetch_fault(registers.type), UNSUPPORTED]))


class DeviceInterpreter:
    """Emits the interpreter into the function that `builder` stands in; `emit` gives what the function returns."""

    def __init__(self, registers: RegisterFile, keys: list[TemplateKey], builder: Builder, args: Any) -> None:
        self.registers = registers
        self.keys = keys
        self.builder = builder
        self.xlen = int_type(registers.type.bits)
        self.lane_registers, self.fields, self.memory, self.machine, self.left = args
        self.slow_load, self.slow_store = emit_slow_access(builder.module, registers.name, registers.type.bits)

    def emit(self) -> Value:
        b = self.builder
        self._load_code_space()
        self.private = self._window(DeviceMachine.WINDOW0_LO, shared=False)
        self.jump, self.head, run, used_up, self.stopped, self.leave, self.done = (
            b.append_basic_block(n) for n in ("jump", "head", "run", "used_up", "stopped", "leave", "done")
        )
        with b.goto_block(self.done):
            self.result = b.phi(I64)
        with b.goto_block(self.jump):
            self.jump_pc, self.jump_left, self.may_leave = b.phi(I64), b.phi(I64), b.phi(ir.IntType(1))
        with b.goto_block(self.head):
            self.slot, self.slice_left = b.phi(I64), b.phi(I64)
        with b.goto_block(self.stopped):
            self.stop_code, self.stop_pc, self.stop_left = b.phi(I64), b.phi(I64), b.phi(I64)
        with b.goto_block(self.leave):
            self.leave_pc, self.leave_left = b.phi(I64), b.phi(I64)
        self._goto(load_field(b, self.fields, LaneField.PC), self.left, may_leave=False)
        self._emit_jump()

        b.position_at_end(self.head)
        b.cbranch(b.icmp_signed("<=", self.slice_left, ir.Constant(I64, 0)), used_up, run)
        b.position_at_end(used_up)
        self._leave_at(self._pc_of_slot(), self.slice_left)
        b.position_at_end(run)
        self.after = b.sub(self.slice_left, ir.Constant(I64, 1))
        self.where = b.add(self.slots, b.mul(self.slot, ir.Constant(I64, DeviceSlot.BYTES)))
        number = load_global(b, self.where, I32, DeviceSlot.HANDLER)
        self.register_word = load_global(b, self.where, I32, DeviceSlot.REGISTERS)
        unknown = b.append_basic_block("unknown")
        with b.goto_block(unknown):
            b.unreachable()
        switch = b.switch(number, unknown)
        for i, key in enumerate(self.keys):
            case = b.append_basic_block(f"template{i}")
            switch.add_case(ir.Constant(I32, i), case)
            b.position_at_end(case)
            self._emit_template(key)
        link = b.append_basic_block("link")
        switch.add_case(ir.Constant(I32, len(self.keys)), link)
        b.position_at_end(link)
        target = load_global(b, self.where, offset=DeviceSlot.CONSTANTS)
        self._goto(target, self.slice_left)

        b.position_at_end(self.stopped)
        store_field(b, self.fields, LaneField.STOP, self.stop_code)
        store_field(b, self.fields, LaneField.PC, self.stop_pc)
        self._finish(b.or_(self.stop_left, ir.Constant(I64, STOPPED)))
        b.position_at_end(self.leave)
        store_field(b, self.fields, LaneField.PC, self.leave_pc)
        self._finish(self.leave_left)
        b.position_at_end(self.done)
        return self.result

    # -- ways out and on

    def _finish(self, result: Value) -> None:
        self.result.add_incoming(result, self.builder.block)
        self.builder.branch(self.done)

    def _leave_at(self, pc: Value, left: Value) -> None:
        self.leave_pc.add_incoming(pc, self.builder.block)
        self.leave_left.add_incoming(left, self.builder.block)
        self.builder.branch(self.leave)

    def stop(self, code: int, pc: Value, left: Value) -> None:
        for phi, value in ((self.stop_code, ir.Constant(I64, code)), (self.stop_pc, pc), (self.stop_left, left)):
            phi.add_incoming(value, self.builder.block)
        self.builder.branch(self.stopped)

    def _goto(self, pc: Value, left: Value, *, may_leave: bool = True) -> None:
        flag = ir.Constant(ir.IntType(1), int(may_leave))
        for phi, value in ((self.jump_pc, pc), (self.jump_left, left), (self.may_leave, flag)):
            phi.add_incoming(value, self.builder.block)
        self.builder.branch(self.jump)

    def _continue(self, slot: Value, left: Value) -> None:
        self.slot.add_incoming(slot, self.builder.block)
        self.slice_left.add_incoming(left, self.builder.block)
        self.builder.branch(self.head)

    def _pc_of_slot(self) -> Value:
        b = self.builder
        pcs = self.space.load(b, DeviceCode.SLOT_PCS)
        return load_global(b, b.add(pcs, b.mul(self.slot, ir.Constant(I64, 8))))

    def stop_here(self, code: int, left: Value | None = None) -> None:
        """Stop at the current instruction, which has not retired unless `left` says so."""
        self.stop(code, self._pc_of_slot(), self.slice_left if left is None else left)

    # -- code

    def _load_code_space(self) -> None:
        self.space = code_space(self.builder, self.machine, self.fields)
        self.slots = self.space.slots

    def _emit_jump(self) -> None:
        b = self.builder
        b.position_at_end(self.jump)
        known, missing = b.append_basic_block("known"), b.append_basic_block("missing")
        slot = find_slot(b, self.space.ranges, self.space.range_count, self.jump_pc, known, missing)
        b.position_at_end(missing)
        self.stop(STOP_NEED_CODE, self.jump_pc, self.jump_left)
        b.position_at_end(known)
        where = b.add(self.slots, b.mul(slot, ir.Constant(I64, DeviceSlot.BYTES)))
        visits = load_global(b, where, I32, DeviceSlot.VISITS)
        store_global(b, b.add(visits, ir.Constant(I32, 1)), where, DeviceSlot.VISITS)
        compiled = b.icmp_unsigned("!=", load_global(b, where, I32, DeviceSlot.ENTRY), ir.Constant(I32, 0))
        go, give_way = b.append_basic_block("go"), b.append_basic_block("give_way")
        b.cbranch(b.and_(compiled, self.may_leave), give_way, go)
        b.position_at_end(give_way)
        self._leave_at(self.jump_pc, self.jump_left)
        b.position_at_end(go)
        self._continue(slot, self.jump_left)

    def _window(self, first: DeviceMachine, *, shared: bool) -> DeviceWindow:
        b = self.builder
        lo, size, offset = (load_global(b, self.machine, offset=first + 8 * i) for i in range(3))
        if shared:
            base = b.add(load_global(b, self.machine, offset=DeviceMachine.SHARED), offset)
        else:
            base = b.add(self.memory, b.mul(offset, ir.Constant(I64, GROUP)))
        return DeviceWindow(base, self.narrow(lo), self.narrow(size), not shared)

    def shared_window(self) -> DeviceWindow:
        """The window of the shared image, loaded where it is used."""
        return self._window(DeviceMachine.WINDOW1_LO, shared=True)

    def narrow(self, value: Value) -> Value:
        return value if self.xlen.width == 64 else self.builder.trunc(value, self.xlen)

    def wide(self, value: Value) -> Value:
        return value if value.type.width == 64 else self.builder.zext(value, I64)

    # -- one template

    def _emit_template(self, key: TemplateKey) -> None:
        ops, terminator = key
        b = self.builder
        temps = Temps(_TemplateContext(self))
        temps.run(ops)
        if terminator is None:
            self._continue(b.add(self.slot, ir.Constant(I64, 1)), self.after)
        else:
            self._emit_terminator(terminator, temps)

    def _emit_terminator(self, terminator: Terminator, temps: Temps) -> None:
        b = self.builder
        if terminator.name == "jump":
            self._goto(self.wide(temps.value(terminator.targets[0])), self.after)
        elif terminator.name == "branch":
            taken, other = (self.wide(temps.value(t)) for t in terminator.targets)
            self._goto(b.select(temps.value(terminator.args[0]), taken, other), self.after)
        elif terminator.name == "indirect":
            target = self.wide(temps.value(terminator.args[0]))
            targets = self.space.load(b, DeviceCode.SLOT_TARGETS)
            store_global(b, target, b.add(targets, b.mul(self.slot, ir.Constant(I64, 8))))
            self._goto(target, self.after)
        elif terminator.name == "trap":
            self.stop_with_fault(terminator.data, temps.value(terminator.args[0]))
        else:
            # An environment call and a fence retire when they are handled, the others do not.
            retires = terminator.name in ("ecall", "fence_i")
            self.stop_here(_STOPS[terminator.name], self.after if retires else None)

    def stop_with_fault(self, kind: str, address: Value) -> None:
        b = self.builder
        store_field(b, self.fields, LaneField.FAULT_ADDRESS, self.wide(address))
        store_field(b, self.fields, LaneField.ACCESS, ir.Constant(I64, int(TRAP_ACCESS[kind])))
        self.stop_here(int(Stop.FAULT))


class _TemplateContext:
    """Lane state as a template sees it: registers in memory, operands in the slot."""

    def __init__(self, interpreter: DeviceInterpreter) -> None:
        self.interpreter = interpreter
        self.builder = interpreter.builder

    def operand(self, operand: Operand) -> Value:
        i, b = self.interpreter, self.builder
        if isinstance(operand, ConstSlot):
            return i.narrow(load_global(b, i.where, offset=DeviceSlot.CONSTANTS + 8 * operand.slot))
        if isinstance(operand, Register) and operand.index == i.registers.zero:
            return constant(i.registers.type, 0)
        assert isinstance(operand, Register | RegisterSlot)
        return load_global(b, self._register(operand), i.xlen)

    def _register(self, register: Register | RegisterSlot) -> Value:
        i, b = self.interpreter, self.builder
        xlen = i.registers.type.bits
        if isinstance(register, Register):
            return b.add(i.lane_registers, ir.Constant(I64, register_offset(register.index, xlen)))
        index = b.and_(b.lshr(i.register_word, ir.Constant(I32, 8 * register.slot)), ir.Constant(I32, 0xFF))
        return b.add(i.lane_registers, b.mul(b.zext(index, I64), ir.Constant(I64, register_offset(1, xlen))))

    def write_register(self, register: Register | RegisterSlot, value: Value) -> None:
        store_global(self.builder, value, self._register(register))

    def retired(self) -> Value:
        b = self.builder
        return b.sub(load_field(b, self.interpreter.fields, LaneField.LIMIT), self.interpreter.slice_left)

    def load(self, op: Op, address: Value) -> Value:
        type_ = op.type
        i, b, llvm_type = self.interpreter, self.builder, int_type(type_.bits)
        done = b.append_basic_block("loaded")
        incoming = []
        for shared in (False, True):
            window = i.shared_window() if shared else i.private
            place, inside = window_access(b, window, address, type_.bits // 8)
            hit, miss = b.append_basic_block("hit"), b.append_basic_block("miss")
            b.cbranch(inside, hit, miss)
            b.position_at_end(hit)
            incoming.append((load_global(b, place, llvm_type), b.block))
            b.branch(done)
            b.position_at_end(miss)
        size = ir.Constant(I32, type_.bits // 8)
        value = b.call(i.slow_load, [i.fields, i.memory, i.machine, i.wide(address), size])
        self._stop_at_fault()
        incoming.append((value if type_.bits == 64 else b.trunc(value, llvm_type), b.block))
        b.branch(done)
        b.position_at_end(done)
        result = b.phi(llvm_type)
        for found, block in incoming:
            result.add_incoming(found, block)
        return result

    def store(self, op: Op, address: Value, value: Value) -> None:
        i, b, type_ = self.interpreter, self.builder, op.type
        place, inside = window_access(b, i.private, address, type_.bits // 8)
        hit, miss, done = (b.append_basic_block(n) for n in ("hit", "miss", "stored"))
        b.cbranch(inside, hit, miss)
        b.position_at_end(hit)
        store_global(b, value, place)
        b.branch(done)
        b.position_at_end(miss)
        size = ir.Constant(I32, type_.bits // 8)
        b.call(i.slow_store, [i.fields, i.memory, i.machine, i.wide(address), size, i.wide(value)])
        self._stop_at_fault()
        b.branch(done)
        b.position_at_end(done)

    def _stop_at_fault(self) -> None:
        i, b = self.interpreter, self.builder
        fault, fine = b.append_basic_block("fault"), b.append_basic_block("fine")
        access = load_field(b, i.fields, LaneField.ACCESS)
        b.cbranch(b.icmp_unsigned("==", access, ir.Constant(I64, 0)), fine, fault)
        b.position_at_end(fault)
        i.stop_here(int(Stop.FAULT))
        b.position_at_end(fine)

    def trap_if(self, condition: Value, kind: str, address: Value) -> None:
        b = self.builder
        trap, fine = b.append_basic_block("trap"), b.append_basic_block("fine")
        b.cbranch(condition, trap, fine)
        b.position_at_end(trap)
        self.interpreter.stop_with_fault(kind, address)
        b.position_at_end(fine)


def emit_interpreter_function(registers: RegisterFile, keys: list[TemplateKey], module: Any, name: str) -> Any:
    """Define the interpreter as an LLVM function of its own in `module`, for the targets that take LLVM IR."""
    function = ir.Function(module, INTERPRETER_TYPE, name)
    function.attributes.add("nounwind")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    b.ret(DeviceInterpreter(registers, keys, b, function.args).emit())
    return function
