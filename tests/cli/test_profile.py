"""`vmjit profile`, and what stands behind it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import vmjit
from tests.cli.conftest import Cli, guest
from tests.differential.asm import encode
from tests.differential.oracles import program
from vmjit.places import CodeSymbols
from vmjit.profiling import profiled
from vmjit.tracing import Event, Tracer
from vmjit.unwinding import Unwinder

GCC = shutil.which("riscv64-linux-gnu-gcc")


def test_shares_are_those_of_all_instructions(cli: Cli) -> None:
    """Against a trace of every instruction."""
    path = guest("sort")
    sort = vmjit.load(path)
    symbols = CodeSymbols(sort)
    counts: Counter[str] = Counter()

    def count(event: Event) -> None:
        counts[(symbols.name(event.pc) or "").partition("+")[0]] += 1

    machine = vmjit.Machine(sort, 1, "cpu")
    Tracer(machine, count, ranges=[(s.address, s.end) for s in sort.segments if s.executable]).run(20_000)
    found = cli("profile", path, "--interval", 20, "--max-instructions", 20_000, "--json").json
    assert found["instructions"] == 20_000
    assert found["samples"] == pytest.approx(1000, rel=0.05)
    shares = {row["name"]: row["share"] for row in found["functions"]}
    for name, exact in counts.items():
        assert shares.get(name, 0.0) == pytest.approx(exact / counts.total(), abs=0.04)
    assert sum(shares.values()) == pytest.approx(1)
    assert sum(block["share"] for block in found["blocks"]) == pytest.approx(1)
    assert sum(found["tiers"].values()) == pytest.approx(1)


def test_profiles_are_the_same_each_time(cli: Cli) -> None:
    first, second = (cli("profile", guest("sort"), "--interval", 300, "--json").json for _ in range(2))
    assert [first[k] for k in ("samples", "functions", "blocks")] == [
        second[k] for k in ("samples", "functions", "blocks")
    ]


def test_lanes_that_agree_and_lanes_that_part() -> None:
    """Half of the lanes spin in one loop and half in another."""
    code = encode("andi", rd=5, rs1=10, imm=1) + encode("bne", rs1=5, rs2=0, imm=8)
    code += encode("jal", rd=0, imm=0) + encode("jal", rd=0, imm=0)
    machine = vmjit.Machine(program("rv64i", code), 10, "cpu", memory="4KiB")
    profile = profiled(machine, interval=100, max_instructions=5000)
    assert {block: round(profile.agreement(block), 6) for block in profile.blocks} == {0x10008: 0.5, 0x1000C: 0.5}
    assert profile.blocks[0x10008] == profile.blocks[0x1000C]
    same = vmjit.Machine(program("rv64i", code), 10, "cpu", memory="4KiB")
    same.registers["a0"] = np.zeros(10, np.int64)
    assert profiled(same, interval=100, max_instructions=5000).agreement(0x10008) == 1


SOURCE = """
#include <stdlib.h>
__attribute__((noinline)) int leaf(int x) { for (int i = 0; i < 50; i++) x = x * 5 + i; return x; }
__attribute__((noinline)) int middle(int x) { volatile int y = leaf(x); return y + 1; }
static int compare(const void *a, const void *b) { return middle(*(int *)a) - middle(*(int *)b); }
int main(void) { int v[64]; for (int i = 0; i < 64; i++) v[i] = i * 37 % 64; qsort(v, 64, 4, compare); return v[3] & 1; }
"""


@pytest.mark.skipif(GCC is None, reason="no compiler for RISC-V Linux is installed")
def test_stacks_and_lines(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "prog.c").write_text(SOURCE)
    command = [str(GCC), "-g", "-O1", "-static", "prog.c", "-o", "prog"]
    subprocess.run(command, cwd=tmp_path, check=True)
    out = tmp_path / "profile.json"
    found = cli("profile", tmp_path / "prog", "--interval", 200, "--lanes", 2, "--json", "--speedscope", out).json
    assert found["functions"][0]["name"] == "leaf"
    assert found["blocks"][0]["line"] == "prog.c:3"
    saved = json.loads(out.read_text())
    (profile,) = saved["profiles"]
    names = [frame["name"] for frame in saved["shared"]["frames"]]
    stacks = Counter(
        {tuple(names[i] for i in s): w for s, w in zip(profile["samples"], profile["weights"], strict=True)}
    )
    assert profile["endValue"] == sum(profile["weights"]) == found["samples"]
    deepest = max((s for s in stacks if s[-1] == "leaf"), key=len)
    assert deepest[-3:] == ("compare", "middle", "leaf")
    assert deepest[0] == "_start"
    assert deepest.count("_start") == 1
    assert "main" in deepest
    assert any("qsort" in name for name in deepest)


def test_programs_that_say_nothing_of_frames() -> None:
    unwinder = Unwinder(guest("sort"))
    assert unwinder.callers(0x10200, {1: 0x10300, 2: 0x20000, 8: 0}, lambda address, size: None) == []


def test_it_is_shown(cli: Cli) -> None:
    text = cli("profile", guest("sort"), "--interval", 500, "--lanes", 3, "--rows", 2).text
    assert "quicksort" in text
    assert "agreement" in text
    assert len([line for line in text.splitlines() if "<" in line]) == 2


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
@pytest.mark.parametrize(("name", "begin"), [("p.png", b"\x89PNG"), ("p.svg", b"<?xml")])
def test_pictures(cli: Cli, tmp_path: Path, name: str, begin: bytes) -> None:
    cli("profile", guest("sort"), "--interval", 500, "--plot", tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begin)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--interval", "0"), "at least 1"),
        (("--speedscope", "/nowhere/at/all"), "/nowhere/at/all"),
        (("--tier", "fast"), "tier must be one of"),
    ],
)
def test_mistakes(cli: Cli, options: tuple[str, ...], said: str) -> None:
    assert said in cli("profile", guest("hello"), *options).complaint()


def test_without_matplotlib(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    ended = cli("profile", guest("hello"), "--plot", tmp_path / "p.png")
    assert ended.status == 2
    assert b"matplotlib is not installed" in ended.err
