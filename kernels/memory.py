"""Guest memory access, as code: the windows that nearly all accesses fall into, and the spans that decide the rest.

Window 0 is the lane's private memory (data, heap and stack), readable and writable; window 1 is the image that all
lanes share, readable. An access inside a window costs a subtraction, a comparison and the access. Everything else
(other segments, accesses that straddle two spans, faults) goes byte by byte through the table of spans, in
`slow_load` and `slow_store`, which also record a fault's address and kind.

Where lanes' mappings change, window 0 is what of the private memory is surely there, and the rest of it, the *hull*,
has a bit for each page, which accesses in no window ask first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from vmjit.kernels.emit import I1, I8, I64, PTR, Builder, Callee, Value, assume_rare, element, load_field, store_field
from vmjit.kernels.group_emitter import counted
from vmjit.kernels.layout import (
    ACCESS_HOOK_FAILED,
    HOOK_FAILS,
    HOOK_GOES_ON,
    PERMISSION_READ,
    PERMISSION_WRITE,
    Frame,
    MappedRange,
    Span,
)
from vmjit.kernels.page_bits import PAGE_SHIFT, page_bit
from vmjit.kernels.row_search import first_row
from vmjit.stops import Access


@dataclass(frozen=True)
class Window:
    """Guest addresses lo ≤ a with a - lo < limit (for the widest access) are at base + (a - lo)."""

    base: Value
    lo: Value
    limit: Value


def window_offset(
    b: Builder, window: Window, address: Value, size: int, *, exact: int | None = None
) -> tuple[Any, Any]:
    """(offset as i64, whether the access lies inside). `exact`: the window's size in bytes, if known when compiling."""
    offset = b.sub(address, window.lo)
    limit = window.limit if exact is None else ir.Constant(address.type, max(exact - size + 1, 0))
    inside = b.icmp_unsigned("<", offset, limit)
    return (offset if offset.type.width == 64 else b.zext(offset, I64)), inside


def load_at(b: Builder, base: Value, offset: Value, type_: Any) -> Value:
    return b.load(element(b, base, offset, I8), typ=type_, align=1)


def store_at(b: Builder, base: Value, offset: Value, value: Value) -> None:
    b.store(value, element(b, base, offset, I8), align=1)


SLOW_LOAD_TYPE = ir.FunctionType(I1, [PTR, I64, I64, I64, PTR])
SLOW_STORE_TYPE = ir.FunctionType(I1, [PTR, I64, I64, I64, I64])
PAGES_PERMIT_TYPE = ir.FunctionType(I1, [PTR, I64, I64])


def emit_slow_access(module: Any) -> tuple[Any, Any]:
    """Define `slow_load(frame, address, size, mask, out)` and `slow_store(frame, address, size, mask, value)`.

    Both give false, with the frame's ADDRESS and ACCESS set, when any byte of the access is not permitted; a store
    then writes nothing. `mask` is the guest's address mask: addresses wrap at it.
    """
    find = _emit_find(module)
    anywhere = _emit_find_anywhere(module, find)
    mapped = _emit_mapped(module)
    far_load, far_store = _begin(module, SLOW_LOAD_TYPE, "far_load"), _begin(module, SLOW_STORE_TYPE, "far_store")
    _emit_load(far_load, anywhere, None)
    _emit_store(far_store, anywhere, None)
    load, store = _begin(module, SLOW_LOAD_TYPE, "slow_load"), _begin(module, SLOW_STORE_TYPE, "slow_store")
    _try_mapped(load, mapped, MappedRange.READ)
    _emit_load(load, find, far_load.function)
    _try_mapped(store, mapped, MappedRange.WRITE)
    _emit_store(store, find, far_store.function)
    return load.function, store.function


def _begin(module: Any, type_: Any, name: str) -> Builder:
    """At the start of a function for the accesses that are in no window."""
    function = ir.Function(module, type_, name)
    function.attributes.add("nounwind")
    function.attributes.add("noinline")
    return ir.IRBuilder(function.append_basic_block("entry"))


# What `mapped` gives.
_NOT_MAPPED, _DONE, _REFUSED = range(3)


def _emit_mapped(module: Any) -> Any:
    """`mapped(frame, address, size, field of the function, value, out)`: an access to a device register.

    The function that stands for the access is called with the last two; a fault of its own, or an exception in it, is
    noted in the frame.
    """
    function = ir.Function(module, ir.FunctionType(I64, [PTR, I64, I64, I64, I64, PTR]), "mapped")
    function.linkage = "internal"
    function.attributes.add("nounwind")
    frame, address, size, which, value, out = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    rows, count = load_field(b, frame, Frame.MAPPED, PTR), load_field(b, frame, Frame.MAPPED_COUNT)
    with counted(b, count) as index:
        row = element(b, rows, b.mul(index, ir.Constant(I64, MappedRange.BYTES)), I8)
        lo, last = load_field(b, row, MappedRange.LO), load_field(b, row, MappedRange.LAST)
        end = b.add(address, b.sub(size, ir.Constant(I64, 1)))
        inside = b.and_(b.icmp_unsigned(">=", address, lo), b.icmp_unsigned("<=", end, last))
        inside = b.and_(inside, b.icmp_unsigned(">=", end, address))
        callee = b.load(element(b, row, which, I8), typ=PTR)
        there = b.icmp_unsigned("!=", b.ptrtoint(callee, I64), ir.Constant(I64, 0))
        with b.if_then(b.and_(inside, there)):
            store_field(b, frame, Frame.HOOK_FAULT, ir.Constant(I64, 0))
            type_ = ir.FunctionType(I64, [I64, I64, I64, I64, PTR])
            outcome = b.call(Callee(callee, type_), [b.ptrtoint(frame, I64), address, size, value, out])
            with b.if_then(b.icmp_unsigned("==", outcome, ir.Constant(I64, HOOK_GOES_ON))):
                b.ret(ir.Constant(I64, _DONE))
            with b.if_then(b.icmp_unsigned("==", outcome, ir.Constant(I64, HOOK_FAILS))):
                store_field(b, frame, Frame.ADDRESS, address)
                store_field(b, frame, Frame.ACCESS, ir.Constant(I64, ACCESS_HOOK_FAILED))
            b.ret(ir.Constant(I64, _REFUSED))
    b.ret(ir.Constant(I64, _NOT_MAPPED))
    return function


def _try_mapped(b: Builder, mapped: Any, field: MappedRange) -> None:
    """Return what a device register gives, if the access is to one."""
    frame, address, size, mask, last = b.function.args
    loads = field is MappedRange.READ
    value, out = (ir.Constant(I64, 0), last) if loads else (last, ir.Constant(PTR, None))
    if loads:
        b.store(ir.Constant(I64, 0), out)
    some = b.icmp_unsigned("!=", load_field(b, frame, Frame.MAPPED_COUNT), ir.Constant(I64, 0))
    with b.if_then(some):
        wrapped = b.and_(address, mask)
        outcome = b.call(mapped, [frame, wrapped, size, ir.Constant(I64, field), value, out])
        with b.if_then(b.icmp_unsigned("!=", outcome, ir.Constant(I64, _NOT_MAPPED))):
            b.ret(b.icmp_unsigned("==", outcome, ir.Constant(I64, _DONE)))


def _emit_find(module: Any) -> Any:
    """`find(frame, address, permission)`: the host address of one guest byte of the program's spans, or null."""
    function, b = _finder(module, "find")
    frame, address, permission = function.args
    missing = function.append_basic_block("missing")
    span = _search(
        b, load_field(b, frame, Frame.SPANS, PTR), load_field(b, frame, Frame.SPAN_COUNT), address, permission, missing
    )
    by_page = b.sub(address, load_field(b, frame, Frame.PAGES_LO))
    with b.if_then(b.icmp_unsigned("<", by_page, load_field(b, frame, Frame.PAGES_SIZE))):
        writes = b.icmp_unsigned("==", permission, ir.Constant(I64, PERMISSION_WRITE))
        readable, writable = (load_field(b, frame, field, PTR) for field in (Frame.READABLE, Frame.WRITABLE))
        offset = b.sub(address, load_field(b, frame, Frame.HULL_LO))
        with b.if_then(b.not_(page_bit(b, b.select(writes, writable, readable), offset))):
            b.ret(ir.Constant(PTR, None))
    shared = b.icmp_unsigned("!=", load_field(b, span, Span.SHARED), ir.Constant(I64, 0))
    base = b.select(shared, load_field(b, frame, Frame.SHARED, PTR), load_field(b, frame, Frame.PRIVATE, PTR))
    offset = _offset_in(b, span, address)
    b.ret(element(b, base, b.select(shared, offset, _interleaved(b, frame, offset)), I8))
    b.position_at_end(missing)
    b.ret(ir.Constant(PTR, None))
    return function


def _emit_find_anywhere(module: Any, find: Any) -> Any:
    """The same, and of what is mapped far from the lane's memory."""
    function, b = _finder(module, "find_anywhere")
    frame, address, permission = function.args
    missing = function.append_basic_block("missing")
    near = b.call(find, function.args)
    with b.if_then(b.icmp_unsigned("!=", near, ir.Constant(PTR, None))):
        b.ret(near)
    row = load_field(b, frame, Frame.FAR, PTR)
    with b.if_then(b.icmp_unsigned("==", row, ir.Constant(PTR, None))):
        b.ret(row)
    rows = element(b, row, ir.Constant(I64, 8), I8)
    span = _search(b, rows, b.load(row, typ=I64), address, permission, missing)
    offset = _interleaved(b, frame, _offset_in(b, span, address))
    b.ret(element(b, load_field(b, frame, Frame.PRIVATE, PTR), offset, I8))
    b.position_at_end(missing)
    b.ret(ir.Constant(PTR, None))
    return function


def _finder(module: Any, name: str) -> tuple[Any, Builder]:
    function = ir.Function(module, ir.FunctionType(PTR, [PTR, I64, I64]), name)
    function.linkage = "internal"
    function.attributes.add("nounwind")
    return function, ir.IRBuilder(function.append_basic_block("entry"))


def _offset_in(b: Builder, span: Value, address: Value) -> Value:
    return b.add(load_field(b, span, Span.OFFSET), b.sub(address, load_field(b, span, Span.LO)))


def _interleaved(b: Builder, frame: Value, offset: Value) -> Value:
    """Where a byte of private memory lies."""
    word = b.shl(b.lshr(offset, ir.Constant(I64, 2)), load_field(b, frame, Frame.WORD_SHIFT))
    return b.or_(word, b.and_(offset, ir.Constant(I64, 3)))


def _search(b: Builder, rows: Value, count: Value, address: Value, permission: Value, missing: Any) -> Value:
    """The row of the span that a byte is in with a permission; goes to `missing` where it is in none."""

    def look(index: Value) -> tuple[Value, Value]:
        span = element(b, rows, b.mul(index, ir.Constant(I64, Span.BYTES)), I8)
        lo, last = load_field(b, span, Span.LO), Span.LAST
        inside = b.and_(b.icmp_unsigned(">=", address, lo), b.icmp_unsigned("<=", address, load_field(b, span, last)))
        given = b.and_(load_field(b, span, Span.PERMISSIONS), permission)
        return span, b.and_(inside, b.icmp_unsigned("==", given, permission))

    return first_row(b, count, missing, look)


def emit_pages_permit(module: Any, name: str) -> Any:
    """Define `name(bits, first, last)`: whether all pages from one byte offset to another may be accessed."""
    function = ir.Function(module, PAGES_PERMIT_TYPE, name)
    function.attributes.add("nounwind")
    bits, first, last = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    shift = ir.Constant(I64, PAGE_SHIFT)
    before, page = b.lshr(first, shift), b.lshr(last, shift)
    with counted(b, b.add(b.sub(page, before), ir.Constant(I64, 1))) as index:
        bit = page_bit(b, bits, b.shl(b.add(before, index), shift))
        with b.if_then(b.not_(bit)):
            b.ret(ir.Constant(I1, 0))
    b.ret(ir.Constant(I1, 1))
    return function


class _ByteLoop:
    """`for i in range(size)` with the host address of each byte; leaves at the first that is missing: with what
    `otherwise`, a function of the same type, gives, or false."""

    def __init__(self, b: Builder, find: Any, access: Access, otherwise: Any) -> None:
        self.b = b
        function = b.function
        frame, address, size, mask = function.args[:4]
        permission = PERMISSION_WRITE if access is Access.WRITE else PERMISSION_READ
        self.before = b.block
        self.head = function.append_basic_block("head")
        body = function.append_basic_block("body")
        fault = function.append_basic_block("fault")
        self.good = function.append_basic_block("good")
        self.done = function.append_basic_block("done")
        b.branch(self.head)
        b.position_at_end(self.head)
        self.index = b.phi(I64)
        self.index.add_incoming(ir.Constant(I64, 0), self.before)
        b.cbranch(b.icmp_unsigned("<", self.index, size), body, self.done)
        b.position_at_end(body)
        where = b.and_(b.add(address, self.index), mask)
        self.pointer = b.call(find, [frame, where, ir.Constant(I64, permission)])
        b.cbranch(b.icmp_unsigned("==", self.pointer, ir.Constant(PTR, None)), fault, self.good)
        b.position_at_end(fault)
        if otherwise is not None:
            b.ret(b.call(otherwise, function.args))
        else:
            store_field(b, frame, Frame.ADDRESS, address)
            store_field(b, frame, Frame.ACCESS, ir.Constant(I64, int(access)))
            b.ret(ir.Constant(I1, 0))
        b.position_at_end(self.good)

    def close(self) -> None:
        following = self.b.add(self.index, ir.Constant(I64, 1))
        self.index.add_incoming(following, self.b.block)
        self.b.branch(self.head)
        self.b.position_at_end(self.done)


def _emit_load(b: Builder, find: Any, otherwise: Any) -> None:
    out = b.function.args[4]
    b.store(ir.Constant(I64, 0), out)
    loop = _ByteLoop(b, find, Access.READ, otherwise)
    byte = b.zext(b.load(loop.pointer, typ=I8), I64)
    shifted = b.shl(byte, b.shl(loop.index, ir.Constant(I64, 3)))
    # The value so far lives in `out`: this path is rare, and a phi across the loop would obscure it.
    b.store(b.or_(b.load(out, typ=I64), shifted), out)
    loop.close()
    b.ret(ir.Constant(I1, 1))


def _emit_store(b: Builder, find: Any, otherwise: Any) -> None:
    value = b.function.args[4]
    check = _ByteLoop(b, find, Access.WRITE, otherwise)
    check.close()
    write = _ByteLoop(b, find, Access.WRITE, otherwise)
    b.store(b.trunc(b.lshr(value, b.shl(write.index, ir.Constant(I64, 3))), I8), write.pointer)
    write.close()
    b.ret(ir.Constant(I1, 1))


__all__ = [
    "PAGES_PERMIT_TYPE",
    "SLOW_LOAD_TYPE",
    "SLOW_STORE_TYPE",
    "Window",
    "assume_rare",
    "emit_pages_permit",
    "emit_slow_access",
    "load_at",
    "store_at",
    "window_offset",
]
