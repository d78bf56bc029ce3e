"""What pages may be accessed, as code: a bit for each, in the `AddressSpaceRow` of the lane."""

from __future__ import annotations

from llvmlite import ir

from vmjit.kernels.emit import I1, I8, I32, I64, Builder, Value, element

PAGE_SHIFT = 12
PAGE_BYTES = 1 << PAGE_SHIFT
# Bits of 32 pages are a word.
_WORD_SHIFT = PAGE_SHIFT + 5

# A limit for offsets takes accesses of so many bytes.
WIDEST = 8


def limit_for(b: Builder, size: Value, extent: Value) -> Value:
    """What the offset of an access of `extent` bytes has to be below, in memory of `size` bytes."""
    enough = b.icmp_unsigned(">=", size, extent)
    room = b.add(b.sub(size, extent), ir.Constant(size.type, 1))
    return b.select(enough, room, ir.Constant(size.type, 0))


def page_bit(b: Builder, bits: Value, offset: Value) -> Value:
    """The bit of the page at a byte offset, an i64 that may be negative, from the page that `bits` begin with."""
    place = element(b, bits, b.shl(b.ashr(offset, ir.Constant(I64, _WORD_SHIFT)), ir.Constant(I64, 2)), I8)
    return _bit(b, b.load(place, typ=I32, align=4), b.trunc(offset, I32))


def _bit(b: Builder, word: Value, offset: Value) -> Value:
    page = b.and_(b.lshr(offset, ir.Constant(I32, PAGE_SHIFT)), ir.Constant(I32, 31))
    return b.trunc(b.lshr(word, page), I1)


def pages_permit(b: Builder, bits: Value, offset: Value, size: int) -> Value:
    """Whether an access of at most a page at an offset, an i64, may be made: in its first page and its last."""
    found = page_bit(b, bits, offset)
    if size > 1:
        found = b.and_(found, page_bit(b, bits, b.add(offset, ir.Constant(I64, size - 1))))
    return found


def one_page_permits(b: Builder, bits: Value, offset: Value, size: int) -> Value:
    """The same for one that is in one page; one that is in two is not permitted here."""
    found = page_bit(b, bits, offset)
    if size > 1:
        within = b.and_(b.trunc(offset, I32), ir.Constant(I32, PAGE_BYTES - 1))
        found = b.and_(found, b.icmp_unsigned("<=", within, ir.Constant(I32, PAGE_BYTES - size)))
    return found
