"""Lane groups in SIMD registers: vectors with an element a lane, and the group's interleaved memory.

Private memory of a group of W lanes lies in words of 32 bits: word k of all lanes side by side, so that lanes at one
address make one vector access. Byte a of the window is byte a % 4 of word a // 4. Accesses inside a word, or of whole
words, are made here; what straddles words is left to the interpreter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from vmjit.kernels.emit import I1, I8, I32, I64, PTR, Builder, Value, element
from vmjit.kernels.page_bits import PAGE_SHIFT

WORD_BYTES = 4


class LaneVectors:
    """Vectors of a group of `count` lanes, emitted with one builder. All lanes take part until `activate`.
    `gathers`: use AVX2's gather."""

    def __init__(self, builder: Builder, count: int, *, gathers: bool = False) -> None:
        self.builder = builder
        self.count = count
        self.gathers = gathers
        self.bits_type = ir.IntType(count)
        self.active: Value | None = None
        self.active_bits: Value = ir.Constant(self.bits_type, -1)
        self._first: Value = ir.Constant(I32, 0)

    def activate(self, active: Value) -> None:
        """From here on, only these lanes count: a vector of i1."""
        b = self.builder
        self.active = active
        self.active_bits = b.bitcast(active, self.bits_type)
        first = b.call(
            b.module.declare_intrinsic(
                "llvm.cttz", [self.bits_type], ir.FunctionType(self.bits_type, [self.bits_type, I1])
            ),
            [self.active_bits, ir.Constant(I1, 0)],
        )
        self._first = b.zext(first, I32)

    @contextmanager
    def only(self, active: Value) -> Iterator[None]:
        """`with`: only these lanes count."""
        before = self.active, self.active_bits, self._first
        self.activate(active)
        yield
        self.active, self.active_bits, self._first = before

    # -- making vectors

    def type(self, bits: int) -> Any:
        return ir.VectorType(ir.IntType(bits), self.count)

    def number(self, bits: int, value: int) -> Value:
        return ir.Constant(self.type(bits), [value & ((1 << bits) - 1)] * self.count)

    def undefined(self, bits: int) -> Value:
        return ir.Constant(self.type(bits), ir.Undefined)

    def like(self, value: Value, number: int) -> Value:
        """A number as an operand beside an integer or a vector."""
        if isinstance(value.type, ir.VectorType):
            return self.number(value.type.element.width, number)
        return ir.Constant(value.type, number & ((1 << value.type.width) - 1))

    def always(self, value: Value) -> Value:
        """The condition that holds, of the shape of a value."""
        return self.number(1, 1) if isinstance(value.type, ir.VectorType) else ir.Constant(I1, 1)

    def numbers(self, bits: int) -> Value:
        """0, 1, 2 …: each lane its number."""
        return ir.Constant(self.type(bits), list(range(self.count)))

    def splat(self, value: Value) -> Value:
        """One value for all lanes."""
        if isinstance(value, ir.Constant):
            return self.number(value.type.width, value.constant)
        b = self.builder
        one = b.insert_element(self.undefined(value.type.width), value, ir.Constant(I32, 0))
        return b.shuffle_vector(one, one, ir.Constant(self.type(32), None))

    def from_bits(self, bits: Value) -> Value:
        """A bit a lane as a vector of i1."""
        b = self.builder
        return b.bitcast(b.trunc(bits, self.bits_type) if bits.type.width > self.count else bits, self.type(1))

    # -- asking vectors

    def bits(self, condition: Value) -> Value:
        """For which of the lanes that take part a condition holds, a bit each."""
        held = self.builder.bitcast(condition, self.bits_type)
        return held if self.active is None else self.builder.and_(held, self.active_bits)

    def is_all(self, bits: Value) -> Value:
        return self.builder.icmp_unsigned("==", bits, self.active_bits)

    def is_none(self, bits: Value) -> Value:
        return self.builder.icmp_unsigned("==", bits, ir.Constant(self.bits_type, 0))

    def all(self, condition: Value) -> Value:
        return self.is_all(self.bits(condition))

    def any(self, condition: Value) -> Value:
        return self.builder.icmp_unsigned("!=", self.bits(condition), ir.Constant(self.bits_type, 0))

    def first(self, vector: Value) -> Value:
        """The element of the first lane that takes part."""
        return self.builder.extract_element(vector, self._first)

    def all_same(self, vector: Value) -> tuple[Value, Value]:
        """(whether all lanes that take part have the same, what the first of them has)."""
        first = self.first(vector)
        return self.all(self.builder.icmp_unsigned("==", vector, self.splat(first))), first

    def selected(self, vector: Value) -> Value:
        """Zero in the lanes that take no part."""
        if self.active is None:
            return vector
        return self.builder.select(self.active, vector, ir.Constant(vector.type, None))

    # -- memory

    def pointers(self, base: Value, offsets: Value, type_: Any) -> Value:
        """base[offset] of each lane, counted in elements of a type."""
        found = self.builder.gep(base, [offsets], source_etype=type_)
        found.type = ir.VectorType(PTR, self.count)
        return found

    def gather(self, base: Value, offsets: Value, bits: int, *, scaled: bool = False) -> Value:
        """Each lane's integer of `bits` bits at an offset in bytes, or, `scaled`, in elements.

        The offsets of all lanes, also of those that take no part, can be read, and 3 bytes more.
        """
        if self.gathers and bits == 32 and offsets.type.element.width == 32 and self.count % 8 == 0:
            return self._gather_8(base, offsets, 4 if scaled else 1)
        if self.gathers and bits < 32 and not scaled and offsets.type.element.width == 32 and self.count % 8 == 0:
            return self.builder.trunc(self._gather_8(base, offsets, 1), self.type(bits))
        type_ = ir.IntType(bits)
        if offsets.type.element.width < 64:  # a vector of indices would be sign-extended
            offsets = self.builder.zext(offsets, self.type(64))
        pointers = self.pointers(base, offsets, type_ if scaled else I8)
        name = f"llvm.masked.gather.v{self.count}i{bits}.v{self.count}p0"
        vector = self.type(bits)
        signature = ir.FunctionType(vector, [pointers.type, I32, self.type(1), vector])
        align = bits // 8 if scaled else 1
        return self._call(name, signature, [pointers, ir.Constant(I32, align), self.number(1, 1), self.undefined(bits)])

    def _gather_8(self, base: Value, offsets: Value, scale: int) -> Value:
        """By AVX2's gather of eight, which LLVM does not choose by itself on all processors that are quick at it."""
        b, eight = self.builder, ir.VectorType(I32, 8)
        signature = ir.FunctionType(eight, [eight, PTR, eight, eight, I8])
        parts = []
        for first in range(0, self.count, 8):
            numbers = ir.Constant(eight, list(range(first, first + 8)))
            some = offsets if self.count == 8 else b.shuffle_vector(offsets, offsets, numbers)
            args = [ir.Constant(eight, None), base, some, ir.Constant(eight, [-1] * 8), ir.Constant(I8, scale)]
            parts.append(self._call("llvm.x86.avx2.gather.d.d.256", signature, args))
        while len(parts) > 1:
            both = ir.Constant(ir.VectorType(I32, 2 * parts[0].type.count), list(range(2 * parts[0].type.count)))
            parts = [b.shuffle_vector(*pair, both) for pair in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    def scatter(self, pointers: Value, vector: Value) -> None:
        """Each lane's element to its address."""
        bits = vector.type.element.width
        name = f"llvm.masked.scatter.v{self.count}i{bits}.v{self.count}p0"
        signature = ir.FunctionType(ir.VoidType(), [vector.type, pointers.type, I32, self.type(1)])
        self._call(name, signature, [vector, pointers, ir.Constant(I32, bits // 8), self.number(1, 1)])

    def _call(self, name: str, signature: Any, args: list[Value]) -> Value:
        module = self.builder.module
        function = module.globals.get(name) or ir.Function(module, signature, name)
        return self.builder.call(function, args)


@dataclass(frozen=True)
class PrivateWords:
    """A group's private window: guest addresses from `lo` on, `size` bytes. `memory` is where its first word is.

    With `room`, an i64, only so many of the bytes from the window's start on can be accessed, whole pages."""

    lanes: LaneVectors
    memory: Value
    window_lo: int
    window_size: int
    room: Value = None

    @property
    def lo(self) -> int:
        """The first guest address that starts a word."""
        return -(-self.window_lo // WORD_BYTES) * WORD_BYTES

    @property
    def size(self) -> int:
        """Bytes in whole words."""
        return max((self.window_lo + self.window_size - self.lo) // WORD_BYTES * WORD_BYTES, 0)

    def _place(self, address: Value, bits: int) -> tuple[Value, Value, Value]:
        """(whether an access lies inside and in its words, its first word, the bit in it) of one address or a vector.

        Rotating by the bits that have to be zero puts them on top: one comparison is for bounds and alignment.
        """
        b, like = self.lanes.builder, self.lanes.like
        offset = b.sub(address, like(address, self.lo))
        width = (offset.type.element if isinstance(offset.type, ir.VectorType) else offset.type).width
        aligned = {8: 0, 16: 1}.get(bits, 2)
        words = max(bits // 8 // WORD_BYTES, 1)
        if aligned:
            low = b.lshr(offset, like(offset, aligned))
            rotated = b.or_(low, b.shl(offset, like(offset, width - aligned)))
        else:
            rotated = offset
        inside = b.icmp_unsigned("<", rotated, self._units(offset, (words - 1) * WORD_BYTES, aligned))
        word = b.lshr(rotated, like(offset, 2 - aligned)) if aligned < 2 else rotated
        within = b.and_(offset, like(offset, WORD_BYTES - 1))
        return inside, word, b.shl(within, like(offset, 3))

    def _units(self, beside: Value, less: int, shift: int) -> Value:
        """How many units of 1 << shift bytes there are, but for so many bytes, as an operand beside a value."""
        b = self.lanes.builder
        if self.room is None:
            return self.lanes.like(beside, max((self.size - less) >> shift, 0))
        rest = b.select(
            b.icmp_unsigned(">", self.room, ir.Constant(I64, less)),
            b.sub(self.room, ir.Constant(I64, less)),
            ir.Constant(I64, 0),
        )
        units = b.lshr(rest, ir.Constant(I64, shift))
        vector = isinstance(beside.type, ir.VectorType)
        element_ = beside.type.element if vector else beside.type
        units = units if element_.width == 64 else b.trunc(units, element_)
        return self.lanes.splat(units) if vector else units

    def uniform(self, address: Value, bits: int) -> tuple[Value, UniformPlace]:
        """(whether all lanes' access at one address may be made here, where it is)."""
        b = self.lanes.builder
        inside, word, bit = self._place(address, bits)
        if word.type.width < 64:
            word = b.zext(word, I64)
        pointer = element(b, self.memory, word, self.lanes.type(32))
        bit = bit if bit.type.width == 32 else b.trunc(bit, I32)
        return inside, UniformPlace(self.lanes, pointer, bit, bits)

    def varying(self, addresses: Value, bits: int) -> tuple[Value, VaryingPlaces]:
        """(which lanes' accesses may be made here, where they are)."""
        b, lanes = self.lanes.builder, self.lanes
        inside, words, bit = self._place(addresses, bits)
        width = words.type.element.width
        if width > 32:  # a window's words are numbered in 32 bits
            words, bit = b.trunc(words, lanes.type(32)), b.trunc(bit, lanes.type(32))
        numbers = b.add(b.mul(words, lanes.number(32, lanes.count)), lanes.numbers(32))
        return inside, VaryingPlaces(lanes, self.memory, numbers, bit, bits)


def _cut(lanes: LaneVectors, words: Value, bit: Value, bits: int) -> Value:
    """The part of each word that an access of less than a word reads."""
    b = lanes.builder
    return b.trunc(b.lshr(words, bit), lanes.type(bits))


def _replaced(lanes: LaneVectors, words: Value, bit: Value, value: Value) -> Value:
    """Words with a part of each replaced."""
    b, bits = lanes.builder, value.type.element.width
    wide = lanes.type(32)
    mask = b.shl(lanes.number(32, (1 << bits) - 1), bit)
    return b.or_(b.and_(words, b.not_(mask)), b.shl(b.zext(value, wide), bit))


@dataclass(frozen=True)
class UniformPlace:
    """The same bytes of all lanes: one vector for each word."""

    lanes: LaneVectors
    pointer: Value
    bit: Value
    bits: int

    def _word(self, number: int) -> Value:
        b = self.lanes.builder
        return (
            b.gep(self.pointer, [ir.Constant(I64, number)], source_etype=self.lanes.type(32))
            if number
            else self.pointer
        )

    def _load_word(self, number: int) -> Value:
        return self.lanes.builder.load(self._word(number), typ=self.lanes.type(32), align=WORD_BYTES)

    def _store_word(self, number: int, value: Value) -> None:
        b, active = self.lanes.builder, self.lanes.active
        if active is not None:
            value = b.select(active, value, self._load_word(number))
        b.store(value, self._word(number), align=WORD_BYTES)

    def load(self) -> Value:
        b, lanes = self.lanes.builder, self.lanes
        low = self._load_word(0)
        if self.bits == 32:
            return low
        if self.bits < 32:
            return _cut(lanes, low, lanes.splat(self.bit), self.bits)
        wide = lanes.type(64)
        high = b.shl(b.zext(self._load_word(1), wide), lanes.number(64, 32))
        return b.or_(b.zext(low, wide), high)

    def store(self, value: Value) -> None:
        b, lanes = self.lanes.builder, self.lanes
        if self.bits < 32:
            value = _replaced(lanes, self._load_word(0), lanes.splat(self.bit), value)
        if self.bits <= 32:
            self._store_word(0, value)
            return
        self._store_word(0, b.trunc(value, lanes.type(32)))
        self._store_word(1, b.trunc(b.lshr(value, lanes.number(64, 32)), lanes.type(32)))


@dataclass(frozen=True)
class VaryingPlaces:
    """Bytes of each lane at an address of its own."""

    lanes: LaneVectors
    memory: Value
    numbers: Value  # of the lanes' words, counted over all lanes of the group
    bit: Value
    bits: int

    def _numbers(self, word: int) -> Value:
        """Of the words behind the first; the group's first ones for lanes that take no part."""
        lanes = self.lanes
        numbers = self.numbers if not word else lanes.builder.add(self.numbers, lanes.number(32, word * lanes.count))
        return lanes.selected(numbers)

    def load(self) -> Value:
        b, lanes = self.lanes.builder, self.lanes
        low = lanes.gather(self.memory, self._numbers(0), 32, scaled=True)
        if self.bits == 32:
            return low
        if self.bits < 32:
            return _cut(lanes, low, self.bit, self.bits)
        wide = lanes.type(64)
        high = lanes.gather(self.memory, self._numbers(1), 32, scaled=True)
        return b.or_(b.zext(low, wide), b.shl(b.zext(high, wide), lanes.number(64, 32)))

    def _scatter(self, word: int, value: Value, scratch: Value) -> None:
        b, lanes = self.lanes.builder, self.lanes
        numbers = b.zext(self._numbers(word), lanes.type(64))
        pointers = lanes.pointers(self.memory, numbers, I32)
        if lanes.active is not None:
            aside = lanes.pointers(scratch, lanes.numbers(64), I64)
            pointers = b.select(lanes.active, pointers, aside)
        lanes.scatter(pointers, value)

    def store(self, value: Value, scratch: Value) -> None:
        """`scratch` has 8 bytes a lane for what lanes store that take no part."""
        b, lanes = self.lanes.builder, self.lanes
        if self.bits < 32:
            words = lanes.gather(self.memory, self._numbers(0), 32, scaled=True)
            value = _replaced(lanes, words, self.bit, value)
        if self.bits <= 32:
            self._scatter(0, value, scratch)
            return
        self._scatter(0, b.trunc(value, lanes.type(32)), scratch)
        self._scatter(1, b.trunc(b.lshr(value, lanes.number(64, 32)), lanes.type(32)), scratch)


@dataclass(frozen=True)
class GroupPages:
    """Which pages of a group's hull, guest addresses from `lo` on, its lanes may access: each lane has bits of its own.

    rows: a vector of i32, where they begin, counted in words of 32 bits from `spaces`. writable: i32, how many words
    behind a page's readable bit its writable one is.
    """

    lanes: LaneVectors
    lo: int
    spaces: Value
    rows: Value
    writable: Value

    def permit(self, addresses: Value, inside: Value, bits: int, *, stores: bool) -> Value:
        """Of the lanes whose addresses are `inside` the hull, those that may make an access in whole words or inside a
        word."""
        b, lanes = self.lanes.builder, self.lanes
        offsets = b.sub(addresses, lanes.like(addresses, self.lo))
        if offsets.type.element.width > 32:
            offsets = b.trunc(offsets, lanes.type(32))
        found = b.and_(inside, self._bit(offsets, inside, stores=stores))
        if bits > 32:
            following = b.add(offsets, lanes.number(32, WORD_BYTES))
            found = b.and_(found, self._bit(following, inside, stores=stores))
        return found

    def _bit(self, offsets: Value, inside: Value, *, stores: bool) -> Value:
        b, lanes = self.lanes.builder, self.lanes
        first = b.add(self.rows, lanes.splat(self.writable)) if stores else self.rows
        place = b.add(first, b.lshr(offsets, lanes.number(32, PAGE_SHIFT + 5)))
        words = lanes.gather(self.spaces, b.select(inside, place, first), 32, scaled=True)
        page = b.and_(b.lshr(offsets, lanes.number(32, PAGE_SHIFT)), lanes.number(32, 31))
        return b.trunc(b.lshr(words, page), lanes.type(1))
