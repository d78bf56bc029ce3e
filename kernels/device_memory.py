"""Guest memory access on devices, as code: two windows, then the table of spans byte by byte.

The same plan as on the CPU (`kernels/memory.py`) with two differences: a lane's memory is interleaved with its group's
by words, and accesses must be naturally aligned, so that one comparison decides both "inside" and "aligned". What
fails it is done by the interpreter with `slow_load` and `slow_store`. Addresses are integers until the very access,
which keeps the code inside what every target's LLVM dialect accepts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from vmjit.kernels.device_layout import GROUP, DeviceMachine, LaneField, field_offset
from vmjit.kernels.layout import PERMISSION_READ, PERMISSION_WRITE, AddressSpaceRow, Span
from vmjit.kernels.page_bits import PAGE_SHIFT
from vmjit.kernels.row_search import first_row
from vmjit.stops import Access

I1, I8, I16, I32, I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
_GLOBAL = 1  # the address space of device memory, in NVPTX and AMDGPU alike

Value = Any
Builder = Any


def load_global(b: Builder, address: Value, type_: Any = I64, offset: int = 0) -> Value:
    """Load from device memory at `address` (an i64) plus a constant."""
    return b.load(_pointer(b, address, type_, offset), align=max(type_.width // 8, 1))


def store_global(b: Builder, value: Value, address: Value, offset: int = 0) -> None:
    b.store(value, _pointer(b, address, value.type, offset), align=max(value.type.width // 8, 1))


def _pointer(b: Builder, address: Value, type_: Any, offset: int) -> Value:
    where = b.add(address, ir.Constant(I64, offset)) if offset else address
    return b.inttoptr(where, ir.PointerType(type_, _GLOBAL))


def load_field(b: Builder, wide: Value, field: LaneField) -> Value:
    return load_global(b, wide, offset=field_offset(field))


def store_field(b: Builder, wide: Value, field: LaneField, value: Value) -> None:
    store_global(b, value, wide, field_offset(field))


@dataclass(frozen=True)
class DeviceWindow:
    """Guest addresses a with a - lo < size lie in memory from `base` on; `interleaved` by words with a group's lanes.

    `lo` and `size` are values of the guest's width, `base` an i64; lo, size and base are multiples of the word.
    `near` promises that what is interleaved takes less than 4 GiB for the group.
    """

    base: Value
    lo: Value
    size: Value
    interleaved: bool
    near: bool = False


def aligned_window(lo: int, size: int, offset: int, word: int) -> tuple[int, int, int]:
    """The part of a window that consists of whole words: (lo, size, offset). The rest is left to the spans."""
    start = -(-lo // word) * word
    end = (lo + size) // word * word
    return (start, end - start, offset + start - lo) if end > start else (0, 0, 0)


def window_access(
    b: Builder, window: DeviceWindow, address: Value, size: int, *, aligned: bool = False
) -> tuple[Value, Value]:
    """(address in device memory, whether the access is aligned and inside). `aligned`: that much is known."""
    xlen = address.type
    offset = b.sub(address, window.lo)
    shift = size.bit_length() - 1
    if aligned or not shift:
        inside = b.icmp_unsigned("<", offset, window.size)
        index = b.lshr(offset, ir.Constant(xlen, shift))
    elif xlen.width == 32:
        # Rotated, the bits of a misaligned address stand at the top, where the comparison finds them.
        index = _rotate_right(b, offset, shift)
        inside = b.icmp_unsigned("<", index, b.lshr(window.size, ir.Constant(xlen, shift)))
    else:
        low = b.icmp_unsigned("==", b.and_(b.trunc(offset, I32), ir.Constant(I32, size - 1)), ir.Constant(I32, 0))
        inside = b.and_(b.icmp_unsigned("<", offset, window.size), low)
        index = b.lshr(offset, ir.Constant(xlen, shift))
    if aligned and window.interleaved and size == xlen.width // 8:
        return b.add(window.base, b.mul(b.zext(_narrow(b, offset), I64), ir.Constant(I64, GROUP))), inside
    return _place(b, window, offset, index, size), inside


def _rotate_right(b: Builder, value: Value, amount: int) -> Value:
    type_ = value.type
    function = b.module.declare_intrinsic("llvm.fshr", [type_], ir.FunctionType(type_, [type_] * 3))
    return b.call(function, [value, value, ir.Constant(type_, amount)])


def place_in_window(b: Builder, window: DeviceWindow, offset: Value) -> Value:
    """Where the byte at an offset of the guest's width lies."""
    return _place(b, window, offset, offset, 1)


def _place(b: Builder, window: DeviceWindow, offset: Value, index: Value, size: int) -> Value:
    """Where the element at `offset`, number `index` of its size, lies.

    Windows are smaller than 4 GiB, so that 32 bits count, and a product of 32 bits added to 64 is one instruction.
    """
    word = offset.type.width // 8
    if not window.interleaved or size == word:
        step = size * (GROUP if window.interleaved else 1)
        return b.add(window.base, b.mul(b.zext(_narrow(b, index), I64), ir.Constant(I64, step)))
    # The word starts 32 times as far from the base; the offset itself is in the sum once.
    start = b.and_(_narrow(b, offset), ir.Constant(I32, -word))
    if window.near:
        far = b.add(b.mul(start, ir.Constant(I32, GROUP - 1)), _narrow(b, offset))
        return b.add(window.base, b.zext(far, I64))
    return b.add(b.add(window.base, _low(b, offset)), b.mul(b.zext(start, I64), ir.Constant(I64, GROUP - 1)))


def _narrow(b: Builder, value: Value) -> Value:
    return value if value.type.width == 32 else b.trunc(value, I32)


def _low(b: Builder, value: Value) -> Value:
    """An offset inside a window as an i64."""
    return b.zext(value, I64) if value.type.width == 32 else value


# -- pages


def hull_bits(b: Builder, wide: Value, machine: Value, stores: Value) -> Value:
    """The address of the bits of a lane's hull: those of pages that can be read, or written if it `stores`, an i1."""
    first = b.add(load_field(b, wide, LaneField.SPACE), ir.Constant(I64, AddressSpaceRow.PAGES))
    first = b.add(first, load_global(b, machine, offset=DeviceMachine.HULL_BITS))
    writable = b.add(first, load_global(b, machine, offset=DeviceMachine.BITMAP_BYTES))
    return b.select(stores, writable, first)


def page_bit(b: Builder, bits: Value, offset: Value) -> Value:
    """The bit of the page at a byte offset, an i64 that may be negative, from the page that `bits` begin with."""
    place = b.add(bits, b.shl(b.ashr(offset, ir.Constant(I64, PAGE_SHIFT + 5)), ir.Constant(I64, 2)))
    page = b.and_(b.lshr(b.trunc(offset, I32), ir.Constant(I32, PAGE_SHIFT)), ir.Constant(I32, 31))
    return b.trunc(b.lshr(load_global(b, place, I32), page), I1)


# -- accesses in no window

SLOW_LOAD_TYPE = ir.FunctionType(I64, [I64, I64, I64, I64, I32])
SLOW_STORE_TYPE = ir.FunctionType(ir.VoidType(), [I64, I64, I64, I64, I32, I64])


def emit_slow_access(module: Any, prefix: str, xlen: int, find: Any) -> tuple[Any, Any]:
    """Define `slow_load(wide, private, machine, address, size)` and `slow_store(…, size, value)`.

    Both work byte by byte with `find`, what `emit_find` gives, and leave 0 in the lane's ACCESS, or, when any byte is
    not permitted, the access and its address in ACCESS and FAULT_ADDRESS; a store then writes nothing.
    """
    return _emit_slow_load(module, prefix, xlen, find), _emit_slow_store(module, prefix, xlen, find)


def internal_function(module: Any, type_: Any, name: str) -> Any:
    """Define a function that is called where it is used, not copied there."""
    function = ir.Function(module, type_, name)
    function.linkage = "internal"
    function.attributes.add("nounwind")
    function.attributes.add("noinline")
    return function


FIND_TYPE = ir.FunctionType(I64, [I64, I64, I64, I64])


def lane_for(b: Builder, wide: Value, permission: int) -> Value:
    """What `find` takes of a lane: an argument more would cost registers in all kernels that call it."""
    return b.or_(wide, ir.Constant(I64, permission))


def emit_find(module: Any, prefix: str, xlen: int) -> Any:
    """Define `find(lane, private, machine, address)`: the device address of one guest byte, or 0; `lane` is what
    `lane_for` gives.

    It goes through the table of spans, and asks for the bit of the byte's page where mappings change; then through what
    is mapped far from the lane's memory.
    """
    function = internal_function(module, FIND_TYPE, f"{prefix}_find")
    lane, private, machine, address = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    far, some_far, missing = (function.append_basic_block(n) for n in ("far", "some_far", "missing"))
    spans = load_global(b, machine, offset=DeviceMachine.SPANS)
    span = _search(b, spans, load_global(b, machine, offset=DeviceMachine.SPAN_COUNT), address, lane, far)
    by_page = b.sub(address, load_global(b, machine, offset=DeviceMachine.PAGES_LO))
    asks, permitted = b.append_basic_block("asks"), b.append_basic_block("permitted")
    size = load_global(b, machine, offset=DeviceMachine.PAGES_SIZE)
    b.cbranch(b.icmp_unsigned("<", by_page, size), asks, permitted)
    b.position_at_end(asks)
    stores = b.icmp_unsigned("!=", b.and_(b.trunc(lane, I32), ir.Constant(I32, PERMISSION_WRITE)), ir.Constant(I32, 0))
    bits = hull_bits(b, _fields(b, lane), machine, stores)
    offset = b.sub(address, load_global(b, machine, offset=DeviceMachine.HULL_LO))
    b.cbranch(page_bit(b, bits, offset), permitted, missing)
    b.position_at_end(permitted)
    place = _place_in_span(b, span, address)
    common = b.add(load_global(b, machine, offset=DeviceMachine.SHARED), place)
    shared = b.icmp_unsigned("!=", load_global(b, span, offset=Span.SHARED), ir.Constant(I64, 0))
    b.ret(b.select(shared, common, _own(b, private, place, xlen)))

    b.position_at_end(far)
    row = load_field(b, _fields(b, lane), LaneField.SPACE)
    b.cbranch(b.icmp_unsigned("==", row, ir.Constant(I64, 0)), missing, some_far)
    b.position_at_end(some_far)
    bitmaps = b.shl(load_global(b, machine, offset=DeviceMachine.BITMAP_BYTES), ir.Constant(I64, 1))
    row = b.add(row, bitmaps)
    rows = b.add(row, ir.Constant(I64, AddressSpaceRow.PAGES + 8))
    span = _search(b, rows, load_global(b, row, offset=AddressSpaceRow.PAGES), address, lane, missing)
    b.ret(_own(b, private, _place_in_span(b, span, address), xlen))
    b.position_at_end(missing)
    b.ret(ir.Constant(I64, 0))
    return function


def _fields(b: Builder, lane: Value) -> Value:
    return b.and_(lane, ir.Constant(I64, ~(PERMISSION_READ | PERMISSION_WRITE)))


def _place_in_span(b: Builder, span: Value, address: Value) -> Value:
    distance = b.sub(address, load_global(b, span, offset=Span.LO))
    return b.add(load_global(b, span, offset=Span.OFFSET), distance)


def _own(b: Builder, private: Value, place: Value, xlen: int) -> Value:
    """The device address of a byte of the lane's own memory."""
    within = b.and_(place, ir.Constant(I64, xlen // 8 - 1))
    return b.add(b.add(private, within), b.mul(b.sub(place, within), ir.Constant(I64, GROUP)))


def _search(b: Builder, rows: Value, count: Value, address: Value, lane: Value, missing: Any) -> Value:
    """The address of the span that a byte is in with a permission; goes to `missing` where it is in none."""

    def look(index: Value) -> tuple[Value, Value]:
        span = b.add(rows, b.mul(index, ir.Constant(I64, Span.BYTES)))
        inside = b.and_(
            b.icmp_unsigned(">=", address, load_global(b, span, offset=Span.LO)),
            b.icmp_unsigned("<=", address, load_global(b, span, offset=Span.LAST)),
        )
        wanted = b.and_(b.trunc(lane, I32), ir.Constant(I32, PERMISSION_READ | PERMISSION_WRITE))
        given = b.and_(b.trunc(load_global(b, span, offset=Span.PERMISSIONS), I32), wanted)
        return span, b.and_(inside, b.icmp_unsigned("!=", given, ir.Constant(I32, 0)))

    return first_row(b, count, missing, look)


class _ByteLoop:
    """`for i in range(size)` with the device address of each byte; `fault` is where a byte is missing."""

    def __init__(self, b: Builder, find: Any, args: Any, xlen: int, access: Access) -> None:
        self.b = b
        wide, private, machine, address, size = args[:5]
        permission = PERMISSION_WRITE if access is Access.WRITE else PERMISSION_READ
        before = b.block
        self.head, body, fault, self.good, self.done = (
            b.append_basic_block(n) for n in ("head", "body", "fault", "good", "done")
        )
        b.branch(self.head)
        b.position_at_end(self.head)
        self.index = b.phi(I32)
        self.index.add_incoming(ir.Constant(I32, 0), before)
        b.cbranch(b.icmp_unsigned("<", self.index, size), body, self.done)
        b.position_at_end(body)
        where = b.add(address, b.zext(self.index, I64))
        if xlen == 32:
            where = b.and_(where, ir.Constant(I64, 0xFFFFFFFF))
        self.place = b.call(find, [lane_for(b, wide, permission), private, machine, where])
        b.cbranch(b.icmp_unsigned("==", self.place, ir.Constant(I64, 0)), fault, self.good)
        b.position_at_end(fault)
        store_field(b, wide, LaneField.FAULT_ADDRESS, address)
        store_field(b, wide, LaneField.ACCESS, ir.Constant(I64, int(access)))
        b.ret_void() if b.function.ftype.return_type == ir.VoidType() else b.ret(ir.Constant(I64, 0))
        b.position_at_end(self.good)

    def shift(self) -> Value:
        """Bit position of the current byte."""
        return self.b.zext(self.b.shl(self.index, ir.Constant(I32, 3)), I64)

    def close(self) -> None:
        self.index.add_incoming(self.b.add(self.index, ir.Constant(I32, 1)), self.b.block)
        self.b.branch(self.head)
        self.b.position_at_end(self.done)


def _emit_slow_load(module: Any, prefix: str, xlen: int, find: Any) -> Any:
    function = internal_function(module, SLOW_LOAD_TYPE, f"{prefix}_slow_load")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    store_field(b, function.args[0], LaneField.ACCESS, ir.Constant(I64, 0))
    entry = b.block
    loop = _ByteLoop(b, find, function.args, xlen, Access.READ)
    with b.goto_block(loop.head):
        b.position_at_start(loop.head)
        value = b.phi(I64)
        value.add_incoming(ir.Constant(I64, 0), entry)
    byte = b.zext(load_global(b, loop.place, I8), I64)
    value.add_incoming(b.or_(value, b.shl(byte, loop.shift())), b.block)
    loop.close()
    b.ret(value)
    return function


def _emit_slow_store(module: Any, prefix: str, xlen: int, find: Any) -> Any:
    function = internal_function(module, SLOW_STORE_TYPE, f"{prefix}_slow_store")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    store_field(b, function.args[0], LaneField.ACCESS, ir.Constant(I64, 0))
    check = _ByteLoop(b, find, function.args, xlen, Access.WRITE)
    check.close()
    write = _ByteLoop(b, find, function.args, xlen, Access.WRITE)
    store_global(b, b.trunc(b.lshr(function.args[5], write.shift()), I8), write.place)
    write.close()
    b.ret_void()
    return function
