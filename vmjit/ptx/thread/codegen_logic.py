"""Logic, shifts, bit fields, comparison and selection as LLVM IR.

PTX ISA, "Logic and Shift Instructions", "Comparison and Selection Instructions".
"""

from __future__ import annotations

from vmjit.ptx.assembly.syntax import Instruction, IntegerLiteral, Pair
from vmjit.ptx.thread import codegen_float
from vmjit.ptx.thread.codegen import FunctionCode, Translate, llvm_type
from vmjit.ptx.thread.codegen_integer import signedness
from vmjit.ptx.types import BITS, BOOLEAN_OPERATORS, COMPARISONS, is_float, is_signed, unsigned

_PERMUTATIONS = frozenset("f4e b4e rc8 ecl ecr rc16".split())


def _logic(operation: str) -> Translate:
    def translate(code: FunctionCode, instruction: Instruction) -> None:
        type_name = instruction.type
        a, b = (code.read(operand, type_name) for operand in instruction.operands[1:3])
        code.write(instruction.operands[0], code.value(f"{operation} {llvm_type(type_name)} {a}, {b}"), type_name)

    return translate


def complement(code: FunctionCode, instruction: Instruction) -> None:
    type_name = instruction.type
    ones = "true" if type_name == "pred" else "-1"
    a = code.read(instruction.operands[1], type_name)
    code.write(instruction.operands[0], code.value(f"xor {llvm_type(type_name)} {a}, {ones}"), type_name)


def is_zero(code: FunctionCode, instruction: Instruction) -> None:
    type_name = instruction.type
    test = code.value(f"icmp eq {llvm_type(type_name)} {code.read(instruction.operands[1], type_name)}, 0")
    code.write(instruction.operands[0], code.value(f"zext i1 {test} to {llvm_type(type_name)}"), type_name)


def _shifted(code: FunctionCode, value: str, amount: str, bits: int, operation: str = "shl") -> str:
    """A shift by any u32: from the width on it gives 0, or the sign."""
    type_, u = f"i{bits}", f"u{bits}"
    if operation == "ashr":
        amount = code.value(f"call i32 @llvm.umin.i32(i32 {amount}, i32 {bits - 1})")
        return code.value(f"ashr {type_} {value}, {code.cast(amount, 'u32', u)}")
    is_large = code.value(f"icmp ugt i32 {amount}, {bits - 1}")
    small = code.select(is_large, "i32", "0", amount)
    result = code.value(f"{operation} {type_} {value}, {code.cast(small, 'u32', u)}")
    return code.select(is_large, type_, "0", result)


def _shift(code: FunctionCode, instruction: Instruction, operation: str) -> None:
    type_name = unsigned(instruction.type)
    value, amount = code.read(instruction.operands[1], type_name), code.read(instruction.operands[2], "u32")
    code.write(instruction.operands[0], _shifted(code, value, amount, BITS[type_name], operation), type_name)


def shift_left(code: FunctionCode, instruction: Instruction) -> None:
    _shift(code, instruction, "shl")


def shift_right(code: FunctionCode, instruction: Instruction) -> None:
    _shift(code, instruction, "ashr" if is_signed(instruction.type) else "lshr")


def funnel_shift(code: FunctionCode, instruction: Instruction) -> None:
    low, high, amount = (code.read(operand, "u32") for operand in instruction.operands[1:4])
    direction = "r" if instruction.has("r") else "l"
    result = code.value(f"call i32 @llvm.fsh{direction}.i32(i32 {high}, i32 {low}, i32 {amount})")
    if not instruction.has("wrap"):
        is_large = code.value(f"icmp ugt i32 {amount}, 31")
        result = code.select(is_large, "i32", high if direction == "r" else low, result)
    code.write(instruction.operands[0], result, "u32")


def population_count(code: FunctionCode, instruction: Instruction) -> None:
    type_name, type_ = instruction.type, llvm_type(instruction.type)
    a = code.read(instruction.operands[1], type_name)
    count = code.value(f"call {type_} @llvm.ctpop.{type_}({type_} {a})")
    code.write(instruction.operands[0], code.cast(count, type_name, "u32"), "u32")


def _leading_zeros(code: FunctionCode, value: str, type_name: str) -> str:
    type_ = llvm_type(type_name)
    count = code.value(f"call {type_} @llvm.ctlz.{type_}({type_} {value}, i1 false)")
    return code.cast(count, type_name, "u32")


def count_leading_zeros(code: FunctionCode, instruction: Instruction) -> None:
    a = code.read(instruction.operands[1], instruction.type)
    code.write(instruction.operands[0], _leading_zeros(code, a, instruction.type), "u32")


def reverse_bits(code: FunctionCode, instruction: Instruction) -> None:
    type_name, type_ = instruction.type, llvm_type(instruction.type)
    a = code.read(instruction.operands[1], type_name)
    code.write(instruction.operands[0], code.value(f"call {type_} @llvm.bitreverse.{type_}({type_} {a})"), type_name)


def find_leading_bit(code: FunctionCode, instruction: Instruction) -> None:
    """bfind: the highest bit unlike the sign, or the shift that would bring it to the top; all ones where none is."""
    bits = BITS[instruction.type]
    type_, u = f"i{bits}", f"u{bits}"
    a = code.read(instruction.operands[1], u)
    if is_signed(instruction.type):
        a = code.value(f"xor {type_} {a}, {code.value(f'ashr {type_} {a}, {bits - 1}')}")
    zeros = _leading_zeros(code, a, u)
    result = zeros if instruction.has("shiftamt") else code.value(f"sub i32 {bits - 1}, {zeros}")
    none = code.value(f"icmp eq {type_} {a}, 0")
    code.write(instruction.operands[0], code.select(none, "i32", "-1", result), "u32")


def _low_bits(code: FunctionCode, count: str, bits: int) -> str:
    """A mask of the lowest `count` bits, for any u32."""
    return code.value(f"xor i{bits} {_shifted(code, '-1', count, bits)}, -1")


def _least(code: FunctionCode, a: str, b: str | int) -> str:
    return code.value(f"call i32 @llvm.umin.i32(i32 {a}, i32 {b})")


def extract_field(code: FunctionCode, instruction: Instruction) -> None:
    """bfe; a signed field is extended by its top bit, or by the value's own where it reaches beyond it."""
    bits = BITS[instruction.type]
    type_, u = f"i{bits}", f"u{bits}"
    value = code.read(instruction.operands[1], u)
    position, length = (
        code.value(f"and i32 {code.read(operand, 'u32')}, 255") for operand in instruction.operands[2:4]
    )
    shifted = _shifted(code, value, position, bits, "lshr")
    field = code.value(f"and {type_} {shifted}, {_low_bits(code, length, bits)}")
    if is_signed(instruction.type):
        last = code.value(f"sub i32 {length}, 1")
        top = _least(code, code.value(f"add i32 {position}, {last}"), bits - 1)
        sign = code.value(f"and {type_} {_shifted(code, value, top, bits, 'lshr')}, 1")
        is_negative = code.value(f"icmp ne {type_} {sign}, 0")
        is_negative = code.value(f"and i1 {is_negative}, {code.value(f'icmp ne i32 {length}, 0')}")
        available = code.value(f"sub i32 {bits}, {_least(code, position, bits)}")
        taken = _low_bits(code, _least(code, length, available), bits)
        extended = code.value(f"or {type_} {field}, {code.value(f'xor {type_} {taken}, -1')}")
        field = code.select(is_negative, type_, extended, field)
    code.write(instruction.operands[0], field, u)


def insert_field(code: FunctionCode, instruction: Instruction) -> None:
    """bfi: the low bits of the first operand put into the second."""
    type_name = instruction.type
    bits, type_ = BITS[type_name], llvm_type(type_name)
    a, b = (code.read(operand, type_name) for operand in instruction.operands[1:3])
    position, length = (
        code.value(f"and i32 {code.read(operand, 'u32')}, 255") for operand in instruction.operands[3:5]
    )
    mask = _shifted(code, _low_bits(code, length, bits), position, bits)
    kept = code.value(f"and {type_} {b}, {code.value(f'xor {type_} {mask}, -1')}")
    put = code.value(f"and {type_} {_shifted(code, a, position, bits)}, {mask}")
    code.write(instruction.operands[0], code.value(f"or {type_} {kept}, {put}"), type_name)


def permute_bytes(code: FunctionCode, instruction: Instruction) -> None:
    if instruction.one_of(_PERMUTATIONS) is not None:
        raise code.unsupported(instruction)
    low, high, control = (code.cast(code.read(o, "u32"), "u32", "u64") for o in instruction.operands[1:4])
    source = code.value(f"or i64 {low}, {code.value(f'shl i64 {high}, 32')}")
    result = "0"
    for k in range(4):
        selector = code.value(f"lshr i64 {control}, {4 * k}")
        shift = code.value(f"shl i64 {code.value(f'and i64 {selector}, 7')}, 3")
        byte = code.value(f"trunc i64 {code.value(f'lshr i64 {source}, {shift}')} to i8")
        wants_sign = code.value(f"icmp ne i64 {code.value(f'and i64 {selector}, 8')}, 0")
        byte = code.select(wants_sign, "i8", code.value(f"ashr i8 {byte}, 7"), byte)
        placed = code.value(f"shl i32 {code.value(f'zext i8 {byte} to i32')}, {8 * k}")
        result = code.value(f"or i32 {result}, {placed}")
    code.write(instruction.operands[0], result, "u32")


def logic_of_three(code: FunctionCode, instruction: Instruction) -> None:
    """lop3: the or of those products of operands and complements that its table has."""
    table = instruction.operands[4]
    if instruction.type != "b32" or not isinstance(table, IntegerLiteral):
        raise code.unsupported(instruction)
    plain = [code.read(operand, "u32") for operand in instruction.operands[1:4]]
    inverted = [code.value(f"xor i32 {operand}, -1") for operand in plain]
    result = "0"
    for row in range(8):
        if table.value >> row & 1:
            a, b, c = ((plain if row & bit else inverted)[k] for k, bit in enumerate((4, 2, 1)))
            product = code.value(f"and i32 {code.value(f'and i32 {a}, {b}')}, {c}")
            result = code.value(f"or i32 {result}, {product}")
    code.write(instruction.operands[0], result, "u32")


# Comparison and selection

_FLOAT_RELATIONS = {
    "num": "ord",
    "nan": "uno",
    "eq": "oeq",
    "ne": "one",
    "equ": "ueq",
    "neu": "une",
    **{relation: f"o{relation}" for relation in ("lt", "le", "gt", "ge")},
    **{f"{relation}u": f"u{relation}" for relation in ("lt", "le", "gt", "ge")},
}
_UNSIGNED_RELATIONS = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}


def _comparison(code: FunctionCode, instruction: Instruction, relation: str) -> str:
    type_name = instruction.type
    a, b = (codegen_float.read(code, instruction, operand, type_name) for operand in instruction.operands[1:3])
    if is_float(type_name):
        return code.value(f"fcmp {_FLOAT_RELATIONS[relation]} {llvm_type(type_name)} {a}, {b}")
    relation = _UNSIGNED_RELATIONS.get(relation, relation)
    if relation not in ("eq", "ne"):
        relation = signedness(type_name) + relation
    return code.value(f"icmp {relation} {llvm_type(type_name)} {a}, {b}")


def _compare(code: FunctionCode, instruction: Instruction) -> tuple[str, str]:
    """The outcome of a comparison and its opposite, each combined with a predicate where the instruction has one."""
    relation = instruction.one_of(COMPARISONS)
    if relation is None or instruction.type in ("f16", "bf16"):
        raise code.unsupported(instruction)
    outcome = _comparison(code, instruction, relation)
    opposite = code.value(f"xor i1 {outcome}, true")
    operator = instruction.one_of(BOOLEAN_OPERATORS)
    if operator is not None:
        predicate = code.read(instruction.operands[3], "pred")
        outcome = code.value(f"{operator} i1 {outcome}, {predicate}")
        opposite = code.value(f"{operator} i1 {opposite}, {predicate}")
    return outcome, opposite


def set_predicate(code: FunctionCode, instruction: Instruction) -> None:
    outcome, opposite = _compare(code, instruction)
    destination = instruction.operands[0]
    if isinstance(destination, Pair):
        code.write(destination.first, outcome, "pred")
        code.write(destination.second, opposite, "pred")
    else:
        code.write(destination, outcome, "pred")


def set_value(code: FunctionCode, instruction: Instruction) -> None:
    """set: all ones or 1.0 where the comparison holds."""
    type_name = instruction.types[-2]
    outcome, _ = _compare(code, instruction)
    if type_name == "f32":
        code.write(instruction.operands[0], code.value(f"uitofp i1 {outcome} to float"), "f32")
    else:
        result = code.value(f"sext i1 {outcome} to {llvm_type(type_name)}")
        code.write(instruction.operands[0], result, unsigned(type_name))


def _choose(code: FunctionCode, instruction: Instruction, condition: str, type_name: str) -> None:
    a, b = (code.read(operand, type_name) for operand in instruction.operands[1:3])
    code.write(instruction.operands[0], code.select(condition, llvm_type(type_name), a, b), type_name)


def select_by_predicate(code: FunctionCode, instruction: Instruction) -> None:
    _choose(code, instruction, code.read(instruction.operands[3], "pred"), instruction.type)


def select_by_sign(code: FunctionCode, instruction: Instruction) -> None:
    """slct: the first operand where the third is not negative; a NaN takes the second."""
    type_name, sign_type = instruction.types[:2]
    sign = code.read(instruction.operands[3], sign_type)
    test = f"fcmp oge float {sign}, 0.0" if is_float(sign_type) else f"icmp sge i32 {sign}, 0"
    _choose(code, instruction, code.value(test), type_name)


OPCODES: dict[str, Translate] = {
    "and": _logic("and"),
    "or": _logic("or"),
    "xor": _logic("xor"),
    "not": complement,
    "cnot": is_zero,
    "shl": shift_left,
    "shr": shift_right,
    "shf": funnel_shift,
    "popc": population_count,
    "clz": count_leading_zeros,
    "brev": reverse_bits,
    "bfind": find_leading_bit,
    "bfe": extract_field,
    "bfi": insert_field,
    "prmt": permute_bytes,
    "lop3": logic_of_three,
    "setp": set_predicate,
    "set": set_value,
    "selp": select_by_predicate,
    "slct": select_by_sign,
}
