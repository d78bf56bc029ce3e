"""zlib, Lua and SQLite as Debian has them, built with glibc: output and exit status are those under QEMU."""

from __future__ import annotations

import functools
import gzip
import os
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import vmjit
from tests.differential.oracles import have_qemu, settle
from tests.linux.build import FOLDER
from tests.linux.debian_sources import LUA, MINIGZIP, SQLITE, NotAvailable, Recipe, program_of
from tests.linux.test_programs import status_of

SCRIPTS = FOLDER / "scripts"
_MOST_RUNS = 4
"""Runs of the tier auto until most of one is compiled code."""


@dataclass(frozen=True)
class Case:
    """A lane for each input. Files are those of the scripts' folder."""

    name: str
    recipe: Recipe
    arguments: tuple[str, ...]
    inputs: tuple[bytes, ...]
    slow: tuple[str, ...] = ()
    """The tiers in which it takes long with nothing cached."""


def _zlib_inputs() -> tuple[bytes, ...]:
    random = np.random.default_rng(1)
    text = b" ".join(b"%d" % n for n in random.integers(0, 1 << random.integers(1, 20, 6000)))
    return text, b"", b"one", bytes(20_000), random.integers(0, 256, 15_000, np.uint8).tobytes()


def _compressed() -> tuple[bytes, ...]:
    """Files of gzip, two of them not as they should be, and what minigzip takes for a file that is not compressed."""
    good = [gzip.compress(data, mtime=0) for data in _zlib_inputs()]
    damaged = bytearray(good[0])
    damaged[len(damaged) // 2] ^= 0x10
    return *good, bytes(damaged), good[0][:-9], zlib.compress(b"another format"), good[1] + good[2]


TEXTS = (
    b"the quick brown fox jumps over the lazy dog, the end\nand the rest of it's here: x_1 x_1 x_2\n",
    b"",
    b"nothing but one line",
    b"\n".join(b"line %d has words_%d and w%s" % (n, n % 7, b"o" * (n % 5)) for n in range(200)),
)
QUERIES = (SCRIPTS / "queries.sql").read_bytes()
STATEMENTS = (
    b"",
    b"INSERT INTO own VALUES ('a'), ('b'), ('a');\n",
    b"WITH RECURSIVE n(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM n WHERE i < 999)"
    b" INSERT INTO own SELECT char(97 + i * i % 13) FROM n;\nSELECT this is no SQL;\n",
)
CASES = (
    Case("minigzip", MINIGZIP, (), _zlib_inputs()),
    Case("minigzip-1", MINIGZIP, ("-1",), _zlib_inputs(), slow=("interpreter", "auto")),
    Case("minigzip-d", MINIGZIP, ("-d",), _compressed(), slow=("scalar",)),
    Case("lua", LUA, ("words.lua",), TEXTS, slow=("interpreter", "scalar", "auto")),
    Case(
        "sqlite",
        SQLITE,
        ("-init", "tables.sql", ":memory:"),
        tuple(text + QUERIES for text in STATEMENTS),
        slow=("interpreter", "scalar", "auto"),
    ),
)


@functools.cache
def expected(case: Case, program: Path) -> list[tuple[bytes, bytes, int]]:
    """(output, errors, status) under QEMU for each input."""
    found = []
    for data in case.inputs:
        command = ["qemu-riscv64", "-0", case.recipe.output, str(program), *case.arguments]
        done = subprocess.run(
            command,
            input=data,
            capture_output=True,
            timeout=60,
            env={"PATH": os.environ["PATH"]},
            cwd=SCRIPTS,
            check=False,
        )
        found.append((done.stdout, done.stderr, done.returncode if done.returncode >= 0 else 128 - done.returncode))
    return found


BY_TIER = [
    pytest.param(case, tier, id=f"{case.name}-{tier}", marks=[pytest.mark.slow] * (tier in case.slow))
    for case in CASES
    for tier in ("interpreter", "scalar", "auto")
]


@pytest.mark.parametrize(("case", "tier"), BY_TIER)
def test_same_as_under_qemu(case: Case, tier: str) -> None:
    if not have_qemu(64):
        pytest.skip("qemu-riscv64 is not installed")
    program = program_of(case.recipe)
    if isinstance(program, NotAvailable):
        pytest.skip(f"{case.recipe.package}: {program}")
    lanes = len(case.inputs)
    m = vmjit.Machine(
        vmjit.load(program),
        lanes,
        "cpu",
        tier,
        arguments=[case.recipe.output, *case.arguments],
        root=SCRIPTS,
    )
    m.set_input(list(case.inputs))
    for run in range(_MOST_RUNS if tier == "auto" else 1):
        if run:
            settle()
            m.reset()
        result = m.run(2_000_000_000)
        found = [(result.output(i), result.error_output(i), status_of(result, i)) for i in range(lanes)]
        assert found == expected(case, program)
        assert not result.unknown_calls
        if result.tiers["scalar"] > result.instructions / 2:
            break
