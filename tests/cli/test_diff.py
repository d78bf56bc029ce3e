"""`vmjit diff`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import vmjit.cpu_engine
from tests.cli.conftest import Cli, guest
from tests.differential.oracles import have_qemu
from tests.filetests.test_filetests import check_listing
from tests.linux.build import path_of
from vmjit.cache import CodeCache, DiskCache
from vmjit.cases.case_file import read_case
from vmjit.cases.run_case import differences, run_code
from vmjit.cases.tier_run import run_on
from vmjit.cli.main import main
from vmjit.translators import lowering

WITH_QEMU = pytest.mark.skipif(not have_qemu(64), reason="QEMU's user mode is not installed")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tier", "interpreter", "--tier", "scalar", "--lanes", "3"), r"interpreter and scalar .* in 3 lanes"),
        (("--tier", "scalar"), r"interpreter and scalar .* in one lane"),
        (("--tier", "simd", "--lanes", "33"), r"interpreter and simd .* in 33 lanes"),
        (("--tier", "interpreter", "--tier", "interpreter"), "interpreter and interpreter again"),
        (("--tier", "interpreter", "--device", "host", "--max-instructions", "1e5"), "interpreter on host"),
        (("--against", "unicorn"), "unicorn and interpreter .* in one lane, of which unicorn left 2 to vmjit"),
        pytest.param(("--against", "qemu"), "qemu and interpreter", marks=WITH_QEMU),
        pytest.param(("--against", "qemu", "--tier", "scalar"), "qemu and scalar", marks=WITH_QEMU),
        (("--against", "reference", "--tier", "scalar", "--max-instructions", "2000"), "reference and scalar .* 48 "),
    ],
)
def test_what_does_not_differ(cli: Cli, options: tuple[str, ...], said: str) -> None:
    assert re.search(said, cli("diff", guest("hello"), *options).text)


def test_a_linux_program_with_calls(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"the quick 12 brown 0x10\nfox jumps over\n-7 lazy dogs")
    done = cli("diff", "--against", "unicorn", "--input", tmp_path / "input", path_of("text", 64), "one", "two words")
    assert "do not differ" in done.text


def test_a_difference_is_shown_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = str(guest("crc32"))
    assert main(["diff", str(guest("hello"))]) == 0  # the interpreter is there before
    capsys.readouterr()
    old = lowering.LOWERINGS["xor"]
    cache = CodeCache(DiskCache(tmp_path / "code"))
    monkeypatch.setattr(vmjit.cpu_engine, "process_cache", lambda: cache)
    monkeypatch.setitem(lowering.LOWERINGS, "xor", lambda b, t, a: b.or_(old(b, t, a), lowering.constant(t, 8)))
    case = tmp_path / "case.test"
    assert main(["diff", program, "--tier", "scalar", "--case", str(case)]) == 1
    shown = capsys.readouterr()
    assert re.match(
        r"interpreter and scalar first differ in lane 0, at the instruction that follows [\d,]+ others:", shown.out
    )
    assert re.search(r"0x[0-9a-f]+ <\w+(\+0x[0-9a-f]+)?>   ([0-9a-f]{2} ){1,3}[0-9a-f]{2}   (c\.)?xori? ", shown.out)
    assert re.search(r"^ +before +interpreter +scalar$", shown.out, re.MULTILINE)
    assert re.search(r"^  \w+ .* \*$", shown.out, re.MULTILINE)
    assert "case.test shows it" in shown.err
    small = tmp_path / "small.test"
    assert main(["reduce", str(case), "--tier", "scalar", "-o", str(small)]) == 0
    assert re.fullmatch(r"vmjit: \d+ instructions before, 1 now\n", capsys.readouterr().err)
    for path in (case, small):
        read = read_case(path)
        check_listing(read)
        assert differences(read, 64, run_code(read)) == []
        assert differences(read, 64, run_on(read, "scalar"))
    monkeypatch.undo()
    assert main(["reduce", str(small)]) == 2
    assert "does not fail" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tier", "fast"), "tier must be one of"),
        (("--tier", "auto", "--tier", "simd", "--tier", "scalar"), "two sides"),
        (("--against", "unicorn", "--lanes", "2"), "leave --lanes out"),
        (("--against", "simics"), "invalid choice"),
        (("--max-instructions", "0"), "at least 1"),
        (("--input", "/nowhere/at/all"), "/nowhere/at/all"),
    ],
)
def test_mistakes(cli: Cli, options: tuple[str, ...], said: str) -> None:
    assert said in cli("diff", guest("hello"), *options).complaint()


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (None, (), "No such file"),
        ("test: run\nisa: rv64i\n\nwhat\n", (), "cannot read"),
        ("test: decode\nisa: rv64i\n\ncode:\n  13 00 00 00\n", (), "no case with code to run"),
        (
            "test: run\nisa: rv64i\nat: 0x1000\nentry: 0x1002\n\ncode:\n  13 00 00 00\nbefore:\nafter:\n",
            (),
            "at its entry",
        ),
        ("test: run\nisa: rv64i\nat: 0x1000\n\ncode:\n  13 00 00 00\nbefore:\nafter:\n", (), "does not fail"),
        ("test: run\nisa: rv64i\nat: 0x1000\n\ncode:\n  zz\nbefore:\nafter:\n", (), "zz"),
        ("test: run\n", ("--tier", "fast"), "tier must be one of"),
    ],
)
def test_cases_that_cannot_be_reduced(
    cli: Cli, tmp_path: Path, text: str | None, options: tuple[str, ...], said: str
) -> None:
    path = tmp_path / "case.test"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert said in cli("reduce", path, *options).complaint()


def test_without_qemu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(["diff", str(guest("hello")), "--against", "qemu"]) == 2
    assert "no qemu-riscv64" in capsys.readouterr().err


def test_without_unicorn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(__import__("sys").modules, "unicorn", None)
    assert main(["diff", str(guest("hello")), "--against", "unicorn"]) == 2
    assert 'pip install "vmjit[debug]"' in capsys.readouterr().err
