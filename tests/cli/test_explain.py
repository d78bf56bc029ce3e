"""`vmjit explain` on the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, guest
from vmjit.cache import CodeCache, DiskCache
from vmjit.explain.targets import TARGETS


def test_a_table(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    text = cli("explain", guest("crc32"), "--at", "update").text
    lines = text.splitlines()
    assert lines[0].startswith("region at 0x10374 <update> of ")
    assert "17 instructions in 3 blocks, grown along all static edges, not run" in text.replace("\n", " ")
    row = next(line for line in lines if "c.xor a4, a0" in line)
    assert re.match(r"1038e\s+298f\s+c\.xor a4, a0\s+x14 = xor\.i64 x14, x10", row)
    assert any(line.startswith("4,096 lanes run on: cpu") for line in lines)
    assert "of no instruction" in text


def test_a_run(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    folder = tmp_path / "inputs"
    folder.mkdir()
    for lane in range(3):
        (folder / f"{lane}").write_bytes(bytes([lane, 0, 0, 0, 1 + lane, 0, 0, 0]))
    path = guest("crc32")
    text = cli("explain", path, "--at", "update", "--run", "--inputs", folder, "--target", "ir").text
    assert "as it ran on 3 lanes" in text
    row = next(line for line in text.splitlines() if "c.xor a4, a0" in line)
    ran = int(row.split("c.xor a4, a0")[1].split()[0].replace(",", ""))
    assert ran % 6 == 0  # one, two and three repeats
    found = cli("explain", path, "--at", "update", "--run", "--inputs", folder, "--target", "ir", "--json").json
    counts = {found["guest"][int(g)]["pc"]: count for g, count in found["run"]["instructions"].items()}
    assert counts[0x1038E]["total"] == ran
    assert counts[0x1038E]["lanes"] == found["run"]["lanes"] == 3
    parting = [b for b in found["run"]["branches"].values() if b["parts"]]
    assert parting
    assert all(b["ways"] == 3 for b in parting)


def test_an_object(cli: Cli) -> None:
    found = cli("explain", guest("crc32"), "--at", "0x1038e", "--target", "ir,scalar", "--json").json
    assert [listing["name"] for listing in found["listings"]] == ["ir", "scalar"]
    for listing in found["listings"]:
        assert len(listing["lines"]) == len(listing["guest"]) == len(listing["kinds"])
        assert listing["facts"]["instructions"] == listing["kinds"].count("i")
        assert max(listing["guest"]) < len(found["guest"])
    assert found["run"] is None
    assert found["placement"]["device"] == "cpu"
    assert found["placement"]["reasons"]


def test_a_page(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    assert cli("explain", guest("crc32"), "--at", "update", "--target", "ir", "--html", path).text == ""
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_missing_tools_are_named(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache = CodeCache(DiskCache(tmp_path))  # which has no listing
    monkeypatch.setattr("vmjit.explain.kept.process_cache", lambda: cache)

    def absent(*_: object) -> object:
        raise ImportError("numba-cuda is not installed")

    monkeypatch.setattr("vmjit.translators.cuda.PtxTarget", absent)
    found = cli("explain", guest("crc32"), "--at", "update", "--target", "ir,ptx", "--json").json
    assert found["missing"] == {"ptx": "numba-cuda is not installed"}
    assert [listing["name"] for listing in found["listings"]] == ["ir"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--at", "nowhere"), "no symbol 'nowhere'"),
        (("--at", "0x4"), "no executable segment"),
        (("--at", "0x10375"), "no rv64imac instruction can start"),
        (("--at", "update", "--target", "wasm"), "no target wasm; there are ir, "),
        (("--at", "update", "--html", "/nowhere/page.html"), "/nowhere/page.html"),
        (("--at", "update", "--run", "--tier", "interpreter"), "--tier is auto, scalar or simd"),
        (("--at", "update", "--lanes", "0"), "--lanes"),
        ((), "--at"),
    ],
)
def test_mistakes(cli: Cli, words: tuple[str, ...], complaint: str) -> None:
    assert complaint in cli("explain", guest("crc32"), *words).complaint()


def test_help_names_every_target(cli: Cli) -> None:
    text = " ".join(cli("explain", "--help").text.split())
    assert ", ".join(TARGETS) in text
