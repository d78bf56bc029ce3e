"""The loop over lanes: takes lanes from a list until it is used up, runs each for a slice, writes its state back.

Several worker threads run it on one list; an atomic cursor hands out lanes. A worker returns early when the attention
flag is up (an interrupt) or when its lane needs code that is not decoded yet.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from vmjit.kernels.emit import (
    HANDLER_CONVENTION,
    I8,
    I32,
    I64,
    PTR,
    VOID,
    Builder,
    Value,
    element,
    field_pointer,
    load_field,
    store_field,
)
from vmjit.kernels.layout import (
    MODE_MEET,
    SLOT_BYTES,
    STOP_NEED_CODE,
    AddressSpaceRow,
    CodeSpaceBlock,
    Frame,
    GroupState,
    MachineBlock,
    register_offset,
)
from vmjit.kernels.page_bits import WIDEST, limit_for
from vmjit.stops import Stop

RUN_LANES_TYPE = ir.FunctionType(VOID, [PTR, PTR, PTR, I64, PTR])

# Field of the code space -> field of the frame it is copied to when a lane starts.
_CODE_FIELDS = (
    (CodeSpaceBlock.LO, Frame.CODE_LO),
    (CodeSpaceBlock.SIZE, Frame.CODE_SIZE),
    (CodeSpaceBlock.TABLE, Frame.CODE_TABLE),
    (CodeSpaceBlock.MORE, Frame.CODE_MORE),
    (CodeSpaceBlock.MORE_COUNT, Frame.CODE_MORE_COUNT),
    (CodeSpaceBlock.SLOTS, Frame.SLOTS),
    (CodeSpaceBlock.SLOT_PCS, Frame.SLOT_PCS),
    (CodeSpaceBlock.SLOT_RESTS, Frame.SLOT_RESTS),
)


def lane_array(b: Builder, machine: Value, field: MachineBlock, index: Value, type_: Any) -> Value:
    """Pointer to one lane's element of a lane state array."""
    return element(b, load_field(b, machine, field, PTR), index, type_)


def emit_run_lane(module: Any, xlen: Any, storage: Any, register_indices: list[int], enter: Any) -> Any:
    """Define `run_lane(machine, frame, lane, quantum) -> stop`: a slice of about `quantum` instructions of one lane, at
    most these.

    `storage` is the type of a register in lane state, at least as wide as `xlen`. `register_indices` are the rows of
    the registers array that hold state (not the zero register); `enter` is the handler that starts a lane at the pc
    given as its ip. A lane whose slice ended, but not its budget, is RUNNING.
    """
    function = ir.Function(module, ir.FunctionType(I64, [PTR, PTR, I64, I64]), "run_lane")
    function.attributes.add("nounwind")
    function.linkage = "internal"
    machine, frame, lane, quantum = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    budget_pointer = lane_array(b, machine, MachineBlock.BUDGET, lane, I64)
    retired_pointer = lane_array(b, machine, MachineBlock.RETIRED, lane, I64)
    pc_pointer = lane_array(b, machine, MachineBlock.PC, lane, I64)
    budget, retired = b.load(budget_pointer, typ=I64), b.load(retired_pointer, typ=I64)
    slice_ = b.select(b.icmp_signed("<", budget, quantum), budget, quantum)
    interleaved = _load_lane(b, machine, frame, lane, storage, register_indices)
    store_field(b, frame, Frame.LIMIT, b.add(retired, slice_))
    by_budget = b.icmp_signed("<=", budget, quantum)
    store_field(b, frame, Frame.SLICE, b.select(by_budget, ir.Constant(I64, 0), slice_))
    window_base = load_field(b, frame, Frame.WINDOW0_BASE, PTR)
    lo, limit = (_as_xlen(b, load_field(b, frame, f), xlen) for f in (Frame.WINDOW0_LO, Frame.WINDOW0_LIMIT))
    # Interleaved memory has no window: its accesses go byte by byte.
    limit = b.select(interleaved, ir.Constant(xlen, 0), limit)
    start = b.inttoptr(b.load(pc_pointer, typ=I64), PTR)
    b.call(enter, [frame, start, slice_, window_base, lo, limit], cconv=HANDLER_CONVENTION)

    pc, left = _where_it_stopped(b, frame)
    used = b.sub(slice_, left)
    b.store(pc, pc_pointer)
    b.store(b.add(retired, used), retired_pointer)
    remaining_budget = b.sub(budget, used)
    b.store(remaining_budget, budget_pointer)
    stop = load_field(b, frame, Frame.STOP)
    goes_on = b.and_(
        b.icmp_unsigned("==", stop, ir.Constant(I64, int(Stop.BUDGET))),
        b.icmp_signed(">", remaining_budget, ir.Constant(I64, 0)),
    )
    stop = b.select(goes_on, ir.Constant(I64, int(Stop.RUNNING)), stop)
    b.store(b.trunc(stop, I32), lane_array(b, machine, MachineBlock.STOP, lane, I32))
    b.store(load_field(b, frame, Frame.ADDRESS), lane_array(b, machine, MachineBlock.FAULT_ADDRESS, lane, I64))
    b.store(
        b.trunc(load_field(b, frame, Frame.ACCESS), I8), lane_array(b, machine, MachineBlock.FAULT_ACCESS, lane, I8)
    )
    _store_registers(b, machine, frame, lane, storage, register_indices)
    b.ret(stop)
    return function


def emit_run_lanes(module: Any, run_lane: Any) -> Any:
    """Define `run_lanes(machine, frame, lanes, count, cursor)`."""
    function = ir.Function(module, RUN_LANES_TYPE, "run_lanes")
    function.attributes.add("nounwind")
    machine, frame, lanes, count, cursor = function.args
    entry = function.append_basic_block("entry")
    head = function.append_basic_block("head")
    take = function.append_basic_block("take")
    run = function.append_basic_block("run")
    out = function.append_basic_block("out")
    b = ir.IRBuilder(entry)
    store_field(b, frame, Frame.MODE, ir.Constant(I64, 0))
    b.branch(head)

    b.position_at_end(head)
    attention = b.load_atomic(load_field(b, machine, MachineBlock.ATTENTION, PTR), "monotonic", 4, typ=I32)
    b.cbranch(b.icmp_unsigned("!=", attention, ir.Constant(I32, 0)), out, take)
    b.position_at_end(take)
    position = b.atomic_rmw("add", cursor, ir.Constant(I64, 1), "monotonic")
    b.cbranch(b.icmp_unsigned("<", position, count), run, out)

    b.position_at_end(run)
    lane = b.zext(b.load(element(b, lanes, position, I32), typ=I32), I64)
    stop = b.call(run_lane, [machine, frame, lane, load_field(b, machine, MachineBlock.QUANTUM)])
    b.cbranch(b.icmp_unsigned("==", stop, ir.Constant(I64, STOP_NEED_CODE)), out, head)

    b.position_at_end(out)
    b.ret_void()
    return function


def _as_xlen(b: Builder, value: Value, xlen: Any) -> Value:
    return value if xlen.width == 64 else b.trunc(value, xlen)


def _registers(b: Builder, machine: Value, lane: Value, storage: Any, indices: list[int]) -> list[tuple[int, Value]]:
    base = load_field(b, machine, MachineBlock.REGISTERS, PTR)
    stride = load_field(b, machine, MachineBlock.REGISTER_STRIDE)
    return [(i, element(b, base, b.add(b.mul(stride, ir.Constant(I64, i)), lane), storage)) for i in indices]


def _load_lane(b: Builder, machine: Value, frame: Value, lane: Value, storage: Any, indices: list[int]) -> Value:
    """Take up a lane; whether its memory is interleaved."""
    for index, pointer in _registers(b, machine, lane, storage, indices):
        b.store(b.load(pointer, typ=storage), field_pointer(b, frame, register_offset(index)))
    stride = load_field(b, machine, MachineBlock.PRIVATE_STRIDE)
    shift = load_field(b, machine, MachineBlock.GROUP_SHIFT)
    state = group_state(b, machine, b.lshr(lane, shift))
    interleaved = b.icmp_unsigned("!=", load_field(b, state, GroupState.INTERLEAVED), ir.Constant(I64, 0))
    within = b.and_(lane, b.sub(b.shl(ir.Constant(I64, 1), shift), ir.Constant(I64, 1)))
    first = b.select(interleaved, b.sub(lane, within), lane)
    word = b.select(interleaved, b.shl(within, ir.Constant(I64, 2)), ir.Constant(I64, 0))
    offset = b.add(b.mul(stride, first), word)
    private = element(b, load_field(b, machine, MachineBlock.PRIVATE, PTR), offset, I8)
    store_field(b, frame, Frame.PRIVATE, private)
    by = b.select(interleaved, b.add(shift, ir.Constant(I64, 2)), ir.Constant(I64, 2))
    store_field(b, frame, Frame.WORD_SHIFT, by)
    # Compiled scalar code is for memory that is not interleaved.
    mode = b.and_(load_field(b, frame, Frame.MODE), ir.Constant(I64, MODE_MEET))
    store_field(b, frame, Frame.MODE, b.or_(mode, b.zext(interleaved, I64)))
    store_field(
        b, frame, Frame.WINDOW0_BASE, element(b, private, load_field(b, machine, MachineBlock.WINDOW0_OFFSET), I8)
    )
    index = b.zext(b.load(lane_array(b, machine, MachineBlock.CODE_INDEX, lane, I32), typ=I32), I64)
    space = b.load(lane_array(b, machine, MachineBlock.CODE_SPACES, index, PTR), typ=PTR)
    for source, target in _CODE_FIELDS:
        store_field(b, frame, target, load_field(b, space, source))
    for field in (Frame.ADDRESS, Frame.ACCESS, Frame.TAIL_RECORD):
        store_field(b, frame, field, ir.Constant(I64, 0))
    spaces = load_field(b, machine, MachineBlock.SPACES)
    with b.if_then(b.icmp_unsigned("!=", spaces, ir.Constant(I64, 0))):
        _load_space(b, machine, frame, lane, private, interleaved)
    return interleaved


def space_row(b: Builder, machine: Value, lane: Value) -> Value:
    """Pointer to the AddressSpaceRow of a lane."""
    number = b.zext(b.load(lane_array(b, machine, MachineBlock.SPACE_INDEX, lane, I32), typ=I32), I64)
    rows, size = load_field(b, machine, MachineBlock.SPACES, PTR), load_field(b, machine, MachineBlock.SPACE_BYTES)
    return element(b, rows, b.mul(number, size), I8)


def _load_space(b: Builder, machine: Value, frame: Value, lane: Value, private: Value, interleaved: Value) -> None:
    """What a lane may access."""
    zero = ir.Constant(I64, 0)
    row = space_row(b, machine, lane)
    reach = load_field(b, row, AddressSpaceRow.REACH)
    store_field(b, frame, Frame.REACH, reach)
    store_field(b, frame, Frame.WINDOW0_LIMIT, limit_for(b, reach, ir.Constant(I64, WIDEST)))
    regular = b.icmp_unsigned("!=", load_field(b, row, AddressSpaceRow.REGULAR), zero)
    shared = b.select(regular, load_field(b, machine, MachineBlock.SHARED_LIMIT), zero)
    store_field(b, frame, Frame.WINDOW1_LIMIT, shared)
    limit = b.select(interleaved, zero, load_field(b, machine, MachineBlock.HULL_LIMIT))
    store_field(b, frame, Frame.HULL_LIMIT, limit)
    hull = element(b, private, load_field(b, machine, MachineBlock.HULL_OFFSET), I8)
    store_field(b, frame, Frame.HULL_BASE, hull)
    pages = element(b, row, ir.Constant(I64, AddressSpaceRow.PAGES), I8)
    bits = element(b, pages, load_field(b, machine, MachineBlock.HULL_BITS), I8)
    store_field(b, frame, Frame.READABLE, bits)
    bitmap = load_field(b, machine, MachineBlock.BITMAP_BYTES)
    store_field(b, frame, Frame.WRITABLE, element(b, bits, bitmap, I8))
    store_field(b, frame, Frame.FAR, element(b, pages, b.shl(bitmap, ir.Constant(I64, 1)), I8))


def group_state(b: Builder, machine: Value, group: Value) -> Value:
    """Pointer to a lane group's row."""
    rows = load_field(b, machine, MachineBlock.GROUPS, PTR)
    return element(b, rows, b.mul(group, ir.Constant(I64, GroupState.BYTES)), I8)


def _store_registers(b: Builder, machine: Value, frame: Value, lane: Value, storage: Any, indices: list[int]) -> None:
    for index, pointer in _registers(b, machine, lane, storage, indices):
        b.store(load_field(b, frame, register_offset(index), storage), pointer)


def _where_it_stopped(b: Builder, frame: Value) -> tuple[Value, Value]:
    """(pc, instructions left) of a lane that returned.

    A stop at a slot takes its pc and the instructions of the block that did not run from the side tables. A slot in
    the frame's scratch space stands for one of the block in TAIL_RECORD.
    """
    ip = load_field(b, frame, Frame.STOP_IP)
    remaining = load_field(b, frame, Frame.REMAINING)
    explicit = b.block
    at_slot = b.append_basic_block("at_slot")
    stopped = b.append_basic_block("stopped")
    stop_pc = load_field(b, frame, Frame.STOP_PC)
    b.cbranch(b.icmp_unsigned("==", ip, ir.Constant(I64, 0)), stopped, at_slot)
    b.position_at_end(at_slot)
    in_scratch = b.sub(ip, b.ptrtoint(field_pointer(b, frame, Frame.SCRATCH), I64))
    tail = b.icmp_unsigned("<", in_scratch, ir.Constant(I64, Frame.BYTES - Frame.SCRATCH))
    behind_record = b.add(load_field(b, frame, Frame.TAIL_RECORD), ir.Constant(I64, SLOT_BYTES))
    real_ip = b.select(tail, b.add(behind_record, in_scratch), ip)
    index = b.udiv(b.sub(real_ip, load_field(b, frame, Frame.SLOTS)), ir.Constant(I64, SLOT_BYTES))
    slot_pc = b.load(element(b, load_field(b, frame, Frame.SLOT_PCS, PTR), index, I64), typ=I64)
    rest = b.zext(b.load(element(b, load_field(b, frame, Frame.SLOT_RESTS, PTR), index, I8), typ=I8), I64)
    refunded = b.add(remaining, rest)
    b.branch(stopped)
    b.position_at_end(stopped)
    pc, left = b.phi(I64), b.phi(I64)
    pc.add_incoming(stop_pc, explicit)
    pc.add_incoming(slot_pc, at_slot)
    left.add_incoming(remaining, explicit)
    left.add_incoming(refunded, at_slot)
    return pc, left
