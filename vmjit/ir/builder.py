"""Builder: the methods with which a decoder row writes the meaning of one guest instruction."""

from __future__ import annotations

from vmjit.ir.ops import OPS
from vmjit.ir.registers import RegisterFile
from vmjit.ir.types import I1, Type
from vmjit.ir.values import Const, ConstSlot, Op, Operand, Register, RegisterSlot, Temp, Terminator

Value = Operand | int

_REGISTERS = (Register, RegisterSlot)  # written as a union it would be made anew at each use


class Builder:
    """Collects the ops of one guest instruction.

    The type of an op is that of its operands; a Python int takes the type of the operand beside it.
    """

    def __init__(self, registers: RegisterFile) -> None:
        self.registers = registers
        self.xlen = registers.type
        self.ops: list[Op] = []
        self.terminator: Terminator | None = None
        self._temps = 0

    # -- plumbing

    def type_of(self, value: Operand) -> Type:
        if isinstance(value, Register):
            return self.registers.type_of(value.index)
        if isinstance(value, RegisterSlot):
            return value.type or self.xlen
        return value.type

    def const(self, value: int, type_: Type | None = None) -> Const:
        return Const(value, type_ or self.xlen)

    def _typed(self, value: Value, type_: Type) -> Operand:
        return Const(value, type_) if isinstance(value, int) else value

    def _infer(self, values: tuple[Value, ...]) -> Type:
        for value in values:
            if not isinstance(value, int):
                return self.type_of(value)
        return self.xlen

    def _emit(self, name: str, type_: Type, args: tuple[Operand, ...], kind: str = "") -> Temp:
        result = OPS[name].result
        dest = Temp(self._temps, I1 if result == "i1" else type_)
        self._temps += 1
        self.ops.append(Op(name, type_, dest if result else None, args, kind))
        return dest

    def _same(self, name: str, *values: Value) -> Temp:
        type_ = self._infer(values)
        return self._emit(name, type_, tuple(self._typed(v, type_) for v in values))

    # -- arithmetic, one method per op of the table

    def add(self, a: Value, b: Value) -> Temp:
        return self._same("add", a, b)

    def sub(self, a: Value, b: Value) -> Temp:
        return self._same("sub", a, b)

    def mul(self, a: Value, b: Value) -> Temp:
        return self._same("mul", a, b)

    def mulhs(self, a: Value, b: Value) -> Temp:
        return self._same("mulhs", a, b)

    def mulhu(self, a: Value, b: Value) -> Temp:
        return self._same("mulhu", a, b)

    def mulhsu(self, a: Value, b: Value) -> Temp:
        return self._same("mulhsu", a, b)

    def divs(self, a: Value, b: Value) -> Temp:
        return self._same("divs", a, b)

    def divu(self, a: Value, b: Value) -> Temp:
        return self._same("divu", a, b)

    def rems(self, a: Value, b: Value) -> Temp:
        return self._same("rems", a, b)

    def remu(self, a: Value, b: Value) -> Temp:
        return self._same("remu", a, b)

    def and_(self, a: Value, b: Value) -> Temp:
        return self._same("and", a, b)

    def or_(self, a: Value, b: Value) -> Temp:
        return self._same("or", a, b)

    def xor(self, a: Value, b: Value) -> Temp:
        return self._same("xor", a, b)

    def not_(self, a: Value) -> Temp:
        return self._same("xor", a, -1)

    def shl(self, a: Value, b: Value) -> Temp:
        return self._same("shl", a, b)

    def shr(self, a: Value, b: Value) -> Temp:
        return self._same("shr", a, b)

    def sar(self, a: Value, b: Value) -> Temp:
        return self._same("sar", a, b)

    def rotl(self, a: Value, b: Value) -> Temp:
        return self._same("rotl", a, b)

    def rotr(self, a: Value, b: Value) -> Temp:
        return self._same("rotr", a, b)

    def clz(self, a: Value) -> Temp:
        return self._same("clz", a)

    def ctz(self, a: Value) -> Temp:
        return self._same("ctz", a)

    def popcount(self, a: Value) -> Temp:
        return self._same("popcount", a)

    def bswap(self, a: Value) -> Temp:
        return self._same("bswap", a)

    def clmul(self, a: Value, b: Value) -> Temp:
        return self._same("clmul", a, b)

    def clmulh(self, a: Value, b: Value) -> Temp:
        return self._same("clmulh", a, b)

    def eq(self, a: Value, b: Value) -> Temp:
        return self._same("eq", a, b)

    def ne(self, a: Value, b: Value) -> Temp:
        return self._same("ne", a, b)

    def lts(self, a: Value, b: Value) -> Temp:
        return self._same("lts", a, b)

    def ltu(self, a: Value, b: Value) -> Temp:
        return self._same("ltu", a, b)

    def ges(self, a: Value, b: Value) -> Temp:
        return self._same("ges", a, b)

    def geu(self, a: Value, b: Value) -> Temp:
        return self._same("geu", a, b)

    def select(self, condition: Operand, a: Value, b: Value) -> Temp:
        type_ = self._infer((a, b))
        return self._emit("select", type_, (condition, self._typed(a, type_), self._typed(b, type_)))

    def zext(self, a: Operand, type_: Type | None = None) -> Operand:
        return self._resize("zext", a, type_ or self.xlen)

    def sext(self, a: Operand, type_: Type | None = None) -> Operand:
        return self._resize("sext", a, type_ or self.xlen)

    def trunc(self, a: Operand, type_: Type) -> Operand:
        return self._resize("trunc", a, type_)

    def _resize(self, name: str, a: Operand, type_: Type) -> Operand:
        """Changing a value to the type it has is the value itself, so rows need not ask which xlen they are in."""
        if self.type_of(a) == type_:
            return a
        if isinstance(a, Const):
            return Const(a.type.signed(a.value) if name == "sext" else a.value, type_)
        return self._emit(name, type_, (a,))

    # -- state

    def load(self, address: Operand, type_: Type) -> Temp:
        return self._emit("load", type_, (address,))

    def store(self, address: Operand, value: Operand) -> None:
        self._emit("store", self.type_of(value), (address, value))

    def store_if(self, condition: Operand, address: Operand, value: Operand) -> None:
        self._emit("store_if", self.type_of(value), (condition, address, value))

    def trap_if(self, condition: Operand, kind: str, address: Operand) -> None:
        self._emit("trap_if", self.type_of(address), (condition, address), kind)

    def retired(self, type_: Type) -> Temp:
        return self._emit("retired", type_, ())

    # -- floats

    def float_op(self, name: str, type_: Type, *operands: Operand, mode: Value = 0) -> Temp:
        """A float op of `FLOAT_OPS` with a rounding mode; the exceptions that it raises are kept. `type_` is the op's:
        the format of what it computes or compares, or the integer it converts to."""
        index = self.registers.float_status
        if index is None:
            raise TypeError(f"{self.registers.name} has no floats")
        status = Register(index)
        result = self._emit(name, type_, (*operands, self._typed(mode, self.xlen), status))
        self.ops.append(Op("accrued", self.xlen, status, ()))
        return result

    def set(self, dest: Operand, value: Value) -> None:
        """Write a guest register. The op that just computed `value` writes it directly where it can."""
        if not isinstance(dest, _REGISTERS):
            raise TypeError(f"set needs a guest register, got {dest}")
        if isinstance(dest, Register) and dest.index == self.registers.zero:
            return
        type_ = self.type_of(dest)
        value = self._typed(value, type_)
        if isinstance(value, Temp) and self.ops and self.ops[-1].dest == value and not self._used(value):
            last = self.ops[-1]
            self.ops[-1] = Op(last.name, last.type, dest, last.args, last.kind)
            return
        self.ops.append(Op("copy", type_, dest, (value,)))

    def _used(self, temp: Temp) -> bool:
        return any(temp in op.args for op in self.ops)

    # -- terminators

    def jump(self, target: Operand) -> None:
        self.terminator = Terminator("jump", (), (target,))

    def branch(self, condition: Operand, taken: Operand, other: Operand) -> None:
        self.terminator = Terminator("branch", (condition,), (taken, other))

    def indirect(self, address: Operand, hint: str = "") -> None:
        self.terminator = Terminator("indirect", (address,), (), hint)

    def trap(self, kind: str, address: Operand) -> None:
        self.terminator = Terminator("trap", (address,), (), kind)

    def stop(self, name: str, *targets: Operand, data: str = "") -> None:
        """End the block with `ecall`, `ebreak`, `fence_i` or `unsupported`."""
        self.terminator = Terminator(name, (), targets, data)

    def finish(self) -> list[Op]:
        """The ops, without pure ones whose result nothing uses (an instruction that writes the zero register)."""
        if all(op.dest.__class__ is not Temp for op in self.ops):
            return list(self.ops)
        used = set(self.terminator.args) if self.terminator else set()
        kept: list[Op] = []
        for op in reversed(self.ops):
            if OPS[op.name].pure and isinstance(op.dest, Temp) and op.dest not in used:
                continue
            used.update(op.args)
            kept.append(op)
        kept.reverse()
        return kept


__all__ = ["Builder", "ConstSlot", "Value"]
