"""`vmjit bench`: what it prints, saves, compares and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.bench.fakes import Fake, results, row
from tests.cli.conftest import Cli, guest
from vmjit.bench.cores import usable_cores
from vmjit.bench.results_file import Results, save
from vmjit.bench.session import Plan
from vmjit.cache import CodeCache, DiskCache
from vmjit.crossover import crossover
from vmjit.devices.registry import open_device

QUICK = ("--rounds", 2, "--starts", 1, "--seconds", 0.005)


def planted(monkeypatch: pytest.MonkeyPatch, found: Results) -> list[Plan]:
    """Have nothing measured, but this found; gives the plans that were made."""
    plans: list[Plan] = []

    def measure(plan: Plan, say: Any, save: Any = None) -> Results:
        plans.append(plan)
        return found

    monkeypatch.setattr("vmjit.bench.session.measure", measure)
    return plans


def session(work: float = 1e-3) -> Results:
    return results(
        [
            row(Fake("vmjit auto", work, noise=0.01), Fake("native", 1e-3, noise=0.01), lanes=n, repeat=2)
            for n in (1, 64)
        ]
    )


@pytest.mark.skipif(shutil.which("qemu-riscv64") is None, reason="qemu-riscv64 is not installed")
def test_a_real_session(cli: Cli, tmp_path: Path) -> None:
    """Figures are the machine's; that they are there, and answers agree, is the bench's."""
    files = {name: tmp_path / f"bench.{name}" for name in ("json", "html", "svg")}
    saved = ("--json", files["json"], "--html", files["html"], "--plot", files["svg"])
    words = ("bench", "crc32", "--lanes", "3,1", *QUICK, "--peer", "qemu", "--peer", "mine=qemu-riscv64 {elf}")
    ended = cli(*words, *saved)
    assert ended.status == 0, ended
    found = json.loads(files["json"].read_text())
    assert [(r["guest"], r["isa"], r["lanes"], r["agree"]) for r in found["rows"]] == [
        ("crc32", "rv64imac", 1, True),
        ("crc32", "rv64imac", 3, True),
    ]
    for entry in found["rows"][0]["entries"].values():
        assert len(entry["steady"]) == 2
        assert entry["first"][0] > 0
    assert set(found["rows"][0]["entries"]["vmjit auto"]["phases"]) == {"reset", "input", "run", "output"}
    assert found["rows"][0]["entries"]["vmjit auto"]["compile"][0] > 0
    assert found["machine"]["cpu"]
    assert found["machine"]["qemu"]
    # Two rounds never tell a difference, and on a busy machine a run may be nothing but noise.
    assert "too few rounds to tell" in ended.text or "too short to tell" in ended.text
    assert "crc32 rv64imac, 3 lanes" in files["html"].read_text()
    assert files["svg"].read_text().startswith("<svg")


def test_any_program_and_its_input(cli: Cli, tmp_path: Path) -> None:
    """`tr` does what the guest does, which ends with the number of bytes; a peer that does something else is told."""
    (tmp_path / "data").write_bytes(b"some input")
    words = ("bench", guest("echo"), "--lanes", 2, *QUICK, "--tier", "interpreter", "--input", tmp_path / "data")
    ended = cli(*words, "--peer", "same=sh -c 'tr a-z A-Z; exit 10'", "--json", tmp_path / "r.json")
    assert ended.status == 0, ended
    assert "the start of each instance is in its steady state" in ended.text
    ended = cli(*words, "--peer", "other=cat")
    assert ended.status == 1
    assert "answers differ" in ended.text


def test_comparing(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    save(session(), old)
    save(session(1.3e-3), new)
    ended = cli("bench", "--compare", old, "--against", new)
    assert ended.status == 1
    assert "slower" in ended.text
    assert "steady state, by native" in ended.text
    assert cli("bench", "--compare", new, "--against", old).status == 0
    assert cli("bench", "--compare", old, "--against", old).status == 0
    planted(monkeypatch, session(1.3e-3))
    assert cli("bench", "--peer", "none", "--compare", old).status == 1
    planted(monkeypatch, session())
    assert cli("bench", "--peer", "none", "--compare", old, "--html", tmp_path / "p.html").status == 0
    assert "old to new" in (tmp_path / "p.html").read_text()


def test_the_self_check(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    fine = results([row(Fake("vmjit auto", 1e-3, noise=0.01), Fake("vmjit auto again", 1e-3, noise=0.01))])
    plans = planted(monkeypatch, fine)
    ended = cli("bench", "--self-check")
    assert ended.status == 0
    assert "right: crc32 rv64imac, 4 lanes" in ended.text
    assert plans[0].twice
    assert [(one.name, one.idle) for one in plans[0].guests] == [("empty", True), ("crc32", False)]
    planted(monkeypatch, results([row(Fake("vmjit auto", 1e-3), Fake("vmjit auto again", 1.2e-3))]))
    ended = cli("bench", "--self-check")
    assert ended.status == 1
    assert "WRONG" in ended.text


def test_feeding_the_placement(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vmjit.crossover.process_cache", lambda: CodeCache(DiskCache(tmp_path)))
    found = session()
    found["options"]["cores"] = len(usable_cores())
    planted(monkeypatch, found)
    assert b"nothing for the choice of devices" in cli("bench", "--peer", "none", "--feed-placement").err
    found["crossings"] = [{"device": "host", "xlen": 64, "lanes": 64, "measured": [(1, 1.0, 2.0), (64, 2.0, 1.0)]}]
    ended = cli("bench", "--peer", "none", "--device", "cpu,host", "--feed-placement")
    assert b"kept for the choice of devices: host, rv64: faster than the CPU from 64 lanes on" in ended.err
    assert crossover(open_device("host"), 64).lanes == 64


def test_what_is_asked_for(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = planted(monkeypatch, session())
    text = cli("bench", "--lanes", "64,1,64", "--tier", "scalar,auto", "--device", "host,cpu").text
    assert "icicle: not installed" in text
    (plan,) = plans
    assert plan.lanes == (1, 64)
    assert plan.tiers == ("scalar", "auto")
    assert len(plan.cores) >= 1
    assert [one.name for one in plan.guests] == ["crc32", "sort"]
    cli("bench", guest("hello"), "--peer", "none", "--", "-v", "file")
    assert plans[-1].guests[0].arguments == ("-v", "file")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nothing",), "no guest 'nothing'"),
        (("/nowhere.elf",), "No such file"),
        (("--peer", "bochs"), "no peer 'bochs'"),
        (("--peer", "mine=/nowhere/emulator {elf}"), "peer mine: /nowhere/emulator is not there"),
        (("--peer", "c=cat", "--peer", "c=cat"), "two peers are called 'c'"),
        (("--peer", "none", "--peer", "c=cat"), "stands alone"),
        (("--lanes", "1,0"), "at least 1"),
        (("--lanes", "some"), "no whole number"),
        (("--rounds", "0"), "at least 1"),
        (("--device", "toaster"), "no device 'toaster'"),
        (("--device", "auto"), "by its name"),
        (("--device", "cpu,"), "empty name"),
        (("--device", "host", "--tier", "simd"), "simd"),
        (("--tier", "turbo"), "tier must be one of"),
        (("--memory", "1"), "memory must be at least"),
        (("--cores", "9999"), "--cores 9999"),
        (("--isa", "rv64gc", "sort"), "not built for rv64gc"),
        (("--json", "/nowhere/r.json"), "/nowhere/r.json: No such file"),
        (("--html", "/nowhere/r.html"), "/nowhere/r.html: No such file"),
        (("--plot", "/nowhere/p.svg"), "/nowhere/p.svg: No such file"),
        (("--plot", "p.pdf"), ".svg or .png"),
        (("--compare", "/nowhere/o.json"), "/nowhere/o.json: No such file"),
        (("--against", "x.json"), "needs --compare"),
        (("--source", "/nowhere.c"), "/nowhere.c: No such file"),
        (("--input", "/nowhere"), "/nowhere: No such file"),
        (("--self-check", "crc32"), "chooses its own"),
        (("--clock", "sun"), "invalid choice"),
    ],
)
def test_mistakes(cli: Cli, words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is measured."""
    monkeypatch.setattr("vmjit.bench.session.measure", lambda *_: pytest.fail("it was measured"))
    assert said in cli("bench", *words).complaint()


def test_peers_that_cannot(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vmjit.bench.peers.find_spec", lambda name: None)
    said = cli("bench", "--peer", "icicle").complaint()
    assert said.endswith("peer icicle: not installed; install it with: pip install icicle-emu")
    said = cli("bench", guest("hello"), "--peer", "native").complaint()
    assert "gcc is not installed" in said or "--source FILE.c" in said


def test_files_that_are_no_results(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    assert "no result file of vmjit bench" in cli("bench", "--compare", tmp_path / "text").complaint()
    save(session(), tmp_path / "one.json")
    other = session()
    for one in other["rows"]:
        one["guest"] = "sort"
    save(other, tmp_path / "two.json")
    words = ("bench", "--compare", tmp_path / "one.json", "--against", tmp_path / "two.json")
    assert "nothing in" in cli(*words).complaint()


def test_without_matplotlib(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only a PNG needs it."""
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    planted(monkeypatch, session())
    assert "matplotlib is not installed" in cli("bench", "--plot", tmp_path / "p.png").complaint()
    assert cli("bench", "--plot", tmp_path / "p.svg", "--peer", "none").status == 0


def test_help_has_examples(cli: Cli) -> None:
    text = cli("bench", "--help").text
    assert "examples:" in text
    assert "vmjit bench crc32 --lanes 1,4096" in text
