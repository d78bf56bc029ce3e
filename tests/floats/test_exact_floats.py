"""The exact way of every float operation, in every format and rounding mode, against the reference."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from itertools import product

import pytest
from llvmlite import ir

from tests.floats.numbers import Numbers
from vmjit.ir.floats import FORMATS, Rounding, compute
from vmjit.translators.cpu import cpu_target
from vmjit.translators.exact_floats import EXACT_FLOAT_TYPE, OPERATIONS, emit_exact_float, exact_kind

Exact = Callable[..., tuple[int, int]]
OPERANDS = {"fsqrt": 1, "fma": 3, "fcvt": 1, "ftos": 1, "ftou": 1, "stof": 1, "utof": 1}
MODES = list(Rounding)[:5]


def _is_form(name: str, bits: int, source: int) -> bool:
    integer = {"ftos": bits, "ftou": bits, "stof": source, "utof": source}.get(name)
    if integer is not None:
        return integer != 16
    return bits != source if name == "fcvt" else bits == source


FORMS = [form for form in product(OPERATIONS, (16, 32, 64), (16, 32, 64)) if _is_form(*form)]
"""(name, bits of the result's type, bits of the operands) of every operation that instructions ask for."""


@pytest.fixture(scope="module")
def exact() -> Iterator[Exact]:
    module = ir.Module("exact")
    function = emit_exact_float(module)
    i32, i64 = ir.IntType(32), ir.IntType(64)
    wrapper = ir.Function(module, ir.FunctionType(i64, [*EXACT_FLOAT_TYPE.args, ir.PointerType()]), "call")
    b = ir.IRBuilder(wrapper.append_basic_block("entry"))
    found = b.call(function, wrapper.args[:6])
    b.store(b.extract_value(found, 1), wrapper.args[6])
    b.ret(b.extract_value(found, 0))
    assert EXACT_FLOAT_TYPE.args == (i32, i32, i32, i64, i64, i64)
    code = cpu_target().load(cpu_target().compile(str(module)), ("call",))
    u32, u64 = ctypes.c_uint32, ctypes.c_uint64
    call = ctypes.CFUNCTYPE(u64, u32, u32, u32, u64, u64, u64, ctypes.c_void_p)(code.addresses["call"])
    status = u32()

    def run(kind: int, mode: int, before: int, *operands: int) -> tuple[int, int]:
        result = call(kind, mode, before, *operands, *[0] * (3 - len(operands)), ctypes.addressof(status))
        return int(result), int(status.value)

    yield run
    del code


def check(exact: Exact, numbers: Numbers, form: tuple[str, int, int], mode: Rounding) -> None:
    """One operation on the next numbers gives what the reference does, and raises what it raises."""
    name, bits, source = form
    operands = numbers.operands(name, source, OPERANDS.get(name, 2))
    before = numbers.random.getrandbits(5)
    result, flags = compute(name, bits, source, operands, mode)
    got = exact(exact_kind(name, bits, source), int(mode), before, *operands)
    assert got == (result, before | flags), (name, bits, source, [hex(x) for x in operands], mode)


@pytest.mark.parametrize(("name", "bits", "source"), FORMS)
def test_operations(exact: Exact, name: str, bits: int, source: int) -> None:
    numbers = Numbers(1000 * OPERATIONS.index(name) + bits + source)
    for i in range(600):
        check(exact, numbers, (name, bits, source), MODES[i % 5])


def test_the_dynamic_mode_is_that_of_the_status(exact: Exact) -> None:
    third = compute("fdiv", 64, 64, [0x3FF0000000000000, 0x4008000000000000], Rounding.UP)[0]
    kind = exact_kind("fdiv", 64, 64)
    one, three = 0x3FF0000000000000, 0x4008000000000000
    assert exact(kind, 7, Rounding.UP << 5, one, three) == (third, Rounding.UP << 5 | 1)
    assert exact(kind, 7, Rounding.DOWN << 5, one, three) == (third - 1, Rounding.DOWN << 5 | 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_many(exact: Exact, seed: int) -> None:
    numbers = Numbers(seed)
    for name, bits, source in FORMS:
        for i in range(5000):
            check(exact, numbers, (name, bits, source), MODES[i % 5])


def test_every_format_is_asked_for() -> None:
    assert {bits for _, bits, _ in FORMS} == set(FORMATS)
