"""Logic, shifts, bit fields, comparison and selection as NumPy code.

PTX ISA, "Logic and Shift Instructions", "Comparison and Selection Instructions".
"""

from __future__ import annotations

from vmjit.ptx.assembly.syntax import FloatLiteral, Instruction, IntegerLiteral, Operand, Pair
from vmjit.ptx.simt.codegen import DTYPE_NAME, BlockCode, Translate, dtype_of
from vmjit.ptx.simt.codegen_float import flushed
from vmjit.ptx.types import BITS, BOOLEAN_OPERATORS, COMPARISONS, is_float, is_signed, unsigned

_PERMUTATIONS = frozenset("f4e b4e rc8 ecl ecr rc16".split())
_BOOLEAN = {"and": "&", "or": "|", "xor": "^"}


def _logic(operator: str) -> Translate:
    def translate(code: BlockCode, instruction: Instruction) -> None:
        a, b = code.sources(instruction, instruction.type)
        code.write(instruction.operands[0], f"{a} {operator} {b}", instruction.type)

    return translate


def complement(code: BlockCode, instruction: Instruction) -> None:
    (a,) = code.sources(instruction, instruction.type, 1)
    code.write(instruction.operands[0], f"~{a}", instruction.type)


def is_zero(code: BlockCode, instruction: Instruction) -> None:
    (a,) = code.sources(instruction, instruction.type, 1)
    code.write(instruction.operands[0], f"({a} == 0).astype({DTYPE_NAME[instruction.type]})", instruction.type)


def _shift(code: BlockCode, instruction: Instruction, operator: str, type_name: str) -> None:
    """Amounts from the width on give 0, or the sign: NumPy does that too, for amounts its type can hold."""
    value = code.read(instruction.operands[1], type_name, array=True)
    amount = instruction.operands[2]
    if isinstance(amount, IntegerLiteral):
        clamped = min(amount.value & 0xFFFFFFFF, 2 * BITS[type_name])
        shift = code.constant(dtype_of(type_name)(clamped))
    else:
        shift = code.read(amount, "u32")
        if DTYPE_NAME[type_name] != "U32":
            shift = f"np.minimum({shift}, U32(127)).astype({DTYPE_NAME[type_name]})"
    code.write(instruction.operands[0], f"{value} {operator} {shift}", type_name)


def shift_left(code: BlockCode, instruction: Instruction) -> None:
    _shift(code, instruction, "<<", unsigned(instruction.type))


def shift_right(code: BlockCode, instruction: Instruction) -> None:
    type_name = instruction.type
    _shift(code, instruction, ">>", type_name if is_signed(type_name) else unsigned(type_name))


def funnel_shift(code: BlockCode, instruction: Instruction) -> None:
    low = code.read(instruction.operands[1], "u32", array=True)
    high, amount = (code.read(operand, "u32") for operand in instruction.operands[2:4])
    right, wrap = instruction.has("r"), instruction.has("wrap")
    code.write(instruction.operands[0], f"integer.funnel_shift({low}, {high}, {amount}, {right}, {wrap})", "u32")


def _bit_function(function: str) -> Translate:
    """A function of the bits of one operand, with a u32 result."""

    def translate(code: BlockCode, instruction: Instruction) -> None:
        a = code.read(instruction.operands[1], instruction.type, array=True)
        code.write(instruction.operands[0], f"integer.{function}({a})", "u32")

    return translate


def reverse_bits(code: BlockCode, instruction: Instruction) -> None:
    a = code.read(instruction.operands[1], instruction.type, array=True)
    code.write(instruction.operands[0], f"integer.reverse_bits({a})", instruction.type)


def find_leading_bit(code: BlockCode, instruction: Instruction) -> None:
    a = code.read(instruction.operands[1], instruction.type, array=True)
    flags = f"{is_signed(instruction.type)}, {instruction.has('shiftamt')}"
    code.write(instruction.operands[0], f"integer.find_leading_bit({a}, {flags})", "u32")


def extract_field(code: BlockCode, instruction: Instruction) -> None:
    type_name = unsigned(instruction.type)
    a = code.read(instruction.operands[1], type_name, array=True)
    position, length = (code.read(operand, "u32") for operand in instruction.operands[2:4])
    signed = is_signed(instruction.type)
    code.write(instruction.operands[0], f"integer.extract_field({a}, {position}, {length}, {signed})", type_name)


def insert_field(code: BlockCode, instruction: Instruction) -> None:
    type_name = instruction.type
    a = code.read(instruction.operands[1], type_name, array=True)
    b = code.read(instruction.operands[2], type_name)
    position, length = (code.read(operand, "u32") for operand in instruction.operands[3:5])
    code.write(instruction.operands[0], f"integer.insert_field({a}, {b}, {position}, {length})", type_name)


def permute_bytes(code: BlockCode, instruction: Instruction) -> None:
    a = code.read(instruction.operands[1], "u32", array=True)
    b, control = (code.read(operand, "u32") for operand in instruction.operands[2:4])
    mode = instruction.one_of(_PERMUTATIONS)
    code.write(instruction.operands[0], f"integer.permute_bytes({a}, {b}, {control}, {mode!r})", "u32")


def logic_of_three(code: BlockCode, instruction: Instruction) -> None:
    table = instruction.operands[4]
    if instruction.type != "b32" or not isinstance(table, IntegerLiteral):
        raise code.unsupported(instruction)
    a, b, c = (code.lanes_of(x) for x in code.sources(instruction, "b32", 3))
    code.write(instruction.operands[0], f"integer.logic_of_three({a}, {b}, {c}, {table.value & 255})", "b32")


def bit_mask(code: BlockCode, instruction: Instruction) -> None:
    """bmsk: `length` ones from bit `position` on."""
    position, length = (code.lanes_of(x) for x in code.sources(instruction, "u32"))
    if not instruction.has("clamp"):
        position, length = f"({position} & U32(31))", f"({length} & U32(31))"
    code.write(instruction.operands[0], f"integer.low_bits({length}, U32) << {position}", "u32")


def extend_low_bits(code: BlockCode, instruction: Instruction) -> None:
    """szext: the low bits extended by sign or zero."""
    a = code.read(instruction.operands[1], "u32", array=True)
    length = code.lanes_of(code.read(instruction.operands[2], "u32"))
    length = f"np.minimum({length}, U32(32))" if instruction.has("clamp") else f"({length} & U32(31))"
    signed = is_signed(instruction.type)
    code.write(instruction.operands[0], f"integer.extract_field({a}, U32(0), {length}, {signed})", "u32")


# Comparison and selection

_INTEGER_COMPARISONS = {
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=", "hi": ">", "hs": ">=",
}  # fmt: skip


def _comparison(a: str, b: str, relation: str, type_name: str) -> str:
    if not is_float(type_name):
        return f"({a} {_INTEGER_COMPARISONS[relation]} {b})"
    if relation == "num":
        return f"(~floating.unordered({a}, {b}))"
    if relation == "nan":
        return f"floating.unordered({a}, {b})"
    if relation == "ne":  # the one that Python finds true of NaN
        return f"(({a} != {b}) & ~floating.unordered({a}, {b}))"
    if relation in _INTEGER_COMPARISONS:
        return f"({a} {_INTEGER_COMPARISONS[relation]} {b})"
    return f"(({a} {_INTEGER_COMPARISONS[relation[:-1]]} {b}) | floating.unordered({a}, {b}))"


def _compare(code: BlockCode, instruction: Instruction) -> tuple[str, str]:
    """The outcome of a comparison and its opposite, each combined with a predicate where the instruction has one."""
    type_name = instruction.type
    if type_name in ("f16", "bf16"):
        raise code.unsupported(instruction)
    if type_name.startswith("b"):
        type_name = unsigned(type_name)
    a, b = flushed(instruction, code.sources(instruction, type_name), type_name)
    a = code.temporary(a, fresh=False)
    if not isinstance(instruction.operands[2], (IntegerLiteral, FloatLiteral)):
        b = code.temporary(b, fresh=False)
    relation = instruction.one_of(COMPARISONS)
    if relation is None:
        raise code.unsupported(instruction)
    outcome = _comparison(a, b, relation, type_name)
    opposite = f"(~{outcome})"
    operator = instruction.one_of(BOOLEAN_OPERATORS)
    if operator is not None:
        predicate = code.read(instruction.operands[3], "pred")
        outcome = f"({outcome} {_BOOLEAN[operator]} {predicate})"
        opposite = f"({opposite} {_BOOLEAN[operator]} {predicate})"
    return outcome, opposite


def set_predicate(code: BlockCode, instruction: Instruction) -> None:
    outcome, opposite = _compare(code, instruction)
    destination = instruction.operands[0]
    if isinstance(destination, Pair):
        outcome, opposite = code.temporary(outcome), code.temporary(opposite)
        code.write(destination.first, outcome, "pred")
        code.write(destination.second, opposite, "pred")
    else:
        code.write(destination, outcome, "pred")


def set_value(code: BlockCode, instruction: Instruction) -> None:
    """set: all ones or 1.0 where the comparison holds."""
    type_name = instruction.types[-2]
    outcome, _ = _compare(code, instruction)
    if type_name == "f32":
        one = dtype_of(type_name)(1)
    else:
        type_name = unsigned(type_name)
        one = dtype_of(type_name)((1 << BITS[type_name]) - 1)
    values = f"{code.constant(one)}, {code.constant(dtype_of(type_name)(0))}"
    code.write(instruction.operands[0], f"np.where({outcome}, {values})", type_name)


def _value_type(type_name: str) -> str:
    return type_name if is_float(type_name) else unsigned(type_name)


def _choose(code: BlockCode, instruction: Instruction, condition: str, type_name: str) -> None:
    a, b = (code.read(operand, type_name) for operand in instruction.operands[1:3])
    code.write(instruction.operands[0], f"np.where({condition}, {a}, {b})", type_name)


def select_by_predicate(code: BlockCode, instruction: Instruction) -> None:
    if instruction.type == "pred":
        raise code.unsupported(instruction)
    type_name = _value_type(instruction.type)
    condition: Operand = instruction.operands[3]
    if isinstance(condition, IntegerLiteral):
        chosen = instruction.operands[1 if condition.value else 2]
        code.write(instruction.operands[0], code.read(chosen, type_name, array=True), type_name, fresh=False)
    else:
        _choose(code, instruction, code.read(condition, "pred"), type_name)


def select_by_sign(code: BlockCode, instruction: Instruction) -> None:
    """slct: the first operand where the third is not negative; a NaN takes the second."""
    condition = f"{code.read(instruction.operands[3], instruction.types[1], array=True)} >= 0"
    _choose(code, instruction, condition, _value_type(instruction.types[0]))


OPCODES: dict[str, Translate] = {
    "and": _logic("&"),
    "or": _logic("|"),
    "xor": _logic("^"),
    "not": complement,
    "cnot": is_zero,
    "shl": shift_left,
    "shr": shift_right,
    "shf": funnel_shift,
    "popc": _bit_function("population_count"),
    "clz": _bit_function("count_leading_zeros"),
    "brev": reverse_bits,
    "bfind": find_leading_bit,
    "bfe": extract_field,
    "bfi": insert_field,
    "prmt": permute_bytes,
    "lop3": logic_of_three,
    "bmsk": bit_mask,
    "szext": extend_low_bits,
    "setp": set_predicate,
    "set": set_value,
    "selp": select_by_predicate,
    "slct": select_by_sign,
}
