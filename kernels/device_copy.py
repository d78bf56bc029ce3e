"""Copy kernels for `@cuda.jit`: bytes by their offsets, and one pattern to many places.

Numba compiles them for GPUs and for the PTX machine, and its CUDA simulator runs them as they stand. Each wants at
least as many threads as elements are copied, in blocks of any size.
"""

from __future__ import annotations

from typing import Any

from numba import cuda


def vmjit_gather(memory: Any, offsets: Any, found: Any) -> None:
    """found[i] = memory[offsets[i]]; (any,) uint8, (n,) uint64, (n,) uint8."""
    i = cuda.grid(1)
    if i < found.size:
        found[i] = memory[offsets[i]]


def vmjit_scatter(memory: Any, offsets: Any, data: Any) -> None:
    """memory[offsets[i]] = data[i]; (any,) uint8, (n,) uint64, (n,) uint8. The offsets are all different."""
    i = cuda.grid(1)
    if i < data.size:
        memory[offsets[i]] = data[i]


def vmjit_fill(memory: Any, pattern: Any, first: Any, pitch: Any, rows: Any) -> None:
    """memory[first + r * pitch + k] = pattern[k] for r < rows; (any,) and (n,) uint64, the numbers count words."""
    i = cuda.grid(1)
    if i < rows * pattern.size:
        row = i // pattern.size
        memory[first + row * pitch + i - row * pattern.size] = pattern[i - row * pattern.size]
