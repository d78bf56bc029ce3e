"""Moves and conversions as LLVM IR (PTX ISA, "Data Movement and Conversion Instructions": mov, cvt, cvta)."""

from __future__ import annotations

from vmjit.ptx.assembly.syntax import SINK, Instruction, Operand, Register, Symbol, Vector
from vmjit.ptx.thread import codegen_float, directed_rounding
from vmjit.ptx.thread.codegen import FunctionCode, Translate, llvm_type
from vmjit.ptx.thread.context import Word
from vmjit.ptx.types import BITS, ROUNDINGS, STATE_SPACES, is_float, is_signed, unsigned

_TO_INTEGRAL = {"rni": "roundeven", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}
_FORMS_NOT_DONE = ("f16x2", "bf16x2", "bf16", "tf32", "pack", "f16")


def move(code: FunctionCode, instruction: Instruction) -> None:
    type_name = instruction.type
    destination, source = instruction.operands[0], instruction.operands[1]
    if isinstance(source, Vector):
        _pack(code, destination, source, BITS[type_name])
    elif isinstance(destination, Vector):
        _unpack(code, destination, source, BITS[type_name])
    else:
        if isinstance(source, Symbol) and isinstance(destination, Register):
            type_name = f"u{destination.bits}"
        elif type_name != "pred" and not is_float(type_name):
            type_name = unsigned(type_name)
        code.write(destination, code.read(source, type_name), type_name)


def _pack(code: FunctionCode, destination: Operand, source: Vector, bits: int) -> None:
    """`mov.b64 d, {a, b}`: the first item becomes the lowest bits."""
    part = bits // len(source.items)
    result = "0"
    for k, item in enumerate(source.items):
        piece = code.value(f"zext i{part} {code.read(item, f'u{part}')} to i{bits}")
        result = code.value(f"or i{bits} {result}, {code.value(f'shl i{bits} {piece}, {k * part}')}")
    code.write(destination, result, f"u{bits}")


def _unpack(code: FunctionCode, destination: Vector, source: Operand, bits: int) -> None:
    part = bits // len(destination.items)
    value = code.read(source, f"u{bits}")
    for k, item in enumerate(destination.items):
        if item is not SINK:
            shifted = code.value(f"lshr i{bits} {value}, {k * part}")
            code.write(item, code.value(f"trunc i{bits} {shifted} to i{part}"), f"u{part}")


def convert_address(code: FunctionCode, instruction: Instruction) -> None:
    """cvta: all spaces share one set of addresses; only 32-bit ones of a window lack their upper half."""
    source = instruction.operands[1]
    address = code.read(source, "u64")
    space = instruction.one_of(STATE_SPACES)
    if space in ("shared", "local") and not instruction.has("to") and not isinstance(source, Symbol):
        is_short = code.value(f"icmp ult i64 {address}, 4294967296")
        address = code.select(is_short, "i64", in_window(code, address, space), address)
    code.write(instruction.operands[0], address, "u64")


def in_window(code: FunctionCode, address: str, space: str) -> str:
    """A 32-bit address of shared or local memory, in 64 bits."""
    base = code.context(Word.SHARED if space == "shared" else Word.LOCAL)
    return code.value(f"or i64 {address}, {code.value(f'and i64 {base}, -4294967296')}")


def is_in_space(code: FunctionCode, instruction: Instruction) -> None:
    space = instruction.one_of(STATE_SPACES)
    address = code.read(instruction.operands[1], "u64")
    inside = {}
    for name, start, size in (
        ("shared", Word.SHARED, Word.SHARED_BYTES),
        ("local", Word.LOCAL, Word.LOCAL_BYTES),
    ):
        offset = code.value(f"sub i64 {address}, {code.context(start)}")
        inside[name] = code.value(f"icmp ult i64 {offset}, {code.context(size)}")
    either = code.value(f"or i1 {inside['shared']}, {inside['local']}")
    inside["global"] = code.value(f"xor i1 {either}, true")
    code.write(instruction.operands[0], inside.get(space or "", "false"), "pred")


def convert(code: FunctionCode, instruction: Instruction) -> None:
    if len(instruction.types) < 2 or any(instruction.has(form) for form in _FORMS_NOT_DONE):
        raise code.unsupported(instruction)
    result, source = instruction.types[:2]
    mode = instruction.one_of(ROUNDINGS)
    if mode == "rna":
        raise code.unsupported(instruction)
    if is_float(result):
        _to_float(code, instruction, mode)
    elif is_float(source):
        _float_to_integer(code, instruction, mode or "rzi")
    else:
        _between_integers(code, instruction)


def _to_float(code: FunctionCode, instruction: Instruction, mode: str | None) -> None:
    result, source = instruction.types[:2]
    have, want = llvm_type(source), llvm_type(result)
    a = codegen_float.read(code, instruction, instruction.operands[1], source)
    if mode in ("rz", "rm", "rp"):
        if (result, source) != ("f32", "f64"):
            raise code.unsupported(instruction)
        a = directed_rounding.round_f64_to_f32(code, a, mode)
    elif is_float(source):
        if mode in _TO_INTEGRAL:
            a = code.value(f"call {have} @llvm.{_TO_INTEGRAL[mode]}.{source}({have} {a})")
        if have != want:
            a = code.value(f"{'fpext' if BITS[result] > BITS[source] else 'fptrunc'} {have} {a} to {want}")
    else:
        a = code.value(f"{'sitofp' if is_signed(source) else 'uitofp'} {have} {a} to {want}")
    code.write(instruction.operands[0], codegen_float.finish(code, instruction, a, result), result)


def _float_to_integer(code: FunctionCode, instruction: Instruction, mode: str) -> None:
    """Clamped; a NaN becomes 0, or from f64 and to 64 bits the value with only the top bit set, as devices have it."""
    result, source = instruction.types[:2]
    have, want = llvm_type(source), llvm_type(result)
    a = codegen_float.read(code, instruction, instruction.operands[1], source)
    whole = code.value(f"call {have} @llvm.{_TO_INTEGRAL[mode]}.{source}({have} {a})")
    kind = "s" if is_signed(result) else "u"
    value = code.value(f"call {want} @llvm.fpto{kind}i.sat.{want}.{source}({have} {whole})")
    if source == "f64" or BITS[result] == 64:
        is_nan = code.value(f"fcmp uno {have} {a}, {a}")
        value = code.select(is_nan, want, str(-(1 << (BITS[result] - 1))), value)
    code.write(instruction.operands[0], value, result)


def _between_integers(code: FunctionCode, instruction: Instruction) -> None:
    if instruction.has("sat"):
        raise code.unsupported(instruction)
    result, source = instruction.types[:2]
    have, want = llvm_type(source), llvm_type(result)
    a = code.read(instruction.operands[1], source)
    if BITS[result] > BITS[source]:  # extended by the source's sign
        a = code.value(f"{'sext' if is_signed(source) else 'zext'} {have} {a} to {want}")
        result = f"{'s' if is_signed(source) else 'u'}{BITS[result]}"
    elif BITS[result] < BITS[source]:
        a = code.value(f"trunc {have} {a} to {want}")
    code.write(instruction.operands[0], a, result)


OPCODES: dict[str, Translate] = {
    "mov": move,
    "cvt": convert,
    "cvta": convert_address,
    "isspacep": is_in_space,
}
