"""Opcodes that only the SIMT engine has, and the approximate functions, which no two devices round alike."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from tests.ptx.forms import Form, Reference
from tests.ptx.operands import mask, signed
from tests.ptx.running import ENGINES, run_u64
from tests.ptx.test_opcodes import differences, module_of, run

WORDS = ["u32"] * 3


def low_24(a: int, is_signed: bool) -> int:
    return signed(a, 24) if is_signed else a & mask(24)


def bit_mask(position: int, length: int, *, clamp: bool) -> int:
    """bmsk as the ISA's pseudocode has it."""
    first, count = position & 31, length & 31
    start, end = mask(32) << first & mask(32), mask(32) << (first + count) & mask(32)
    if clamp and position >= 32:
        start = 0
    if first + count >= 32 or (clamp and (position >= 32 or length >= 32)):
        end = 0
    return start & ~end


def extended(a: int, length: int, *, clamp: bool, is_signed: bool) -> int:
    length = min(length, 32) if clamp else length & 31
    if not length:
        return 0
    return signed(a, length) if is_signed else a & mask(length)


def dot_product(a: int, b: int, c: int, a_signed: bool, b_signed: bool) -> int:
    pieces = ((a >> 8 * k & 255, b >> 8 * k & 255) for k in range(4))
    return c + sum((signed(x, 8) if a_signed else x) * (signed(y, 8) if b_signed else y) for x, y in pieces)


def _forms() -> list[Form]:
    found: list[Form] = []

    def add(op: str, types: list[str], reference: Reference, result: str = "u32") -> None:
        sources = "".join(f", %r{k}" for k in range(1, len(types) + 1))
        found.append(Form("", op, f"{op} %r10{sources};", [result], types, reference))

    for t in ("u32", "s32"):
        s = t == "s32"
        add(f"mul24.lo.{t}", [t, t], lambda a, b, s=s: low_24(a, s) * low_24(b, s), t)
        add(f"mul24.hi.{t}", [t, t], lambda a, b, s=s: low_24(a, s) * low_24(b, s) >> 16, t)
        for mode in ("clamp", "wrap"):
            c = mode == "clamp"
            add(f"szext.{mode}.{t}", WORDS[:2], lambda a, b, c=c, s=s: extended(a, b, clamp=c, is_signed=s))
        for u in ("u32", "s32"):
            add(f"dp4a.{t}.{u}", WORDS, lambda a, b, c, s=s, u=u: dot_product(a, b, signed(c, 32), s, u == "s32"))
    for mode in ("clamp", "wrap"):
        add(f"bmsk.{mode}.b32", WORDS[:2], lambda a, b, c=mode == "clamp": bit_mask(a, b, clamp=c))
    return found


@pytest.mark.parametrize("form", _forms(), ids=lambda form: form.name)
def test_simt_engine(form: Form) -> None:
    assert not differences(form, run(module_of([form], 0), [form], "simt")[0])


FUNCTIONS: dict[str, Callable[[float], float]] = {
    "rsqrt.approx": lambda x: 1 / math.sqrt(x),
    "sin.approx": math.sin,
    "cos.approx": math.cos,
    "ex2.approx": lambda x: 2.0**x,
    "lg2.approx": math.log2,
    "sqrt.approx": math.sqrt,
    "rcp.approx": lambda x: 1 / x,
    "tanh.approx": math.tanh,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("engine", ENGINES)
def test_approximate_functions(name: str, engine: str) -> None:
    if name == "tanh.approx" and engine == "thread":
        engine = "auto"
    values = np.array([0.1, 0.5, 1.0, 2.5, 7.0, 20.0], np.float32)
    body = f""".reg .u64 %o; .reg .f32 %f; ld.param.u64 %o, [other]; mad.wide.u32 %o, %thread, 4, %o; ld.f32 %f, [%o];
    {name}.f32 %f, %f; st.f32 [%o], %f; mov.u64 %out, 0;"""
    found = values.copy()
    run_u64(body, engines=[engine], block=len(values), other=found)
    assert found.tolist() == pytest.approx([FUNCTIONS[name](float(x)) for x in values], rel=1e-6)


def test_halves() -> None:
    """Loads, conversions and sums of f16, which the SIMT engine has in part."""
    values = np.array([0.5, -2.25, 65504.0], np.float16)
    body = """.reg .u64 %o; .reg .b16 %h; .reg .f32 %f; ld.param.u64 %o, [other]; mad.wide.u32 %o, %thread, 2, %o;
    ld.b16 %h, [%o]; cvt.f32.f16 %f, %h; add.f32 %f, %f, 0f3F800000; cvt.rn.f16.f32 %h, %f; add.f16 %h, %h, %h;
    st.b16 [%o], %h; mov.b32 %tidx, %f; cvt.u64.u32 %out, %tidx;"""
    found = values.copy()
    bits = run_u64(body, engines=["simt"], block=3, other=found)
    sums = values.astype(np.float32) + np.float32(1)
    assert bits == sums.view(np.uint32).tolist()
    with np.errstate(over="ignore"):
        assert found.tolist() == (sums.astype(np.float16) * np.float16(2)).tolist()
