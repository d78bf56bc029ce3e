"""Random operands with many edge cases, and how they travel: every value is a pattern in a u64."""

from __future__ import annotations

import os
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.ptx.types import BITS, is_signed

Patterns = NDArray[np.uint64]

SEED = int(os.environ.get("PTX_SEED", "7"))

_EDGES = [
    *(0, 1, 2, 7, 8, 15, 16, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF),
    *(0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 2),
]
_FLOAT_EDGES = [
    *(0.0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, np.inf, -np.inf, np.nan, 2.0**31, -(2.0**31), 2.0**32, 2.0**63),
    *(-(2.0**63), 2.0**64, 1e300, -1e-310, 5e-324, 3.999999, 2147483647.5, 4294967295.5),
]


def generator(name: str) -> np.random.Generator:
    """Random numbers of their own for every name, the same in every run."""
    return np.random.default_rng([SEED, zlib.crc32(name.encode())])


def integers(random: np.random.Generator, count: int) -> Patterns:
    values = random.integers(0, 1 << 64, count, dtype=np.uint64) >> random.integers(0, 64, count).astype(np.uint64)
    values = np.where(random.random(count) < 0.3, ~values + np.uint64(1), values)
    return np.where(random.random(count) < 0.35, random.choice(np.array(_EDGES, np.uint64), count), values)


def doubles(random: np.random.Generator, count: int) -> Patterns:
    values = random.integers(0, 1 << 64, count, dtype=np.uint64).view(np.float64).copy()
    kind = random.random(count)
    values = np.where(kind < 0.5, random.normal(0, 10.0 ** random.integers(-3, 12, count)), values)
    return np.where(kind > 0.8, random.choice(np.array(_FLOAT_EDGES), count), values).view(np.uint64)


def singles(random: np.random.Generator, count: int) -> Patterns:
    with np.errstate(all="ignore"):
        values = doubles(random, count).view(np.float64).astype(np.float32).view(np.uint32)
    other = random.integers(0, 1 << 32, count).astype(np.uint32)
    return np.where(random.random(count) < 0.2, other, values).astype(np.uint64)


_KINDS = {"f64": doubles, "f32": singles}


def operands(name: str, types: list[str], count: int, *, near_cancellation: bool = False) -> list[Patterns]:
    """Operands of the types. `near_cancellation`: many third ones are about minus the product of the first two."""
    random = generator(name)
    found = [_KINDS.get(type_name, integers)(random, count) for type_name in types]
    if near_cancellation and types in (["f64"] * 3, ["f32"] * 3):
        dtype: Any = np.float64 if types[0] == "f64" else np.float32
        unsigned: Any = np.uint64 if types[0] == "f64" else np.uint32
        a, b = (x.astype(unsigned).view(dtype) for x in found[:2])
        with np.errstate(all="ignore"):
            opposite = (-(a * b)).copy().view(unsigned).astype(np.uint64)
        nudged = opposite ^ random.integers(0, 4, count).astype(np.uint64)
        found[2] = np.where(random.random(count) < 0.3, nudged, found[2])
    return found


def mask(bits: int) -> int:
    return (1 << bits) - 1


def signed(pattern: int, bits: int) -> int:
    pattern &= mask(bits)
    return pattern - (1 << bits) if pattern >> (bits - 1) else pattern


def interpret(pattern: int, type_name: str) -> int:
    """A pattern as a number of an integer type; of a float type the pattern itself."""
    return signed(pattern, BITS[type_name]) if is_signed(type_name) else pattern & mask(BITS[type_name])


def without_nan_payload(patterns: Patterns, type_name: str) -> Patterns:
    """Any NaN as one and the same."""
    if type_name == "f64":
        return np.where(np.isnan(patterns.view(np.float64)), np.uint64(0x7FF8000000000000), patterns)
    if type_name == "f32":
        return np.where(np.isnan(patterns.astype(np.uint32).view(np.float32)), np.uint64(0x7FC00000), patterns)
    return patterns
