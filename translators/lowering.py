"""The lowering table: how each op of the IR becomes LLVM IR, written once for every tier and target.

Pure ops are rows of `LOWERINGS`. What touches lane state goes through a `Context`, which a tier implements: the
interpreter's handlers fetch operands from the code stream, a region keeps registers in SSA values.

The rows hold for one lane's integers and for vectors of many lanes' alike: an op has the shape of its operands.

The emitted IR stays inside what NVVM's old dialect accepts (no poison, freeze, saturating or min/max intrinsics).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any, Protocol

from llvmlite import ir

from vmjit.ir.ops import FLOAT_OPS
from vmjit.ir.types import I1, Type
from vmjit.ir.values import Const, Op, Operand, Register, RegisterSlot, Temp

Value = Any  # an llvmlite.ir value; llvmlite has no types
Builder = Any  # an llvmlite.ir.IRBuilder

_INT = {bits: ir.IntType(bits) for bits in (1, 8, 16, 32, 64, 128)}


def int_type(bits: int) -> Any:
    return _INT[bits]


def constant(type_: Type, value: int) -> Value:
    return ir.Constant(_INT[type_.bits], value & type_.mask)


def like(value: Value, bits: int) -> Any:
    """The integer type of this width for as many lanes as a value has."""
    return ir.VectorType(_INT[bits], value.type.count) if isinstance(value.type, ir.VectorType) else _INT[bits]


def splat(type_: Any, value: int) -> Value:
    """A number in every element of an integer or vector type."""
    if not isinstance(type_, ir.VectorType):
        return ir.Constant(type_, value & ((1 << type_.width) - 1))
    return ir.Constant(type_, [value & ((1 << type_.element.width) - 1)] * type_.count)


def _number(shape: Value, type_: Type, value: int) -> Value:
    """A number as an operand beside `shape`."""
    return splat(like(shape, type_.bits), value)


def call_intrinsic(b: Builder, name: str, args: list[Value]) -> Value:
    """Call an intrinsic that is overloaded on the type of its first argument, which is also that of its result."""
    type_ = args[0].type
    signature = ir.FunctionType(type_, [a.type for a in args])
    if not isinstance(type_, ir.VectorType):
        return b.call(b.module.declare_intrinsic(name, [type_], signature), args)
    full_name = f"{name}.v{type_.count}{type_.element.intrinsic_name}"
    function = b.module.globals.get(full_name) or ir.Function(b.module, signature, full_name)
    return b.call(function, args)


def _shift(name: str) -> Callable[[Builder, Type, list[Value]], Value]:
    def lower(b: Builder, t: Type, a: list[Value]) -> Value:
        return getattr(b, name)(a[0], b.and_(a[1], _number(a[0], t, t.bits - 1)))

    return lower


def _funnel(name: str) -> Callable[[Builder, Type, list[Value]], Value]:
    def lower(b: Builder, t: Type, a: list[Value]) -> Value:
        # The amount counts modulo the width by LLVM's rules; NVVM's expansion of 64-bit rotations forgets that.
        return call_intrinsic(b, name, [a[0], a[0], b.and_(a[1], _number(a[0], t, t.bits - 1))])

    return lower


def _compare(predicate: str, *, signed: bool) -> Callable[[Builder, Type, list[Value]], Value]:
    def lower(b: Builder, t: Type, a: list[Value]) -> Value:
        return (b.icmp_signed if signed else b.icmp_unsigned)(predicate, a[0], a[1])

    return lower


def _high_product(extend0: str, extend1: str) -> Callable[[Builder, Type, list[Value]], Value]:
    def lower(b: Builder, t: Type, a: list[Value]) -> Value:
        wide = like(a[0], 2 * t.bits)
        product = b.mul(getattr(b, extend0)(a[0], wide), getattr(b, extend1)(a[1], wide))
        return b.trunc(b.lshr(product, splat(wide, t.bits)), like(a[0], t.bits))

    return lower


def _divide(name: str, *, signed: bool, quotient: bool) -> Callable[[Builder, Type, list[Value]], Value]:
    """Total division: the divisor is replaced where the host's would trap, and the result where the ISA says so.

    min / -1: dividing by 1 instead gives the quotient min and the remainder 0 that the specification asks for.
    """

    def lower(b: Builder, t: Type, a: list[Value]) -> Value:
        x, y = a
        zero = b.icmp_unsigned("==", y, _number(y, t, 0))
        avoid = zero
        if signed:
            smallest = b.icmp_unsigned("==", x, _number(x, t, 1 << (t.bits - 1)))
            avoid = b.or_(zero, b.and_(smallest, b.icmp_unsigned("==", y, _number(y, t, -1))))
        result = getattr(b, name)(x, b.select(avoid, _number(y, t, 1), y))
        return b.select(zero, _number(x, t, -1) if quotient else x, result)

    return lower


def _count_zeros(name: str) -> Callable[[Builder, Type, list[Value]], Value]:
    return lambda b, t, a: call_intrinsic(b, name, [a[0], ir.Constant(_INT[1], 0)])


def _one_operand(name: str) -> Callable[[Builder, Type, list[Value]], Value]:
    return lambda b, t, a: call_intrinsic(b, name, [a[0]])


def _carryless(high: bool) -> Callable[[Builder, Type, list[Value]], Value]:
    """Products of every fourth bit: of at most 64 bits, no sum below the top reaches 16, the weight of the next bit
    that counts, so that its lowest bit is the exclusive or. The high half is the low half of the reversed operands,
    reversed, and one bit lower.
    """

    def lower(b: Builder, t: Type, a: list[Value]) -> Value:
        x, y = (call_intrinsic(b, "llvm.bitreverse", [value]) for value in a) if high else a
        masks = [_number(x, t, 0x1111111111111111 << i) for i in range(4)]
        xs, ys = ([b.and_(value, mask) for mask in masks] for value in (x, y))
        result = _number(x, t, 0)
        for i, mask in enumerate(masks):
            products = [b.mul(xs[j], ys[(i - j) % 4]) for j in range(4)]
            result = b.or_(result, b.and_(reduce(b.xor, products), mask))
        if not high:
            return result
        return b.lshr(call_intrinsic(b, "llvm.bitreverse", [result]), _number(result, t, 1))

    return lower


LOWERINGS: dict[str, Callable[[Builder, Type, list[Value]], Value]] = {
    "copy": lambda b, t, a: a[0],
    "add": lambda b, t, a: b.add(*a),
    "sub": lambda b, t, a: b.sub(*a),
    "mul": lambda b, t, a: b.mul(*a),
    "mulhs": _high_product("sext", "sext"),
    "mulhu": _high_product("zext", "zext"),
    "mulhsu": _high_product("sext", "zext"),
    "divs": _divide("sdiv", signed=True, quotient=True),
    "divu": _divide("udiv", signed=False, quotient=True),
    "rems": _divide("srem", signed=True, quotient=False),
    "remu": _divide("urem", signed=False, quotient=False),
    "and": lambda b, t, a: b.and_(*a),
    "or": lambda b, t, a: b.or_(*a),
    "xor": lambda b, t, a: b.xor(*a),
    "shl": _shift("shl"),
    "shr": _shift("lshr"),
    "sar": _shift("ashr"),
    "rotl": _funnel("llvm.fshl"),
    "rotr": _funnel("llvm.fshr"),
    "clz": _count_zeros("llvm.ctlz"),
    "ctz": _count_zeros("llvm.cttz"),
    "popcount": _one_operand("llvm.ctpop"),
    "bswap": _one_operand("llvm.bswap"),
    "clmul": _carryless(high=False),
    "clmulh": _carryless(high=True),
    "eq": _compare("==", signed=False),
    "ne": _compare("!=", signed=False),
    "lts": _compare("<", signed=True),
    "ltu": _compare("<", signed=False),
    "ges": _compare(">=", signed=True),
    "geu": _compare(">=", signed=False),
    "select": lambda b, t, a: b.select(*a),
    "zext": lambda b, t, a: b.zext(a[0], like(a[0], t.bits)),
    "sext": lambda b, t, a: b.sext(a[0], like(a[0], t.bits)),
    "trunc": lambda b, t, a: b.trunc(a[0], like(a[0], t.bits)),
}


class Context(Protocol):
    """The lane state that ops act on, as a tier keeps it."""

    builder: Builder

    def operand(self, operand: Operand) -> Value:
        """The value of a register, a constant or a slot."""

    def write_register(self, register: Register | RegisterSlot, value: Value) -> None: ...

    def load(self, op: Op, address: Value) -> Value: ...

    def store(self, op: Op, address: Value, value: Value) -> None:
        """`op` is a store or a store_if whose condition holds."""

    def trap_if(self, condition: Value, kind: str, address: Value) -> None: ...

    accrued: Value
    """The status register after the float op that was lowered last."""

    def float_op(self, op: Op, args: list[Value]) -> Value:
        """The result of a float op, see `float_ops.py`; sets `accrued`."""

    def retired(self) -> Value:
        """Instructions retired before this one, as i64."""


# Ops that act on lane state, in terms of the context.
EFFECTS: dict[str, Callable[[Context, Op, list[Value]], Value | None]] = {
    "load": lambda c, op, a: c.load(op, a[0]),
    "store": lambda c, op, a: c.store(op, a[0], a[1]),
    "store_if": lambda c, op, a: _store_if(c, op, a),
    "trap_if": lambda c, op, a: c.trap_if(a[0], op.kind, a[1]),
    "retired": lambda c, op, a: c.retired(),
    "accrued": lambda c, op, a: c.accrued,
    **dict.fromkeys(FLOAT_OPS, lambda c, op, a: c.float_op(op, a)),
}


def _store_if(context: Context, op: Op, args: list[Value]) -> None:
    b = context.builder
    store = b.append_basic_block("store")
    after = b.append_basic_block("after")
    b.cbranch(args[0], store, after)
    b.position_at_end(store)
    context.store(op, args[1], args[2])
    b.branch(after)
    b.position_at_end(after)


class Temps:
    """The temporaries of one guest instruction, by the context that runs it."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.values: dict[int, Value] = {}  # by the temporary's index

    def value(self, operand: Operand) -> Value:
        if isinstance(operand, Temp):
            return self.values[operand.index]
        if isinstance(operand, Const):
            return constant(operand.type, operand.value)
        return self.context.operand(operand)

    def run(self, ops: Iterable[Op]) -> None:
        """Lower ops in order; afterwards `value` gives what the terminator needs."""
        context = self.context
        for op in ops:
            args = [self.value(a) for a in op.args]
            effect = EFFECTS.get(op.name)
            result = effect(context, op, args) if effect else LOWERINGS[op.name](context.builder, op.type, args)
            if isinstance(op.dest, Temp):
                self.values[op.dest.index] = result
            elif op.dest is not None:
                context.write_register(op.dest, result)


__all__ = ["EFFECTS", "I1", "LOWERINGS", "Context", "Temps", "constant", "int_type"]
