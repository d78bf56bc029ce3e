"""Mistakes: one line on standard error, status 2, no traceback."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Cli, guest

COMMANDS = (("run",), ("disassemble",), ("translate", "--at", "main", "--emit", "ir"))


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A copy of a guest that a test may damage."""
    path = tmp_path / "guest.elf"
    path.write_bytes(Path(guest("crc32")).read_bytes())
    return path


def patch(path: Path, offset: int, data: bytes) -> None:
    whole = bytearray(path.read_bytes())
    whole[offset : offset + len(data)] = data
    path.write_bytes(whole)


@pytest.mark.parametrize("words", COMMANDS)
def test_programs_that_are_none(cli: Cli, program: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    assert "No such file" in cli(*words, tmp_path / "none.elf").complaint()
    assert "directory" in cli(*words, tmp_path).complaint()
    text = tmp_path / "text"
    text.write_text("#!/bin/sh\n")
    assert "not an ELF file" in cli(*words, text).complaint()
    patch(program, 18, b"\x3e\x00")
    assert "built for" in cli(*words, program).complaint()


@pytest.mark.parametrize("size", [0, 3, 4, 16, 40, 63, 64, 200, 700, 1500])
def test_truncated_programs(cli: Cli, program: Path, size: int) -> None:
    program.write_bytes(program.read_bytes()[:size])
    assert str(program) in cli("run", program).complaint()


def test_strange_programs(cli: Cli, program: Path) -> None:
    assert "unknown extension" in cli("run", program, "--isa", "rv64i_zoo").complaint()
    assert "64-bit program" in cli("run", program, "--isa", "rv32i").complaint()
    assert "does not start with" in cli("run", program, "--isa", "mips").complaint()
    patch(program, 16, b"\x03\x00")
    assert "static" in cli("run", program).complaint()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--lanes", "0"), "lanes must be"),
        (("--lanes", "-3"), "lanes must be"),
        (("--lanes", "1e12"), "lanes must be"),
        (("--lanes", "many"), "'many' is no whole number"),
        (("--lanes", "1.5"), "'1.5' is no whole number"),
        (("--lanes", "nan"), "'nan' is no whole number"),
        (("--threads", "0"), "threads must be"),
        (("--device", "toaster"), "no device 'toaster'"),
        (("--tier", "turbo"), "tier must be one of"),
        (("--max-instructions", "-1"), "max_instructions"),
        (("--max-instructions", "1e30"), "no whole number"),
        (("--memory", "1"), "memory must be at least"),
        (("--memory", "0"), "memory must be at least"),
        (("--memory", "much"), "cannot read the memory size 'much'"),
        (("--memory", "-5"), "cannot read the memory size"),
        (("--memory", "99999999GiB"), "more than can be addressed"),
        (("--lanes", "67108864", "--memory", "1GiB"), "more than can be addressed"),
        (("--memory",), "expected one argument"),
        (("--input", "-", "--inputs", "x"), "not allowed with"),
        (("-x",), "unrecognized arguments: -x"),
    ],
)
def test_arguments_that_make_no_sense(cli: Cli, words: tuple[str, ...], message: str) -> None:
    assert message in cli("run", guest("hello"), *words).complaint()


def test_a_program_is_needed(cli: Cli) -> None:
    assert "PROGRAM is missing" in cli("run", "--lanes", 3).complaint()
    assert "PROGRAM" in cli("disassemble").complaint()


def test_unreadable_inputs(cli: Cli, tmp_path: Path) -> None:
    assert "No such file" in cli("run", guest("echo"), "--input", tmp_path / "none").complaint()
    assert "Is a directory" in cli("run", guest("echo"), "--input", tmp_path).complaint()
    assert "No such file" in cli("run", guest("echo"), "--inputs", tmp_path / "none.npy").complaint()
    (tmp_path / "empty").mkdir()
    assert "holds no files" in cli("run", guest("echo"), "--inputs", tmp_path / "empty").complaint()


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.abort, ())


def test_arrays_that_are_none(cli: Cli, tmp_path: Path) -> None:
    def complaint(content: bytes | np.ndarray | list[object]) -> str:
        path = tmp_path / "inputs.npy"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.save(path, np.array(content, object) if isinstance(content, list) else content)
        return cli("run", guest("echo"), "--inputs", path).complaint()

    for content in (b"", b"text", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x10\x00{'descr': !!!!!!\n", pickle.dumps(Evil())):
        assert "inputs.npy: not a folder" in complaint(content)
    assert "not a folder" in complaint([Evil()])
    assert "this is int64 (2, 2)" in complaint(np.zeros((2, 2), np.int64))
    assert "this is uint8 (5,)" in complaint(np.zeros(5, np.uint8))
    assert "this is uint8 (0, 5)" in complaint(np.zeros((0, 5), np.uint8))
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 2), np.uint8))
    assert "an archive" in cli("run", guest("echo"), "--inputs", tmp_path / "two.npz").complaint()


def test_lanes_and_inputs_must_agree(cli: Cli, tmp_path: Path) -> None:
    np.save(tmp_path / "two.npy", np.zeros((2, 1), np.uint8))
    message = cli("run", guest("echo"), "--inputs", tmp_path / "two.npy", "--lanes", 3).complaint()
    assert "3 lanes, but" in message
    assert "2 inputs" in message


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("table", "cannot read the dump 'table'"),
        ("table:4", "cannot read the dump"),
        ("table:4=", "cannot read the dump"),
        ("table=x.npy", "cannot read the dump"),
        (":4=x.npy", "cannot read the dump"),
        ("table..=x.npy", "cannot read the dump"),
        ("..table=x.npy", "cannot read the dump"),
        ("table:=x.npy", "cannot read the dump"),
        ("table:four=x.npy", "cannot read the length 'four'"),
        ("table:0=x.npy", "has no bytes"),
        ("table:-4=x.npy", "has no bytes"),
        ("block..table=x.npy", "has no bytes"),
        ("nowhere:4=x.npy", "no symbol 'nowhere'"),
        ("table..nowhere=x.npy", "no symbol 'nowhere'"),
        ("0:4=x.npy", "no guest memory at 0x0"),
        ("-8:4=x.npy", "no guest memory"),
        ("block:1GiB=x.npy", "no guest memory"),
        ("table:4=/nowhere/x.npy", "there is no directory /nowhere"),
        ("table:4=/", "is a directory"),
    ],
)
def test_dumps_that_cannot_be(
    cli: Cli, spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in cli("run", guest("crc32"), f"--dump={spec}").complaint()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0 and not os.path.exists("/proc/version"), reason="root may write anywhere")
def test_a_file_that_cannot_be_written(cli: Cli) -> None:
    words = ("translate", guest("crc32"), "--at", "update", "--emit", "ir", "-o")
    assert cli(*words, "/proc/version").complaint()
    assert "/nowhere/x: No such file" in cli(*words, "/nowhere/x").complaint()


@pytest.mark.parametrize("words", [("disassemble",), ("translate", "--emit", "ir")])
def test_places_that_are_none(cli: Cli, words: tuple[str, ...]) -> None:
    assert "no symbol 'nowhere'" in cli(*words, guest("crc32"), "--at", "nowhere").complaint()
    assert "in no executable segment" in cli(*words, guest("crc32"), "--at", "table").complaint()
    assert "in no executable segment" in cli(*words, guest("crc32"), "--at=-4").complaint()
    assert "no rv64imac instruction can start" in cli(*words, guest("crc32"), "--at", "0x10159").complaint()
    assert "can start" in cli(*words, guest("crc32", "rv32im"), "--at", "0x100d6").complaint()


def test_other_commands_options(cli: Cli) -> None:
    assert "--at" in cli("translate", guest("crc32"), "--emit", "ir").complaint()
    assert "--emit" in cli("translate", guest("crc32"), "--at", "update").complaint()
    assert "invalid choice" in cli("translate", guest("crc32"), "--at", "update", "--emit", "wasm").complaint()
    assert "memory" in cli("translate", guest("crc32"), "--at", "update", "--emit", "ir", "--memory", "1").complaint()
    assert "at least 1" in cli("disassemble", guest("crc32"), "--count", "0").complaint()
    assert "invalid choice" in cli("cache", "burn").complaint()
    assert "lanes must be" in cli("demo", "--lanes", "0").complaint()


def test_a_name_with_odd_characters_stays_one_line(cli: Cli, tmp_path: Path) -> None:
    assert "two\\nlines" in cli("run", tmp_path / "two\nlines").complaint()
