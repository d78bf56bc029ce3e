"""Every form of every arithmetic opcode, with a reference on big integers and exact rationals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.ptx import exact
from tests.ptx.kernels import register
from tests.ptx.operands import interpret, mask
from vmjit.ptx.types import BITS, integer_range, is_signed

Reference = Callable[..., Any]  # of numbers (patterns for floats): a number or pattern, or one for each result


@dataclass(frozen=True, eq=False)
class Form:
    family: str
    name: str
    code: str
    results: list[str]
    operands: list[str]
    reference: Reference


FORMS: list[Form] = []

_INTEGERS = ["u16", "s16", "u32", "s32", "u64", "s64"]
_BOOLEAN: dict[str, Callable[[int, int], int]] = {
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
}


def _form(family: str, name: str, code: str, results: list[str], operands: list[str], reference: Reference) -> None:
    FORMS.append(Form(family, name, code, results, operands, reference))


def _apply(
    family: str, op: str, types: list[str], reference: Reference, result: str | None = None, suffix: str = ""
) -> None:
    """`op.type d, a, b...;` of registers of the types; `suffix` is an immediate at the end."""
    result = result or types[0]
    sources = "".join(f", {register(t)}{k}" for k, t in enumerate(types, 1))
    _form(family, op + suffix, f"{op} {register(result)}10{sources}{suffix};", [result], types, reference)


def _quotient(a: int, b: int) -> int:
    if b == 0:
        return -1
    size = abs(a) // abs(b)
    return size if (a < 0) == (b < 0) else -size


def _remainder(a: int, b: int) -> int:
    return a if b == 0 else a - b * _quotient(a, b)


def _integer_arithmetic(t: str) -> None:
    bits = BITS[t]
    family = f"arithmetic {t}"
    _apply(family, f"add.{t}", [t, t], lambda a, b: a + b)
    _apply(family, f"sub.{t}", [t, t], lambda a, b: a - b)
    _apply(family, f"mul.lo.{t}", [t, t], lambda a, b: a * b)
    _apply(family, f"mul.hi.{t}", [t, t], lambda a, b: (a * b) >> bits)
    _apply(family, f"div.{t}", [t, t], _quotient)
    _apply(family, f"rem.{t}", [t, t], _remainder)
    _apply(family, f"min.{t}", [t, t], min)
    _apply(family, f"max.{t}", [t, t], max)
    _apply(family, f"mad.lo.{t}", [t, t, t], lambda a, b, c: a * b + c)
    _apply(family, f"mad.hi.{t}", [t, t, t], lambda a, b, c: ((a * b) >> bits) + c)
    _apply(family, f"sad.{t}", [t, t, t], lambda a, b, c: c + abs(a - b))
    if bits < 64:
        wide = f"{t[0]}{2 * bits}"
        _apply(family, f"mul.wide.{t}", [t, t], lambda a, b: a * b, wide)
        _apply(family, f"mad.wide.{t}", [t, t, wide], lambda a, b, c: a * b + c, wide)
    if is_signed(t):
        _apply(family, f"abs.{t}", [t], abs)
        _apply(family, f"neg.{t}", [t], lambda a: -a)


def _right_shifts(t: str) -> None:
    bits = BITS[t]
    _apply("shr", f"shr.{t}", [t, "u32"], lambda a, b: a >> min(b, bits))
    for k in (0, 1, bits - 1, bits, bits + 5):
        _apply("shr", f"shr.{t}", [t], lambda a, k=k: a >> min(k, bits), suffix=f", {k}")


def _integer_comparisons(t: str) -> None:
    r = register(t)
    for name, holds in exact.RELATIONS.items():
        _apply("setp", f"setp.{name}.{t}", [t, t], lambda a, b, f=holds: int(f(a, b)), "pred")
        _apply("set", f"set.{name}.u32.{t}", [t, t], lambda a, b, f=holds: mask(32) * f(a, b), "u32")
        _form(
            "setp and",
            f"setp.{name}.and.{t}",
            f"setp.{name}.and.{t} %q10|%q11, {r}1, {r}2, %q3;",
            ["pred", "pred"],
            [t, t, "pred"],
            lambda a, b, c, f=holds: (int(f(a, b)) & c, (1 - int(f(a, b))) & c),
        )
    _apply("selection", f"selp.{t}", [t, t, "pred"], lambda a, b, c: a if c else b)
    _apply("selection", f"slct.{t}.s32", [t, t, "s32"], lambda a, b, c: a if c >= 0 else b)


def _integer_conversions(t: str) -> None:
    for to in [*_INTEGERS, "u8", "s8"]:
        result = to if BITS[to] > 8 else f"{to[0]}16"
        low, high = integer_range(to)
        _apply(f"cvt to {to}", f"cvt.{to}.{t}", [t], lambda a, to=to: interpret(a, to), result)
        _apply(f"cvt to {to}", f"cvt.sat.{to}.{t}", [t], lambda a, low=low, high=high: min(max(a, low), high), result)
    for source in ("u8", "s8"):
        code = f"cvt.{t}.{source} {register(t)}10, %h1;"
        _form("cvt from 8 bits", f"cvt.{t}.{source}", code, [t], ["u16"], lambda a, s=source: interpret(a, s))


def _logic(t: str) -> None:
    bits = BITS[t]
    for op, reference in _BOOLEAN.items():
        _apply("logic", f"{op}.b{bits}", [t, t], reference)
    _apply("logic", f"not.b{bits}", [t], lambda a: ~a)
    _apply("logic", f"cnot.b{bits}", [t], lambda a: int(a == 0))
    _apply("shl", f"shl.b{bits}", [t, "u32"], lambda a, b: a << min(b, bits))
    for k in (0, 1, bits - 1, bits, bits + 5):
        _apply("shl", f"shl.b{bits}", [t], lambda a, k=k: a << min(k, bits), suffix=f", {k}")


def _extract(a: int, position: int, length: int, bits: int, is_sign_extended: bool) -> int:
    """bfe as the ISA's pseudocode has it."""
    position, length, top = position & 255, length & 255, bits - 1
    a &= mask(bits)
    sign = 0 if not is_sign_extended or length == 0 else a >> min(position + length - 1, top) & 1
    result = 0
    for k in range(bits):
        result |= ((a >> position + k & 1) if k < length and position + k <= top else sign) << k
    return result


def _insert(a: int, b: int, position: int, length: int, bits: int) -> int:
    """bfi as the ISA's pseudocode has it."""
    position, length, result = position & 255, length & 255, b & mask(bits)
    k = 0
    while k < length and position + k < bits:
        result = result & ~(1 << position + k) | ((a >> k & 1) << position + k)
        k += 1
    return result


_PERMUTATIONS = {
    "f4e": [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]],
    "b4e": [[0, 7, 6, 5], [1, 0, 7, 6], [2, 1, 0, 7], [3, 2, 1, 0]],
    "rc8": [[0] * 4, [1] * 4, [2] * 4, [3] * 4],
    "ecl": [[0, 1, 2, 3], [1, 1, 2, 3], [2, 2, 2, 3], [3, 3, 3, 3]],
    "ecr": [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 2, 2], [0, 1, 2, 3]],
    "rc16": [[0, 1, 0, 1], [2, 3, 2, 3], [0, 1, 0, 1], [2, 3, 2, 3]],
}


def _permute(a: int, b: int, control: int, mode: str | None = None) -> int:
    data = [(a >> 8 * k) & 255 for k in range(4)] + [(b >> 8 * k) & 255 for k in range(4)]
    if mode is not None:
        return sum(data[_PERMUTATIONS[mode][control & 3][k]] << 8 * k for k in range(4))
    result = 0
    for k in range(4):
        selector = control >> 4 * k & 15
        byte = data[selector & 7]
        if selector & 8:
            byte = 255 if byte & 128 else 0
        result |= byte << 8 * k
    return result


def _length(a: int) -> int:
    return (a if a >= 0 else ~a).bit_length()


def _bits(bits: int) -> None:
    u, s, r = f"u{bits}", f"s{bits}", register(f"u{bits}")
    _apply("bit counts", f"popc.b{bits}", [u], lambda a: a.bit_count(), "u32")
    _apply("bit counts", f"clz.b{bits}", [u], lambda a: bits - a.bit_length(), "u32")
    _apply("bit counts", f"brev.b{bits}", [u], lambda a: int(format(a, f"0{bits}b")[::-1], 2))
    for t in (u, s):
        extends = is_signed(t)
        _apply("bit counts", f"bfind.{t}", [t], lambda a: _length(a) - 1, "u32")
        _apply("bit counts", f"bfind.shiftamt.{t}", [t], lambda a: bits - _length(a) if _length(a) else mask(32), "u32")
        code = f"bfe.{t} {r}10, {r}1, %r2, %r3;"
        _form(
            "bit fields",
            f"bfe.{t}",
            code,
            [u],
            [u, "u32", "u32"],
            lambda a, b, c, e=extends: _extract(a, b, c, bits, e),
        )
        for at, size in ((0, 8), (8, 8), (24, 8), (bits - 1, 1), (3, bits)):
            _form(
                "bit fields",
                f"bfe.{t} {at} {size}",
                f"bfe.{t} {r}10, {r}1, {at}, {size};",
                [u],
                [u],
                lambda a, p=at, n=size, e=extends: _extract(a, p, n, bits, e),
            )
    _form(
        "bit fields",
        f"bfi.b{bits} of 9 bits",
        f"bfi.b{bits} {r}10, {r}1, {r}2, %r3, 9;",
        [u],
        [u, u, "u32"],
        lambda a, b, c: _insert(a, b, c, 9, bits),
    )
    _form(
        "bit fields",
        f"bfi.b{bits} at 5",
        f"bfi.b{bits} {r}10, {r}1, {r}2, 5, %r3;",
        [u],
        [u, u, "u32"],
        lambda a, b, c: _insert(a, b, 5, c, bits),
    )


def _lut(a: int, b: int, c: int, table: int) -> int:
    rows = [(a >> k & 1) * 4 + (b >> k & 1) * 2 + (c >> k & 1) for k in range(32)]
    return sum((table >> row & 1) << k for k, row in enumerate(rows))


def _funnel(a: int, b: int, amount: int, direction: str, mode: str) -> int:
    shift, both = amount & 31 if mode == "wrap" else min(amount, 32), b << 32 | a
    return both >> shift if direction == "r" else (both << shift) >> 32


def _words() -> None:
    words = ["u32"] * 3
    _apply("prmt", "prmt.b32", words, _permute)
    for mode in _PERMUTATIONS:
        _apply("prmt", f"prmt.b32.{mode}", words, lambda a, b, c, m=mode: _permute(a, b, c, m))
    for direction in "lr":
        for mode in ("wrap", "clamp"):
            _apply(
                "shf",
                f"shf.{direction}.{mode}.b32",
                words,
                lambda a, b, c, d=direction, m=mode: _funnel(a, b, c, d, m),
            )
    for table in (0x96, 0xE8, 0xCA, 0x01, 0x80, 0x3C):
        _apply("lop3", "lop3.b32", words, lambda a, b, c, t=table: _lut(a, b, c, t), suffix=f", {table}")
    for op, reference in _BOOLEAN.items():
        _apply("predicates", f"{op}.pred", ["pred", "pred"], reference)
    _apply("predicates", "not.pred", ["pred"], lambda a: 1 - a)


def _carries(t: str) -> None:
    bits, r = BITS[t], register(t)

    def carry(total: int) -> int:
        return total >> bits

    _form(
        "carries",
        f"add.cc.{t}",
        f"add.cc.{t} {r}10, {r}1, {r}2; addc.{t} {r}11, {r}3, 0;",
        [t, t],
        [t, t, t],
        lambda a, b, c: (a + b, c + carry(a + b)),
    )
    _form(
        "carries",
        f"add.cc addc.cc addc.{t}",
        f"add.cc.{t} {r}9, {r}1, {r}2; addc.cc.{t} {r}10, {r}2, {r}3; addc.{t} {r}11, {r}1, {r}3;",
        [t, t],
        [t, t, t],
        lambda a, b, c: (b + c + carry(a + b), a + c + carry(b + c + carry(a + b))),
    )
    _form(
        "carries",
        f"sub.cc subc.cc subc.{t}",
        f"sub.cc.{t} {r}9, {r}1, {r}2; subc.cc.{t} {r}10, {r}2, {r}3; subc.{t} {r}11, {r}1, {r}3;",
        [t, t],
        [t, t, t],
        lambda a, b, c: (b - c - (a < b), a - c - int(b - c - (a < b) < 0)),
    )
    _form(
        "carries",
        f"mad.lo.cc madc.hi.{t}",
        f"mad.lo.cc.{t} {r}10, {r}1, {r}2, {r}3; madc.hi.{t} {r}11, {r}1, {r}2, {r}3;",
        [t, t],
        [t, t, t],
        lambda a, b, c: (a * b + c, carry(a * b) + c + carry(((a * b) & mask(bits)) + c)),
    )


def _single_forms() -> None:
    _form(
        "moves and guards",
        "mov pack and unpack",
        "mov.b64 %rd10, {%r1, %r2}; mov.b64 {%r12, %r13}, %rd3; xor.b32 %r11, %r12, %r13;",
        ["u64", "u32"],
        ["u32", "u32", "u64"],
        lambda a, b, c: (b << 32 | a, (c ^ c >> 32) & mask(32)),
    )
    _form(
        "moves and guards",
        "guards",
        "@%q3 add.s64 %rd10, %rd1, %rd2; @!%q3 sub.s64 %rd10, %rd1, %rd2;",
        ["u64"],
        ["u64", "u64", "pred"],
        lambda a, b, c: a + b if c else a - b,
    )
    low, high = integer_range("s32")
    _apply("moves and guards", "add.sat.s32", ["s32", "s32"], lambda a, b: min(max(a + b, low), high))
    _apply("moves and guards", "sub.sat.s32", ["s32", "s32"], lambda a, b: min(max(a - b, low), high))


def _float_arithmetic(t: str) -> None:
    f = exact.FORMATS[t]
    family = f"arithmetic {t}"

    def subtract(a: int, b: int, mode: str = "rn") -> int:
        return exact.add(a, exact.negate(b, f), f, mode)

    binary: dict[str, Reference] = {
        "add": lambda a, b: exact.add(a, b, f),
        "sub": subtract,
        "mul": lambda a, b: exact.multiply(a, b, f),
        "div.rn": lambda a, b: exact.divide(a, b, f),
        "min": lambda a, b: exact.extremum(a, b, f, is_max=False, keeps_nan=False),
        "max": lambda a, b: exact.extremum(a, b, f, is_max=True, keeps_nan=False),
        "add.rz": lambda a, b: exact.add(a, b, f, "rz"),
        "mul.rm": lambda a, b: exact.multiply(a, b, f, "rm"),
        "sub.rp": lambda a, b: subtract(a, b, "rp"),
        "div.rz": lambda a, b: exact.divide(a, b, f, "rz"),
    }
    if t == "f32":
        flush = exact.flush
        binary |= {
            "add.ftz": lambda a, b: flush(exact.add(flush(a, f), flush(b, f), f), f),
            "mul.ftz": lambda a, b: flush(exact.multiply(flush(a, f), flush(b, f), f), f),
            "add.sat": lambda a, b: exact.saturate(exact.add(a, b, f), f),
            "min.NaN": lambda a, b: exact.extremum(a, b, f, is_max=False, keeps_nan=True),
        }
    one = exact.rounded(exact.Fraction(1), f, "rn")
    unary: dict[str, Reference] = {
        "abs": lambda a: a & ~f.sign,
        "neg": lambda a: exact.negate(a, f),
        "sqrt.rn": lambda a: exact.square_root(a, f),
        "rcp.rn": lambda a: exact.divide(one, a, f),
        "sqrt.rz": lambda a: exact.square_root(a, f, "rz"),
        "rcp.rp": lambda a: exact.divide(one, a, f, "rp"),
    }
    for op, reference in binary.items():
        _apply(family, f"{op}.{t}", [t, t], reference)
    for op, reference in unary.items():
        _apply(family, f"{op}.{t}", [t], reference)
    _apply(family, f"copysign.{t}", [t, t], lambda a, b: (b & ~f.sign) | (a & f.sign))
    for mode in ("rn", "rz", "rm", "rp"):
        _apply(f"fma {t}", f"fma.{mode}.{t}", [t, t, t], lambda a, b, c, m=mode: exact.fma(a, b, c, f, m))


def _float_conversions(t: str) -> None:
    f = exact.FORMATS[t]
    for mode in ("rn", "rz", "rm", "rp"):
        for other in ("u32", "s32", "u64", "s64", "u16"):
            bounds = integer_range(other)
            _apply(
                f"cvt to {t}",
                f"cvt.{mode}.{t}.{other}",
                [other],
                lambda a, m=mode: exact.rounded(exact.Fraction(a), f, m),
                t,
            )
            _apply(
                f"cvt from {t}",
                f"cvt.{mode}i.{other}.{t}",
                [t],
                lambda a, m=mode, bounds=bounds: exact.to_integer(a, f, f"{m}i", *bounds),
                other,
            )
        _apply(f"cvt to {t}", f"cvt.{mode}i.{t}.{t}", [t], lambda a, m=mode: exact.to_integral(a, f, f"{m}i"))


def _float_comparisons(t: str) -> None:
    f = exact.FORMATS[t]
    relations = [*exact.RELATIONS, *(f"{relation}u" for relation in exact.RELATIONS), "num", "nan"]
    for relation in relations:
        _apply(
            f"setp {t}",
            f"setp.{relation}.{t}",
            [t, t],
            lambda a, b, r=relation: int(exact.compare(a, b, r, f)),
            "pred",
        )
    for name, holds in exact.PROPERTIES.items():
        _apply(f"testp {t}", f"testp.{name}.{t}", [t], lambda a, p=holds: int(p(a, f)), "pred")


def _between_floats() -> None:
    for mode in ("rn", "rz", "rm", "rp"):
        _apply(
            "cvt to f32",
            f"cvt.{mode}.f32.f64",
            ["f64"],
            lambda a, m=mode: exact.convert(a, exact.F64, exact.F32, m),
            "f32",
        )
    _apply("cvt to f64", "cvt.f64.f32", ["f32"], lambda a: exact.convert(a, exact.F32, exact.F64, "rn"), "f64")


for _t in _INTEGERS:
    _integer_arithmetic(_t)
    _right_shifts(_t)
    _integer_comparisons(_t)
    _integer_conversions(_t)
for _t in ("u16", "u32", "u64"):
    _logic(_t)
for _n in (32, 64):
    _bits(_n)
_words()
for _t in ("u32", "u64"):
    _carries(_t)
_single_forms()
for _t in ("f32", "f64"):
    _float_arithmetic(_t)
    _float_conversions(_t)
    _float_comparisons(_t)
_between_floats()

FAMILIES = list(dict.fromkeys(form.family for form in FORMS))
