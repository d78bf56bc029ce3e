"""A second process compiles nothing: run under the switch that makes any compilation an error."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vmjit
from tests.cli.conftest import guest
from vmjit.cache import CodeCache, DiskCache, forbid_compiling
from vmjit.errors import CompileForbiddenError

_SCRIPT = """
import json, struct, sys
import vmjit
from vmjit.compile_thread import COMPILE_THREAD

path, device, tier, runs = sys.argv[1:]
m = vmjit.Machine(vmjit.load(path), 40, device, tier, "16KiB")
for _ in range(int(runs)):
    m.reset()
    m.set_input([struct.pack("<II", seed, 1) for seed in range(40)])
    r = m.run()
    COMPILE_THREAD.wait()
s = m.statistics
print(json.dumps([s.compiles, s.cache.compiles, s.compile_seconds, r.tiers, r.output(3).hex(), s.cache.disk_hits]))
"""


def run(path: str, device: str, tier: str, runs: int, folder: Path, *, forbid: bool) -> list[object]:
    environment = {**os.environ, "VMJIT_CACHE_DIR": str(folder)}
    environment["VMJIT_FORBID_COMPILE"] = "1" if forbid else "0"
    command = [sys.executable, "-c", _SCRIPT, path, device, tier, str(runs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found: list[object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("device", "tier"), [("cpu", "interpreter"), ("cpu", "scalar"), ("cpu", "auto"), ("host", "auto"), ("ptx", "auto")]
)
def test_a_second_process_compiles_nothing(device: str, tier: str, tmp_path: Path) -> None:
    if device == "ptx":
        pytest.importorskip("numba_cuda")
    path = guest("crc32", "rv32im")
    cold = run(path, device, tier, 3, tmp_path, forbid=False)
    assert cold[1]
    warm = run(path, device, tier, 2, tmp_path, forbid=True)
    assert warm[:3] == [0, 0, 0.0]
    assert warm[4] == cold[4]
    assert warm[5]
    assert (warm[3]["scalar"] > 0) == (tier != "interpreter")  # type: ignore[index]


def test_what_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the thread that runs, and in the background: the run that wanted it says so."""
    cache = CodeCache(DiskCache(tmp_path))
    monkeypatch.setattr("vmjit.cpu_engine.process_cache", lambda: cache)
    prog = vmjit.load(guest("crc32", "rv32im"))
    m = vmjit.Machine(prog, 1, "cpu", "scalar", "16KiB")
    m.set_input(struct.pack("<II", 1, 1))
    with forbid_compiling(), pytest.raises(CompileForbiddenError, match="the region at 0x"):
        m.run()
    assert cache.statistics.compiles == 0
    m = vmjit.Machine(prog, 1, "cpu", "auto", "16KiB")
    m.set_input(struct.pack("<II", 1, 2000))
    with forbid_compiling(), pytest.raises(CompileForbiddenError, match="VMJIT_FORBID_COMPILE"):
        m.run()
    assert not np.isin(m.stop, (-1, -2, -3)).any()


def test_the_lanes_of_a_run_that_was_refused_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = CodeCache(DiskCache(tmp_path))
    monkeypatch.setattr("vmjit.cpu_engine.process_cache", lambda: cache)
    prog = vmjit.load(guest("crc32", "rv32im"))
    want = vmjit.Machine(prog, 1, "cpu", "interpreter", "16KiB")
    m = vmjit.Machine(prog, 1, "cpu", "scalar", "16KiB")
    for machine in (want, m):
        machine.set_input(struct.pack("<II", 1, 1))
    expected = want.run()
    with forbid_compiling(), pytest.raises(CompileForbiddenError):
        m.run()
    got = m.run()
    assert got.output(0) == expected.output(0)
    assert m.retired.tolist() == want.retired.tolist()


def test_statistics_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = CodeCache(DiskCache(tmp_path))
    monkeypatch.setattr("vmjit.cpu_engine.process_cache", lambda: cache)
    prog = vmjit.load(guest("crc32", "rv32im"))
    m = vmjit.Machine(prog, 2, "cpu", "scalar", "16KiB")
    m.set_input(struct.pack("<II", 1, 1))
    assert m.statistics.runs == {}
    m.run()
    first = m.statistics
    assert first.runs == {"cpu": 1}
    assert (first.successes, first.failures, first.fallbacks) == (1, 0, 0)
    assert first.compiles == cache.statistics.compiles > 0
    assert 0 < first.compile_seconds <= cache.statistics.compile_seconds * 1.01
    m.pc = 0
    m.reset()
    m.pc = 0
    assert m.run().stops() == {"FAULT": 2}
    assert (m.statistics.successes, m.statistics.failures) == (1, 1)
    assert first.runs == {"cpu": 1}
