"""Slices, which end a lane's turn and not its budget: they end where blocks start, so that no code is made elsewhere."""

from __future__ import annotations

import struct

import pytest

import vmjit
from tests.cli.conftest import guest
from tests.differential.oracles import settle
from tests.machine.test_lane_groups import compare
from vmjit import Machine, cpu_engine
from vmjit.code_space import CodeSpace

LANES = 3


def ready(tier: str) -> Machine:
    m = Machine(vmjit.load(guest("crc32", "rv32im")), LANES, "cpu", tier, "16KiB", threads=1)
    m.set_input([struct.pack("<II", seed, 1) for seed in range(LANES)])
    return m


def places(m: Machine) -> set[int]:
    """Where blocks of the program's code start."""
    (space,) = m._engine.spaces
    assert isinstance(space, CodeSpace)
    return set(space.records)


@pytest.mark.parametrize("tier", ["interpreter", "scalar", "auto"])
@pytest.mark.parametrize("slice_", [1, 50, 777])
def test_slices_end_where_blocks_start(tier: str, slice_: int, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 2_000 if slice_ == 1 else None
    twin = ready("interpreter")
    wanted = twin.run(limit)
    monkeypatch.setattr(cpu_engine, "QUANTUM", slice_)
    monkeypatch.setattr(cpu_engine, "_FIRST_QUANTUM", slice_)
    m = ready(tier)
    for run in range(2):
        if run:
            m.reset()
            m.set_input([struct.pack("<II", seed, 1) for seed in range(LANES)])
        compare(m, m.run(limit), twin, wanted, f"run {run}")
        settle()
    # A slice below a block's length ends inside it, or the lane would never move.
    if slice_ > 64:
        assert places(m) <= places(twin)


def test_budgets_end_exactly() -> None:
    m = ready("auto")
    for limit in (1, 5, 1000, 777):
        assert (m.run(limit).retired == limit).all()
