"""IEEE 754 arithmetic on bit patterns in exact rationals, rounded once: the tests' second opinion on floats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt


@dataclass(frozen=True)
class Format:
    bits: int
    precision: int  # of the significand, with the hidden bit

    @property
    def exponent_bits(self) -> int:
        return self.bits - self.precision

    @property
    def least_exponent(self) -> int:
        """Of normal numbers, and of subnormal ones."""
        return 2 - (1 << (self.exponent_bits - 1))

    @property
    def infinity(self) -> int:
        return ((1 << self.exponent_bits) - 1) << (self.precision - 1)

    @property
    def nan(self) -> int:
        return self.infinity | 1 << (self.precision - 2)

    @property
    def sign(self) -> int:
        return 1 << (self.bits - 1)


F32, F64 = Format(32, 24), Format(64, 53)
FORMATS = {"f32": F32, "f64": F64}


def is_nan(a: int, f: Format) -> bool:
    return a & ~f.sign > f.infinity


def is_infinite(a: int, f: Format) -> bool:
    return a & ~f.sign == f.infinity


def is_subnormal(a: int, f: Format) -> bool:
    return 0 < a & ~f.sign < 1 << (f.precision - 1)


def is_negative(a: int, f: Format) -> bool:
    return bool(a & f.sign)


def value(a: int, f: Format) -> Fraction:
    """The value of a finite pattern."""
    exponent, significand = divmod(a & ~f.sign, 1 << (f.precision - 1))
    if exponent:
        significand += 1 << (f.precision - 1)
    scale = f.least_exponent + max(exponent, 1) - f.precision
    magnitude = Fraction(significand << scale) if scale >= 0 else Fraction(significand, 1 << -scale)
    return -magnitude if is_negative(a, f) else magnitude


def _rounds_up(mode: str, negative: bool, whole: int, rest: Fraction) -> bool:
    if mode in ("rn", "rni"):
        return rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole & 1 == 1)
    if mode in ("rz", "rzi"):
        return False
    return rest > 0 and negative == (mode in ("rm", "rmi"))


def rounded(exact: Fraction, f: Format, mode: str, zero_sign: bool = False) -> int:
    """The pattern of a value, rounded; `zero_sign` is the sign of a zero."""
    if not exact:
        return f.sign if zero_sign else 0
    negative, magnitude = exact < 0, abs(exact)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1
    exponent = max(exponent, f.least_exponent)
    scaled = magnitude / Fraction(2) ** (exponent - f.precision + 1)
    whole = scaled.numerator // scaled.denominator
    whole += _rounds_up(mode, negative, whole, scaled - whole)
    pattern = whole + ((exponent - f.least_exponent) << (f.precision - 1))
    if pattern >= f.infinity:
        stays_finite = mode == "rz" or mode == ("rp" if negative else "rm")
        pattern = f.infinity - 1 if stays_finite else f.infinity
    return pattern | (f.sign if negative else 0)


def negate(a: int, f: Format) -> int:
    return a ^ f.sign


def add(a: int, b: int, f: Format, mode: str = "rn") -> int:
    if is_nan(a, f) or is_nan(b, f) or (is_infinite(a, f) and b == negate(a, f)):
        return f.nan
    if is_infinite(a, f) or is_infinite(b, f):
        return a if is_infinite(a, f) else b
    return _sum(value(a, f), is_negative(a, f), b, f, mode)


def _sum(a: Fraction, a_negative: bool, b: int, f: Format, mode: str) -> int:
    b_negative = is_negative(b, f)
    zero_sign = a_negative if a_negative == b_negative else mode == "rm"
    return rounded(a + value(b, f), f, mode, zero_sign)


def multiply(a: int, b: int, f: Format, mode: str = "rn") -> int:
    sign = (a ^ b) & f.sign
    if is_nan(a, f) or is_nan(b, f):
        return f.nan
    if is_infinite(a, f) or is_infinite(b, f):
        return f.nan if not (a & ~f.sign) or not (b & ~f.sign) else f.infinity | sign
    return rounded(value(a, f) * value(b, f), f, mode, bool(sign))


def divide(a: int, b: int, f: Format, mode: str = "rn") -> int:
    sign = (a ^ b) & f.sign
    if is_nan(a, f) or is_nan(b, f) or (is_infinite(a, f) and is_infinite(b, f)):
        return f.nan
    if is_infinite(a, f) or not b & ~f.sign:
        return f.nan if not a & ~f.sign else f.infinity | sign
    if is_infinite(b, f):
        return sign
    return rounded(value(a, f) / value(b, f), f, mode, bool(sign))


def fma(a: int, b: int, c: int, f: Format, mode: str = "rn") -> int:
    if any(is_nan(x, f) for x in (a, b, c)):
        return f.nan
    if is_infinite(a, f) or is_infinite(b, f):
        product = multiply(a, b, f)
        return f.nan if is_nan(product, f) else add(product, c, f)
    if is_infinite(c, f):
        return c
    return _sum(value(a, f) * value(b, f), bool((a ^ b) & f.sign), c, f, mode)


def square_root(a: int, f: Format, mode: str = "rn") -> int:
    if not a & ~f.sign:
        return a
    if is_nan(a, f) or is_negative(a, f):
        return f.nan
    if is_infinite(a, f):
        return a
    exact = value(a, f)
    shift = 2 * (f.precision + 1100)  # far more digits than any result has
    scaled = (exact.numerator << shift) // exact.denominator  # denominators are powers of two: exact
    root = isqrt(scaled)
    doubled = 2 * root + (root * root != scaled)  # something between two digits where it is irrational
    return rounded(Fraction(doubled, 2 << (shift // 2)), f, mode)


def flush(a: int, f: Format) -> int:
    return a & f.sign if is_subnormal(a, f) else a


def saturate(a: int, f: Format) -> int:
    if is_nan(a, f) or is_negative(a, f):
        return 0
    one = rounded(Fraction(1), f, "rn")
    return min(a, one)


def _ordinal(a: int, f: Format) -> int:
    return -(a & ~f.sign) if is_negative(a, f) else a


def extremum(a: int, b: int, f: Format, *, is_max: bool, keeps_nan: bool) -> int:
    if is_nan(a, f) or is_nan(b, f):
        if keeps_nan or (is_nan(a, f) and is_nan(b, f)):
            return f.nan
        return b if is_nan(a, f) else a

    def order(x: int) -> tuple[int, bool]:
        return _ordinal(x, f), not is_negative(x, f)

    return max(a, b, key=order) if is_max else min(a, b, key=order)


RELATIONS: dict[str, Callable[[int, int], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


def compare(a: int, b: int, relation: str, f: Format) -> bool:
    unordered = is_nan(a, f) or is_nan(b, f)
    if relation in ("num", "nan"):
        return unordered == (relation == "nan")
    if unordered:
        return relation.endswith("u")
    return RELATIONS[relation.removesuffix("u")](_ordinal(a, f), _ordinal(b, f))


PROPERTIES: dict[str, Callable[[int, Format], bool]] = {
    "finite": lambda a, f: not is_nan(a, f) and not is_infinite(a, f),
    "infinite": is_infinite,
    "number": lambda a, f: not is_nan(a, f),
    "notanumber": is_nan,
    "normal": lambda a, f: 1 << (f.precision - 1) <= a & ~f.sign < f.infinity,
    "subnormal": is_subnormal,
}


def _integral(exact: Fraction, mode: str) -> int:
    whole = abs(exact).numerator // abs(exact).denominator
    whole += _rounds_up(mode, exact < 0, whole, abs(exact) - whole)
    return -whole if exact < 0 else whole


def to_integral(a: int, f: Format, mode: str) -> int:
    if is_nan(a, f) or is_infinite(a, f):
        return f.nan if is_nan(a, f) else a
    return rounded(Fraction(_integral(value(a, f), mode)), f, "rn", is_negative(a, f))


def to_integer(a: int, f: Format, mode: str, low: int, high: int) -> int:
    """Clamped; NaN is 0 from f32 to at most 32 bits, else the value with only the top bit set."""
    if is_nan(a, f):
        bits = (high - low).bit_length()
        return 1 << (bits - 1) if f is F64 or bits == 64 else 0
    if is_infinite(a, f):
        return low if is_negative(a, f) else high
    return min(max(_integral(value(a, f), mode), low), high)


def convert(a: int, source: Format, result: Format, mode: str) -> int:
    if is_nan(a, source):
        return result.nan
    sign = result.sign if is_negative(a, source) else 0
    if is_infinite(a, source):
        return result.infinity | sign
    return rounded(value(a, source), result, mode, bool(sign))
