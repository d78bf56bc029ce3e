"""The lowering table against the reference evaluator: every pure op, every type, on operands that matter.

Each op and type is one function of one module, compiled for this host and called with every combination of operands;
and once more for vectors of lanes.
"""

from __future__ import annotations

import ctypes
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from llvmlite import ir

from tests.unit.ir_samples import INTEGERS, block_of, sources_of, types_of
from vmjit.errors import IRError
from vmjit.ir import I1, I8, I64, OPS, Const, Evaluator, Op, Operand, Register, Temp, Type, verify_block
from vmjit.translators.cpu import LoadedCode, cpu_target
from vmjit.translators.lowering import EFFECTS, LOWERINGS, Temps, constant, int_type

PURE = [name for name, spec in OPS.items() if spec.pure]

# Ops that make sense on single bits too.
ON_FLAGS = ("copy", "and", "or", "xor", "eq", "ne", "select")

ARGUMENTS = 3


@dataclass(frozen=True)
class Case:
    """One compiled function: an op, its type and the types of its operands."""

    name: str
    own: Type
    operands: tuple[Type, ...]

    @property
    def result(self) -> Type:
        return I1 if OPS[self.name].result == "i1" else self.own

    @property
    def symbol(self) -> str:
        return "_".join((self.name, self.own.name, *(t.name for t in self.operands)))


def cases() -> Iterator[Case]:
    for name in PURE:
        own_types = (*types_of(name), I1) if name in ON_FLAGS else types_of(name)
        for own in own_types:
            if name == "bswap" and own is I8:
                continue  # see test_what_the_verifier_accepts_can_be_lowered
            for operands in itertools.product(*(sources_of(letter, own, I64) for letter in OPS[name].operands)):
                yield Case(name, own, operands)
        if name == "trunc":
            yield from (Case(name, I1, (source,)) for source in INTEGERS)


CASES = list(cases())


class _Context:
    """Lane state that pure ops must not ask for."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    def operand(self, operand: Operand) -> object:
        raise AssertionError(f"no lane state here: {operand}")

    def write_register(self, register: Operand, value: object) -> None:
        raise AssertionError("no lane state here")


def emit(
    module: ir.Module, case: Case, make_function: Any = ir.Function, make_builder: Callable[[Any], Any] = ir.IRBuilder
) -> None:
    """i64 function(i64, i64, i64): the op on the low bits of its arguments, the result zero-extended."""
    wide = int_type(64)
    function = make_function(module, ir.FunctionType(wide, [wide] * ARGUMENTS), case.symbol)
    builder = make_builder(function.append_basic_block("entry"))
    temps = Temps(_Context(builder))  # type: ignore[arg-type]
    args = []
    for i, type_ in enumerate(case.operands):
        temp = Temp(i, type_)
        value = function.args[i]
        temps.values[temp.index] = value if type_ is I64 else builder.trunc(value, int_type(type_.bits))
        args.append(temp)
    dest = Temp(len(args), case.result)
    temps.run([Op(case.name, case.own, dest, tuple(args))])
    result = temps.value(dest)
    builder.ret(result if case.result is I64 else builder.zext(result, wide))


Function = Callable[[int, int, int], int]


def compiled(listed: list[Case]) -> tuple[LoadedCode, dict[str, Function]]:
    module = ir.Module("lowerings")
    for case in listed:
        emit(module, case)
    target = cpu_target()
    symbols = tuple(case.symbol for case in listed)
    code = target.load(target.compile(str(module)), symbols)
    make = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * ARGUMENTS)
    return code, {symbol: make(code.addresses[symbol]) for symbol in symbols}


@pytest.fixture(scope="module")
def functions() -> Iterator[dict[str, Function]]:
    code, found = compiled(CASES)
    yield found
    assert code.size > 0  # it had to stay loaded until here


def operands_of(type_: Type) -> list[int]:
    """Edges of a type: around zero, around the sign, around its width, and patterns."""
    bits, top = type_.bits, 1 << type_.bits
    values = [0, 1, 2, 3, 7, 0x10, 0x55, 0xAA, bits - 1, bits, bits + 1, 2 * bits - 1, top >> 1, (top >> 1) - 1]
    values += [(top >> 1) + 1, top - 1, top - 2, top // 3, 0x0123456789ABCDEF, 0x8000000080000000, 0x00FF00FF00FF00FF]
    return sorted({v & type_.mask for v in values})


def evaluated(case: Case, operands: tuple[int, ...]) -> int:
    """The same by the evaluator."""
    args = tuple(Const(v, t) for v, t in zip(operands, case.operands, strict=True))
    ops = [Op(case.name, case.own, Temp(0, case.result), args)]
    ops.append(Op("copy" if case.result is I64 else "zext", I64, Register(10), (Temp(0, case.result),)))
    evaluator = Evaluator([0] * 33, memory=None)  # type: ignore[arg-type]
    evaluator.run(block_of(ops))
    return evaluator.registers[10]


def differences(case: Case, function: Function) -> list[str]:
    found = []
    for operands in itertools.product(*map(operands_of, case.operands)):
        got = function(*operands, *[0] * (ARGUMENTS - len(operands)))
        wanted = evaluated(case, operands)
        if got != wanted:
            found.append(f"{case.symbol}({', '.join(map(hex, operands))}) is {got:#x}, the evaluator says {wanted:#x}")
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.symbol)
def test_lowering_agrees_with_the_evaluator(case: Case, functions: dict[str, Function]) -> None:
    assert not differences(case, functions[case.symbol])[:20]


# -- the same on vectors of lanes

VECTOR_LANES = 8


def vector_symbol(case: Case) -> str:
    return f"vector_{case.symbol}"


def emit_vector(module: ir.Module, case: Case) -> None:
    """void function(i64 count, i64* operand 0, 1, 2, i64* results): the op on `count` vectors of operands."""
    wide, pointer, lanes = int_type(64), ir.PointerType(), VECTOR_LANES
    many = ir.VectorType(wide, lanes)
    signature = ir.FunctionType(ir.VoidType(), [wide, *[pointer] * (ARGUMENTS + 1)])
    function = ir.Function(module, signature, vector_symbol(case))
    before, head, out = (function.append_basic_block(n) for n in ("entry", "head", "out"))
    ir.IRBuilder(before).branch(head)
    b = ir.IRBuilder(head)
    index = b.phi(wide)
    index.add_incoming(ir.Constant(wide, 0), before)
    args = []
    for type_, base in zip(case.operands, function.args[1:], strict=False):
        value = b.load(b.gep(base, [index], source_etype=many), typ=many, align=8)
        args.append(value if type_ is I64 else b.trunc(value, ir.VectorType(int_type(type_.bits), lanes)))
    result = LOWERINGS[case.name](b, case.own, args)
    result = result if case.result is I64 else b.zext(result, many)
    b.store(result, b.gep(function.args[-1], [index], source_etype=many), align=8)
    following = b.add(index, ir.Constant(wide, 1))
    index.add_incoming(following, head)
    b.cbranch(b.icmp_unsigned("<", following, function.args[0]), head, out)
    ir.IRBuilder(out).ret_void()


VectorFunction = Callable[[int, int, int, int, int], None]


@pytest.fixture(scope="module")
def vector_functions() -> Iterator[dict[str, VectorFunction]]:
    module = ir.Module("vector lowerings")
    for case in CASES:
        emit_vector(module, case)
    target = cpu_target()
    symbols = tuple(map(vector_symbol, CASES))
    code = target.load(target.compile(str(module)), symbols)
    make = ctypes.CFUNCTYPE(None, ctypes.c_uint64, *[ctypes.c_uint64] * (ARGUMENTS + 1))
    yield {case.symbol: make(code.addresses[vector_symbol(case)]) for case in CASES}
    assert code.size > 0  # it had to stay loaded until here


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.symbol)
def test_vectors_agree_with_the_evaluator(case: Case, vector_functions: dict[str, VectorFunction]) -> None:
    """All combinations of operands, side by side; every vector holds many different ones."""
    rows = list(itertools.product(*map(operands_of, case.operands)))
    if len(rows) > 4096:
        rows = random.Random(case.symbol).sample(rows, 4096)
    vectors = -(-len(rows) // VECTOR_LANES)
    columns = np.zeros((ARGUMENTS, vectors * VECTOR_LANES), np.uint64)
    columns[: len(case.operands), : len(rows)] = np.array(rows, np.uint64).T
    results = np.zeros(vectors * VECTOR_LANES, np.uint64)
    addresses = [int(a.ctypes.data) for a in (*columns, results)]
    vector_functions[case.symbol](vectors, *addresses)
    wanted = [evaluated(case, row) for row in rows]
    wrong = [(row, got, want) for row, got, want in zip(rows, results.tolist(), wanted, strict=False) if got != want]
    assert not wrong[:20]


def test_high_bits_of_arguments_do_not_matter(functions: dict[str, Function]) -> None:
    """The test's own functions cut their arguments, so that operands are what the table says."""
    assert functions["add_i8_i8_i8"](0xF01, 0xF02, 0) == 3


def test_every_op_has_one_lowering() -> None:
    assert set(LOWERINGS) | set(EFFECTS) == set(OPS)
    assert not set(LOWERINGS) & set(EFFECTS)
    assert set(LOWERINGS) == set(PURE)


def test_constants_are_cut_to_their_type() -> None:
    assert [constant(t, -1).constant for t in INTEGERS] == [0xFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF]
    assert constant(I8, 0x1FF).constant == 0xFF


@pytest.mark.parametrize(
    "case",
    [
        Case("bswap", I8, (I8,)),
        Case("mulhu", I1, (I1, I1)),
        Case("divs", I1, (I1, I1)),
        Case("rems", I1, (I1, I1)),
        Case("shl", I1, (I1, I1)),
        Case("clz", I1, (I1,)),
    ],
    ids=lambda c: c.symbol,
)
def test_what_the_verifier_accepts_can_be_lowered(case: Case) -> None:
    """Types that no row uses: either the verifier refuses the op on them, or it means the same everywhere."""
    args = tuple(Const(1, t) for t in case.operands)
    try:
        verify_block(block_of([Op(case.name, case.own, Temp(0, case.result), args)]))
    except IRError:
        return
    code, found = compiled([case])
    assert not differences(case, found[case.symbol])
    assert code.size > 0
