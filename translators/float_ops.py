"""How float ops are lowered: the host's instruction where it gives the guest's result and exceptions, else exactly.

Rounding to nearest even, the host's instruction gives the right bits. It does not give exceptions, and its NaNs are not
the guest's. But a result that is a normal number, and not the smallest or largest, can have raised nothing except
inexact. Once that flag is set, as it is after the first few operations of nearly every program, nothing is left to find
out: the instruction and one comparison decide. Everything else takes the exact way (`exact_floats.py`): another
rounding mode, a flag that is not set yet, a result that is zero, tiny, huge, infinite or NaN.

The comparison is with a *limit* that the status register gives: a byte's worth of a signed number, above which results
are unusual, or below all results where every one is. So what has to be asked of the status costs nothing.

Rows hold for one lane's numbers and for vectors of many lanes' alike, as those of `lowering.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llvmlite import ir

from vmjit.ir.floats import FORMATS, MODE_SHIFT, Exceptions, Rounding
from vmjit.ir.ops import OPS
from vmjit.ir.types import Type
from vmjit.ir.values import Op
from vmjit.translators.exact_floats import exact_kind
from vmjit.translators.lowering import Builder, Value, call_intrinsic, int_type, like, splat

# Results whose distance from the smallest usual one, in units of the highest byte, is less than this are usual.
_USUAL_BYTE = 0xFD

_I32, _I64 = ir.IntType(32), ir.IntType(64)

_FLOAT = {16: ir.HalfType(), 32: ir.FloatType(), 64: ir.DoubleType()}

NEAREST = frozenset({int(Rounding.NEAREST_EVEN), int(Rounding.DYNAMIC)})
"""Rounding modes in which the host's instruction is right, as far as the limit says so."""
TO_ZERO = frozenset({int(Rounding.TO_ZERO)})
ANY_MODE = frozenset(range(8))


def limit_of(b: Builder, status: Value, bits: int) -> Value:
    """The limit for results of `bits` bits, by the status register: an integer or a vector, as that is."""
    return limit_if(b, is_usual(b, status), like(status, bits))


def is_usual(b: Builder, status: Value) -> Value:
    """Whether the host's way is right for usual results: the mode rounds to nearest even, and inexact is set."""
    kept = b.and_(status, splat(status.type, 7 << MODE_SHIFT | int(Exceptions.INEXACT)))
    return b.icmp_unsigned("==", kept, splat(status.type, int(Exceptions.INEXACT)))


def limit_if(b: Builder, usual: Value, type_: Any) -> Value:
    """The limit where the host's way is right for usual results, or the one where no result is usual."""
    bits = _element_bits(type_)
    return b.select(usual, splat(type_, (_USUAL_BYTE ^ 0x80) << (bits - 8)), splat(type_, 0x80 << (bits - 8)))


def _element_bits(type_: Any) -> int:
    return int((type_.element if isinstance(type_, ir.VectorType) else type_).width)


def _as_float(b: Builder, value: Value) -> Value:
    return b.bitcast(value, _float_like(value, _width(value)))


def as_bits(b: Builder, value: Value) -> Value:
    """A float's bits; integers as they are."""
    element = value.type.element if isinstance(value.type, ir.VectorType) else value.type
    if isinstance(element, ir.IntType):
        return value
    bits = {float_: bits for bits, float_ in _FLOAT.items()}[element]
    type_ = int_type(bits)
    return b.bitcast(value, ir.VectorType(type_, value.type.count) if element is not value.type else type_)


def _float_like(value: Value, bits: int) -> Any:
    """The float type of this width for as many lanes as a value has."""
    return ir.VectorType(_FLOAT[bits], value.type.count) if isinstance(value.type, ir.VectorType) else _FLOAT[bits]


def _is_slow(b: Builder, limit: Value) -> Value:
    return b.icmp_signed("<", limit, splat(limit.type, 0))


def _unusual_result(b: Builder, t: Type, result: Value, limit: Value) -> Value:
    """Whether a result is not between twice the smallest normal number and what the limit allows, whatever its sign."""
    result = as_bits(b, result)
    doubled = b.add(result, result)
    exponent_unit = 1 << (FORMATS[t.bits].fraction + 1)
    shift = (1 << (t.bits - 1)) - 2 * exponent_unit
    return b.icmp_signed(">=", b.add(doubled, splat(result.type, shift)), limit)


def _unordered(b: Builder, *args: Value) -> Value:
    first, second = (_as_float(b, a) for a in (args if len(args) == 2 else (args[0], args[0])))
    return b.fcmp_unordered("uno", first, second)


Fast = Callable[[Builder, Type, list[Value]], Value]
Unusual = Callable[[Builder, Type, list[Value], Value, Value], Value]


@dataclass(frozen=True)
class FloatLowering:
    """`fast(b, type, operands)` is the host's way, a float or an integer. It is right in the rounding modes of `modes`
    unless `unusual(b, type, operands, result, limit)` holds (None: it never does). `by_limit` says that it asks the
    limit."""

    fast: Fast
    unusual: Unusual | None
    modes: frozenset[int] = NEAREST
    by_limit: bool = True
    zero_is_exact: Callable[[Builder, list[Value]], Value] | None = None
    """Of an unusual result that is zero and was rounded to nearest: whether it is right and raised nothing, by the
    operands; None where it never is, or that is not asked."""


def _arithmetic(name: str) -> FloatLowering:
    def fast(b: Builder, t: Type, a: list[Value]) -> Value:
        return getattr(b, name)(_as_float(b, a[0]), _as_float(b, a[1]))

    return FloatLowering(
        fast,
        lambda b, t, a, result, limit: _unusual_result(b, t, result, limit),
        # A sum that is zero is exact. Products and quotients may also be too small.
        zero_is_exact={
            "fadd": lambda b, a: splat(like(a[0], 1), 1),
            "fsub": lambda b, a: splat(like(a[0], 1), 1),
            "fmul": lambda b, a: b.or_(_is_zero(b, a[0]), _is_zero(b, a[1])),
            "fdiv": lambda b, a: _is_zero(b, a[0]),
        }[name],
    )


def _is_zero(b: Builder, bits: Value) -> Value:
    return b.icmp_unsigned("==", b.add(bits, bits), splat(bits.type, 0))


def _intrinsic(name: str) -> FloatLowering:
    def fast(b: Builder, t: Type, a: list[Value]) -> Value:
        return call_intrinsic(b, name, [_as_float(b, x) for x in a])

    return FloatLowering(fast, lambda b, t, a, result, limit: _unusual_result(b, t, result, limit))


def _compare(predicate: str) -> FloatLowering:
    def fast(b: Builder, t: Type, a: list[Value]) -> Value:
        return b.fcmp_ordered(predicate, _as_float(b, a[0]), _as_float(b, a[1]))

    return FloatLowering(fast, lambda b, t, a, result, limit: _unordered(b, *a), ANY_MODE, by_limit=False)


def _extreme(*, smaller: bool) -> FloatLowering:
    def fast(b: Builder, t: Type, a: list[Value]) -> Value:
        first, second = (_as_float(b, x) for x in a)
        less, more = b.fcmp_ordered("<", first, second), b.fcmp_ordered("<", second, first)
        # Equal numbers have equal bits, except zeros.
        zeros = (b.or_ if smaller else b.and_)(*a)
        below, above = (less, more) if smaller else (more, less)
        return b.select(below, a[0], b.select(above, a[1], zeros))

    return FloatLowering(fast, lambda b, t, a, result, limit: _unordered(b, *a), ANY_MODE, by_limit=False)


def _width(value: Value) -> int:
    return _element_bits(value.type)


def _convert(source_bits: int, bits: int) -> FloatLowering | None:
    """A change between binary32 and binary64; widening is exact for all but NaNs."""
    if 16 in (source_bits, bits):
        return None
    if bits < source_bits:
        return FloatLowering(
            lambda b, t, a: b.fptrunc(_as_float(b, a[0]), _float_like(a[0], bits)),
            lambda b, t, a, result, limit: _unusual_result(b, t, result, limit),
        )
    return FloatLowering(
        lambda b, t, a: b.fpext(_as_float(b, a[0]), _float_like(a[0], bits)),
        lambda b, t, a, result, limit: _unordered(b, a[0]),
        ANY_MODE,
        by_limit=False,
    )


def _to_integer(source_bits: int, bits: int, *, signed: bool) -> FloatLowering | None:
    """Towards zero, of numbers that fit; an unsigned one is converted where it fits the signed type too."""
    if source_bits == 16:
        return None
    f = FORMATS[source_bits]
    bound = (f.bias + bits - 1) << f.fraction  # 2^(bits-1)

    def fast(b: Builder, t: Type, a: list[Value]) -> Value:
        # What does not fit has no result in LLVM; nothing may depend on it.
        fits = b.select(_fits(b, a[0]), a[0], splat(a[0].type, 0))
        return b.fptosi(_as_float(b, fits), like(a[0], bits))

    def _fits(b: Builder, x: Value) -> Value:
        """As integers: magnitudes in the order of their bits, negative numbers above all others."""
        compared = x if not signed else b.and_(x, splat(x.type, f.sign - 1))
        return b.icmp_unsigned("<", compared, splat(x.type, bound))

    return FloatLowering(
        fast,
        lambda b, t, a, result, limit: b.or_(b.not_(_fits(b, a[0])), _is_slow(b, limit)),
        TO_ZERO,
    )


def _from_integer(source_bits: int, bits: int, *, signed: bool) -> FloatLowering | None:
    if bits == 16:
        return None
    exact = source_bits <= FORMATS[bits].fraction

    def fast(b: Builder, t: Type, a: list[Value]) -> Value:
        convert = b.sitofp if signed else b.uitofp
        return convert(a[0], _float_like(a[0], bits))

    if exact:
        return FloatLowering(fast, None, ANY_MODE, by_limit=False)
    return FloatLowering(fast, lambda b, t, a, result, limit: _is_slow(b, limit))


_ROWS: dict[str, FloatLowering] = {
    "fadd": _arithmetic("fadd"),
    "fsub": _arithmetic("fsub"),
    "fmul": _arithmetic("fmul"),
    "fdiv": _arithmetic("fdiv"),
    "fsqrt": _intrinsic("llvm.sqrt"),
    "fma": _intrinsic("llvm.fma"),
    "fmin": _extreme(smaller=True),
    "fmax": _extreme(smaller=False),
    "feq": _compare("=="),
    "flt": _compare("<"),
    "fle": _compare("<="),
}

_CONVERSIONS: dict[str, Callable[[int, int], FloatLowering | None]] = {
    "fcvt": _convert,
    "ftos": lambda source, bits: _to_integer(source, bits, signed=True),
    "ftou": lambda source, bits: _to_integer(source, bits, signed=False),
    "stof": lambda source, bits: _from_integer(source, bits, signed=True),
    "utof": lambda source, bits: _from_integer(source, bits, signed=False),
}


def float_lowering(op: Op, source_bits: int) -> FloatLowering | None:
    """The host's way of a float op on operands of `source_bits` bits, if there is one."""
    if op.name in _CONVERSIONS:
        return _CONVERSIONS[op.name](source_bits, op.type.bits)
    return None if op.type.bits == 16 else _ROWS[op.name]


class FloatContext(Protocol):
    """What lowering a float op of one lane needs of a tier."""

    builder: Builder
    accrued: Value

    def float_limit(self, bits: int, status: Value) -> Value:
        """The limit for results of `bits` bits."""

    def rare(self, condition: Value, then: Any, otherwise: Any) -> None:
        """Branch; `then` is an exception."""

    def exact_float(self, args: list[Value]) -> tuple[Value, Value] | None:
        """Result and status of the exact way, or None if the lane left for where that is done. `args` are those of
        EXACT_FLOAT_TYPE."""

    def status_changed(self, status: Value) -> None:
        """The status register has a new value, which may change the limits."""

    def refuse(self) -> None:
        """The lane stops here: the rounding mode is none."""


def emit_float_op(context: FloatContext, op: Op, args: list[Value]) -> Value:
    """Lower a float op of one lane: the host's way, and where that is not right, rarely, the exact one."""
    b = context.builder
    *operands, mode, status = args
    way = emit_fast_way(b, op, operands, mode, lambda bits: context.float_limit(bits, status))
    if way is not None and way.unusual is None:
        context.accrued = status
        return as_bits(b, way.result)
    if way is None:
        found = _exactly(context, op, operands, mode, status)
        if found is None:
            b.position_at_end(b.append_basic_block("never"))
            context.accrued = ir.Constant(status.type, ir.Undefined)
            return ir.Constant(result_type(op), ir.Undefined)
        result, context.accrued = found
        context.status_changed(context.accrued)
        return result
    exact, done = b.append_basic_block("exact"), b.append_basic_block("computed")
    context.rare(way.unusual, exact, done)
    ways = [(way.result, status, b.block)]
    b.position_at_end(exact)
    if way.excused is not None:
        inexact = b.append_basic_block("inexact")
        context.rare(b.not_(way.excused()), inexact, done)
        ways.append((way.result, status, b.block))
        b.position_at_end(inexact)
    found = _exactly(context, op, operands, mode, status)
    if found is not None:
        context.status_changed(found[1])
        # Floats meet as floats, so that they stay in float registers.
        ways.append((b.bitcast(found[0], way.result.type), found[1], b.block))
        b.branch(done)
    b.position_at_end(done)
    result, context.accrued = b.phi(way.result.type), b.phi(status.type)
    for value, after, block in ways:
        result.add_incoming(value, block)
        context.accrued.add_incoming(after, block)
    return as_bits(b, result)


def result_type(op: Op) -> Any:
    """The type of one lane's result in bits."""
    return int_type(1 if OPS[op.name].result == "i1" else op.type.bits)


def _resized(b: Builder, value: Value, type_: Any) -> Value:
    have = value.type.width
    return value if have == type_.width else (b.zext if have < type_.width else b.trunc)(value, type_)


def exact_arguments(b: Builder, op: Op, operands: Sequence[Value], mode: Value, status: Value) -> list[Value]:
    """The arguments of EXACT_FLOAT_TYPE for an op."""
    kind = exact_kind(op.name, op.type.bits, _width(operands[0]))
    wide = [_resized(b, value, _I64) for value in operands]
    wide += [ir.Constant(_I64, 0)] * (3 - len(wide))
    return [ir.Constant(_I32, kind), _resized(b, mode, _I32), _resized(b, status, _I32), *wide]


def _exactly(
    context: FloatContext, op: Op, operands: Sequence[Value], mode: Value, status: Value
) -> tuple[Value, Value] | None:
    b = context.builder
    if not is_static(mode):
        illegal, fine = b.append_basic_block("illegal"), b.append_basic_block("legal")
        context.rare(is_illegal(b, mode, status), illegal, fine)
        b.position_at_end(illegal)
        context.refuse()
        b.position_at_end(fine)
    found = context.exact_float(exact_arguments(b, op, operands, mode, status))
    if found is None:
        return None
    result, after = found
    return _resized(b, result, result_type(op)), _resized(b, after, status.type)


def is_illegal(b: Builder, mode: Value, status: Value) -> Value:
    """Whether a rounding mode of one lane is dynamic, and the status register has none."""
    dynamic = b.and_(b.lshr(status, splat(status.type, MODE_SHIFT)), splat(status.type, 7))
    none = b.icmp_unsigned(">", dynamic, splat(status.type, int(Rounding.NEAREST_AWAY)))
    if isinstance(mode, ir.Constant):
        return none
    return b.and_(none, b.icmp_unsigned("==", mode, splat(mode.type, int(Rounding.DYNAMIC))))


def is_static(mode: Value) -> bool:
    """Whether a rounding mode is one of the instruction's own, which is never none."""
    return isinstance(mode, ir.Constant) and mode.constant != int(Rounding.DYNAMIC)


@dataclass(frozen=True)
class FastWay:
    """What the host's way of a float op gave, a float where it computes one, and whether that may be wrong; None: it
    never is."""

    result: Value
    unusual: Value | None
    excused: Callable[[], Value] | None = None
    """Emits, where the result is unusual, whether it is right all the same: programs multiply by zero."""


def emit_fast_way(
    b: Builder, op: Op, operands: Sequence[Value], mode: Value, limit: Callable[[int], Value]
) -> FastWay | None:
    """Emit the host's way; None where it is never right. `limit(bits)` is the limit for results of a width.

    `mode` is one lane's: rounding modes are part of the instruction. If it is no constant, it is asked at run time.
    """
    source_bits = _width(operands[0])
    row = float_lowering(op, source_bits)
    if row is None:
        return None
    asked: Value | None = None
    if row.modes != ANY_MODE:
        if isinstance(mode, ir.Constant):
            if mode.constant not in row.modes:
                return None
        elif row.modes == NEAREST:
            # 0 and 7 are the numbers that one more leaves without the upper two of three bits.
            one_more = b.and_(b.add(mode, splat(mode.type, 1)), splat(mode.type, 6))
            asked = b.icmp_unsigned("!=", one_more, splat(mode.type, 0))
        else:
            (only,) = row.modes
            asked = b.icmp_unsigned("!=", mode, splat(mode.type, only))
    if not row.by_limit and op.name in _CONVERSIONS and not is_static(mode):
        # It does not round, but a dynamic mode that is none stops it.
        asked = _is_slow(b, limit(op.type.bits))
        if not isinstance(mode, ir.Constant):
            dynamic = b.icmp_unsigned("==", mode, splat(mode.type, int(Rounding.DYNAMIC)))
            asked = b.and_(dynamic, asked)
    result = row.fast(b, op.type, list(operands))
    unusual = None
    if row.unusual is not None:
        unusual = row.unusual(b, op.type, list(operands), result, limit(op.type.bits) if row.by_limit else None)
    parts = [part for part in (unusual, asked) if part is not None]
    found = b.or_(*parts) if len(parts) == 2 else parts[0] if parts else None
    return FastWay(result, found, _excuse(b, op, row, operands, result, limit) if asked is None else None)


def _excuse(
    b: Builder,
    op: Op,
    row: FloatLowering,
    operands: Sequence[Value],
    result: Value,
    limit: Callable[[int], Value],
) -> Callable[[], Value] | None:
    exact = row.zero_is_exact
    if exact is None:
        return None

    def excused() -> Value:
        zero = b.and_(_is_zero(b, as_bits(b, result)), exact(b, list(operands)))
        return b.and_(zero, b.not_(_is_slow(b, limit(op.type.bits))))

    return excused
