"""Crossovers that are read off a sweep, and what the placement makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import vmjit
from tests.bench.fakes import Fake, row
from tests.devices.flaky import flaky, flaky_gpus
from vmjit.bench.crossings import crossings_of, feed_placement, words
from vmjit.bench.guests import bundled_guest
from vmjit.bench.measure import Taking, measure_row
from vmjit.bench.results_file import Row
from vmjit.cache import CodeCache, DiskCache
from vmjit.crossover import crossover

ADDI = bytes.fromhex("13051500")  # addi a0, a0, 1


def sweep(device: str, isa: str = "rv64imac") -> list[Row]:
    """A device that costs 1 s and then a tenth of the CPU's time: it pays from 64 lanes on."""
    rows = []
    for lanes in (4, 16, 64, 256):
        takings = [
            Taking(Fake("vmjit auto", 20e-3), "vmjit", ""),
            Taking(Fake(f"vmjit auto on {device}", 2e-3, start=1.0 / lanes), "vmjit", ""),
        ]
        rows.append(
            measure_row(
                bundled_guest("crc32", isa),
                lanes,
                takings,
                rounds=5,
                seconds=1,
                clock="wall",
                repeat=1,
                absent={},
                say=lambda _: None,
            )
        )
    return rows


def test_crossings_are_read_off_sweeps() -> None:
    found = crossings_of(sweep("gpu"), ["cpu", "gpu"], "auto")
    assert [(c["device"], c["xlen"], c["lanes"]) for c in found] == [("gpu", 64, 64)]
    assert [lanes for lanes, _, _ in found[0]["measured"]] == [4, 16, 64, 256]
    assert words(found[0]) == "gpu, rv64: faster than the CPU from 64 lanes on"
    assert crossings_of([row(Fake("vmjit auto", 1e-3))], ["cpu"], "auto") == []


def test_the_placement_knows_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = CodeCache(DiskCache(tmp_path))
    monkeypatch.setattr("vmjit.crossover.process_cache", lambda: cache)
    monkeypatch.setattr("vmjit.crossover.measure", lambda *_: pytest.fail("it was measured already"))
    with flaky_gpus(monkeypatch, 1):
        found = crossings_of(sweep("flaky:0", "rv32im"), ["cpu", "flaky:0"], "auto")
        (told,) = feed_placement(found, simulated=False)
        assert "64 lanes" in told
        assert crossover(flaky("flaky:0"), 32).lanes == 64
        executor = vmjit.Executor("rv32i", "auto", "interpreter")
        assert executor.can_execute_on_gpu(ADDI, 0x10000, 64)
        assert "64 lanes on" in executor.can_execute_on_gpu(ADDI, 0x10000, 63).reasons[0]


def test_simulated_devices_are_told_only_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = CodeCache(DiskCache(tmp_path))
    monkeypatch.setattr("vmjit.crossover.process_cache", lambda: cache)
    found = crossings_of(sweep("host"), ["cpu", "host"], "auto")
    assert feed_placement(found, simulated=False) == []
    assert len(feed_placement(found, simulated=True)) == 1
    found[0]["measured"] = found[0]["measured"][:1]
    assert feed_placement(found, simulated=True) == []
