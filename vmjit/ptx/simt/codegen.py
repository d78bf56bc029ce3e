"""One basic block to the Python function that executes it for any set of lanes: operands, results, the frame around.

What single instructions do stands in the codegen_* modules. The generated function sees:

    A  the activation          L  the numbers of its lanes, sorted; None means all of them
    R  its register arrays     n  how many lanes
    M  the device memory       integer, floating, atomic, warp  modules of helpers

It reads what it needs of R once at its start, computes on arrays of n lanes, writes back what is live afterwards, and
returns (next block, lanes, other next block, other lanes).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from vmjit.ptx.assembly.blocks import Block, ControlFlow, ends_block
from vmjit.ptx.assembly.liveness import CARRY, bit_of
from vmjit.ptx.assembly.syntax import (
    SINK,
    Address,
    FloatLiteral,
    Function,
    Instruction,
    IntegerLiteral,
    Negation,
    Operand,
    Pair,
    Register,
    SpecialRegister,
    Symbol,
    Variable,
)
from vmjit.ptx.errors import PtxError, PtxUnsupported
from vmjit.ptx.image import Image
from vmjit.ptx.simt.geometry import SPECIAL_REGISTERS
from vmjit.ptx.types import BITS, is_float, is_signed

MASK_64 = (1 << 64) - 1

# The names of dtypes in generated code. A "b" type is unsigned there.
DTYPE_NAME: dict[str, str] = {
    **{f"{letter}{bits}": f"{letter.upper()}{bits}" for letter in "us" for bits in (8, 16, 32, 64)},
    **{f"b{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
    **{f"f{bits}": f"F{bits}" for bits in (16, 32, 64)},
}
_KIND = {"U": "u", "S": "i", "F": "f"}
DTYPES: dict[str, Any] = {name: np.dtype(f"{_KIND[name[0]]}{int(name[1:]) // 8}").type for name in DTYPE_NAME.values()}

_WIDE_SPECIALS = frozenset(("%clock64", "%globaltimer", "%gridid"))

# Where lanes go, other than to a block.
RETURN, EXIT, NOWHERE, NO_OTHER = -2, -4, -3, -1

Translate = Callable[["BlockCode", Instruction], None]


def dtype_of(type_name: str) -> Any:
    """NumPy's scalar type for the values of a PTX type."""
    return np.bool_ if type_name == "pred" else DTYPES[DTYPE_NAME[type_name]]


class Constants:
    """The names that generated code of one module sees, constants of its own among them."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = {**names, **DTYPES}
        self._known: dict[tuple[type, bytes], str] = {}

    def name_of(self, value: Any) -> str:
        """A name for a NumPy scalar or array."""
        key = (value.dtype.type, value.tobytes() + b"|" * value.ndim)
        name = self._known.get(key)
        if name is None:
            name = self._known[key] = f"k{len(self._known)}"
            self.names[name] = value
        return name

    def name_of_object(self, value: object) -> str:
        """A name for a function or variable."""
        name = f"o{id(value)}"
        self.names[name] = value  # which also keeps it alive, so that no other object gets its id
        return name


class BlockCode:
    """The code of one block while it grows."""

    def __init__(self, image: Image, constants: Constants, function: Function, flow: ControlFlow, block: Block) -> None:
        self.image, self.function, self.flow, self.block = image, function, flow, block
        self._constants = constants
        self._lines: list[tuple[str, int]] = []  # with the PTX lines they come from
        self._values: dict[int, str] = {}  # register: the Python name that has its value now
        self._inputs: list[int] = []
        self._fresh: set[str] = set()  # names of arrays that nothing else refers to
        self._temporaries = 0
        self._has_end = False
        self.parameters: dict[Variable, str] = {}  # .param variables of this block: names of their byte arrays
        self.guard: str | None = None
        self.line = function.line

    # Emitting

    def emit(self, code: str) -> None:
        self._lines.append((code, self.line))

    def end(self, *code: str) -> None:
        """Emits what leaves the block. It runs after the write-back, so it may use only names that are there."""
        self._write_back()
        for line in code:
            self.emit(line)
        self._has_end = True

    def temporary(self, expression: str, *, fresh: bool = True) -> str:
        """A new name for a value. `fresh`: the expression makes an array of its own."""
        self._temporaries += 1
        name = f"t{self._temporaries}"
        self.emit(f"{name} = {expression}")
        if fresh:
            self._fresh.add(name)
        return name

    def temporaries(self, count: int, expression: str) -> list[str]:
        """New names for a tuple of new arrays."""
        first = self._temporaries + 1
        self._temporaries += count
        names = [f"t{first + k}" for k in range(count)]
        self.emit(f"{', '.join(names)} = {expression}")
        self._fresh.update(names)
        return names

    def constant(self, value: Any) -> str:
        return self._constants.name_of(value)

    def constant_object(self, value: object) -> str:
        return self._constants.name_of_object(value)

    def address_constant(self, value: int) -> str:
        return self.constant(np.uint64(value & MASK_64))

    def unsupported(self, instruction: Instruction, reason: str = "") -> PtxUnsupported:
        where = self.function.where(instruction.line)
        return PtxUnsupported(
            f"{where}: {instruction.text}{': ' if reason else ''}{reason} (not supported by the SIMT engine)",
            line=instruction.line,
        )

    # Reading operands

    def register(self, register: Register) -> str:
        """The array of a register's values, in its storage type."""
        return self._value(register.index)

    def _value(self, index: int) -> str:
        if index not in self._values:
            self._values[index] = f"r{index}" if index >= 0 else "carry"
            self._inputs.append(index)
        return self._values[index]

    @property
    def carry(self) -> str:
        return self._value(CARRY)

    @carry.setter
    def carry(self, expression: str) -> None:
        self._values[CARRY] = self.temporary(expression)

    def read(self, operand: Operand, type_name: str, *, array: bool = False) -> str:
        """An expression for an operand as a type: an array, or for a literal a scalar unless an array is asked for."""
        if isinstance(operand, Negation):
            return f"(~{self.read(operand.operand, 'pred', array=True)})"
        if isinstance(operand, (IntegerLiteral, FloatLiteral)):
            scalar = self._literal(operand, type_name)
            return f"np.full(n, {scalar})" if array else scalar
        if isinstance(operand, SpecialRegister):
            return self._special(operand.name, type_name)
        if isinstance(operand, Symbol):
            return self._symbol(operand)
        if isinstance(operand, Register):
            return self._register_as(operand, type_name)
        raise PtxError(f"{self.function.where(self.line)}: an operand of a form that does not fit here")

    def _register_as(self, register: Register, type_name: str) -> str:
        value = self.register(register)
        if type_name == "pred" or register.type == "pred":
            return value
        have, want = DTYPE_NAME[register.storage], DTYPE_NAME[type_name]
        if register.bits == BITS[type_name]:
            return value if have == want else f"{value}.view({want})"
        bits = value if have[0] == "U" else f"{value}.view(U{register.bits})"
        resized = f"{bits}.astype(U{BITS[type_name]})"
        return resized if want[0] == "U" else f"{resized}.view({want})"

    def _literal(self, literal: IntegerLiteral | FloatLiteral, type_name: str) -> str:
        if type_name == "pred":
            return str(bool(literal.value))
        dtype = dtype_of(type_name)
        if is_float(type_name):
            return self.constant(dtype(literal.value))
        if isinstance(literal, FloatLiteral):  # the bits of a number
            pattern = struct.pack({32: "<f", 64: "<d"}[BITS[type_name]], literal.value)
            return self.constant(np.frombuffer(pattern, dtype)[0])
        bits = BITS[type_name]
        value = literal.value & ((1 << bits) - 1)
        if is_signed(type_name) and value >> (bits - 1):
            value -= 1 << bits
        return self.constant(dtype(value))

    def _special(self, name: str, type_name: str) -> str:
        if name == "WARP_SZ":
            return "np.full(n, U32(32))"
        if name not in SPECIAL_REGISTERS and not name.startswith("%envreg"):
            raise PtxUnsupported(f"{name} (not supported by the SIMT engine)")
        value = f"A.special({name!r}, L)"
        bits = BITS[type_name]
        if bits != (64 if name in _WIDE_SPECIALS else 32):
            value += f".astype(U{bits})"
        return f"{value}.view({DTYPE_NAME[type_name]})" if is_signed(type_name) else value

    def _symbol(self, symbol: Symbol) -> str:
        """The address a symbol stands for, an array of u64."""
        target = symbol.target
        if isinstance(target, Variable) and target.space in ("local", "shared", "param", "reg"):
            offset = self.address_constant(target.offset + symbol.offset)
            if target.space == "shared":
                return f"(A.shared_base(L) + {offset})"
            is_parameter = target in self.function.parameters and target.space == "param"
            if target.space == "local" or (is_parameter and not self.function.is_entry):
                return f"(A.local_base(L) + {offset})"
            if is_parameter:
                return f"np.full(n, A.parameter_address + {offset})"
            where = self.function.where(self.line)
            raise PtxUnsupported(f"{where}: the address of {target.name}, which has none", line=self.line)
        return f"np.full(n, {self.address_constant(self.image.fixed_address(symbol))})"

    def sources(self, instruction: Instruction, type_name: str, count: int = 2) -> list[str]:
        """The first source operands as a type, at least one of them an array."""
        operands = instruction.operands[1 : 1 + count]
        scalars = all(isinstance(o, (IntegerLiteral, FloatLiteral)) for o in operands)
        return [self.read(o, type_name, array=scalars and k == 0) for k, o in enumerate(operands)]

    def lanes_of(self, expression: str) -> str:
        """A name for an expression as an array of all lanes."""
        return self.temporary(f"np.broadcast_to({expression}, n)", fresh=False)

    def address(self, operand: Operand, space: str | None) -> str:
        """The address of a memory operand in a state space, as an array of u64."""
        if not isinstance(operand, Address):
            raise PtxError(f"{self.function.where(self.line)}: an address is expected in brackets")
        base, offset = operand.base, self.address_constant(operand.offset)
        if base is None:
            return f"np.full(n, {offset})"
        if isinstance(base, Symbol):
            return self._symbol(Symbol(base.name, operand.offset, base.target))
        value = self.register(base)
        if base.bits == 32:
            value = f"{value}.astype(U64)"
            if space in ("shared", "local"):
                value = f"(A.window({space!r}) | {value})"
        return f"({value} + {offset})" if operand.offset else value

    # Writing results

    def write(self, destination: Operand, expression: str, type_name: str, *, fresh: bool = True) -> None:
        """Sets a register to an expression of a type, where the guard holds. `fresh`: as of `temporary`."""
        if destination is SINK:
            return
        if not isinstance(destination, Register):
            kind = "two destinations" if isinstance(destination, Pair) else "a destination that is no register"
            raise PtxUnsupported(f"{self.function.where(self.line)}: {kind}", line=self.line)
        if type_name != "pred" and destination.type != "pred":
            have, want = DTYPE_NAME[type_name], DTYPE_NAME[destination.storage]
            if BITS[type_name] != destination.bits:  # extended by its own sign, or cut
                kind = "S" if is_signed(type_name) else "U"
                expression = f"({expression}).astype({kind}{destination.bits})"
                have, fresh = f"{kind}{destination.bits}", True
            if have != want:
                expression = f"({expression}).view({want})"
        value = self.temporary(expression, fresh=fresh)
        if self.guard is not None:
            value = self.temporary(f"np.where({self.guard}, {value}, {self.register(destination)})")
        self._values[destination.index] = value

    def alias(self, destination: Register, source: Register) -> None:
        """Sets a register to another of the same storage type, without copying."""
        self._values[destination.index] = self.register(source)

    def condition(self, instruction: Instruction) -> str | None:
        """Which lanes an instruction's guard lets execute it."""
        guard = instruction.guard
        if guard is None:
            return None
        value = self.register(guard.register)
        return self.temporary(f"~{value}") if guard.negated else value

    # The block

    def build(self, opcodes: dict[str, Translate], end: Translate) -> tuple[str, list[int]]:
        """The source of the function, and the PTX line behind each of its lines.

        `opcodes` translate instructions, `end` the one that ends the block. Raises `PtxUnsupported`.
        """
        for instruction in self.block.instructions:
            self.line = instruction.line
            self.guard = None
            if ends_block(instruction):
                end(self, instruction)
                break
            self.guard = self.condition(instruction)
            self._translate(instruction, opcodes)
        if not self._has_end:
            self.guard = None
            returning = f"return {self.block.next}, L, {NO_OTHER}, None"
            if self.image.may_exit and self.block.instructions[-1].opcode == "call":
                nobody = f"if L is not None and not len(L): return {NOWHERE}, None, {NO_OTHER}, None"
                self.end("L = A.without_exited(L)", nobody, returning)
            else:
                self.end(returning)
        return self._assemble()

    def _translate(self, instruction: Instruction, opcodes: dict[str, Translate]) -> None:
        translate = opcodes.get(instruction.opcode)
        if translate is None:
            raise self.unsupported(instruction)
        try:
            translate(self, instruction)
        except (KeyError, IndexError) as error:  # a type or modifier that a table does not have
            raise self.unsupported(instruction, f"no {error.args[0]!r}") from error
        except PtxError as error:
            if "line" in error.details:
                raise
            raise type(error)(f"{self.function.where(self.line)}: {error.message}", line=self.line) from None

    def _write_back(self) -> None:
        results = []
        taken: set[str] = set()
        for index, name in self._values.items():
            if not self.block.live_out & bit_of(index) or name in (f"r{index}", "carry"):
                continue
            needs_copy = name not in self._fresh or name in taken
            taken.add(name)
            results.append((index, name, ".copy()" if needs_copy else ""))
        if results:
            self.emit("if L is None:")
            for index, name, copy in results:
                self.emit(f" R[{index}] = {name}{copy}")
            self.emit("else:")
            for index, name, _ in results:
                self.emit(f" R[{index}][L] = {name}")

    def _assemble(self) -> tuple[str, list[int]]:
        names = [(f"r{index}" if index >= 0 else "carry", index) for index in self._inputs]
        head = ["def block(A, L):", " R, M = A.registers, A.memory", " if L is None:", "  n = A.size"]
        head += [f"  {name} = R[{index}]" for name, index in names]
        head += [" else:", "  n = len(L)"]
        head += [f"  {name} = R[{index}][L]" for name, index in names]
        first = self.block.instructions[0].line
        source = "\n".join([*head, *(f" {code}" for code, _ in self._lines)])
        return source, [first] * len(head) + [line for _, line in self._lines]
