"""Float operations in integer arithmetic: every format, rounding mode and exception, as one LLVM function.

It is what float ops fall back on where the host's instruction may not give the guest's result or exceptions (see
`float_ops.py`). Numbers of all formats are unpacked to one form, computed there and rounded once into the target's
format; formats are numbers at run time, so that there is one piece of code for all.

The form: value = significand / 2^62 * 2^exponent, with bit 62 the highest one set. Bits that get lost are kept as one
bit, the lowest ("jammed"), which is enough to round by, since a significand of binary64 leaves ten bits free.

Sources: IEEE 754-2019; the method is that of J. Hauser's SoftFloat, the code is written from the standard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from vmjit.ir.floats import MODE_SHIFT, Exceptions, Rounding
from vmjit.kernels.device_memory import store_global
from vmjit.kernels.emit import I8, element
from vmjit.kernels.layout import MAX_GROUP_LANES, GroupFrame
from vmjit.translators.join import Join

I1, I32, I64, I128 = (ir.IntType(n) for n in (1, 32, 64, 128))

# The operations in the order of their numbers.
OPERATIONS = tuple("fadd fsub fmul fdiv fsqrt fma fmin fmax feq flt fle fcvt ftos ftou stof utof".split())

EXACT_FLOAT_TYPE = ir.FunctionType(ir.LiteralStructType([I64, I32]), [I32, I32, I32, I64, I64, I64])
"""(kind, rounding mode, status, up to three operands) -> (result, status). The rounding mode is one."""

DEVICE_EXACT_FLOAT_TYPE = ir.FunctionType(I64, [I32, I32, I32, I64, I64, I64, I64])
"""The same; the status goes to the address that comes last, in device memory, as an i32."""

# The exponent of zero: below that of any number, product or quotient.
_NOTHING = -100_000

_BITS_CODE = {16: 0, 32: 1, 64: 2}


def exact_kind(name: str, bits: int, source_bits: int) -> int:
    """The number of the operation `name` on operands of `source_bits` bits, with a result in `bits` bits."""
    return OPERATIONS.index(name) | _BITS_CODE[source_bits] << 4 | _BITS_CODE[bits] << 6


class Word:
    """An integer value that is computed with by operators; numbers beside it have its type. Unsigned unless said."""

    __slots__ = ("b", "v")

    def __init__(self, b: Any, v: Any) -> None:
        self.b = b
        self.v = v

    def _other(self, other: Word | int) -> Any:
        return other.v if isinstance(other, Word) else ir.Constant(self.v.type, other & ((1 << self.v.type.width) - 1))

    def _new(self, value: Any) -> Word:
        return Word(self.b, value)

    def __add__(self, other: Word | int) -> Word:
        return self._new(self.b.add(self.v, self._other(other)))

    def __sub__(self, other: Word | int) -> Word:
        return self._new(self.b.sub(self.v, self._other(other)))

    def __mul__(self, other: Word | int) -> Word:
        return self._new(self.b.mul(self.v, self._other(other)))

    def __and__(self, other: Word | int) -> Word:
        return self._new(self.b.and_(self.v, self._other(other)))

    def __or__(self, other: Word | int) -> Word:
        return self._new(self.b.or_(self.v, self._other(other)))

    def __xor__(self, other: Word | int) -> Word:
        return self._new(self.b.xor(self.v, self._other(other)))

    def __invert__(self) -> Word:
        return self ^ -1

    def __neg__(self) -> Word:
        return self._new(self.b.sub(self._other(0), self.v))

    def __lshift__(self, other: Word | int) -> Word:
        """The amount is less than the width."""
        return self._new(self.b.shl(self.v, self._other(other)))

    def __rshift__(self, other: Word | int) -> Word:
        return self._new(self.b.lshr(self.v, self._other(other)))

    def _compared(self, predicate: str, other: Word | int, *, signed: bool = False) -> Word:
        compare = self.b.icmp_signed if signed else self.b.icmp_unsigned
        return self._new(compare(predicate, self.v, self._other(other)))

    def __lt__(self, other: Word | int) -> Word:
        return self._compared("<", other)

    def __gt__(self, other: Word | int) -> Word:
        return self._compared(">", other)

    def __ge__(self, other: Word | int) -> Word:
        return self._compared(">=", other)

    def equals(self, other: Word | int) -> Word:
        return self._compared("==", other)

    def differs(self, other: Word | int) -> Word:
        return self._compared("!=", other)

    def below(self, other: Word | int) -> Word:
        """Signed less than."""
        return self._compared("<", other, signed=True)

    def above(self, other: Word | int) -> Word:
        """Signed greater than."""
        return self._compared(">", other, signed=True)

    def then(self, yes: Word, no: Word | int) -> Word:
        """`yes` where this condition holds, else `no`."""
        return self._new(self.b.select(self.v, yes.v, yes._other(no)))

    def to(self, type_: Any) -> Word:
        """Zero-extended or cut."""
        if self.v.type.width == type_.width:
            return self
        return self._new((self.b.zext if self.v.type.width < type_.width else self.b.trunc)(self.v, type_))

    def leading_zeros(self) -> Word:
        """Of a 64-bit word; 64 for zero."""
        b = self.b
        function = b.module.declare_intrinsic("llvm.ctlz", [I64], ir.FunctionType(I64, [I64, I1]))
        return self._new(b.call(function, [self.v, ir.Constant(I1, 0)]))


def _jammed(x: Word, amount: Word) -> Word:
    """x >> amount, for any amount, with the lowest bit set if a bit got lost; the highest bit of x is not set."""
    most = x.v.type.width - 1
    amount = (amount > most).then(_like(amount, most), amount).to(x.v.type)
    shifted = x >> amount
    return shifted | (shifted << amount).differs(x).to(x.v.type)


def _like(word: Word, number: int) -> Word:
    return Word(word.b, word._other(number))


class _Number:
    """An unpacked float. `sign` and the conditions are i1, `exponent` and `significand` i64."""

    def __init__(self, bits: Word, format_: _Format) -> None:
        f = format_
        self.bits = bits
        self.sign = ((bits >> (f.width - 1)) & 1).to(I1)
        self.magnitude = bits & ((f.one << (f.width - 1)) - 1)
        field, fraction = (bits >> f.fraction) & f.field_mask, bits & ((f.one << f.fraction) - 1)
        special = field.equals(f.field_mask)
        self.nan = special & fraction.differs(0)
        self.signaling = self.nan & ((fraction >> (f.fraction - 1)) & 1).equals(0)
        self.infinite = special & fraction.equals(0)
        self.zero = self.magnitude.equals(0)
        subnormal = field.equals(0)
        whole = fraction | subnormal.then(_like(bits, 0), f.one << f.fraction)
        zeros = whole.leading_zeros()
        self.significand = whole << ((zeros - 1) & 63)
        exponent = subnormal.then(_like(bits, 1), field) - f.bias - f.fraction + (-zeros + 63)
        self.exponent = self.zero.then(_like(bits, _NOTHING), exponent)


class _Format:
    """A format that is known at run time: `code` is 0, 1 or 2 for 16, 32 or 64 bits, an i32."""

    def __init__(self, b: Any, code: Word) -> None:
        def by_code(*numbers: int) -> Word:
            half, single, double = (Word(b, ir.Constant(I64, n)) for n in numbers)
            return code.equals(0).then(half, code.equals(1).then(single, double))

        self.one = Word(b, ir.Constant(I64, 1))
        self.width = by_code(16, 32, 64)
        self.fraction = by_code(10, 23, 52)
        self.bias = by_code(15, 127, 1023)
        self.field_mask = by_code(31, 255, 2047)
        self.infinity = self.field_mask << self.fraction
        self.nan = self.infinity | (self.one << (self.fraction - 1))

    def signed(self, sign: Word, magnitude: Word) -> Word:
        return magnitude | (sign.to(I64) << (self.width - 1))


class _Ways:
    """A block that several others come to, each with words."""

    def __init__(self, b: Any, name: str, *types: Any) -> None:
        self.join = Join(b, name, *types)

    def come(self, *values: Word) -> None:
        self.join.come(*(value.v for value in values))

    def begin(self) -> list[Word]:
        return [Word(self.join.builder, value) for value in self.join.begin()]


class _Exact:
    """Emits the computation where `b` stands."""

    def __init__(self, b: Any, args: Sequence[Any]) -> None:
        self.b = b
        kind, mode, self.status, first, second, third = (Word(b, arg) for arg in args)
        self.operation = kind & 15
        self.source = _Format(b, (kind >> 4) & 3)
        self.target = _Format(b, (kind >> 6) & 3)
        dynamic = (self.status >> MODE_SHIFT) & 7
        self.mode = mode.equals(Rounding.DYNAMIC).then(dynamic, mode)
        self.raw = first
        self.x, self.y, self.z = (_Number(word, self.source) for word in (first, second, third))
        self.no_flags = self.flags()
        # A result as it is, with its exceptions; and one to be rounded: sign, exponent, significand.
        self.done = _Ways(b, "done", I64, I32)
        self.round = _Ways(b, "round", I1, I64, I64)

    def number(self, value: int) -> Word:
        return Word(self.b, ir.Constant(I64, value & ((1 << 64) - 1)))

    def flags(self, *raised: tuple[Word, Exceptions]) -> Word:
        word = Word(self.b, ir.Constant(I32, 0))
        for condition, exception in raised:
            word = word | condition.then(_like(word, int(exception)), 0)
        return word

    def emit(self) -> tuple[Word, Word]:
        """(result, status)."""
        b = self.b
        blocks = {
            ("fadd", "fsub"): self._add,
            ("fmul",): self._multiply,
            ("fdiv",): self._divide,
            ("fsqrt",): self._root,
            ("fma",): self._fused,
            ("fmin", "fmax"): self._extreme,
            ("feq", "flt", "fle"): self._compare,
            ("fcvt",): self._convert,
            ("ftos", "ftou"): self._to_integer,
            ("stof", "utof"): self._from_integer,
        }
        nothing = b.append_basic_block("nothing")
        switch = b.switch(self.operation.v, nothing)
        b.position_at_end(nothing)
        b.unreachable()
        for names, emit in blocks.items():
            block = b.append_basic_block(names[0])
            for name in names:
                switch.add_case(ir.Constant(I32, OPERATIONS.index(name)), block)
            b.position_at_end(block)
            emit()
        self.done.come(*self._rounded(*self.round.begin()))
        result, flags = self.done.begin()
        return result, self.status | flags

    def _is(self, name: str) -> Word:
        return self.operation.equals(OPERATIONS.index(name))

    def _special(self, *cases: tuple[Word, Word, Word]) -> None:
        """Go to `done` in the first case whose condition holds, with a result and its exceptions."""
        for condition, result, flags in cases:
            here, on = self.b.append_basic_block("special"), self.b.append_basic_block("on")
            self.b.cbranch(condition.v, here, on)
            self.b.position_at_end(here)
            self.done.come(result, flags)
            self.b.position_at_end(on)

    def _invalid(self, condition: Word) -> Word:
        return self.flags((condition, Exceptions.INVALID))

    def _zero_of_sum(self, first: Word, second: Word) -> Word:
        """The zero that numbers of these signs add up to."""
        down = self.mode.equals(Rounding.DOWN)
        return self.target.signed((first ^ second).then(down, 0) | (first & second), self.number(0))

    # -- operations

    def _add(self) -> None:
        x, y, f = self.x, self.y, self.target
        sign = y.sign ^ self._is("fsub")
        opposite = x.sign ^ sign
        cancel = x.infinite & y.infinite & opposite
        self._special(
            (x.nan | y.nan | cancel, f.nan, self._invalid(x.signaling | y.signaling | cancel)),
            (x.infinite, f.signed(x.sign, f.infinity), self.no_flags),
            (y.infinite, f.signed(sign, f.infinity), self.no_flags),
        )
        more = y.exponent.above(x.exponent) | (y.exponent.equals(x.exponent) & (y.significand > x.significand))
        exponent, other = more.then(y.exponent, x.exponent), more.then(x.exponent, y.exponent)
        large, small = more.then(y.significand, x.significand), more.then(x.significand, y.significand)
        small = _jammed(small, exponent - other)
        total = large + opposite.then(-small, small)
        self._special((total.equals(0), self._zero_of_sum(x.sign, sign), self.no_flags))
        zeros = total.leading_zeros()
        carried = zeros.equals(0)
        significand = carried.then((total >> 1) | (total & 1), total << ((zeros - 1) & 63))
        self.round.come(more.then(sign, x.sign), exponent + 1 - zeros, significand)

    def _multiply(self) -> None:
        x, y, f = self.x, self.y, self.target
        sign = x.sign ^ y.sign
        bad = (x.infinite & y.zero) | (x.zero & y.infinite)
        self._special(
            (x.nan | y.nan | bad, f.nan, self._invalid(x.signaling | y.signaling | bad)),
            (x.infinite | y.infinite, f.signed(sign, f.infinity), self.no_flags),
            (x.zero | y.zero, f.signed(sign, self.number(0)), self.no_flags),
        )
        product = x.significand.to(I128) * y.significand.to(I128)
        high, low = (product >> 64).to(I64), product.to(I64)
        two = (high >> 61).differs(0)  # the product of the significands is 2 or more
        significand = two.then((high << 1) | (low >> 63), (high << 2) | (low >> 62))
        rest = two.then(low << 1, low << 2)
        self.round.come(sign, x.exponent + y.exponent + two.to(I64), significand | rest.differs(0).to(I64))

    def _loop(
        self, count: int, start: Sequence[Word], step: Callable[[Word, list[Word]], Sequence[Word]]
    ) -> list[Word]:
        """Do `step` for 0 to count - 1 with values; gives the last ones."""
        b, before = self.b, self.b.block
        body, after = b.append_basic_block("step"), b.append_basic_block("after")
        b.branch(body)
        b.position_at_end(body)
        phis = [b.phi(I64) for _ in range(len(start) + 1)]
        values = [Word(b, phi) for phi in phis]
        found = [values[0] + 1, *step(values[0], values[1:])]
        for phi, first, following in zip(phis, [self.number(0), *start], found, strict=True):
            phi.add_incoming(first.v, before)
            phi.add_incoming(following.v, b.block)
        b.cbranch(found[0].equals(count).v, after, body)
        b.position_at_end(after)
        return found[1:]

    def _divide(self) -> None:
        x, y, f = self.x, self.y, self.target
        sign = x.sign ^ y.sign
        bad = (x.infinite & y.infinite) | (x.zero & y.zero)
        self._special(
            (x.nan | y.nan | bad, f.nan, self._invalid(x.signaling | y.signaling | bad)),
            (x.infinite, f.signed(sign, f.infinity), self.no_flags),
            (y.infinite | x.zero, f.signed(sign, self.number(0)), self.no_flags),
            (y.zero, f.signed(sign, f.infinity), self.flags((y.zero, Exceptions.DIVIDE_BY_ZERO))),
        )
        less = x.significand < y.significand  # the quotient of the significands is below 1
        rest = x.significand << less.to(I64)

        def step(_: Word, values: list[Word]) -> Sequence[Word]:
            quotient, rest = values
            fits = rest >= y.significand
            return (quotient << 1) | fits.to(I64), (rest - fits.then(y.significand, 0)) << 1

        quotient, rest = self._loop(63, (self.number(0), rest), step)
        self.round.come(sign, x.exponent - y.exponent - less.to(I64), quotient | rest.differs(0).to(I64))

    def _root(self) -> None:
        x, f = self.x, self.target
        negative = x.sign & ~x.nan
        self._special(
            (x.zero | (x.infinite & ~x.sign), x.bits, self.no_flags),
            (x.nan | negative, f.nan, self._invalid(x.signaling | negative)),
        )
        odd = (x.exponent & 1).to(I1)
        # The radicand is between 1 and 4, in units of 2^-58; six of its lowest bits are free.
        radicand = (x.significand >> 4) << odd.to(I64)

        def step(i: Word, values: list[Word]) -> Sequence[Word]:
            """One bit of the root: with root r so far and bit t, (r + t)^2 = r^2 + t (2 r + t) must fit. What is left
            is doubled each time instead of halving what it is compared with."""
            root, rest = values
            bit = self.number(1 << 58) >> i
            trial = (root << 1) + bit
            fits = rest >= trial
            return fits.then(root + bit, root), (rest - fits.then(trial, 0)) << 1

        root, rest = self._loop(58, (self.number(0), radicand), step)
        exponent = Word(self.b, self.b.ashr((x.exponent - odd.to(I64)).v, ir.Constant(I64, 1)))
        self.round.come(self.number(0).to(I1), exponent, (root << 4) | rest.differs(0).to(I64))

    def _fused(self) -> None:
        x, y, z, f = self.x, self.y, self.z, self.target
        sign = x.sign ^ y.sign
        opposite = sign ^ z.sign
        infinite = x.infinite | y.infinite
        bad = (x.infinite & y.zero) | (x.zero & y.infinite)
        nan = x.nan | y.nan | z.nan
        cancel = infinite & z.infinite & opposite & ~nan
        signaling = x.signaling | y.signaling | z.signaling
        self._special(
            (nan | bad | cancel, f.nan, self._invalid(signaling | bad | cancel)),
            (infinite, f.signed(sign, f.infinity), self.no_flags),
            (z.infinite, f.signed(z.sign, f.infinity), self.no_flags),
        )
        # Both in 128 bits with bit 124 the highest; the product's lowest bit is free.
        product = x.significand.to(I128) * y.significand.to(I128)
        two = (product >> 125).differs(0)
        product = two.then(product >> 1, product)
        exponent = x.exponent + y.exponent + two.to(I64)
        addend = z.significand.to(I128) << 62
        more = z.exponent.above(exponent) | (z.exponent.equals(exponent) & (addend > product))
        top, other = more.then(z.exponent, exponent), more.then(exponent, z.exponent)
        large, small = more.then(addend, product), more.then(product, addend)
        small = _jammed(small, top - other)
        total = large + opposite.then(-small, small)
        self._special((total.equals(0), self._zero_of_sum(sign, z.sign), self.no_flags))
        high, low = (total >> 64).to(I64), total.to(I64)
        zeros = high.equals(0).then(low.leading_zeros() + 64, high.leading_zeros())
        total = total << (zeros - 1).to(I128)  # at most bit 125 is set, so there is always one to go
        significand = (total >> 64).to(I64) | total.to(I64).differs(0).to(I64)
        self.round.come(more.then(z.sign, sign), top + 3 - zeros, significand)

    def _order(self, x: _Number) -> Word:
        """Numbers' order as that of signed integers, -0 below +0."""
        return x.sign.then(~x.magnitude, x.magnitude)

    def _extreme(self) -> None:
        x, y, f = self.x, self.y, self.target
        less = self._order(x).below(self._order(y))
        first = y.nan | ((less ^ self._is("fmax")) & ~x.nan)
        result = (x.nan & y.nan).then(f.nan, first.then(x.bits, y.bits))
        self.done.come(result, self._invalid(x.signaling | y.signaling))

    def _compare(self) -> None:
        x, y = self.x, self.y
        unordered = x.nan | y.nan
        alike = x.bits.equals(y.bits) | (x.zero & y.zero)
        less = self._order(x).below(self._order(y)) & ~alike
        holds = (alike & ~self._is("flt")) | (less & ~self._is("feq"))
        quiet = self._is("feq") & ~(x.signaling | y.signaling)
        self.done.come((holds & ~unordered).to(I64), self._invalid(unordered & ~quiet))

    def _convert(self) -> None:
        x, f = self.x, self.target
        self._special(
            (x.nan, f.nan, self._invalid(x.signaling)),
            (x.infinite, f.signed(x.sign, f.infinity), self.no_flags),
            (x.zero, f.signed(x.sign, self.number(0)), self.no_flags),
        )
        self.round.come(x.sign, x.exponent, x.significand)

    def _from_integer(self) -> None:
        width = self.source.width
        spare = -width + 64
        signed_ = Word(self.b, self.b.ashr((self.raw << spare).v, spare.v))
        sign = self._is("stof") & signed_.below(0)
        magnitude = sign.then(-signed_, (self.raw << spare) >> spare)
        self._special((magnitude.equals(0), magnitude, self.no_flags))
        zeros = magnitude.leading_zeros()
        full = zeros.equals(0)
        significand = full.then((magnitude >> 1) | (magnitude & 1), magnitude << ((zeros - 1) & 63))
        self.round.come(sign, -zeros + 63, significand)

    def _to_integer(self) -> None:
        x, width = self.x, self.target.width
        signed_ = self._is("ftos")
        mask = _jam_mask(width, self.number(-1))
        least = signed_.then(self.target.one << (width - 1), 0)
        most = signed_.then(mask >> 1, mask)
        saturated = (x.sign & ~x.nan).then(least, most)
        # In 128 bits, the point in the middle; numbers of 2^63 and more have their highest bit at the top.
        far = x.nan | x.infinite | x.exponent.above(63)
        wide = x.significand.to(I128) << 64
        distance = far.then(self.number(0), -x.exponent + 63)
        fixed = _jammed(wide, distance.above(127).then(self.number(127), distance))
        # The significand's highest bit is 62, so that all of it stands one too low.
        whole, rest = (fixed >> 63).to(I64), (fixed.to(I64) << 1) | (fixed.to(I64) & 1)
        whole = x.zero.then(self.number(0), whole)
        rest = x.zero.then(self.number(0), rest)
        magnitude = whole + self._increment(x.sign, (whole & 1).to(I1), rest, 1 << 63).to(I64)
        limit = x.sign.then(least, most)
        bad = far | (magnitude > limit)
        result = bad.then(saturated, x.sign.then(-magnitude, magnitude)) & mask
        inexact = rest.differs(0) & ~bad
        self.done.come(result, self.flags((bad, Exceptions.INVALID), (inexact, Exceptions.INEXACT)))

    # -- rounding

    def _increment(self, sign: Word, odd: Word, rest: Word, half: Word | int) -> Word:
        """Whether to round a magnitude up whose bits below the last are `rest`."""
        m = self.mode
        above, tie, some = rest > half, rest.equals(half), rest.differs(0)
        nearest = above | (tie & (odd | m.equals(Rounding.NEAREST_AWAY)))
        directed = some & ((m.equals(Rounding.DOWN) & sign) | (m.equals(Rounding.UP) & ~sign))
        return (m.equals(Rounding.NEAREST_EVEN) | m.equals(Rounding.NEAREST_AWAY)).then(nearest, directed)

    def _rounded(self, sign: Word, exponent: Word, significand: Word) -> tuple[Word, Word]:
        """A number in the target's format, and what rounding it raised."""
        f = self.target
        unit = f.one << (-f.fraction + 62)  # of the last bit that stays
        half, dropped = unit >> 1, unit - 1
        least = -f.bias + 1
        small = exponent.below(least)
        shifted = small.then(_jammed(significand, small.then(least - exponent, 0)), significand)

        def rounded(of: Word) -> tuple[Word, Word]:
            rest, kept = of & dropped, of >> (-f.fraction + 62)
            return kept + self._increment(sign, (kept & 1).to(I1), rest, half).to(I64), rest.differs(0)

        count, inexact = rounded(shifted)
        # Larger fields are as good as the largest, and keep the sum below from wrapping.
        field = exponent + f.bias
        field = field.above(f.field_mask).then(f.field_mask, field)
        magnitude = count + small.then(self.number(0), (field - 1) << f.fraction)
        overflow = magnitude >= f.infinity
        # Tiny is what would be below the least normal number if exponents had no lower bound.
        unbounded, _ = rounded(significand)
        carries = (unbounded >> (f.fraction + 1)).differs(0)
        tiny = small & ~(exponent.equals(least - 1) & carries)
        away = self._increment(sign, self.number(1).to(I1), unit - 1, half)
        magnitude = overflow.then(away.then(f.infinity, f.infinity - 1), magnitude)
        inexact = inexact | overflow
        raised = self.flags(
            (inexact, Exceptions.INEXACT), (tiny & inexact, Exceptions.UNDERFLOW), (overflow, Exceptions.OVERFLOW)
        )
        return f.signed(sign, magnitude), raised


def _jam_mask(width: Word, ones: Word) -> Word:
    """As many ones as `width`, 1 to 64."""
    return ones >> (-width + 64)


def emit_exact_float(module: Any, name: str = "exact_float") -> Any:
    """Define the function of EXACT_FLOAT_TYPE."""
    function = ir.Function(module, EXACT_FLOAT_TYPE, name)
    for attribute in ("nounwind", "noinline", "readnone"):
        function.attributes.add(attribute)
    b = ir.IRBuilder(function.append_basic_block("entry"))
    result, status = _Exact(b, function.args).emit()
    found = b.insert_value(ir.Constant(EXACT_FLOAT_TYPE.return_type, ir.Undefined), result.v, 0)
    b.ret(b.insert_value(found, status.v, 1))
    return function


EXACT_FLOATS_TYPE = ir.FunctionType(ir.VoidType(), [ir.PointerType(), I32, I32, I64])


def emit_exact_floats(module: Any, name: str, exact: Any) -> Any:
    """Define `exact_floats(group frame, kind, rounding mode, lanes)`: the operation for the lanes whose bit is set,
    from and to the frame's rows FLOATS."""
    function = ir.Function(module, EXACT_FLOATS_TYPE, name)
    function.attributes.add("nounwind")
    frame, kind, mode, lanes = function.args
    entry, head, body, out = (function.append_basic_block(n) for n in ("entry", "head", "body", "out"))
    b = ir.IRBuilder(entry)
    b.branch(head)
    b.position_at_end(head)
    rest = b.phi(I64)
    rest.add_incoming(lanes, entry)
    b.cbranch(b.icmp_unsigned("!=", rest, ir.Constant(I64, 0)), body, out)
    b.position_at_end(body)
    lane = b.cttz(rest, ir.Constant(I1, 0))

    def place(row: int) -> Any:
        first = ir.Constant(I64, GroupFrame.FLOATS + row * 8 * MAX_GROUP_LANES)
        return element(b, frame, b.add(first, b.shl(lane, ir.Constant(I64, 3))), I8)

    *operands, before = (b.load(place(row), typ=I64) for row in range(4))
    found = b.call(exact, [kind, mode, b.trunc(before, I32), *operands])
    b.store(b.extract_value(found, 0), place(4))
    b.store(b.zext(b.extract_value(found, 1), I64), place(3))
    rest.add_incoming(b.and_(rest, b.sub(rest, ir.Constant(I64, 1))), b.block)
    b.branch(head)
    b.position_at_end(out)
    b.ret_void()
    return function


def emit_device_exact_float(module: Any, name: str) -> Any:
    """Define the function of DEVICE_EXACT_FLOAT_TYPE."""
    function = ir.Function(module, DEVICE_EXACT_FLOAT_TYPE, name)
    function.linkage = "internal"
    for attribute in ("nounwind", "noinline"):
        function.attributes.add(attribute)
    b = ir.IRBuilder(function.append_basic_block("entry"))
    *args, place = function.args
    result, status = _Exact(b, args).emit()
    store_global(b, status.v, place)
    b.ret(result.v)
    return function
