"""Floating-point arithmetic as LLVM IR, and the opcodes that integers and floats share.

PTX ISA, "Floating-Point Instructions". NaN results of f32 are the canonical 0x7fffffff, as devices give them.
"""

from __future__ import annotations

from vmjit.ptx.assembly.syntax import Instruction, Operand
from vmjit.ptx.thread import codegen_integer as integer
from vmjit.ptx.thread import directed_rounding
from vmjit.ptx.thread.codegen import FunctionCode, Translate, llvm_type
from vmjit.ptx.thread.directed_rounding import directed_mode
from vmjit.ptx.types import is_float, unsigned

_SMALLEST_NORMAL = 0x00800000
_CANONICAL_NAN = 0x7FFFFFFF


def canonical_nan(code: FunctionCode, value: str, type_name: str) -> str:
    if type_name != "f32":
        return value
    nan = code.value(f"bitcast i32 {_CANONICAL_NAN} to float")
    return code.select(code.value(f"fcmp uno float {value}, {value}"), "float", nan, value)


def _flush(code: FunctionCode, value: str) -> str:
    size = code.value(f"call float @llvm.fabs.f32(float {value})")
    is_small = code.value(f"fcmp olt float {size}, {code.value(f'bitcast i32 {_SMALLEST_NORMAL} to float')}")
    zero = code.value(f"call float @llvm.copysign.f32(float 0.0, float {value})")
    return code.select(is_small, "float", zero, value)


def read(code: FunctionCode, instruction: Instruction, operand: Operand, type_name: str) -> str:
    """An operand, flushed to zero where the instruction has .ftz."""
    value = code.read(operand, type_name)
    return _flush(code, value) if instruction.has("ftz") and type_name == "f32" else value


def finish(code: FunctionCode, instruction: Instruction, value: str, type_name: str) -> str:
    """A result after .sat and .ftz, with the NaN that devices give."""
    type_ = llvm_type(type_name)
    if instruction.has("sat"):
        is_positive = code.value(f"fcmp ogt {type_} {value}, 0.0")
        is_below_one = code.value(f"fcmp olt {type_} {value}, 1.0")
        value = code.select(is_positive, type_, code.select(is_below_one, type_, value, "1.0"), "0.0")
    if instruction.has("ftz") and type_name == "f32":
        value = _flush(code, value)
    return canonical_nan(code, value, type_name)


def _sources(code: FunctionCode, instruction: Instruction, count: int) -> list[str]:
    if instruction.type not in ("f32", "f64"):
        raise code.unsupported(instruction)
    return [read(code, instruction, o, instruction.type) for o in instruction.operands[1 : 1 + count]]


def _write(code: FunctionCode, instruction: Instruction, value: str) -> None:
    code.write(instruction.operands[0], finish(code, instruction, value, instruction.type), instruction.type)


def _directed(code: FunctionCode, instruction: Instruction) -> str | None:
    """The directed mode of an instruction, which must be one of f32."""
    mode = directed_mode(instruction.modifiers)
    if mode is not None and instruction.type != "f32":
        raise code.unsupported(instruction)
    return mode


def _by_kind(of_integers: Translate, of_floats: Translate) -> Translate:
    """An opcode with different meanings for integers and floats."""

    def translate(code: FunctionCode, instruction: Instruction) -> None:
        (of_floats if is_float(instruction.type) else of_integers)(code, instruction)

    return translate


def _sum(operation: str) -> Translate:
    def translate(code: FunctionCode, instruction: Instruction) -> None:
        if not is_float(instruction.type):
            integer.add_or_subtract(code, instruction, operation)
            return
        a, b = _sources(code, instruction, 2)
        mode = _directed(code, instruction)
        if mode is None:
            result = code.value(f"f{operation} {llvm_type(instruction.type)} {a}, {b}")
        else:
            b = code.value(f"fneg float {b}") if operation == "sub" else b
            result = directed_rounding.add(code, a, b, mode)
        _write(code, instruction, result)

    return translate


def multiply(code: FunctionCode, instruction: Instruction) -> None:
    a, b = _sources(code, instruction, 2)
    mode = _directed(code, instruction)
    if mode is None:
        result = code.value(f"fmul {llvm_type(instruction.type)} {a}, {b}")
    else:
        result = directed_rounding.multiply(code, a, b, mode)
    _write(code, instruction, result)


def fused_multiply_add(code: FunctionCode, instruction: Instruction) -> None:
    a, b, c = _sources(code, instruction, 3)
    mode = _directed(code, instruction)
    type_name, type_ = instruction.type, llvm_type(instruction.type)
    if mode is None:
        result = code.value(f"call {type_} @llvm.fma.{type_name}({type_} {a}, {type_} {b}, {type_} {c})")
    else:
        result = directed_rounding.fused_multiply_add(code, a, b, c, mode)
    _write(code, instruction, result)


def _only_nearest(code: FunctionCode, instruction: Instruction) -> None:
    if directed_mode(instruction.modifiers) is not None:
        raise code.unsupported(instruction)


def divide(code: FunctionCode, instruction: Instruction) -> None:
    _only_nearest(code, instruction)
    a, b = _sources(code, instruction, 2)
    _write(code, instruction, code.value(f"fdiv {llvm_type(instruction.type)} {a}, {b}"))


def square_root(code: FunctionCode, instruction: Instruction) -> None:
    _only_nearest(code, instruction)
    (a,) = _sources(code, instruction, 1)
    type_name, type_ = instruction.type, llvm_type(instruction.type)
    _write(code, instruction, code.value(f"call {type_} @llvm.sqrt.{type_name}({type_} {a})"))


def reciprocal(code: FunctionCode, instruction: Instruction) -> None:
    _only_nearest(code, instruction)
    (a,) = _sources(code, instruction, 1)
    _write(code, instruction, code.value(f"fdiv {llvm_type(instruction.type)} 1.0, {a}"))


def _approximate_function(function: str, *, inverse: bool = False) -> Translate:
    """A function of LLVM, computed in f64."""

    def translate(code: FunctionCode, instruction: Instruction) -> None:
        (a,) = _sources(code, instruction, 1)
        is_narrow = instruction.type == "f32"
        if is_narrow:
            a = code.value(f"fpext float {a} to double")
        result = code.value(f"call double @llvm.{function}.f64(double {a})")
        if inverse:
            result = code.value(f"fdiv double 1.0, {result}")
        if is_narrow:
            result = code.value(f"fptrunc double {result} to float")
        _write(code, instruction, result)

    return translate


def absolute(code: FunctionCode, instruction: Instruction) -> None:
    type_name, type_ = instruction.type, llvm_type(instruction.type)
    a = read(code, instruction, instruction.operands[1], type_name)
    code.write(instruction.operands[0], code.value(f"call {type_} @llvm.fabs.{type_name}({type_} {a})"), type_name)


def negate(code: FunctionCode, instruction: Instruction) -> None:
    a = read(code, instruction, instruction.operands[1], instruction.type)
    code.write(instruction.operands[0], code.value(f"fneg {llvm_type(instruction.type)} {a}"), instruction.type)


def _extremum(*, is_max: bool) -> Translate:
    """min or max; -0 is less than +0, and a NaN loses to a number unless it is kept (.NaN)."""

    def translate(code: FunctionCode, instruction: Instruction) -> None:
        type_name, type_ = instruction.type, llvm_type(instruction.type)
        a, b = _sources(code, instruction, 2)
        first = code.value(f"fcmp {'ogt' if is_max else 'olt'} {type_} {a}, {b}")
        result = code.select(first, type_, a, b)
        bits = llvm_type(unsigned(type_name))
        bits_a, bits_b = (code.cast(x, type_name, unsigned(type_name)) for x in (a, b))
        of_zeros = code.value(f"{'and' if is_max else 'or'} {bits} {bits_a}, {bits_b}")
        are_equal = code.value(f"fcmp oeq {type_} {a}, {b}")
        result = code.select(are_equal, type_, code.cast(of_zeros, unsigned(type_name), type_name), result)
        nan_a, nan_b = (code.value(f"fcmp uno {type_} {x}, {x}") for x in (a, b))
        keeps_nan = instruction.has("NaN")
        result = code.select(nan_b, type_, b if keeps_nan else a, result)
        result = code.select(nan_a, type_, a if keeps_nan else b, result)
        _write(code, instruction, result)

    return translate


def copy_sign(code: FunctionCode, instruction: Instruction) -> None:
    type_name, type_ = instruction.type, llvm_type(instruction.type)
    sign, magnitude = (code.read(operand, type_name) for operand in instruction.operands[1:3])
    result = code.value(f"call {type_} @llvm.copysign.{type_name}({type_} {magnitude}, {type_} {sign})")
    code.write(instruction.operands[0], result, type_name)


# Classes of llvm.is.fpclass: signalling and quiet NaN, and from -inf to +inf eight classes, each one bit.
_PROPERTIES = {
    "finite": 0x1F8,
    "infinite": 0x204,
    "number": 0x3FC,
    "notanumber": 0x003,
    "normal": 0x108,
    "subnormal": 0x090,
}


def test_property(code: FunctionCode, instruction: Instruction) -> None:
    classes = _PROPERTIES[instruction.modifiers[0]]
    a = code.read(instruction.operands[1], instruction.type)
    type_ = llvm_type(instruction.type)
    result = code.value(f"call i1 @llvm.is.fpclass.{instruction.type}({type_} {a}, i32 {classes})")
    code.write(instruction.operands[0], result, "pred")


OPCODES: dict[str, Translate] = {
    "add": _sum("add"),
    "sub": _sum("sub"),
    "mul": _by_kind(integer.multiply, multiply),
    "mad": _by_kind(integer.multiply_add, fused_multiply_add),
    "fma": fused_multiply_add,
    "div": _by_kind(integer.divide, divide),
    "abs": _by_kind(integer.absolute, absolute),
    "neg": _by_kind(integer.negate, negate),
    "min": _by_kind(integer.extremum("lt"), _extremum(is_max=False)),
    "max": _by_kind(integer.extremum("gt"), _extremum(is_max=True)),
    "sqrt": square_root,
    "rcp": reciprocal,
    "rsqrt": _approximate_function("sqrt", inverse=True),
    "sin": _approximate_function("sin"),
    "cos": _approximate_function("cos"),
    "ex2": _approximate_function("exp2"),
    "lg2": _approximate_function("log2"),
    "copysign": copy_sign,
    "testp": test_property,
}
