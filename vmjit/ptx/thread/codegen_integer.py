"""Integer arithmetic as LLVM IR (PTX ISA, "Integer Arithmetic", "Extended-Precision Integer Arithmetic")."""

from __future__ import annotations

from vmjit.ptx.assembly.syntax import Instruction
from vmjit.ptx.thread.codegen import FunctionCode, Translate, llvm_type
from vmjit.ptx.types import BITS, is_signed


def signedness(type_name: str) -> str:
    """The letter that LLVM's names of divisions and comparisons begin with."""
    return "s" if is_signed(type_name) else "u"


def add_or_subtract(code: FunctionCode, instruction: Instruction, operation: str) -> None:
    """Sum or difference modulo the width, saturated (s32 alone), or with the carry or borrow kept."""
    type_name = instruction.type
    type_ = llvm_type(type_name)
    a, b = (code.read(operand, type_name) for operand in instruction.operands[1:3])
    if instruction.has("sat"):
        result = code.value(f"call i32 @llvm.s{operation}.sat.i32(i32 {a}, i32 {b})")
    else:
        result = code.value(f"{operation} {type_} {a}, {b}")
    if instruction.has("cc"):
        compared = (result, a) if operation == "add" else (a, b)
        set_carry(code, code.value(f"icmp ult {type_} {compared[0]}, {compared[1]}"))
    code.write(instruction.operands[0], result, type_name)


def set_carry(code: FunctionCode, value: str) -> None:
    code.emit(f"store i1 {value}, ptr %carry")


def with_carry(code: FunctionCode, instruction: Instruction, a: str, b: str, type_name: str, operation: str) -> str:
    """a + b + carry or a - b - carry; sets the carry where the instruction says so."""
    type_ = llvm_type(type_name)
    carry = code.value(f"zext i1 {code.value('load i1, ptr %carry')} to {type_}")
    partial = code.value(f"{operation} {type_} {a}, {b}")
    result = code.value(f"{operation} {type_} {partial}, {carry}")
    if instruction.has("cc"):
        pairs = ((partial, a), (result, partial)) if operation == "add" else ((a, b), (partial, carry))
        first, second = (code.value(f"icmp ult {type_} {x}, {y}") for x, y in pairs)
        set_carry(code, code.value(f"or i1 {first}, {second}"))
    return result


def _with_carry(operation: str) -> Translate:
    def translate(code: FunctionCode, instruction: Instruction) -> None:
        type_name = instruction.type
        a, b = (code.read(operand, type_name) for operand in instruction.operands[1:3])
        code.write(instruction.operands[0], with_carry(code, instruction, a, b, type_name, operation), type_name)

    return translate


def product(code: FunctionCode, instruction: Instruction) -> tuple[str, str]:
    """The product in mul, mad and madc, and its type: low half, high half or all of it."""
    type_name = instruction.type
    bits, type_ = BITS[type_name], llvm_type(type_name)
    a, b = (code.read(operand, type_name) for operand in instruction.operands[1:3])
    if not instruction.has("wide") and not instruction.has("hi"):
        return code.value(f"mul {type_} {a}, {b}"), type_name
    extension = "sext" if is_signed(type_name) else "zext"
    wide = f"i{2 * bits}"
    a, b = (code.value(f"{extension} {type_} {x} to {wide}") for x in (a, b))
    result = code.value(f"mul {wide} {a}, {b}")
    if instruction.has("wide"):
        return result, f"{type_name[0]}{2 * bits}"
    return code.value(f"trunc {wide} {code.value(f'lshr {wide} {result}, {bits}')} to {type_}"), type_name


def multiply(code: FunctionCode, instruction: Instruction) -> None:
    result, type_name = product(code, instruction)
    code.write(instruction.operands[0], result, type_name)


def multiply_add(code: FunctionCode, instruction: Instruction) -> None:
    if instruction.has("sat"):
        raise code.unsupported(instruction)
    partial, type_name = product(code, instruction)
    type_ = llvm_type(type_name)
    result = code.value(f"add {type_} {partial}, {code.read(instruction.operands[3], type_name)}")
    if instruction.has("cc"):
        set_carry(code, code.value(f"icmp ult {type_} {result}, {partial}"))
    code.write(instruction.operands[0], result, type_name)


def multiply_add_with_carry(code: FunctionCode, instruction: Instruction) -> None:
    partial, type_name = product(code, instruction)
    addend = code.read(instruction.operands[3], type_name)
    code.write(instruction.operands[0], with_carry(code, instruction, partial, addend, type_name, "add"), type_name)


def _division(operation: str) -> Translate:
    """Quotient or remainder; what a device leaves open is as in the SIMT engine, and nothing traps the host."""

    def translate(code: FunctionCode, instruction: Instruction) -> None:
        type_name = instruction.type
        bits, type_ = BITS[type_name], llvm_type(type_name)
        a, b = (code.read(operand, type_name) for operand in instruction.operands[1:3])
        is_zero = code.value(f"icmp eq {type_} {b}, 0")
        divisor = code.select(is_zero, type_, "1", b)
        if is_signed(type_name):  # the least value by -1: by 1 instead gives the same
            is_least = code.value(f"icmp eq {type_} {a}, {-(1 << (bits - 1))}")
            is_minus_one = code.value(f"icmp eq {type_} {b}, -1")
            divisor = code.select(code.value(f"and i1 {is_least}, {is_minus_one}"), type_, "1", divisor)
        result = code.value(f"{signedness(type_name)}{operation} {type_} {a}, {divisor}")
        by_zero = a if operation == "rem" else "-1"
        code.write(instruction.operands[0], code.select(is_zero, type_, by_zero, result), type_name)

    return translate


divide = _division("div")


def absolute(code: FunctionCode, instruction: Instruction) -> None:
    type_ = llvm_type(instruction.type)
    a = code.read(instruction.operands[1], instruction.type)
    result = code.value(f"call {type_} @llvm.abs.{type_}({type_} {a}, i1 false)")
    code.write(instruction.operands[0], result, instruction.type)


def negate(code: FunctionCode, instruction: Instruction) -> None:
    a = code.read(instruction.operands[1], instruction.type)
    code.write(instruction.operands[0], code.value(f"sub {llvm_type(instruction.type)} 0, {a}"), instruction.type)


def extremum(relation: str) -> Translate:
    def translate(code: FunctionCode, instruction: Instruction) -> None:
        type_name = instruction.type
        type_ = llvm_type(type_name)
        a, b = (code.read(operand, type_name) for operand in instruction.operands[1:3])
        first = code.value(f"icmp {signedness(type_name)}{relation} {type_} {a}, {b}")
        code.write(instruction.operands[0], code.select(first, type_, a, b), type_name)

    return translate


def sum_of_difference(code: FunctionCode, instruction: Instruction) -> None:
    """sad: the third operand plus the distance of the first two."""
    type_name = instruction.type
    type_ = llvm_type(type_name)
    a, b, addend = (code.read(operand, type_name) for operand in instruction.operands[1:4])
    is_less = code.value(f"icmp {signedness(type_name)}lt {type_} {a}, {b}")
    up, down = code.value(f"sub {type_} {b}, {a}"), code.value(f"sub {type_} {a}, {b}")
    distance = code.select(is_less, type_, up, down)
    code.write(instruction.operands[0], code.value(f"add {type_} {addend}, {distance}"), type_name)


OPCODES: dict[str, Translate] = {
    "addc": _with_carry("add"),
    "subc": _with_carry("sub"),
    "madc": multiply_add_with_carry,
    "rem": _division("rem"),
    "sad": sum_of_difference,
}
