"""Integer arithmetic as NumPy code (PTX ISA, "Integer Arithmetic", "Extended-Precision Integer Arithmetic")."""

from __future__ import annotations

from vmjit.ptx.assembly.syntax import Instruction
from vmjit.ptx.simt.codegen import DTYPE_NAME, BlockCode, Translate
from vmjit.ptx.types import BITS, is_signed, unsigned


def add_or_subtract(code: BlockCode, instruction: Instruction, operator: str) -> None:
    """Sum or difference modulo the width, saturated (s32 alone), or with the carry or borrow kept."""
    destination = instruction.operands[0]
    type_name = unsigned(instruction.type)
    if instruction.has("sat"):
        a, b = code.sources(instruction, "s32")
        code.write(destination, f"integer.saturate_s32({code.temporary(a)}.astype(S64) {operator} {b})", "s32")
        return
    a, b = code.sources(instruction, type_name)
    if instruction.has("cc"):
        a, b = code.lanes_of(a), code.lanes_of(b)
        result = code.temporary(f"{a} {operator} {b}")
        code.write(destination, result, type_name)
        code.carry = f"{result} < {a}" if operator == "+" else f"{a} < {b}"
    else:
        code.write(destination, f"{a} {operator} {b}", type_name)


def add_with_carry(code: BlockCode, instruction: Instruction) -> None:
    type_name = unsigned(instruction.type)
    a, b = (code.lanes_of(x) for x in code.sources(instruction, type_name))
    _add_carry(code, instruction, a, b, type_name)


def _add_carry(code: BlockCode, instruction: Instruction, a: str, b: str, type_name: str) -> None:
    partial = code.temporary(f"{a} + {b}")
    total = code.temporary(f"{partial} + {code.carry}.astype({DTYPE_NAME[type_name]})")
    if instruction.has("cc"):
        code.carry = f"({partial} < {a}) | ({total} < {partial})"
    code.write(instruction.operands[0], total, type_name)


def subtract_with_borrow(code: BlockCode, instruction: Instruction) -> None:
    type_name = unsigned(instruction.type)
    a, b = (code.lanes_of(x) for x in code.sources(instruction, type_name))
    borrow = code.carry
    difference = code.temporary(f"{a} - {b} - {borrow}.astype({DTYPE_NAME[type_name]})")
    if instruction.has("cc"):
        code.carry = f"({a} < {b}) | (({a} == {b}) & {borrow})"
    code.write(instruction.operands[0], difference, type_name)


def product(code: BlockCode, instruction: Instruction) -> tuple[str, str]:
    """The product in mul, mad and madc, and its type: low half, high half or all of it."""
    type_name = instruction.type
    bits = BITS[type_name]
    if instruction.has("wide"):
        wide = f"{type_name[0]}{2 * bits}"
        a, b = (f"{x}.astype({DTYPE_NAME[wide]})" for x in code.sources(instruction, type_name))
        return f"({a} * {b})", wide
    if not instruction.has("hi"):
        a, b = code.sources(instruction, unsigned(type_name))
        return f"({a} * {b})", unsigned(type_name)
    if bits == 64:
        a, b = (code.lanes_of(x) for x in code.sources(instruction, "u64"))
        return f"integer.multiply_high_{'signed' if is_signed(type_name) else 'unsigned'}({a}, {b})", "u64"
    wide = "S64" if is_signed(type_name) else "U64"
    a, b = (f"{x}.astype({wide})" for x in code.sources(instruction, type_name))
    return f"(({a} * {b}) >> {wide}({bits})).astype({DTYPE_NAME[type_name]})", type_name


def multiply(code: BlockCode, instruction: Instruction) -> None:
    result, type_name = product(code, instruction)
    code.write(instruction.operands[0], result, type_name)


def multiply_add(code: BlockCode, instruction: Instruction) -> None:
    if instruction.has("sat"):
        raise code.unsupported(instruction)
    result, type_name = product(code, instruction)
    addend = code.read(instruction.operands[3], type_name)
    if not instruction.has("cc"):
        code.write(instruction.operands[0], f"{result} + {addend}", type_name)
        return
    word = DTYPE_NAME[unsigned(type_name)]
    partial = code.temporary(f"{result}.view({word})")
    total = code.temporary(f"{partial} + {code.lanes_of(addend)}.view({word})")
    code.carry = f"{total} < {partial}"
    code.write(instruction.operands[0], total, unsigned(type_name))


def multiply_add_with_carry(code: BlockCode, instruction: Instruction) -> None:
    result, type_name = product(code, instruction)
    word = DTYPE_NAME[unsigned(type_name)]
    partial = code.temporary(f"{result}.view({word})")
    addend = code.lanes_of(code.read(instruction.operands[3], type_name))
    _add_carry(code, instruction, partial, f"{addend}.view({word})", unsigned(type_name))


def multiply_24(code: BlockCode, instruction: Instruction) -> None:
    """Of the low 24 bits: the low 32 bits of the product, or those from bit 16 on."""
    type_name = instruction.type
    a, b = code.sources(instruction, type_name)
    if is_signed(type_name):
        a, b = (f"(({x}.astype(S64) << S64(40)) >> S64(40))" for x in (a, b))
    else:
        a, b = (f"({x}.astype(U64) & U64(0xffffff))" for x in (a, b))
    result = f"({a} * {b})"
    if instruction.has("hi"):
        result = f"({result} >> {'S64' if is_signed(type_name) else 'U64'}(16))"
    code.write(instruction.operands[0], f"{result}.astype({DTYPE_NAME[type_name]})", type_name)


def _division(function: str) -> Translate:
    def translate(code: BlockCode, instruction: Instruction) -> None:
        type_name = instruction.type
        a, b = (code.lanes_of(x) for x in code.sources(instruction, type_name))
        kind = "signed" if is_signed(type_name) else "unsigned"
        code.write(instruction.operands[0], f"integer.{function}_{kind}({a}, {b})", type_name)

    return translate


divide = _division("divide")
remainder = _division("remainder")


def unary(function: str) -> Translate:
    def translate(code: BlockCode, instruction: Instruction) -> None:
        (a,) = code.sources(instruction, instruction.type, 1)
        code.write(instruction.operands[0], f"{function}({a})", instruction.type)

    return translate


def extremum(function: str) -> Translate:
    def translate(code: BlockCode, instruction: Instruction) -> None:
        a, b = code.sources(instruction, instruction.type)
        code.write(instruction.operands[0], f"{function}({a}, {b})", instruction.type)

    return translate


def sum_of_difference(code: BlockCode, instruction: Instruction) -> None:
    """sad: the third operand plus the distance of the first two."""
    type_name = instruction.type
    a, b = (code.temporary(x, fresh=False) for x in code.sources(instruction, type_name))
    addend = code.read(instruction.operands[3], unsigned(type_name))
    distance = f"np.where({a} < {b}, {b} - {a}, {a} - {b}).view({DTYPE_NAME[unsigned(type_name)]})"
    code.write(instruction.operands[0], f"{addend} + {distance}", unsigned(type_name))


def dot_product(code: BlockCode, instruction: Instruction) -> None:
    a_type, b_type = (f"{t[0].upper()}8" for t in instruction.types[:2])
    a = code.read(instruction.operands[1], "u32", array=True)
    b = code.read(instruction.operands[2], "u32", array=True)
    addend = code.read(instruction.operands[3], "s32")
    total = f"integer.dot_product_of_bytes({a}, {b}, {a_type}, {b_type}) + {addend}.astype(S64)"
    code.write(instruction.operands[0], f"({total}).astype(U32)", "u32")


OPCODES: dict[str, Translate] = {
    "addc": add_with_carry,
    "subc": subtract_with_borrow,
    "madc": multiply_add_with_carry,
    "mul24": multiply_24,
    "rem": remainder,
    "sad": sum_of_difference,
    "dp4a": dot_product,
}
