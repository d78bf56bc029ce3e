"""Floating-point arithmetic as NumPy code, and the opcodes that integers and floats share.

PTX ISA, "Floating-Point Instructions", "Half Precision Floating-Point Instructions". The approximate functions
(.approx) are computed in f64 and rounded: more exact than a device's, and within the errors the ISA allows.
"""

from __future__ import annotations

import numpy as np

from vmjit.ptx.assembly.syntax import Instruction
from vmjit.ptx.simt import codegen_integer as integer
from vmjit.ptx.simt.codegen import DTYPE_NAME, BlockCode, Translate, dtype_of
from vmjit.ptx.types import ROUNDINGS, is_float


def rounding_of(instruction: Instruction) -> str:
    return instruction.one_of(ROUNDINGS) or "rn"


def flushed(instruction: Instruction, operands: list[str], type_name: str) -> list[str]:
    """Operands as an instruction with .ftz reads them."""
    if instruction.has("ftz") and type_name == "f32":
        return [f"floating.flush_subnormals({operand})" for operand in operands]
    return operands


def finished(instruction: Instruction, result: str, type_name: str) -> str:
    """A result after .sat and .ftz, with the NaN that devices give."""
    if instruction.has("sat"):
        result = f"floating.saturate({result})"
    if type_name == "f32":
        if instruction.has("ftz"):
            result = f"floating.flush_subnormals({result})"
        result = f"floating.canonical_nan({result})"
    return result


def _float_sources(code: BlockCode, instruction: Instruction, count: int) -> list[str]:
    type_name = instruction.type
    return flushed(instruction, code.sources(instruction, type_name, count), type_name)


def _write(code: BlockCode, instruction: Instruction, result: str) -> None:
    code.write(instruction.operands[0], finished(instruction, result, instruction.type), instruction.type)


def _binary(code: BlockCode, instruction: Instruction, operator: str, function: str) -> None:
    a, b = _float_sources(code, instruction, 2)
    mode = rounding_of(instruction)
    _write(
        code,
        instruction,
        f"({a} {operator} {b})" if mode == "rn" else f"floating.rounded({function}, {mode!r}, {a}, {b})",
    )


def _sum(operator: str, function: str) -> Translate:
    def translate(code: BlockCode, instruction: Instruction) -> None:
        if is_float(instruction.type):
            _binary(code, instruction, operator, function)
        else:
            integer.add_or_subtract(code, instruction, operator)

    return translate


def _by_kind(of_integers: Translate, of_floats: Translate) -> Translate:
    """An opcode with different meanings for integers and floats."""

    def translate(code: BlockCode, instruction: Instruction) -> None:
        (of_floats if is_float(instruction.type) else of_integers)(code, instruction)

    return translate


def multiply(code: BlockCode, instruction: Instruction) -> None:
    _binary(code, instruction, "*", "np.multiply")


def divide(code: BlockCode, instruction: Instruction) -> None:
    _binary(code, instruction, "/", "np.divide")


def fused_multiply_add(code: BlockCode, instruction: Instruction) -> None:
    operands = ", ".join(_float_sources(code, instruction, 3))
    mode = rounding_of(instruction)
    if instruction.type == "f32":
        result = f"floating.fma_f32({operands}, {mode!r})"
    elif instruction.type != "f64":
        raise code.unsupported(instruction)
    elif mode == "rn":
        result = f"floating.fma_f64({operands})"
    else:
        result = f"floating.fma_f64_rounded({operands}, {mode!r})"
    _write(code, instruction, result)


def _sign(function: str) -> Translate:
    """abs and neg: no rounding, and a NaN keeps its bits."""

    def translate(code: BlockCode, instruction: Instruction) -> None:
        (a,) = _float_sources(code, instruction, 1)
        code.write(instruction.operands[0], f"{function}({a})", instruction.type)

    return translate


def _extremum(is_max: bool) -> Translate:
    def translate(code: BlockCode, instruction: Instruction) -> None:
        a, b = _float_sources(code, instruction, 2)
        _write(code, instruction, f"floating.extremum({a}, {b}, {is_max}, {instruction.has('NaN')})")

    return translate


def _rounded_function(expression: str) -> Translate:
    """A function with a rounding mode. `expression` has {x} for the operand and {dtype} for its type."""

    def translate(code: BlockCode, instruction: Instruction) -> None:
        (a,) = _float_sources(code, instruction, 1)
        mode = rounding_of(instruction)
        dtype = DTYPE_NAME[instruction.type]
        if mode == "rn":
            result = expression.format(x=a, dtype=dtype)
        else:
            result = f"floating.rounded(lambda z: {expression.format(x='z', dtype=dtype)}, {mode!r}, {a})"
        _write(code, instruction, result)

    return translate


def _approximate_function(expression: str) -> Translate:
    """A function computed in f64. `expression` has {x} for the operand."""

    def translate(code: BlockCode, instruction: Instruction) -> None:
        (a,) = _float_sources(code, instruction, 1)
        result = expression.format(x=f"{a}.astype(F64)")
        _write(code, instruction, f"({result}).astype({DTYPE_NAME[instruction.type]})")

    return translate


def copy_sign(code: BlockCode, instruction: Instruction) -> None:
    sign, magnitude = code.sources(instruction, instruction.type)
    code.write(instruction.operands[0], f"np.copysign({magnitude}, {sign})", instruction.type)


_PROPERTIES = {
    "finite": "np.isfinite({x})",
    "infinite": "np.isinf({x})",
    "number": "~np.isnan({x})",
    "notanumber": "np.isnan({x})",
    "normal": "np.isfinite({x}) & (np.abs({x}) >= {smallest})",
    "subnormal": "({x} != 0) & (np.abs({x}) < {smallest})",
}


def test_property(code: BlockCode, instruction: Instruction) -> None:
    (a,) = code.sources(instruction, instruction.type, 1)
    smallest = code.constant(np.finfo(dtype_of(instruction.type)).tiny)
    test = _PROPERTIES[instruction.modifiers[0]]
    code.write(instruction.operands[0], test.format(x=code.temporary(a, fresh=False), smallest=smallest), "pred")


OPCODES: dict[str, Translate] = {
    "add": _sum("+", "np.add"),
    "sub": _sum("-", "np.subtract"),
    "mul": _by_kind(integer.multiply, multiply),
    "mad": _by_kind(integer.multiply_add, fused_multiply_add),
    "fma": fused_multiply_add,
    "div": _by_kind(integer.divide, divide),
    "abs": _by_kind(integer.unary("np.abs"), _sign("np.abs")),
    "neg": _by_kind(integer.unary("np.negative"), _sign("np.negative")),
    "min": _by_kind(integer.extremum("np.minimum"), _extremum(is_max=False)),
    "max": _by_kind(integer.extremum("np.maximum"), _extremum(is_max=True)),
    "sqrt": _rounded_function("np.sqrt({x})"),
    "rcp": _rounded_function("({dtype}(1) / {x})"),
    "rsqrt": _approximate_function("1.0 / np.sqrt({x})"),
    "sin": _approximate_function("np.sin({x})"),
    "cos": _approximate_function("np.cos({x})"),
    "ex2": _approximate_function("np.exp2({x})"),
    "lg2": _approximate_function("np.log2({x})"),
    "tanh": _approximate_function("np.tanh({x})"),
    "copysign": copy_sign,
    "testp": test_property,
}
