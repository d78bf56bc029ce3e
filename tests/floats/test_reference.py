"""The reference of the float ops against this computer's own arithmetic, and against hand-made cases of the standard."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.floats.numbers import Numbers, edges
from vmjit.ir import floats
from vmjit.ir.floats import FORMATS, Exceptions, Rounding

_TYPES: dict[int, Any] = {16: np.float16, 32: np.float32, 64: np.float64}
_WORDS: dict[int, Any] = {16: np.uint16, 32: np.uint32, 64: np.uint64}
NEAREST = Rounding.NEAREST_EVEN
INEXACT, UNDERFLOW, OVERFLOW = Exceptions.INEXACT, Exceptions.UNDERFLOW, Exceptions.OVERFLOW


def _host(bits: int, compute: Callable[..., Any], operands: list[int]) -> int:
    """What numpy gives, NaNs made canonical."""
    values = [np.array([x], _WORDS[bits]).view(_TYPES[bits]) for x in operands]
    with np.errstate(all="ignore"):
        result = int(compute(*values).astype(_TYPES[bits]).view(_WORDS[bits])[0])
    return FORMATS[bits].nan if FORMATS[bits].is_nan(result) else result


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize(
    ("name", "compute"),
    [
        ("fadd", np.add),
        ("fsub", np.subtract),
        ("fmul", np.multiply),
        ("fdiv", np.divide),
        ("fsqrt", np.sqrt),
    ],
)
def test_nearest_even_is_what_this_computer_gives(name: str, compute: Callable[..., Any], bits: int) -> None:
    numbers = Numbers(bits)
    count = 1 if name == "fsqrt" else 2
    for _ in range(3000):
        operands = numbers.operands(name, bits, count)
        got, _ = floats.compute(name, bits, bits, operands, NEAREST)
        assert got == _host(bits, compute, operands), (name, bits, [hex(x) for x in operands])


@pytest.mark.parametrize(("source", "target"), [(a, b) for a in (16, 32, 64) for b in (16, 32, 64) if a != b])
def test_conversions_are_what_this_computer_gives(source: int, target: int) -> None:
    numbers = Numbers(source + target)
    for _ in range(3000):
        x = numbers.number(source)
        got, _ = floats.compute("fcvt", target, source, [x], NEAREST)
        with np.errstate(all="ignore"):
            value = np.array([x], _WORDS[source]).view(_TYPES[source]).astype(_TYPES[target])
        want = int(value.view(_WORDS[target])[0])
        assert got == (FORMATS[target].nan if FORMATS[target].is_nan(want) else want), hex(x)


def _bits(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


def test_directed_modes_enclose() -> None:
    """Down and up are neighbours around what is not exact, and every other mode gives one of the two."""
    numbers = Numbers(5)
    f = FORMATS[64]
    seen = 0
    for _ in range(4000):
        operands = numbers.operands("fdiv", 64, 2)
        by_mode = {m: floats.compute("fdiv", 64, 64, operands, m) for m in list(Rounding)[:5]}
        down, up = (by_mode[m][0] for m in (Rounding.DOWN, Rounding.UP))
        if not by_mode[NEAREST][1] & INEXACT or f.is_nan(down):
            assert down == up or (down ^ up) == f.sign
            continue
        seen += 1
        assert {r for r, _ in by_mode.values()} == {down, up}
        low, high = (struct.unpack("<d", x.to_bytes(8, "little"))[0] for x in (down, up))
        assert math.nextafter(low, math.inf) == high
        zero = by_mode[Rounding.TO_ZERO][0]
        assert zero == (up if zero & f.sign else down)
    assert seen > 1000


def test_flags_of_known_cases() -> None:
    f = FORMATS[64]
    least, tiny = 1 << 52, 1
    one, half = _bits(1.0), _bits(0.5)
    cases = [
        ("fadd", [one, tiny], NEAREST, one, INEXACT),
        ("fmul", [tiny, half], NEAREST, 0, INEXACT | UNDERFLOW),
        ("fmul", [tiny, half], Rounding.UP, 1, INEXACT | UNDERFLOW),
        ("fmul", [least, half], NEAREST, least >> 1, Exceptions(0)),  # exact: no underflow
        # Tiny before rounding and not after it: no underflow (tininess is detected after rounding).
        ("fmul", [least + 1, _bits(1.0) - 1], NEAREST, least, INEXACT),
        ("fmul", [f.infinity - 1, _bits(2.0)], NEAREST, f.infinity, INEXACT | OVERFLOW),
        ("fmul", [f.infinity - 1, _bits(2.0)], Rounding.TO_ZERO, f.infinity - 1, INEXACT | OVERFLOW),
        ("fdiv", [one, f.sign], NEAREST, f.infinity | f.sign, Exceptions.DIVIDE_BY_ZERO),
        ("fdiv", [0, 0], NEAREST, f.nan, Exceptions.INVALID),
        ("fma", [f.infinity, 0, f.nan], NEAREST, f.nan, Exceptions.INVALID),
        ("fadd", [f.nan, one], NEAREST, f.nan, Exceptions(0)),
        ("fadd", [f.infinity + 1, one], NEAREST, f.nan, Exceptions.INVALID),
        ("fsub", [one, one], Rounding.DOWN, f.sign, Exceptions(0)),
        ("fmin", [0, f.sign], NEAREST, f.sign, Exceptions(0)),
        ("fmax", [f.nan, f.sign], NEAREST, f.sign, Exceptions(0)),
        ("feq", [f.nan, f.nan], NEAREST, 0, Exceptions(0)),
        ("flt", [f.nan, one], NEAREST, 0, Exceptions.INVALID),
    ]
    for name, operands, mode, result, flags in cases:
        assert floats.compute(name, 64, 64, operands, mode) == (result, flags), (name, operands, mode)


@pytest.mark.parametrize("bits", [32, 64])
def test_integers_saturate(bits: int) -> None:
    f = FORMATS[64]
    for value, signed, want, flags in [
        (f.nan | f.sign, True, (1 << (bits - 1)) - 1, Exceptions.INVALID),
        (_bits(1e300), True, (1 << (bits - 1)) - 1, Exceptions.INVALID),
        (_bits(-1e300), True, 1 << (bits - 1), Exceptions.INVALID),
        (_bits(-1.0), False, 0, Exceptions.INVALID),
        (_bits(-0.5), False, 0, INEXACT),
        (_bits(-float(1 << (bits - 1))), True, 1 << (bits - 1), Exceptions(0)),
    ]:
        assert floats.to_integer(f, bits, signed, value, Rounding.TO_ZERO) == (want, flags)


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_numbers_cover_the_edges(bits: int) -> None:
    f = FORMATS[bits]
    assert len(set(edges(f))) == 32
    numbers = [Numbers(1).number(bits) for _ in range(1)] + [Numbers(s).number(bits) for s in range(2000)]
    assert any(f.is_signaling(x) for x in numbers)
    assert any(0 < x & ~f.sign < 1 << f.fraction for x in numbers), "subnormal"
    assert all(0 <= x < 1 << bits for x in numbers)
