"""IEEE 754 floats in plain Python integers: formats, rounding modes, exceptions, and the reference of every float op.

The reference computes with exact rational numbers and rounds once, at the end. It shares nothing with what the
translators emit, so that a test which compares the two compares two authors' readings. Slow and obvious on purpose.

Sources: IEEE 754-2019; RISC-V unprivileged specification 2.3, chapters "F" (rounding modes, exception flags, NaN
canonicalisation, conversions), "D" and "Zfh".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from fractions import Fraction
from math import isqrt


class Rounding(IntEnum):
    """Rounding modes by their RISC-V encoding."""

    NEAREST_EVEN = 0
    TO_ZERO = 1
    DOWN = 2
    UP = 3
    NEAREST_AWAY = 4
    DYNAMIC = 7
    """What the status register says."""


class Exceptions(IntFlag):
    """Exception flags, as the status register has them."""

    INEXACT = 1
    UNDERFLOW = 2
    OVERFLOW = 4
    DIVIDE_BY_ZERO = 8
    INVALID = 16


MODE_SHIFT = 5
"""Where the dynamic rounding mode stands in the status register."""


@dataclass(frozen=True)
class Format:
    """A binary interchange format; `fraction` is the number of bits behind the point."""

    bits: int
    exponent: int
    fraction: int

    @property
    def bias(self) -> int:
        return (1 << (self.exponent - 1)) - 1

    @property
    def infinity(self) -> int:
        return ((1 << self.exponent) - 1) << self.fraction

    @property
    def sign(self) -> int:
        return 1 << (self.bits - 1)

    @property
    def nan(self) -> int:
        """The canonical NaN: positive, quiet, nothing else."""
        return self.infinity | 1 << (self.fraction - 1)

    @property
    def smallest(self) -> int:
        """The exponent of the smallest number: all are multiples of 2 to this power."""
        return 1 - self.bias - self.fraction

    def is_nan(self, bits: int) -> bool:
        return bits & ~self.sign > self.infinity

    def is_signaling(self, bits: int) -> bool:
        return self.is_nan(bits) and not bits >> (self.fraction - 1) & 1

    def is_infinite(self, bits: int) -> bool:
        return bits & ~self.sign == self.infinity

    def value(self, bits: int) -> Fraction:
        """A finite number's value; that of both zeros is 0."""
        field, fraction = bits >> self.fraction & ((1 << self.exponent) - 1), bits & ((1 << self.fraction) - 1)
        if field:
            fraction |= 1 << self.fraction
        magnitude = fraction * Fraction(2) ** (self.smallest + max(field, 1) - 1)
        return -magnitude if bits & self.sign else magnitude


FORMATS = {16: Format(16, 5, 10), 32: Format(32, 8, 23), 64: Format(64, 11, 52)}

Result = tuple[int, Exceptions]
"""Bits and the exceptions raised."""

NONE = Exceptions(0)


def _rounded(magnitude: Fraction, mode: Rounding, negative: bool) -> tuple[int, bool]:
    """(a magnitude as an integer by a rounding mode, whether that is not exact)."""
    whole, rest = divmod(magnitude.numerator, magnitude.denominator)
    twice = 2 * rest
    up = {
        Rounding.NEAREST_EVEN: twice > magnitude.denominator or (twice == magnitude.denominator and bool(whole & 1)),
        Rounding.NEAREST_AWAY: twice >= magnitude.denominator,
        Rounding.TO_ZERO: False,
        Rounding.DOWN: negative and rest != 0,
        Rounding.UP: not negative and rest != 0,
    }[mode]
    return whole + up, rest != 0


def _exponent_of(magnitude: Fraction) -> int:
    """The exponent e of a positive number, 2^e ≤ magnitude < 2^(e+1)."""
    e = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    return e if magnitude >= Fraction(2) ** e else e - 1


def encode(format_: Format, value: Fraction, mode: Rounding, *, negative_zero: bool = False) -> Result:
    """The float nearest to an exact value by a rounding mode."""
    if value == 0:
        return (format_.sign if negative_zero else 0), NONE
    negative, magnitude = value < 0, abs(value)
    least = 1 - format_.bias
    e = _exponent_of(magnitude)
    step = Fraction(2) ** (max(e, least) - format_.fraction)
    count, inexact = _rounded(magnitude / step, mode, negative)
    flags = Exceptions.INEXACT if inexact else NONE
    if inexact and e < least:
        # Tiny after rounding: as if the exponent had no lower bound.
        unbounded, _ = _rounded(magnitude / Fraction(2) ** (e - format_.fraction), mode, negative)
        if unbounded * Fraction(2) ** (e - format_.fraction) < Fraction(2) ** least:
            flags |= Exceptions.UNDERFLOW
    # Counting on from one power of two to the next is counting in the bits.
    bits = count if e < least else ((e + format_.bias - 1) << format_.fraction) + count
    if bits >= format_.infinity:
        flags |= Exceptions.OVERFLOW | Exceptions.INEXACT
        away = {Rounding.TO_ZERO: False, Rounding.DOWN: negative, Rounding.UP: not negative}.get(mode, True)
        bits = format_.infinity if away else format_.infinity - 1
    return bits | (format_.sign if negative else 0), flags


def _invalid(format_: Format) -> Result:
    return format_.nan, Exceptions.INVALID


def _nan(format_: Format, *operands: int) -> Result:
    signaling = any(format_.is_signaling(x) for x in operands)
    return format_.nan, Exceptions.INVALID if signaling else NONE


def add(f: Format, a: int, b: int, mode: Rounding) -> Result:
    if f.is_nan(a) or f.is_nan(b):
        return _nan(f, a, b)
    if f.is_infinite(a) and f.is_infinite(b) and a != b:
        return _invalid(f)
    if f.is_infinite(a) or f.is_infinite(b):
        return (a if f.is_infinite(a) else b), NONE
    both_negative = bool(a & b & f.sign)
    alike = not (a ^ b) & f.sign
    return encode(f, f.value(a) + f.value(b), mode, negative_zero=both_negative if alike else mode is Rounding.DOWN)


def sub(f: Format, a: int, b: int, mode: Rounding) -> Result:
    return add(f, a, b if f.is_nan(b) else b ^ f.sign, mode)


def mul(f: Format, a: int, b: int, mode: Rounding) -> Result:
    if f.is_nan(a) or f.is_nan(b):
        return _nan(f, a, b)
    sign = (a ^ b) & f.sign
    if f.is_infinite(a) or f.is_infinite(b):
        zero = not (a & ~f.sign) or not (b & ~f.sign)
        return _invalid(f) if zero else (f.infinity | sign, NONE)
    return encode(f, f.value(a) * f.value(b), mode, negative_zero=bool(sign))


def div(f: Format, a: int, b: int, mode: Rounding) -> Result:
    if f.is_nan(a) or f.is_nan(b):
        return _nan(f, a, b)
    sign = (a ^ b) & f.sign
    if f.is_infinite(a):
        return _invalid(f) if f.is_infinite(b) else (f.infinity | sign, NONE)
    if f.is_infinite(b):
        return sign, NONE
    if f.value(b) == 0:
        return _invalid(f) if f.value(a) == 0 else (f.infinity | sign, Exceptions.DIVIDE_BY_ZERO)
    return encode(f, f.value(a) / f.value(b), mode, negative_zero=bool(sign))


def sqrt(f: Format, a: int, mode: Rounding) -> Result:
    if f.is_nan(a):
        return _nan(f, a)
    if not a & ~f.sign or a == f.infinity:
        return a, NONE
    if a & f.sign:
        return _invalid(f)
    # Enough digits that what is left out only says whether the root is exact.
    value, shift = f.value(a), 2 * (f.fraction + f.bias + 8)
    scaled = value * 2 ** (2 * shift)
    assert scaled.denominator == 1
    root = isqrt(scaled.numerator)
    exact = root * root == scaled.numerator
    return encode(f, Fraction(2 * root + (not exact), 2 ** (shift + 1)), mode)


def fma(f: Format, a: int, b: int, c: int, mode: Rounding) -> Result:
    sign = (a ^ b) & f.sign
    infinite = f.is_infinite(a) or f.is_infinite(b)
    zero = not a & ~f.sign or not b & ~f.sign
    if infinite and zero:
        return _invalid(f)  # even when c is a quiet NaN
    if f.is_nan(a) or f.is_nan(b) or f.is_nan(c):
        return _nan(f, a, b, c)
    if infinite:
        return _invalid(f) if f.is_infinite(c) and (c ^ sign) & f.sign else (f.infinity | sign, NONE)
    if f.is_infinite(c):
        return c, NONE
    alike = not (c & f.sign) ^ sign
    negative_zero = bool(sign) if alike else mode is Rounding.DOWN
    return encode(f, f.value(a) * f.value(b) + f.value(c), mode, negative_zero=negative_zero)


def _order(f: Format, a: int) -> tuple[Fraction, bool]:
    """What numbers are sorted by, -0 below +0."""
    if f.is_infinite(a):
        return Fraction(-1 if a & f.sign else 1) * Fraction(2) ** (f.bias + 1), True
    return f.value(a), not a & f.sign


def _extreme(pick: Callable[..., int]) -> Callable[[Format, int, int, Rounding], Result]:
    def compute(f: Format, a: int, b: int, mode: Rounding) -> Result:
        flags = _nan(f, a, b)[1]
        numbers = [x for x in (a, b) if not f.is_nan(x)]
        return (pick(numbers, key=lambda x: _order(f, x)) if numbers else f.nan), flags

    return compute


def eq(f: Format, a: int, b: int, mode: Rounding) -> Result:
    if f.is_nan(a) or f.is_nan(b):
        return 0, _nan(f, a, b)[1]
    return int(_order(f, a)[0] == _order(f, b)[0]), NONE


def lt(f: Format, a: int, b: int, mode: Rounding) -> Result:
    if f.is_nan(a) or f.is_nan(b):
        return 0, Exceptions.INVALID
    return int(_order(f, a)[0] < _order(f, b)[0]), NONE


def le(f: Format, a: int, b: int, mode: Rounding) -> Result:
    if f.is_nan(a) or f.is_nan(b):
        return 0, Exceptions.INVALID
    return int(_order(f, a)[0] <= _order(f, b)[0]), NONE


def convert(source: Format, target: Format, a: int, mode: Rounding) -> Result:
    """A float in another format."""
    if source.is_nan(a):
        return target.nan, _nan(source, a)[1]
    negative = bool(a & source.sign)
    if source.is_infinite(a):
        return target.infinity | (target.sign if negative else 0), NONE
    return encode(target, source.value(a), mode, negative_zero=negative)


def to_integer(source: Format, bits: int, signed: bool, a: int, mode: Rounding) -> Result:
    """A float as an integer of `bits` bits, in unsigned form."""
    least, most = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    mask = (1 << bits) - 1
    if source.is_nan(a):
        return most & mask, Exceptions.INVALID
    negative = bool(a & source.sign)
    if source.is_infinite(a):
        return (least if negative else most) & mask, Exceptions.INVALID
    magnitude, inexact = _rounded(abs(source.value(a)), mode, negative)
    number = -magnitude if negative else magnitude
    if not least <= number <= most:
        return (least if number < least else most) & mask, Exceptions.INVALID
    return number & mask, Exceptions.INEXACT if inexact else NONE


def from_integer(target: Format, bits: int, signed: bool, a: int, mode: Rounding) -> Result:
    """An integer of `bits` bits, given in unsigned form, as a float."""
    number = a - (1 << bits) if signed and a >> (bits - 1) else a
    return encode(target, Fraction(number), mode)


_ARITHMETIC: dict[str, Callable[..., Result]] = {
    "fadd": add,
    "fsub": sub,
    "fmul": mul,
    "fdiv": div,
    "fsqrt": sqrt,
    "fma": fma,
    "fmin": _extreme(min),
    "fmax": _extreme(max),
    "feq": eq,
    "flt": lt,
    "fle": le,
}


def compute(name: str, bits: int, source_bits: int, operands: list[int], mode: Rounding) -> Result:
    """What the float op `name` of type `bits` gives for operands of `source_bits` bits: the reference of the table."""
    if name in _ARITHMETIC:
        return _ARITHMETIC[name](FORMATS[bits], *operands, mode)
    (a,) = operands
    if name == "fcvt":
        return convert(FORMATS[source_bits], FORMATS[bits], a, mode)
    signed = name in ("ftos", "stof")
    if name in ("ftos", "ftou"):
        return to_integer(FORMATS[source_bits], bits, signed, a, mode)
    return from_integer(FORMATS[bits], source_bits, signed, a, mode)


def effective_mode(mode: int, status: int) -> Rounding | None:
    """The rounding mode of an instruction that names `mode`; None where that is none."""
    found = status >> MODE_SHIFT & 7 if mode == Rounding.DYNAMIC else mode
    return Rounding(found) if found <= Rounding.NEAREST_AWAY else None
