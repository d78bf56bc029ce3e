"""One lane of one launch: take up its state, go between compiled regions and the interpreter, put it back.

This is the body of every device kernel. A launch gives each lane a slice of instructions, so that a kernel always comes
back: to serve calls, to bring in compiled code, and so that no guest can hold the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from vmjit.ir.registers import RegisterFile
from vmjit.kernels.device_code import code_space, find_slot
from vmjit.kernels.device_layout import (
    FORCE_INTERPRETER,
    GROUP,
    LEFT_MASK,
    STOPPED,
    DeviceCode,
    DeviceMachine,
    DeviceSlot,
    LaneField,
    registers_bytes,
)
from vmjit.kernels.device_memory import I1, I32, I64, Builder, Value, load_field, load_global, store_field
from vmjit.kernels.layout import STOP_NEED_CODE, STOP_RUNNING
from vmjit.stops import Stop


def emit_run_lane(
    b: Builder,
    machine: Value,
    lane: Value,
    *,
    registers: RegisterFile,
    interpret: Any,
    regions: Sequence[Any],
) -> None:
    """Emit at `b` what the thread of lane number `lane` (an i64) does; afterwards `b` stands behind it.

    `interpret` and `regions` are the functions of `translators/device_interpreter.py` and `device_region.py`; region i
    is number i + 1 in the slots' entries.
    """
    there, running, loop, again, out, done = (
        b.append_basic_block(n) for n in ("there", "running", "loop", "again", "out", "done")
    )
    b.cbranch(b.icmp_unsigned("<", lane, load_global(b, machine, offset=DeviceMachine.LANES)), there, done)

    b.position_at_end(there)
    group, within = b.lshr(lane, ir.Constant(I64, 5)), b.and_(lane, ir.Constant(I64, GROUP - 1))
    frame = b.add(
        load_global(b, machine, offset=DeviceMachine.FRAMES),
        b.mul(group, load_global(b, machine, offset=DeviceMachine.FRAME_BYTES)),
    )
    kept, word = registers.storage.bits, registers.type.bits // 8
    lane_registers = b.add(frame, b.mul(within, ir.Constant(I64, kept // 8)))
    tile = ir.Constant(I64, registers_bytes(len(registers), kept))
    fields = b.add(b.add(frame, tile), b.mul(within, ir.Constant(I64, 8)))
    stop = load_field(b, fields, LaneField.STOP)
    b.cbranch(b.icmp_unsigned("==", stop, ir.Constant(I64, STOP_RUNNING)), running, done)

    b.position_at_end(running)
    memory = b.add(
        load_global(b, machine, offset=DeviceMachine.PRIVATE),
        b.mul(group, load_global(b, machine, offset=DeviceMachine.PRIVATE_BYTES)),
    )
    memory = b.add(memory, b.mul(within, ir.Constant(I64, word)))
    budget = load_field(b, fields, LaneField.BUDGET)
    quantum = load_global(b, machine, offset=DeviceMachine.QUANTUM)
    slice_ = b.select(b.icmp_signed("<", budget, quantum), budget, quantum)
    store_field(b, fields, LaneField.LIMIT, b.add(load_field(b, fields, LaneField.RETIRED), slice_))
    space = code_space(b, machine, fields)
    before = b.block
    b.branch(loop)

    b.position_at_end(loop)
    left, force = b.phi(I64), b.phi(I1)
    left.add_incoming(slice_, before)
    force.add_incoming(ir.Constant(I1, 0), before)
    find, known, missing, enter, interpreted = (
        b.append_basic_block(n) for n in ("find", "known", "missing", "enter", "interpreted")
    )
    used_up = b.append_basic_block("used_up")
    b.cbranch(b.icmp_signed(">", left, ir.Constant(I64, 0)), find, used_up)
    b.position_at_end(find)
    pc = load_field(b, fields, LaneField.PC)
    # Loaded again each time: kept, they would take registers from all that is called from here.
    ranges, range_count = (space.load(b, field) for field in (DeviceCode.RANGES, DeviceCode.RANGE_COUNT))
    slot = find_slot(b, ranges, range_count, pc, known, missing)

    b.position_at_end(known)
    where = b.add(space.load(b, DeviceCode.SLOTS), b.mul(slot, ir.Constant(I64, DeviceSlot.BYTES)))
    entry = load_global(b, where, I32, DeviceSlot.ENTRY)
    usable = b.and_(b.icmp_unsigned("!=", entry, ir.Constant(I32, 0)), b.xor(force, ir.Constant(I1, 1)))
    b.cbranch(usable, enter, interpreted)

    results: list[tuple[Value, Any]] = []  # what the interpreter and the regions gave, and where
    b.position_at_end(interpreted)
    results.append((b.call(interpret, [lane_registers, fields, memory, machine, left]), b.block))
    b.branch(again)

    b.position_at_end(enter)
    number = b.lshr(entry, ir.Constant(I32, 8))
    switch = b.switch(number, interpreted)
    for i, region in enumerate(regions, 1):
        case = b.append_basic_block(f"region{i}")
        switch.add_case(ir.Constant(I32, i), case)
        b.position_at_end(case)
        entry_number = b.and_(entry, ir.Constant(I32, 0xFF))
        result = b.call(region, [lane_registers, fields, memory, machine, left, entry_number])
        ran = b.sub(left, b.and_(result, ir.Constant(I64, LEFT_MASK)))
        store_field(b, fields, LaneField.COMPILED, b.add(load_field(b, fields, LaneField.COMPILED), ran))
        results.append((result, b.block))
        b.branch(again)

    b.position_at_end(again)
    result = b.phi(I64)
    for value, block in results:
        result.add_incoming(value, block)
    after = b.and_(result, ir.Constant(I64, LEFT_MASK))
    forced = b.icmp_unsigned("!=", b.and_(result, ir.Constant(I64, FORCE_INTERPRETER)), ir.Constant(I64, 0))
    stopped = b.icmp_unsigned("!=", b.and_(result, ir.Constant(I64, STOPPED)), ir.Constant(I64, 0))
    left.add_incoming(after, again)
    force.add_incoming(forced, again)
    b.cbranch(stopped, out, loop)

    b.position_at_end(missing)
    store_field(b, fields, LaneField.STOP, ir.Constant(I64, STOP_NEED_CODE))
    b.branch(out)
    b.position_at_end(used_up)
    _, budget, slice_ = _bounds(b, fields)
    spent = b.icmp_signed("<=", budget, slice_)
    why = b.select(spent, ir.Constant(I64, int(Stop.BUDGET)), ir.Constant(I64, STOP_RUNNING))
    store_field(b, fields, LaneField.STOP, why)
    b.branch(out)

    b.position_at_end(out)
    left_at_end = b.phi(I64)
    for block, rest in ((again, after), (missing, left), (used_up, left)):
        left_at_end.add_incoming(rest, block)
    retired, budget, slice_ = _bounds(b, fields)
    used = b.sub(slice_, left_at_end)
    store_field(b, fields, LaneField.BUDGET, b.sub(budget, used))
    store_field(b, fields, LaneField.RETIRED, b.add(retired, used))
    b.branch(done)
    b.position_at_end(done)


def _bounds(b: Builder, fields: Value) -> tuple[Value, Value, Value]:
    """(retired, budget, slice) as they were at the start: kept in memory, since registers would be taken all along."""
    retired = load_field(b, fields, LaneField.RETIRED)
    return retired, load_field(b, fields, LaneField.BUDGET), b.sub(load_field(b, fields, LaneField.LIMIT), retired)
