"""`vmjit run --timeline`."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import vmjit.cpu_engine
from tests.cli.conftest import Cli, guest
from vmjit import timeline
from vmjit.cache import CodeCache, DiskCache


def events(path: Path) -> list[dict[str, Any]]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found["traceEvents"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("options", [(), ("--tier", "scalar"), ("--device", "host"), ("--tier", "interpreter")])
def test_what_is_on_the_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    cache = CodeCache(DiskCache(tmp_path / "code"))
    monkeypatch.setattr(vmjit.cpu_engine, "process_cache", lambda: cache)
    path = tmp_path / "line.json"
    cli("run", guest("sort"), "--lanes", 5, "--timeline", path, *options)
    found = events(path)
    passes = [e for e in found if e["name"] == "pass"]
    assert passes[0]["args"]["lanes"] == 5
    assert sum(e["args"]["lanes"] for e in found if e["name"] == "stop: exit") == 5
    assert sum(e["args"]["calls"] for e in found if e["name"] == "serve") >= 5
    if options == ("--tier", "scalar"):
        assert any(e["name"].startswith("compile the region") or e["name"].startswith("compile ") for e in found)
    threads = {e["tid"] for e in found if e["ph"] == "M" and e["name"] == "thread_name"}
    assert {e["tid"] for e in found if e["ph"] in "Xi"} == threads
    for one in passes:
        assert one["ph"] == "X"
        assert one["ts"] >= 0
        assert one["dur"] >= 0
    ends = [(e["ts"], e["ts"] + e["dur"]) for e in passes]
    assert all(a[1] <= b[0] for a, b in pairwise(ends))


@pytest.mark.parametrize("tier", ["auto", "scalar", "simd"])
def test_passes_have_all_instructions(tier: str) -> None:
    machine = vmjit.Machine(vmjit.load(guest("sort")), 33, "cpu", tier, memory="64KiB")
    with timeline.recording() as line:
        result = machine.run()
    told = [e["args"] for e in line.events if e["name"] == "pass"]
    assert sum(one["instructions"] for one in told) == machine.retired.sum()
    assert sum(one["compiled"] for one in told) == result.tiers["scalar"] + result.tiers["simd"]


def test_nothing_is_noted_where_nobody_records() -> None:
    with timeline.span("a", lanes=1) as told:
        assert told is None
    timeline.instant("b")
    with timeline.recording() as line:
        with timeline.span("c", lanes=2) as told:
            assert told == {"lanes": 2}
        timeline.instant("d")
    timeline.instant("e")
    assert [e["name"] for e in line.events] == ["c", "d"]


def test_a_file_that_cannot_be_written(cli: Cli) -> None:
    assert "/nowhere/at/all" in cli("run", guest("hello"), "--timeline", "/nowhere/at/all").complaint()


def test_what_is_traced_is_on_lines_of_lanes(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "line.json"
    text = cli("trace", guest("hello"), "--lanes", 2, "--at", "guest_start", "--calls", "--timeline", path).text
    found = events(path)
    lanes = [e for e in found if e["pid"] == 2]
    assert {e["args"]["name"] for e in lanes if e["ph"] == "M"} == {"lanes", "lane 0", "lane 1"}
    told = [e for e in lanes if e["ph"] == "i"]
    assert len(told) == len(text.splitlines())
    own = [e["name"] for e in told if e["tid"] == 1]
    assert own == [e["name"] for e in told if e["tid"] == 0]
    assert sum(name.startswith("write(") for name in own) == 2
    times = [e["ts"] for e in told]
    assert times == sorted(times)
    assert any(e["name"] == "pass" for e in found if e["pid"] == 1)
