"""Short kernels for tests: what they store, and the errors they end in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.ptx.kernels import HEADER
from vmjit.ptx import LaunchStatistics, Module, Ptr, PtxFault

ENGINES = ("simt", "thread")

# Of each thread: its number in the grid and the address of its own u64 in the results.
PREAMBLE = """{
.reg .b32 %thread, %cta, %width, %tidx; .reg .b64 %own, %out, %results;
mov.u32 %cta, %ctaid.x; mov.u32 %width, %ntid.x; mov.u32 %tidx, %tid.x; mad.lo.u32 %thread, %cta, %width, %tidx;
ld.param.u64 %results, [results]; mul.wide.u32 %own, %thread, 8; add.u64 %own, %results, %own;
"""
PREAMBLE_LINES = PREAMBLE.count("\n")


def text_of(body: str, before: str = "") -> str:
    """A kernel whose threads run the body and store %out; the line of the body's start is BODY_LINE."""
    header = (
        HEADER.strip() + " " + before.replace("\n", " ") + " .visible .entry k(.param .u64 results, .param .u64 other) "
    )
    return f"{header}{PREAMBLE}{body}\nst.global.u64 [%own], %out;\nret;\n}}"


BODY_LINE = HEADER.strip().count("\n") + 1 + PREAMBLE_LINES


def launch(
    text: str,
    engine: str,
    *,
    grid: int = 1,
    block: int = 1,
    other: NDArray[Any] | None = None,
    module: Module | None = None,
    **options: Any,
) -> tuple[NDArray[np.uint64], LaunchStatistics]:
    results = np.zeros(grid * block, np.uint64)
    module = Module(text, jit_opt=0) if module is None else module
    other = np.zeros(0) if other is None else other
    options.setdefault("seconds", 60.0)  # whatever is wrong, a test ends
    return results, module.launch("k", grid, block, [Ptr(results), Ptr(other)], engine=engine, **options)


def run_u64(body: str, *, before: str = "", engines: Sequence[str] = ENGINES, **options: Any) -> list[int]:
    """What every thread stores; the engines must agree."""
    found = [launch(text_of(body, before), engine, **options)[0].tolist() for engine in engines]
    assert all(results == found[0] for results in found), found
    return found[0]


def fault(body: str, engine: str, message: str, *, before: str = "", **options: Any) -> PtxFault:
    with pytest.raises(PtxFault, match=message) as caught:
        launch(text_of(body, before), engine, **options)
    return caught.value
