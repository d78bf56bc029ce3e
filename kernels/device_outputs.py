"""What lanes write to their standard outputs, kept on the device until the launch is over, as code."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from vmjit.ir.registers import RegisterFile
from vmjit.kernels.device_layout import (
    OUTPUT_HEADER,
    OUTPUT_STREAM_SHIFT,
    OUTPUT_WRITES_SHIFT,
    DeviceMachine,
    LaneField,
    register_offset,
)
from vmjit.kernels.device_memory import (
    I8,
    I32,
    I64,
    Builder,
    Value,
    internal_function,
    lane_for,
    load_field,
    load_global,
    store_field,
    store_global,
)
from vmjit.kernels.layout import PERMISSION_READ

_A0, _A1, _A2, _A7 = 10, 11, 12, 17
_WRITE, _WRITEV = 64, 66
_STDOUT = 1
_MAX_VECTORS = 1024

_ZERO, _ONE = ir.Constant(I64, 0), ir.Constant(I64, 1)


def emit_keep_output(module: Any, registers: RegisterFile, find: Any) -> Any:
    """Define `keep_output(registers, fields, memory, machine)`: serve the environment call that a lane is at, if it is
    a `write` or `writev` to standard output or error that the lane's buffer has room for. Gives 1 where it did.

    Else, and where some byte cannot be read, it gives 0 and nothing has changed: what the call then gives is the host's
    to say. `find` is what `emit_find` gives.
    """
    function = internal_function(module, ir.FunctionType(I32, [I64] * 4), f"{registers.name}_keep_output")
    _KeepOutput(registers, function, _emit_copy(module, registers, find)).emit()
    return function


class _KeepOutput:
    """The body of `keep_output`: one vector after the other, of which a `write` has one.

    Until OUTPUT moves on, nobody sees what is behind it. Values that are kept over calls take registers from all that
    calls this, so what can be loaded again is.
    """

    def __init__(self, registers: RegisterFile, function: Any, copy: Any) -> None:
        self.registers = registers
        self.function = function
        self.lane, self.fields, self.memory, self.machine = function.args
        self.copy = copy
        self.word = registers.type.bits // 8
        self.b: Builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.refused = function.append_basic_block("refused")

    def emit(self) -> None:
        b = self.b
        begin, loop, vector, done = (self.function.append_basic_block(n) for n in ("begin", "loop", "vector", "done"))
        b.cbranch(self._is_possible(), begin, self.refused)
        b.position_at_end(begin)
        first = b.add(self._place(), self._headers())
        b.branch(loop)

        b.position_at_end(loop)
        index, target = b.phi(I32), b.phi(I64)  # a vector's number, and where its data goes
        index.add_incoming(ir.Constant(I32, 0), begin)
        target.add_incoming(first, begin)
        b.cbranch(b.icmp_unsigned("<", index, b.trunc(self._count(), I32)), vector, done)
        b.position_at_end(vector)
        behind = self._emit_vector(b.zext(index, I64), target)
        index.add_incoming(b.add(index, ir.Constant(I32, 1)), b.block)
        target.add_incoming(behind, b.block)
        b.branch(loop)

        b.position_at_end(done)
        self._emit_end(target)
        b.ret(ir.Constant(I32, 1))
        b.position_at_end(self.refused)
        b.ret(ir.Constant(I32, 0))

    def _is_possible(self) -> Value:
        """Whether this is the right call, and the record's headers fit."""
        b = self.b
        gathers = b.icmp_unsigned("!=", load_global(b, self.machine, offset=DeviceMachine.GATHERS), _ZERO)
        is_gathered = b.and_(b.icmp_unsigned("==", self._register(_A7), ir.Constant(I64, _WRITEV)), gathers)
        stream = b.sub(self._register(_A0), ir.Constant(I64, _STDOUT))
        possible = b.or_(self._is_write(), is_gathered)
        for condition in (
            b.icmp_unsigned("<", stream, ir.Constant(I64, 2)),
            b.icmp_unsigned("<", b.sub(self._count(), _ONE), ir.Constant(I64, _MAX_VECTORS)),
            b.icmp_unsigned("<=", self._headers(), self._room(self._place())),
        ):
            possible = b.and_(possible, condition)
        return possible

    def _emit_vector(self, index: Value, target: Value) -> Value:
        """Copy the data of a vector; gives where it ends."""
        b = self.b
        pair, data, known = (self.function.append_basic_block(n) for n in ("pair", "data", "known"))
        start, size = self._register(_A1), self._register(_A2)
        before = b.block
        b.cbranch(self._is_write(), data, pair)

        # The pair of address and size is read where it is copied to, in place of the data.
        b.position_at_end(pair)
        both = ir.Constant(I64, 2 * self.word)
        self._emit_copy(b.add(start, b.mul(index, both)), both, target)
        pair_start, pair_size = (self._word(b.add(target, ir.Constant(I64, at))) for at in (0, self.word))
        after = b.block
        b.branch(data)
        b.position_at_end(data)
        from_, count = b.phi(I64), b.phi(I64)
        for phi, write, gathered in ((from_, start, pair_start), (count, size, pair_size)):
            phi.add_incoming(write, before)
            phi.add_incoming(gathered, after)
        b.branch(known)
        b.position_at_end(known)
        return self._emit_copy(from_, count, target)

    def _emit_copy(self, source: Value, size: Value, target: Value) -> Value:
        """Copy guest memory; gives the end, or goes to `refused` where not all of it can be read or fits."""
        b = self.b
        copy, copied = (self.function.append_basic_block(n) for n in ("copy", "copied"))
        b.cbranch(b.icmp_unsigned("<=", size, self._room(target)), copy, self.refused)
        b.position_at_end(copy)
        end = b.call(self.copy, [self.fields, self.memory, self.machine, source, size, target])
        b.cbranch(b.icmp_unsigned("!=", end, _ZERO), copied, self.refused)
        b.position_at_end(copied)
        return end

    def _emit_end(self, end: Value) -> None:
        """Have the record ready, and the call's result."""
        b = self.b
        place = self._place()
        size = b.sub(b.sub(end, place), self._headers())
        header = b.or_(size, b.shl(self._count(), ir.Constant(I64, OUTPUT_WRITES_SHIFT)))
        header = b.or_(header, b.shl(self._register(_A0), ir.Constant(I64, OUTPUT_STREAM_SHIFT)))
        store_global(b, b.trunc(header, I32), place)
        following = b.and_(b.add(end, ir.Constant(I64, 3)), ir.Constant(I64, ~3))
        store_field(b, self.fields, LaneField.OUTPUT, following)
        bits, kept = self.registers.type.bits, self.registers.storage.bits
        store_global(b, size if bits == 64 else b.trunc(size, I32), self.lane, register_offset(_A0, kept))

    def _register(self, index: int) -> Value:
        """A register as 64 bits; it may be kept in more than the guest has of it."""
        bits, kept = self.registers.type.bits, self.registers.storage.bits
        return self._wide(load_global(self.b, self.lane, ir.IntType(bits), register_offset(index, kept)))

    def _word(self, place: Value) -> Value:
        """A word that may lie anywhere in device memory as 64 bits."""
        pointer = ir.PointerType(ir.IntType(8 * self.word), 1)
        return self._wide(self.b.load(self.b.inttoptr(place, pointer), align=1))

    def _wide(self, value: Value) -> Value:
        return value if value.type.width == 64 else self.b.zext(value, I64)

    def _is_write(self) -> Value:
        return self.b.icmp_unsigned("==", self._register(_A7), ir.Constant(I64, _WRITE))

    def _count(self) -> Value:
        """How many vectors there are."""
        return self.b.select(self._is_write(), _ONE, self._register(_A2))

    def _headers(self) -> Value:
        """Bytes in front of a record's data."""
        return self.b.mul(self._count(), ir.Constant(I64, OUTPUT_HEADER))

    def _place(self) -> Value:
        """Where the record goes."""
        return load_field(self.b, self.fields, LaneField.OUTPUT)

    def _room(self, place: Value) -> Value:
        return self.b.sub(load_field(self.b, self.fields, LaneField.OUTPUT_END), place)


def _emit_copy(module: Any, registers: RegisterFile, find: Any) -> Any:
    """Define `copy_output(fields, memory, machine, source, size, target)`: guest memory to the device's, which has room
    for it; gives where it ends, or 0 where some byte cannot be read."""
    function = internal_function(module, ir.FunctionType(I64, [I64] * 6), f"{registers.name}_copy_output")
    fields, memory, machine, start, size, first = function.args
    entry, loop, body, readable, done, missing = (
        function.append_basic_block(n) for n in ("entry", "loop", "body", "readable", "done", "missing")
    )
    b = ir.IRBuilder(entry)
    # For the host no range goes over the end of the addresses.
    last = b.sub(b.add(start, size), b.zext(b.icmp_unsigned("!=", size, _ZERO), I64))
    end = b.add(first, size)
    b.cbranch(b.icmp_unsigned("<=", start, last), loop, missing)
    b.position_at_end(loop)
    source, target = b.phi(I64), b.phi(I64)
    source.add_incoming(start, entry)
    target.add_incoming(first, entry)
    b.cbranch(b.icmp_unsigned("<", target, end), body, done)
    b.position_at_end(body)
    byte = b.call(find, [lane_for(b, fields, PERMISSION_READ), memory, machine, source])
    b.cbranch(b.icmp_unsigned("==", byte, _ZERO), missing, readable)
    b.position_at_end(readable)
    store_global(b, load_global(b, byte, I8), target)
    source.add_incoming(b.add(source, _ONE), readable)
    target.add_incoming(b.add(target, _ONE), readable)
    b.branch(loop)
    b.position_at_end(done)
    b.ret(target)
    b.position_at_end(missing)
    b.ret(_ZERO)
    return function
