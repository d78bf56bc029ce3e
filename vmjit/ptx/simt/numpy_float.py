"""Floating-point instructions on arrays of lanes (PTX ISA, "Floating-Point Instructions", "cvt").

Generated code calls these as `floating.name`. NaN results of f32 are the canonical 0x7fffffff, as devices give them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.ptx.simt.rounding import Rounding, c_library
from vmjit.ptx.types import BITS, integer_range, is_signed

Lanes = NDArray[Any]

F32, F64 = np.float32, np.float64
_CANONICAL_NAN = np.uint32(0x7FFFFFFF)
_SMALLEST_NORMAL = F32(1.1754944e-38)
_SPLITTER = 134217729.0  # 2^27 + 1: halves a double's significand


def rounded(function: Callable[..., Lanes], mode: str, *operands: Lanes) -> Lanes:
    """The function of the operands, in a rounding mode."""
    with Rounding(mode):
        return function(*operands)


def canonical_nan(a: Lanes) -> Lanes:
    """f32 values with every NaN replaced by the one that devices produce."""
    nan = a != a
    if not nan.any():
        return a
    result: Lanes = np.where(nan, _CANONICAL_NAN, a.view(np.uint32)).view(F32)
    return result


def flush_subnormals(a: Lanes) -> Lanes:
    """.ftz: subnormal f32 values become zeros of the same sign."""
    return np.where(np.abs(a) < _SMALLEST_NORMAL, np.copysign(F32(0), a), a)


def saturate(a: Lanes) -> Lanes:
    """.sat: into 0 to 1; NaN becomes 0."""
    result: Lanes = np.where(a > 0, np.minimum(a, a.dtype.type(1)), a.dtype.type(0))
    return result


def unordered(a: Lanes, b: Lanes) -> Lanes:
    """Whether one of the two is NaN."""
    result: Lanes = (a != a) | (b != b)
    return result


def extremum(a: Lanes, b: Lanes, is_max: bool, keeps_nan: bool) -> Lanes:
    """min or max; -0 is less than +0, and a NaN loses to a number unless it is kept."""
    a, b = np.broadcast_arrays(a, b)
    if keeps_nan:
        result = np.maximum(a, b) if is_max else np.minimum(a, b)
    else:
        result = np.fmax(a, b) if is_max else np.fmin(a, b)
    zeros = (a == 0) & (b == 0)
    if zeros.any():
        zero = result.dtype.type(0)
        negative = np.signbit(a) & np.signbit(b) if is_max else np.signbit(a) | np.signbit(b)
        result = np.where(zeros, np.where(negative, -zero, zero), result)
    return result


def _two_sum(a: Lanes, b: Lanes) -> tuple[Lanes, Lanes]:
    """The rounded sum and its exact error (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _round_to_odd(total: Lanes, error: Lanes) -> Lanes:
    """A sum with its error folded into the last bit, so that one more rounding is as if of the exact value.

    Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd".
    """
    bits = total.view(np.int64)
    inexact = (error != 0) & ((bits & 1) == 0)
    step = np.where((error > 0) == (total > 0), 1, -1)
    return np.where(inexact, bits + step, bits).view(F64)


def _two_product(a: Lanes, b: Lanes) -> tuple[Lanes, Lanes]:
    """The rounded product and its exact error (Dekker)."""
    product = a * b
    part = a * _SPLITTER
    a_high = part - (part - a)
    a_low = a - a_high
    part = b * _SPLITTER
    b_high = part - (part - b)
    b_low = b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def fma_f64(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """a * b + c rounded once to nearest; lanes near overflow and underflow take the C library's way."""
    a, b, c = np.broadcast_arrays(a, b, c)
    product = a * b
    size, size_of_c = np.abs(product), np.abs(c)
    safe = (size > 1e-280) & (size < 1e290) & (np.abs(a) < 1e290) & (np.abs(b) < 1e290)
    safe &= (size_of_c < 1e290) & ((size_of_c > 1e-250) | (c == 0))
    high, low = _two_product(np.where(safe, a, 1.0), np.where(safe, b, 1.0))
    partial, partial_error = _two_sum(np.where(safe, c, 1.0), low)
    total, total_error = _two_sum(high, partial)
    result = total + _round_to_odd(*_two_sum(partial_error, total_error))
    if not safe.all():
        finite = np.isfinite(a) & np.isfinite(b)
        result = np.where(safe, result, np.where(finite & ~np.isfinite(c), c, product + c))
        fma = c_library().fma
        for lane in np.flatnonzero(~safe & finite & np.isfinite(c) & (a != 0) & (b != 0)):
            result[lane] = fma(float(a[lane]), float(b[lane]), float(c[lane]))
    return result


def fma_f64_rounded(a: Lanes, b: Lanes, c: Lanes, mode: str) -> Lanes:
    a, b, c = np.broadcast_arrays(a, b, c)
    fma = c_library().fma
    with Rounding(mode):
        return np.array([fma(float(x), float(y), float(z)) for x, y, z in zip(a, b, c, strict=True)], F64)


def fma_f32(a: Lanes, b: Lanes, c: Lanes, mode: str) -> Lanes:
    """a * b + c rounded once: the product is exact in f64, the sum is rounded to odd there and then to f32."""
    with np.errstate(all="ignore"):
        product, addend = np.broadcast_arrays(np.asarray(a, F64) * np.asarray(b, F64), np.asarray(c, F64))
        total, error = _two_sum(product, addend)
        finite = np.isfinite(total)
        result = np.where(finite, _round_to_odd(np.where(finite, total, 0.0), np.where(finite, error, 0.0)), total)
        if mode == "rn":
            return result.astype(F32)
        if mode == "rm":  # x + -x is -0 when rounding down
            result = np.where((total == 0) & (np.signbit(product) != np.signbit(addend)), -0.0, result)
        with Rounding(mode):
            return result.astype(F32)


_TO_INTEGRAL: dict[str, Callable[[Lanes], Lanes]] = {
    "rn": np.rint,
    "rni": np.rint,
    "rz": np.trunc,
    "rzi": np.trunc,
    "rm": np.floor,
    "rmi": np.floor,
    "rp": np.ceil,
    "rpi": np.ceil,
}


def to_integral(a: Lanes, mode: str) -> Lanes:
    """Rounded to an integer, as a float."""
    return _TO_INTEGRAL[mode](a)


def to_integer(a: Lanes, result: str, mode: str, source: str) -> Lanes:
    """Float to the integer type `result`, clamped to its range.

    NaN becomes 0 from f32 to 32 bits and less, and else the value with only the top bit set, as devices have it.
    """
    value = _TO_INTEGRAL[mode](a.astype(F64))
    nan = value != value
    bits = BITS[result]
    integers = (_clamped_signed if is_signed(result) else _clamped_unsigned)(value, nan, result)
    if nan.any():
        top_bit = source == "f64" or bits == 64
        low, _ = integer_range(result)
        replacement = (low or 1 << (bits - 1)) if top_bit else 0
        integers = np.where(nan, integers.dtype.type(replacement), integers)
    return integers


def _clamped_signed(value: Lanes, nan: Lanes, result: str) -> Lanes:
    low, high = integer_range(result)
    above, below = value >= float(high + 1), value <= float(low)
    inside = np.where(nan | above | below, 0.0, value).astype(np.int64)
    return np.where(above, high, np.where(below, low, inside)).astype(np.dtype(f"int{BITS[result]}"))


def _clamped_unsigned(value: Lanes, nan: Lanes, result: str) -> Lanes:
    _, high = integer_range(result)
    above = value >= float(high + 1)
    inside = np.where(~nan & (value > 0) & ~above, value, 0.0)
    if BITS[result] == 64:  # the upper half of the range is beyond s64
        upper = inside >= 2.0**63
        integers = (inside - np.where(upper, 2.0**63, 0.0)).astype(np.int64).view(np.uint64)
        integers = np.where(upper, integers + np.uint64(1 << 63), integers)
        return np.where(above, np.uint64(high), integers)
    return np.where(above, high, inside.astype(np.int64)).astype(np.dtype(f"uint{BITS[result]}"))
