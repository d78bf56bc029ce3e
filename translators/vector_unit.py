"""What this computer's vector registers offer to lane groups."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

# Vector registers that a guest register of 32 bits takes: two hide the latency of chains of operations.
_REGISTERS_EACH = 2


@dataclass(frozen=True)
class VectorUnit:
    """`lanes` of a group, a power of two. `gathers`: AVX2's gather is worth it, though LLVM avoids it."""

    lanes: int
    gathers: bool

    @property
    def shift(self) -> int:
        return self.lanes.bit_length() - 1


def unit_of(features: str) -> VectorUnit:
    """The vector unit by LLVM's names of the CPU's features, such as "+avx2,-avx512f". Where nothing is known of it,
    vectors have 128 bits, as SSE and NEON do."""
    have = {f[1:] for f in features.split(",") if f.startswith("+")}
    bits = 512 if "avx512f" in have else 256 if "avx2" in have else 128
    return VectorUnit(_REGISTERS_EACH * bits // 32, gathers="avx2" in have and "avx512f" not in have)


@lru_cache(maxsize=1)
def vector_unit() -> VectorUnit:
    from vmjit.translators.cpu import cpu_target

    return unit_of(cpu_target().features)
