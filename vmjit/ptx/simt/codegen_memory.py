"""Loads, stores and atomics as NumPy code (PTX ISA, "ld", "st", "atom", "red"; parameters: "Function Parameters").

Cache operators, memory orders and scopes change nothing: every instruction of a block is done by all lanes before
the next, which is one of the orders the memory model allows.
"""

from __future__ import annotations

from vmjit.ptx.assembly.syntax import SINK, Address, Instruction, Operand, Symbol, Variable, Vector
from vmjit.ptx.simt.codegen import DTYPE_NAME, BlockCode, Translate
from vmjit.ptx.simt.numpy_atomic import OPERATIONS
from vmjit.ptx.types import STATE_SPACES, byte_size, is_float, is_signed, unsigned

_ATOMIC = frozenset(OPERATIONS)
_ATOMIC_TYPES_NOT_DONE = ("f16", "f16x2", "bf16", "bf16x2", "b128")


def _items(operand: Operand) -> tuple[Operand, ...]:
    return operand.items if isinstance(operand, Vector) else (operand,)


def parameter_of(instruction: Instruction, operand: Operand) -> Variable | None:
    """The .param variable that an address names, if it does."""
    if instruction.has("param") and isinstance(operand, Address) and isinstance(operand.base, Symbol):
        target = operand.base.target
        return target if isinstance(target, Variable) else None
    return None


def _register_type(type_name: str) -> str:
    """The type whose extension a load does: bits are extended with zeros."""
    return type_name if is_float(type_name) or is_signed(type_name) else unsigned(type_name)


def _first_address(code: BlockCode, instruction: Instruction, operand: Operand, count: int) -> str:
    address = code.temporary(code.address(operand, instruction.one_of(STATE_SPACES)), fresh=False)
    if count > 1:
        size = count * byte_size(instruction.type)
        code.emit(f"A.check_alignment({address}, {size}, {code.guard})")
    return address


def load(code: BlockCode, instruction: Instruction) -> None:
    destinations = _items(instruction.operands[0])
    variable = parameter_of(instruction, instruction.operands[1])
    if variable is not None:
        _load_parameter(code, instruction, variable, destinations)
        return
    size = byte_size(instruction.type)
    type_name = _register_type(instruction.type)
    first = _first_address(code, instruction, instruction.operands[1], len(destinations))
    for k, destination in enumerate(destinations):
        address = f"{first} + U64({k * size})" if k else first
        if code.guard is not None:
            value = f"A.guarded_load({code.guard}, {address}, {size})"
        else:
            value = f"M.load({address}, {size})"
        if DTYPE_NAME[type_name][0] != "U":
            value += f".view({DTYPE_NAME[type_name]})"
        if destination is SINK:
            code.emit(value)
        else:
            code.write(destination, value, type_name)


def _load_parameter(
    code: BlockCode, instruction: Instruction, variable: Variable, destinations: tuple[Operand, ...]
) -> None:
    operand = instruction.operands[1]
    assert isinstance(operand, Address)
    size = byte_size(instruction.type)
    type_name = _register_type(instruction.type)
    dtype = DTYPE_NAME[type_name]
    for k, destination in enumerate(destinations):
        offset = operand.offset + k * size
        if offset < 0 or offset + size > variable.size:
            raise code.unsupported(instruction, f"{variable.name} has {variable.size} bytes")
        if variable in code.function.parameters and code.function.is_entry:
            value = f"np.full(n, A.parameter({variable.offset + offset}, {dtype}))"
        else:
            value = f"A.values_of({parameter_bytes(code, instruction, variable)}, {offset}, {dtype})"
        code.write(destination, value, type_name)


def parameter_bytes(code: BlockCode, instruction: Instruction, variable: Variable) -> str:
    """The bytes of a .param variable that is no kernel's parameter: an array of (lanes, bytes)."""
    if variable in code.function.parameters:
        return f"A.rows(A.arguments[{code.function.parameters.index(variable)}], L)"
    if variable in code.function.returns:
        return f"A.rows(A.returns[{code.function.returns.index(variable)}], L)"
    if variable in code.flow.crossing:
        return f"A.rows(A.parameter_array({code.constant_object(variable)}), L)"
    if variable not in code.parameters:
        raise code.unsupported(instruction, f"{variable.name} is read before it is set")
    return code.parameters[variable]


def store(code: BlockCode, instruction: Instruction) -> None:
    sources = _items(instruction.operands[1])
    variable = parameter_of(instruction, instruction.operands[0])
    if variable is not None:
        _store_parameter(code, instruction, variable, sources)
        return
    size = byte_size(instruction.type)
    first = _first_address(code, instruction, instruction.operands[0], len(sources))
    for k, source in enumerate(sources):
        address = f"{first} + U64({k * size})" if k else first
        value = code.read(source, unsigned(instruction.type), array=code.guard is not None)
        if code.guard is not None:
            code.emit(f"A.guarded_store({code.guard}, {address}, {value}, {size})")
        else:
            code.emit(f"M.store({address}, {value}, {size})")


def _store_parameter(
    code: BlockCode, instruction: Instruction, variable: Variable, sources: tuple[Operand, ...]
) -> None:
    operand = instruction.operands[0]
    assert isinstance(operand, Address)
    size = byte_size(instruction.type)
    for k, source in enumerate(sources):
        offset = operand.offset + k * size
        if offset < 0 or offset + size > variable.size:
            raise code.unsupported(instruction, f"{variable.name} has {variable.size} bytes")
        value = code.read(source, unsigned(instruction.type), array=True)
        place = f"{offset}, {value}, {code.guard}"
        if variable in code.function.returns:
            code.emit(f"A.set_bytes(A.returns[{code.function.returns.index(variable)}], L, {place})")
        elif variable in code.flow.crossing:
            code.emit(f"A.set_bytes(A.parameter_array({code.constant_object(variable)}), L, {place})")
        else:
            if variable not in code.parameters:
                code.parameters[variable] = code.temporary(f"np.zeros((n, {variable.size}), U8)")
            code.emit(f"A.set_bytes({code.parameters[variable]}, None, {place})")


def atomic(code: BlockCode, instruction: Instruction) -> None:
    _atomic(code, instruction, instruction.operands[0], instruction.operands[1:])


def reduction(code: BlockCode, instruction: Instruction) -> None:
    """red: an atomic operation of which nobody wants the old value."""
    _atomic(code, instruction, SINK, instruction.operands)


def _atomic(code: BlockCode, instruction: Instruction, destination: Operand, operands: tuple[Operand, ...]) -> None:
    operation = instruction.one_of(_ATOMIC)
    type_name = instruction.type
    if operation is None or type_name in _ATOMIC_TYPES_NOT_DONE or isinstance(operands[1], Vector):
        raise code.unsupported(instruction)
    if not is_float(type_name) and operation not in ("min", "max"):
        type_name = unsigned(type_name)
    address = code.address(operands[0], instruction.one_of(STATE_SPACES))
    a = code.read(operands[1], type_name, array=True)
    b = code.read(operands[2], type_name, array=True) if operation == "cas" else "None"
    arguments = f"{address}, {DTYPE_NAME[type_name]}, {operation!r}, {a}, {b}"
    if code.guard is not None:
        value = f"A.guarded_atomic({code.guard}, {arguments})"
    else:
        value = f"atomic.apply(M, {arguments})"
    if destination is SINK:
        code.emit(value)
    else:
        code.write(destination, value, type_name)


OPCODES: dict[str, Translate] = {
    "ld": load,
    "ldu": load,
    "st": store,
    "atom": atomic,
    "red": reduction,
}
