"""Integer instructions on arrays of lanes (PTX ISA, "Integer Arithmetic Instructions", "Logic and Shift Instructions").

Generated code calls these as `integer.name`; one array element is one lane. Scalars stand for immediates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Lanes = NDArray[Any]

U8, U32, U64 = np.uint8, np.uint32, np.uint64
_LOW_HALF = U64(0xFFFFFFFF)
_NONE = U32(0xFFFFFFFF)
_REVERSED_BYTE = np.array([int(format(byte, "08b")[::-1], 2) for byte in range(256)], U8)
_UNSIGNED: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: U32, 8: U64}


def _unsigned_type(values: Lanes) -> Any:
    return _UNSIGNED[values.dtype.itemsize]


def multiply_high_unsigned(a: Lanes, b: Lanes) -> Lanes:
    """Upper 64 bits of the product of two u64, from the products of their halves."""
    a_low, a_high, b_low, b_high = a & _LOW_HALF, a >> U64(32), b & _LOW_HALF, b >> U64(32)
    low_high, high_low = a_low * b_high, a_high * b_low
    middle = ((a_low * b_low) >> U64(32)) + (low_high & _LOW_HALF) + (high_low & _LOW_HALF)
    product: Lanes = a_high * b_high + (low_high >> U64(32)) + (high_low >> U64(32)) + (middle >> U64(32))
    return product


def multiply_high_signed(a: Lanes, b: Lanes) -> Lanes:
    """The same of two s64, given and returned as u64."""
    product = multiply_high_unsigned(a, b)
    corrected: Lanes = product - np.where(a >> U64(63), b, U64(0)) - np.where(b >> U64(63), a, U64(0))
    return corrected


def divide_unsigned(a: Lanes, b: Lanes) -> Lanes:
    """Quotients; all ones where the divisor is zero, which the ISA leaves open."""
    zero = b == 0
    if zero.any():
        return np.where(zero, ~np.zeros(1, a.dtype), a // np.where(zero, b.dtype.type(1), b))
    quotient: Lanes = a // b
    return quotient


def remainder_unsigned(a: Lanes, b: Lanes) -> Lanes:
    """Remainders; the dividend where the divisor is zero."""
    zero = b == 0
    if zero.any():
        return np.where(zero, a, a % np.where(zero, b.dtype.type(1), b))
    remainder: Lanes = a % b
    return remainder


def divide_signed(a: Lanes, b: Lanes) -> Lanes:
    """Quotients rounded to zero; -1 where the divisor is zero."""
    unsigned = _unsigned_type(a)
    quotient = divide_unsigned(np.abs(a).view(unsigned), np.abs(b).view(unsigned))
    return np.where(((a < 0) ^ (b < 0)) & (b != 0), np.zeros(1, unsigned) - quotient, quotient).view(a.dtype)


def remainder_signed(a: Lanes, b: Lanes) -> Lanes:
    """Remainders with the dividend's sign; the dividend where the divisor is zero."""
    unsigned = _unsigned_type(a)
    remainder = remainder_unsigned(np.abs(a).view(unsigned), np.abs(b).view(unsigned))
    return np.where(a < 0, np.zeros(1, unsigned) - remainder, remainder).view(a.dtype)


def population_count(a: Lanes) -> Lanes:
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return np.bitwise_count(a).astype(U32)
    bits = np.unpackbits(np.ascontiguousarray(a).view(U8).reshape(len(a), -1), axis=1)
    count: Lanes = bits.sum(1).astype(U32)
    return count


def _bit_length_32(a: Lanes) -> Lanes:
    return np.frexp(a.astype(np.float64))[1].astype(U32)  # exact: a double has 53 bits


def bit_length(a: Lanes) -> Lanes:
    """Position of the highest set bit plus one, 0 for 0."""
    if a.dtype.itemsize < 8:
        return _bit_length_32(a)
    high = _bit_length_32(a >> U64(32))
    return np.where(high > 0, high + U32(32), _bit_length_32(a & _LOW_HALF)).astype(U32)


def count_leading_zeros(a: Lanes) -> Lanes:
    zeros: Lanes = U32(a.dtype.itemsize * 8) - bit_length(a)
    return zeros


def reverse_bits(a: Lanes) -> Lanes:
    reversed_bytes = _REVERSED_BYTE[np.ascontiguousarray(a).view(U8)]
    result: Lanes = reversed_bytes.view(a.dtype).byteswap()
    return result


def find_leading_bit(a: Lanes, signed: bool, as_shift: bool) -> Lanes:
    """bfind: the highest bit unlike the sign, or the shift that would bring it to the top; all ones where none is."""
    bits = a.dtype.itemsize * 8
    magnitude = a.view(_unsigned_type(a))
    if signed:
        magnitude = np.where(a < 0, ~magnitude, magnitude)
    length = bit_length(magnitude)
    found = U32(bits) - length if as_shift else length - U32(1)
    result: Lanes = np.where(length == 0, _NONE, found)
    return result


def low_bits(count: Lanes, unsigned: Any) -> Lanes:
    """A mask of the lowest `count` bits, all of them from the type's width on."""
    bits = np.dtype(unsigned).itemsize * 8
    full = np.array(~unsigned(0), unsigned)
    return np.where(count >= U32(bits), full, ~(full << np.minimum(count, U32(bits - 1)).astype(unsigned)))


def extract_field(a: Lanes, position: Lanes, length: Lanes, signed: bool) -> Lanes:
    """bfe; a signed field is extended by its top bit, or by the value's own where it reaches beyond it."""
    unsigned = _unsigned_type(a)
    bits = a.dtype.itemsize * 8
    value = a.view(unsigned)
    position = np.broadcast_to(position & U32(255), value.shape)
    length = np.broadcast_to(length & U32(255), value.shape)
    field: Lanes = (value >> position.astype(unsigned)) & low_bits(length, unsigned)
    if not signed:
        return field
    top = np.minimum(position.astype(np.int64) + length.astype(np.int64) - 1, bits - 1)
    sign = np.where(length == 0, unsigned(0), (value >> np.maximum(top, 0).astype(unsigned)) & unsigned(1))
    available = np.clip(bits - position.astype(np.int64), 0, bits)
    taken = np.minimum(length.astype(np.int64), available).astype(U32)
    extended: Lanes = np.where(sign != 0, field | ~low_bits(taken, unsigned), field)
    return extended


def insert_field(a: Lanes, b: Lanes, position: Lanes, length: Lanes) -> Lanes:
    """bfi: the low bits of `a` put into `b`."""
    unsigned = a.dtype.type
    position = np.broadcast_to(position & U32(255), a.shape)
    length = np.broadcast_to(length & U32(255), a.shape)
    mask = low_bits(length, unsigned) << position.astype(unsigned)
    inserted: Lanes = (b & ~mask) | ((a << position.astype(unsigned)) & mask)
    return inserted


def _byte_selector(mode: str | None, control: Lanes, byte: int) -> Lanes:
    """Which of the eight source bytes a byte of prmt's result takes; bit 3 asks for its sign instead."""
    if mode is None:
        selected: Lanes = (control >> U64(4 * byte)) & U64(15)
        return selected
    low = control & U64(3)
    rows: dict[str, Lanes] = {
        "f4e": low + U64(byte),
        "b4e": (low - U64(byte)) & U64(7),
        "rc8": low,
        "ecl": np.maximum(low, U64(byte)),
        "ecr": np.minimum(low, U64(byte)),
        "rc16": (low & U64(1)) * U64(2) + U64(byte & 1),
    }
    return rows[mode]


def permute_bytes(a: Lanes, b: Lanes, control: Lanes, mode: str | None) -> Lanes:
    """prmt, with its default mode as None."""
    source = (a.astype(U64) & _LOW_HALF) | (np.broadcast_to(b, a.shape).astype(U64) << U64(32))
    control = np.broadcast_to(control, a.shape).astype(U64)
    result = np.zeros(a.shape, U64)
    for byte in range(4):
        selector = _byte_selector(mode, control, byte)
        value = (source >> ((selector & U64(7)) * U64(8))) & U64(255)
        value = np.where(selector & U64(8), np.where(value & U64(0x80), U64(255), U64(0)), value)
        result |= value << U64(8 * byte)
    return result.astype(U32)


def funnel_shift(low: Lanes, high: Lanes, amount: Lanes, right: bool, wrap: bool) -> Lanes:
    """shf: 32 bits out of 64, after a shift by the amount modulo 32 (wrap) or up to 32 (clamp)."""
    amount = np.broadcast_to(amount, low.shape)
    shift = ((amount & U32(31)) if wrap else np.minimum(amount, U32(32))).astype(U64)
    value = (np.broadcast_to(high, low.shape).astype(U64) << U64(32)) | low.astype(U64)
    shifted: Lanes = value >> shift if right else (value << shift) >> U64(32)
    return shifted.astype(U32)


def logic_of_three(a: Lanes, b: Lanes, c: Lanes, table: int) -> Lanes:
    """lop3: bit 4a + 2b + c of the table, for every bit."""
    result = np.zeros(a.shape, a.dtype)
    for row in range(8):
        if table >> row & 1:
            result |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
    return result


def dot_product_of_bytes(a: Lanes, b: Lanes, a_type: Any, b_type: Any) -> Lanes:
    """dp4a without its addend, in s64."""
    left = np.ascontiguousarray(a).view(a_type).astype(np.int64).reshape(-1, 4)
    right = np.ascontiguousarray(b).view(b_type).astype(np.int64).reshape(-1, 4)
    product: Lanes = (left * right).sum(1)
    return product


def saturate_s32(a: Lanes) -> Lanes:
    return np.clip(a, -(1 << 31), (1 << 31) - 1).astype(np.int32)


def saturate(a: Lanes, low: int, high: int, result: Any) -> Lanes:
    """cvt.sat between integers; the bounds are within the source's type."""
    return np.clip(a, a.dtype.type(low), a.dtype.type(high)).astype(result)
