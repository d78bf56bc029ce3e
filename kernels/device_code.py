"""Code spaces on devices, as code: which one a lane has, and where an instruction is in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from vmjit.kernels.device_layout import CodeRange, DeviceCode, DeviceMachine, LaneField
from vmjit.kernels.device_memory import I32, I64, Builder, Value, load_field, load_global


@dataclass(frozen=True)
class CodeSpaceValues:
    """A code space's descriptor at `address`, with what every jump needs of it loaded; see `DeviceCode`.

    The rest is loaded where it is used: values that stay in registers for the sake of rare uses cost every thread.
    """

    address: Value
    ranges: Value
    range_count: Value
    slots: Value

    def load(self, b: Builder, field: DeviceCode) -> Value:
        return load_global(b, self.address, offset=field)


def code_space(b: Builder, machine: Value, fields: Value) -> CodeSpaceValues:
    """The code space of the lane whose fields these are."""
    spaces = load_global(b, machine, offset=DeviceMachine.CODE_SPACES)
    number = load_field(b, fields, LaneField.CODE)
    space = b.add(spaces, b.mul(number, ir.Constant(I64, DeviceCode.BYTES)))
    wanted = (DeviceCode.RANGES, DeviceCode.RANGE_COUNT, DeviceCode.SLOTS)
    return CodeSpaceValues(space, *(load_global(b, space, offset=field) for field in wanted))


def find_slot(b: Builder, ranges: Value, count: Value, pc: Value, known: Any, missing: Any) -> Value:
    """Look up the slot of the instruction at `pc`; go to `known`, where the result is its number, or to `missing`."""
    before = b.block
    head, body, inside, following = (b.append_basic_block(n) for n in ("range", "in_range", "inside", "next_range"))
    b.branch(head)
    b.position_at_end(head)
    index = b.phi(I64)
    index.add_incoming(ir.Constant(I64, 0), before)
    b.cbranch(b.icmp_unsigned("<", index, count), body, missing)
    b.position_at_end(body)
    where = b.add(ranges, b.mul(index, ir.Constant(I64, CodeRange.BYTES)))
    offset = b.sub(pc, load_global(b, where, offset=CodeRange.LO))
    b.cbranch(b.icmp_unsigned("<", offset, load_global(b, where, offset=CodeRange.SIZE)), inside, following)
    b.position_at_end(following)
    index.add_incoming(b.add(index, ir.Constant(I64, 1)), following)
    b.branch(head)
    b.position_at_end(inside)
    table = load_global(b, where, offset=CodeRange.TABLE)
    entry = b.add(table, b.shl(b.lshr(offset, ir.Constant(I64, 1)), ir.Constant(I64, 2)))
    slot = b.zext(load_global(b, entry, I32), I64)
    b.cbranch(b.icmp_unsigned("!=", slot, ir.Constant(I64, 0)), known, missing)
    return slot
