"""Operands that matter to floats, in the manner of Berkeley TestFloat: the edges of every format, their neighbours, sparse
fractions, exponents that meet, and random bits."""

from __future__ import annotations

import random

from vmjit.ir.floats import FORMATS, Format, Rounding, mul


def edges(f: Format) -> list[int]:
    """Zeros, infinities, NaNs, the ends of the subnormal and normal numbers, one, with both signs."""
    one = f.bias << f.fraction
    magnitudes = [
        *(0, 1, 2, (1 << f.fraction) - 1, 1 << f.fraction, (1 << f.fraction) + 1),
        *(one - 1, one, one + 1, f.infinity - 1, f.infinity - 2, f.infinity),
        *(f.nan, f.nan + 1, f.infinity + 1, f.nan - 1),
    ]
    return [m | s for m in magnitudes for s in (0, f.sign)]


class Numbers:
    """Random operands, the same for one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def number(self, bits: int) -> int:
        """The bits of a float, mostly one that matters."""
        f, source = FORMATS[bits], self.random
        kind = source.random()
        if kind < 0.15:
            return source.choice(edges(f))
        if kind < 0.3:
            return source.getrandbits(bits)
        most = (1 << f.exponent) - 1
        exponent = source.choice(
            [
                f.bias + source.randrange(-4, 5),
                source.randrange(f.exponent + f.fraction),
                most - 1 - source.randrange(3),
                source.randrange(most + 1),
                f.bias // 2 + source.randrange(-3, 4),
                f.bias * 3 // 2 + source.randrange(-3, 4),
                f.bias + source.randrange(66),
            ]
        )
        fraction = source.choice(
            [
                source.getrandbits(f.fraction),
                source.getrandbits(f.fraction) & -(1 << source.randrange(f.fraction)),
                (1 << f.fraction) - 1 - source.getrandbits(3),
                source.getrandbits(3),
            ]
        )
        sign = f.sign * source.getrandbits(1)
        return min(exponent, most) << f.fraction | fraction & ((1 << f.fraction) - 1) | sign

    def integer(self, bits: int) -> int:
        source = self.random
        return source.choice(
            [
                source.getrandbits(bits),
                source.getrandbits(bits) >> source.randrange(bits),
                (1 << bits) - 1 - source.getrandbits(4),
                1 << source.randrange(bits),
            ]
        )

    def operands(self, name: str, bits: int, count: int) -> list[int]:
        """Operands of a float op: alike, opposite or such that they cancel more often than by chance."""
        if name in ("stof", "utof"):
            return [self.integer(bits)]
        f, source = FORMATS[bits], self.random
        found = [self.number(bits) for _ in range(count)]
        if count > 1 and source.random() < 0.15:
            found[1] = found[0] ^ f.sign * source.getrandbits(1)
        if count == 3 and source.random() < 0.4:
            product, _ = mul(f, found[0], found[1], Rounding.NEAREST_EVEN)
            found[2] = ((product ^ f.sign) + source.choice([0, 0, 1, -1, 5])) & ((1 << bits) - 1)
        return found
