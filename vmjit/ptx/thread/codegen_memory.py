"""Loads, stores and atomics as LLVM IR (PTX ISA, "ld", "st", "atom", "red"; parameters: "Function Parameters").

Memory orders and scopes change nothing: one thread runs at a time, up to its end or its next barrier.
"""

from __future__ import annotations

from collections.abc import Callable

from vmjit.ptx.assembly.syntax import SINK, Address, Instruction, Operand, Symbol, Variable, Vector
from vmjit.ptx.errors import PtxError
from vmjit.ptx.thread.codegen import FAULT, FunctionCode, Translate, llvm_type
from vmjit.ptx.thread.codegen_conversion import in_window
from vmjit.ptx.thread.codegen_float import canonical_nan
from vmjit.ptx.thread.codegen_integer import signedness
from vmjit.ptx.thread.context import Word
from vmjit.ptx.types import BITS, STATE_SPACES, byte_size, is_float


def _items(operand: Operand) -> tuple[Operand, ...]:
    return operand.items if isinstance(operand, Vector) else (operand,)


def _address(code: FunctionCode, operand: Operand, space: str | None) -> str:
    if not isinstance(operand, Address):
        raise PtxError("an address is expected in brackets")
    base, offset = operand.base, operand.offset
    if base is None:
        return str(offset & (2**64 - 1))
    if isinstance(base, Symbol):
        return code.symbol(Symbol(base.name, offset, base.target))
    address = code.read(base, "u64")
    if base.bits == 32 and space in ("shared", "local"):
        address = in_window(code, address, space)
    return code.value(f"add i64 {address}, {offset}") if offset else address


def _checked(code: FunctionCode, address: str, size: int, *, store: bool) -> str:
    """A pointer to `size` bytes at an address, after the checks of bounds, alignment and permission."""
    site = code.compiler.new_site()
    sites = code.value(f"inttoptr i64 {code.context(Word.SITES)} to ptr")
    base_p = code.value(f"getelementptr i64, ptr {sites}, i64 {2 * site}")
    limit_p = code.value(f"getelementptr i64, ptr {sites}, i64 {2 * site + 1}")
    base, limit = code.value(f"load i64, ptr {base_p}"), code.value(f"load i64, ptr {limit_p}")
    good = code.value(f"icmp ult i64 {code.value(f'sub i64 {address}, {base}')}, {limit}")
    if size > 1:
        low = code.value(f"and i64 {address}, {size - 1}")
        good = code.value(f"and i1 {good}, {code.value(f'icmp eq i64 {low}, 0')}")
    hit, search, bad = code.label(), code.label(), code.label()
    code.emit(f"br i1 {good}, label %{hit}, label %{search}, !prof !0")
    code.place(search)
    where = f"i64 {int(store)}, i64 {code.line}, i64 {code.function.number}"
    found = code.value(f"call i1 @find_segment(ptr %ctx, ptr {base_p}, i64 {address}, i64 {size}, {where})")
    code.branch(found, hit, bad)
    code.place(bad)
    code.emit(f"ret i64 {FAULT}")
    code.place(hit)
    return code.value(f"inttoptr i64 {address} to ptr")


def _parameter(code: FunctionCode, instruction: Instruction, operand: Operand, size: int) -> str | None:
    """A pointer to a place in a .param variable that an address names, if it does."""
    if not instruction.has("param") or not isinstance(operand, Address) or not isinstance(operand.base, Symbol):
        return None
    variable = operand.base.target
    if not isinstance(variable, Variable):
        return None
    if operand.offset < 0 or operand.offset + size > variable.size:
        raise code.unsupported(instruction, f"{variable.name} has {variable.size} bytes")
    start, offset = buffer_of(code, variable), operand.offset
    if variable in code.function.parameters and code.function.is_entry:
        offset += variable.offset
    return code.value(f"getelementptr i8, ptr {start}, i64 {offset}")


def buffer_of(code: FunctionCode, variable: Variable) -> str:
    """Where the bytes of a .param variable are."""
    function = code.function
    if variable in function.parameters:
        return "%params" if function.is_entry else f"%p{function.parameters.index(variable)}"
    if variable in function.returns:
        return f"%q{function.returns.index(variable)}"
    return code.buffer(variable)


def _place(code: FunctionCode, instruction: Instruction, operand: Operand, count: int, *, store: bool) -> str:
    size = count * byte_size(instruction.type)
    parameter = _parameter(code, instruction, operand, size)
    if parameter is not None:
        return parameter
    return _checked(code, _address(code, operand, instruction.one_of(STATE_SPACES)), size, store=store)


def load(code: FunctionCode, instruction: Instruction) -> None:
    destinations = _items(instruction.operands[0])
    start = _place(code, instruction, instruction.operands[1], len(destinations), store=False)
    type_ = llvm_type(instruction.type)
    for k, destination in enumerate(destinations):
        pointer = code.value(f"getelementptr i8, ptr {start}, i64 {k * byte_size(instruction.type)}")
        code.write(destination, code.value(f"load {type_}, ptr {pointer}, align 1"), instruction.type)


def store(code: FunctionCode, instruction: Instruction) -> None:
    sources = _items(instruction.operands[1])
    start = _place(code, instruction, instruction.operands[0], len(sources), store=True)
    type_ = llvm_type(instruction.type)
    for k, source in enumerate(sources):
        value = code.read(source, instruction.type)
        pointer = code.value(f"getelementptr i8, ptr {start}, i64 {k * byte_size(instruction.type)}")
        code.emit(f"store {type_} {value}, ptr {pointer}, align 1")


# Atomics: the new value of a place, from its old one and the operands

Combine = Callable[[FunctionCode, str, str, list[str]], str]


def _add(code: FunctionCode, type_name: str, old: str, operands: list[str]) -> str:
    if is_float(type_name):
        total = code.value(f"fadd {llvm_type(type_name)} {old}, {operands[0]}")
        return canonical_nan(code, total, type_name)
    return code.value(f"add {llvm_type(type_name)} {old}, {operands[0]}")


def _logic(operation: str) -> Combine:
    return lambda code, type_name, old, operands: code.value(f"{operation} {llvm_type(type_name)} {old}, {operands[0]}")


def _extremum(relation: str) -> Combine:
    def combine(code: FunctionCode, type_name: str, old: str, operands: list[str]) -> str:
        type_ = llvm_type(type_name)
        keep = code.value(f"icmp {signedness(type_name)}{relation} {type_} {old}, {operands[0]}")
        return code.select(keep, type_, old, operands[0])

    return combine


def _exchange(code: FunctionCode, type_name: str, old: str, operands: list[str]) -> str:
    return operands[0]


def _compare_and_swap(code: FunctionCode, type_name: str, old: str, operands: list[str]) -> str:
    type_ = llvm_type(type_name)
    return code.select(code.value(f"icmp eq {type_} {old}, {operands[0]}"), type_, operands[1], old)


def _increment(code: FunctionCode, type_name: str, old: str, operands: list[str]) -> str:
    type_ = llvm_type(type_name)
    is_over = code.value(f"icmp uge {type_} {old}, {operands[0]}")
    return code.select(is_over, type_, "0", code.value(f"add {type_} {old}, 1"))


def _decrement(code: FunctionCode, type_name: str, old: str, operands: list[str]) -> str:
    type_ = llvm_type(type_name)
    is_over = code.value(f"icmp ugt {type_} {old}, {operands[0]}")
    wraps = code.value(f"or i1 {is_over}, {code.value(f'icmp eq {type_} {old}, 0')}")
    return code.select(wraps, type_, operands[0], code.value(f"sub {type_} {old}, 1"))


_ATOMIC: dict[str, Combine] = {
    "add": _add,
    "and": _logic("and"),
    "or": _logic("or"),
    "xor": _logic("xor"),
    "min": _extremum("lt"),
    "max": _extremum("gt"),
    "exch": _exchange,
    "cas": _compare_and_swap,
    "inc": _increment,
    "dec": _decrement,
}
_FLOAT_ATOMIC = ("add", "exch")
_ATOMIC_TYPES_NOT_DONE = ("f16x2", "bf16x2", "bf16", "f16")


def atomic(code: FunctionCode, instruction: Instruction) -> None:
    _atomic(code, instruction, instruction.operands[0], instruction.operands[1:])


def reduction(code: FunctionCode, instruction: Instruction) -> None:
    """red: an atomic operation of which nobody wants the old value."""
    _atomic(code, instruction, SINK, instruction.operands)


def _atomic(code: FunctionCode, instruction: Instruction, destination: Operand, operands: tuple[Operand, ...]) -> None:
    type_name = instruction.type
    operation = next((m for m in instruction.modifiers if m in _ATOMIC), None)
    if operation is None or BITS[type_name] not in (16, 32, 64) or type_name in _ATOMIC_TYPES_NOT_DONE:
        raise code.unsupported(instruction)
    if isinstance(operands[1], Vector) or (is_float(type_name) and operation not in _FLOAT_ATOMIC):
        raise code.unsupported(instruction)
    type_ = llvm_type(type_name)
    address = _address(code, operands[0], instruction.one_of(STATE_SPACES))
    place = _checked(code, address, byte_size(type_name), store=True)
    values = [code.read(operand, type_name) for operand in operands[1 : 3 if operation == "cas" else 2]]
    old = code.value(f"load {type_}, ptr {place}")
    code.emit(f"store {type_} {_ATOMIC[operation](code, type_name, old, values)}, ptr {place}")
    code.write(destination, old, type_name)


OPCODES: dict[str, Translate] = {
    "ld": load,
    "ldu": load,
    "st": store,
    "atom": atomic,
    "red": reduction,
}
