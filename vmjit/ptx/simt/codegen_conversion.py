"""Moves and conversions as NumPy code (PTX ISA, "Data Movement and Conversion Instructions": mov, cvt, cvta)."""

from __future__ import annotations

from vmjit.ptx.assembly.syntax import Instruction, IntegerLiteral, Operand, Register, Symbol, Vector
from vmjit.ptx.simt.codegen import DTYPE_NAME, BlockCode, Translate
from vmjit.ptx.simt.codegen_float import finished, flushed
from vmjit.ptx.types import BITS, ROUNDINGS, STATE_SPACES, integer_range, is_float, is_signed, unsigned

_TO_INTEGRAL = frozenset(("rni", "rzi", "rmi", "rpi"))
_NEAREST = (None, "rn")
_FORMS_NOT_DONE = ("f16x2", "bf16x2", "bf16", "tf32", "pack")


def move(code: BlockCode, instruction: Instruction) -> None:
    destination, source = instruction.operands[0], instruction.operands[1]
    if isinstance(source, Vector):
        _pack(code, destination, source, BITS[instruction.type])
    elif isinstance(destination, Vector):
        _unpack(code, destination, source, BITS[instruction.type])
    elif isinstance(source, Register) and isinstance(destination, Register) and source.storage == destination.storage:
        if code.guard is None:
            code.alias(destination, source)
        else:
            code.write(destination, code.register(source), destination.storage, fresh=False)
    elif instruction.type == "pred":
        fresh = isinstance(source, IntegerLiteral)
        code.write(destination, code.read(source, "pred", array=True), "pred", fresh=fresh)
    elif isinstance(source, Symbol):
        _move_address(code, destination, source)
    else:
        type_name = instruction.type if is_float(instruction.type) else unsigned(instruction.type)
        code.write(destination, code.read(source, type_name, array=True), type_name, fresh=False)


def _move_address(code: BlockCode, destination: Operand, source: Symbol) -> None:
    address = code.read(source, "u64")
    if isinstance(destination, Register) and destination.bits == 32:
        code.write(destination, f"{address}.astype(U32)", "u32")
    else:
        code.write(destination, address, "u64")


def _pack(code: BlockCode, destination: Operand, source: Vector, bits: int) -> None:
    """`mov.b64 d, {a, b}`: the first item becomes the lowest bits."""
    part = bits // len(source.items)
    pieces = []
    for k, item in enumerate(source.items):
        piece = code.read(item, f"u{part}", array=True)
        pieces.append(f"({piece}.astype(U{bits}) << U{bits}({k * part}))")
    code.write(destination, " | ".join(pieces), f"u{bits}")


def _unpack(code: BlockCode, destination: Vector, source: Operand, bits: int) -> None:
    part = bits // len(destination.items)
    value = code.temporary(code.read(source, f"u{bits}", array=True), fresh=False)
    for k, item in enumerate(destination.items):
        code.write(item, f"({value} >> U{bits}({k * part})).astype(U{part})", f"u{part}")


def convert_address(code: BlockCode, instruction: Instruction) -> None:
    """cvta: all spaces share one set of addresses; only 32-bit ones of a window lack their upper half."""
    source = instruction.operands[1]
    address = code.read(source, "u64", array=True)
    space = instruction.one_of(STATE_SPACES)
    if space in ("shared", "local") and not instruction.has("to") and not isinstance(source, Symbol):
        address = f"A.in_window({space!r}, {address})"
    code.write(instruction.operands[0], address, "u64", fresh=False)


def is_in_space(code: BlockCode, instruction: Instruction) -> None:
    space = instruction.one_of(STATE_SPACES)
    address = code.read(instruction.operands[1], "u64", array=True)
    code.write(instruction.operands[0], f"A.is_in_space({space!r}, {address})", "pred")


def convert(code: BlockCode, instruction: Instruction) -> None:
    if len(instruction.types) < 2 or any(instruction.has(form) for form in _FORMS_NOT_DONE):
        raise code.unsupported(instruction)
    result, source = instruction.types[:2]
    mode = instruction.one_of(ROUNDINGS)
    if mode == "rna":
        raise code.unsupported(instruction)
    a = code.read(instruction.operands[1], source, array=True)
    if is_float(source):
        (a,) = flushed(instruction, [a], source)
    if is_float(result):
        _to_float(code, instruction, a, mode)
    elif is_float(source):
        value = f"floating.to_integer({a}, {result!r}, {mode or 'rzi'!r}, {source!r})"
        code.write(instruction.operands[0], value, result)
    else:
        _between_integers(code, instruction, a)


def _to_float(code: BlockCode, instruction: Instruction, a: str, mode: str | None) -> None:
    result, source = instruction.types[:2]
    dtype = DTYPE_NAME[result]
    if is_float(source) and mode in _TO_INTEGRAL:
        value = f"floating.to_integral({a}, {mode!r}).astype({dtype})"
    elif mode in _NEAREST:
        value = f"{a}.astype({dtype})"
    elif result == "f16":  # NumPy rounds halves to nearest whatever the mode
        raise code.unsupported(instruction)
    else:
        value = f"floating.rounded(lambda z: z.astype({dtype}), {mode!r}, {a})"
    code.write(instruction.operands[0], finished(instruction, value, result), result)


def _between_integers(code: BlockCode, instruction: Instruction, a: str) -> None:
    result, source = instruction.types[:2]
    destination = instruction.operands[0]
    if instruction.has("sat"):
        bounds = [integer_range(result), integer_range(source)]
        low, high = max(b[0] for b in bounds), min(b[1] for b in bounds)
        code.write(destination, f"integer.saturate({a}, {low}, {high}, {DTYPE_NAME[result]})", result)
    elif BITS[result] > BITS[source]:  # extended by the source's sign
        wide = f"{'s' if is_signed(source) else 'u'}{BITS[result]}"
        code.write(destination, f"{a}.astype({DTYPE_NAME[wide]})", wide)
    elif DTYPE_NAME[result] == DTYPE_NAME[source]:
        code.write(destination, a, result, fresh=False)
    else:
        code.write(destination, f"{a}.astype({DTYPE_NAME[result]})", result)


OPCODES: dict[str, Translate] = {
    "mov": move,
    "cvt": convert,
    "cvta": convert_address,
    "isspacep": is_in_space,
}
