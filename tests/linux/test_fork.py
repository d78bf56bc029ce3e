"""A start-up that is run once and given to all lanes, and what that takes: pages are counted, nothing is timed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import vmjit
from benchmarks.memory import GUESTS, expected
from vmjit import Machine, Snapshot, lane_rows
from vmjit.lane_memory import LaneMemory


@pytest.mark.parametrize("xlen", [32, 64])
@pytest.mark.parametrize("tier", ["interpreter", "auto"])
def test_many_lanes_from_one_start(xlen: int, tier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lane takes the two pages that it fills, its stack's and one of the C library's: not the table of 1 MiB."""
    monkeypatch.setattr(lane_rows, "_MAPPED_FROM", 0)
    lanes = 300
    program = vmjit.load(GUESTS / f"fork.rv{xlen}.elf")
    one = Machine(program, tier="interpreter")
    start = one.run_until("ready")
    assert start.stops() == {"ARRIVED": 1}
    assert start.instructions > 1 << 20
    one.snapshot(lane=0).save(tmp_path / "ready")
    snapshot = Snapshot.load(tmp_path / "ready")
    m = Machine(program, lanes, "cpu", tier)
    inputs = np.arange(lanes, dtype=np.uint32).view(np.uint8).reshape(lanes, 4)
    for _ in range(2):
        m.restore(snapshot)
        m.set_input(inputs)
        r = m.run()
        assert r.stops() == {"EXIT": lanes}
        assert r.retired.max() < 200_000
        assert [r.output(lane) for lane in range(lanes)] == expected(inputs)
    memory = m._lane_memory
    assert isinstance(memory, LaneMemory)
    if sys.platform == "linux" and tier == "interpreter":  # groups lay memory out anew
        assert memory.own_bytes_of_lanes().max() <= 4 * 4096
