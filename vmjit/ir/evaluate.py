"""The reference evaluator: the op table's meaning in plain Python integers.

Written apart from the lowerings, so that a test which compares the two compares two authors' readings. Slow and
obvious on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from vmjit.ir import floats
from vmjit.ir.block import Block
from vmjit.ir.ops import OPS
from vmjit.ir.types import I1, Type
from vmjit.ir.values import Const, Op, Operand, Register, Temp


class Trap(Exception):
    """The lane stops at the current instruction: `kind` is "read", "write", one of `TRAP_KINDS`, or "illegal" where a
    float op's rounding mode is none."""

    def __init__(self, kind: str, address: int) -> None:
        super().__init__(f"{kind} at {address:#x}")
        self.kind = kind
        self.address = address


class Memory(Protocol):
    """What the evaluator needs of a guest memory. Both raise `Trap` for a bad address."""

    def read(self, address: int, size: int) -> bytes: ...

    def write(self, address: int, data: bytes) -> None: ...


def _clmul(a: int, b: int) -> int:
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        b >>= 1
    return product


def _quotient(a: int, b: int) -> int:
    magnitude = abs(a) // abs(b)
    return magnitude if (a < 0) == (b < 0) else -magnitude


def _divs(t: Type, a: int, b: int) -> int:
    x, y = t.signed(a), t.signed(b)
    return -1 if y == 0 else _quotient(x, y)


def _rems(t: Type, a: int, b: int) -> int:
    x, y = t.signed(a), t.signed(b)
    return x if y == 0 else x - y * _quotient(x, y)


PURE: dict[str, Callable[..., int]] = {
    "copy": lambda t, a: a,
    "add": lambda t, a, b: a + b,
    "sub": lambda t, a, b: a - b,
    "mul": lambda t, a, b: a * b,
    "mulhs": lambda t, a, b: (t.signed(a) * t.signed(b)) >> t.bits,
    "mulhu": lambda t, a, b: (a * b) >> t.bits,
    "mulhsu": lambda t, a, b: (t.signed(a) * b) >> t.bits,
    "divs": _divs,
    "divu": lambda t, a, b: a // b if b else t.mask,
    "rems": _rems,
    "remu": lambda t, a, b: a % b if b else a,
    "and": lambda t, a, b: a & b,
    "or": lambda t, a, b: a | b,
    "xor": lambda t, a, b: a ^ b,
    "shl": lambda t, a, b: a << (b % t.bits),
    "shr": lambda t, a, b: a >> (b % t.bits),
    "sar": lambda t, a, b: t.signed(a) >> (b % t.bits),
    "rotl": lambda t, a, b: (a << (b % t.bits)) | (a >> (t.bits - b % t.bits)),
    "rotr": lambda t, a, b: (a >> (b % t.bits)) | (a << (t.bits - b % t.bits)),
    "clz": lambda t, a: t.bits - a.bit_length(),
    "ctz": lambda t, a: (a & -a).bit_length() - 1 if a else t.bits,
    "popcount": lambda t, a: a.bit_count(),
    "bswap": lambda t, a: int.from_bytes(a.to_bytes(t.bits // 8, "little"), "big"),
    "clmul": lambda t, a, b: _clmul(a, b),
    "clmulh": lambda t, a, b: _clmul(a, b) >> t.bits,
    "eq": lambda t, a, b: a == b,
    "ne": lambda t, a, b: a != b,
    "lts": lambda t, a, b: t.signed(a) < t.signed(b),
    "ltu": lambda t, a, b: a < b,
    "ges": lambda t, a, b: t.signed(a) >= t.signed(b),
    "geu": lambda t, a, b: a >= b,
    "select": lambda t, c, a, b: a if c else b,
    "zext": lambda t, a: a,
    "trunc": lambda t, a: a,
}


class Evaluator:
    """Runs blocks on `registers` (a list of unsigned ints, one per register of the file) and `memory`."""

    def __init__(self, registers: list[int], memory: Memory, retired: int = 0) -> None:
        self.registers = registers
        self.memory = memory
        self.retired = retired
        self._temps: dict[Temp, int] = {}
        self._status = 0
        self._block: Block

    def value(self, operand: Operand) -> int:
        match operand:
            case Register(index):
                return 0 if index == self._block.registers.zero else self.registers[index]
            case Temp():
                return self._temps[operand]
            case Const(number):
                return number
        raise TypeError(f"{operand} has no value outside a handler")

    def _width(self, operand: Operand) -> Type:
        if isinstance(operand, Register):
            return self._block.registers.type_of(operand.index)
        return operand.type  # type: ignore[return-value]

    def _float_op(self, op: Op, args: list[int]) -> int:
        *operands, mode, self._status = args
        rounding = floats.effective_mode(mode, self._status)
        if rounding is None:
            raise Trap("illegal", 0)
        result, flags = floats.compute(op.name, op.type.bits, self._width(op.args[0]).bits, operands, rounding)
        self._status |= flags
        return result

    def _effect(self, op: Op, args: list[int]) -> int:
        """Do what acts on lane state, or asks it."""
        size = op.type.bits // 8
        match op.name:
            case "load":
                return int.from_bytes(self.memory.read(args[0], size), "little")
            case "store":
                self.memory.write(args[0], args[1].to_bytes(size, "little"))
            case "store_if":
                if args[0]:
                    self.memory.write(args[1], args[2].to_bytes(size, "little"))
            case "trap_if":
                if args[0]:
                    raise Trap(op.kind, args[1])
            case "retired":
                return self.retired
            case "accrued":
                return self._status
            case _:
                return self._float_op(op, args)
        return 0

    def step(self, op: Op) -> None:
        """Execute one op; raises `Trap` before any state of it changes."""
        args = [self.value(a) for a in op.args]
        if not OPS[op.name].pure:
            result = self._effect(op, args)
        elif op.name == "sext":
            result = self._width(op.args[0]).signed(args[0])
        else:
            result = PURE[op.name](op.type, *args)
        if isinstance(op.dest, Temp):
            self._temps[op.dest] = int(result) & (op.dest.type if op.dest.type is not I1 else I1).mask
        elif isinstance(op.dest, Register) and op.dest.index != self._block.registers.zero:
            self.registers[op.dest.index] = int(result) & op.type.mask

    def begin(self, block: Block) -> None:
        """Be ready to `step` through the ops of one of its instructions."""
        self._block = block
        self._temps = {}

    def run(self, block: Block) -> tuple[str, int]:
        """Run a block to its end: (terminator name, pc to go on at, or of the last instruction where there is none).

        On `Trap` the registers, memory and `retired` are as before the instruction whose pc is in `self.pc`.
        """
        self._block = block
        for instruction in block.instructions:
            self.pc = instruction.pc
            self._temps = {}
            before = list(self.registers)
            try:
                for op in instruction.ops:
                    self.step(op)
                if instruction is block.instructions[-1] and block.terminator.name == "trap":
                    raise Trap(block.terminator.data, self.value(block.terminator.args[0]))
            except Trap:
                self.registers[:] = before
                raise
            self.retired += 1
        terminator = block.terminator
        match terminator.name:
            case "jump":
                return "jump", self.value(terminator.targets[0])
            case "branch":
                return "branch", self.value(terminator.targets[0 if self.value(terminator.args[0]) else 1])
            case "indirect":
                return "indirect", self.value(terminator.args[0])
            case "ebreak" | "unsupported":
                self.retired -= 1
        return terminator.name, self.pc
