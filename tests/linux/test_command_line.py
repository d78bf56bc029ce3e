"""Linux programs on the command line: variables, roots, arguments by lane, and outputs in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Cli, cli
from tests.linux.build import path_of

__all__ = ["cli"]

TEXT, ENDING, FILES, LISTING = (str(path_of(name, 64)) for name in ("text", "ending", "files", "listing"))


def test_one_lane_is_like_a_program_of_this_machine(cli: Cli, tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_bytes(b"b a")
    ended = cli("run", "--input", words, "--env", "NAME=here", TEXT, "x y")
    assert ended.status == 2
    assert b"argument 1: x y\nNAME=here\n  0 A " in ended.out
    assert ended.err == b"2 words\n"


@pytest.mark.parametrize(("how", "status"), [("abort", 134), ("raise", 143), ("fault", 139), ("exit", 51)])
def test_the_status_is_a_shells(cli: Cli, how: str, status: int) -> None:
    assert cli("run", ENDING, how).status == status


def test_a_fault_says_the_signal(cli: Cli) -> None:
    assert b"stopped: FAULT (SIGSEGV) writing 0x8 (no memory) at pc" in cli("run", ENDING, "fault").err
    assert cli("run", ENDING, "--json", "fault").json["signals"] == ["SIGSEGV"]
    assert cli("run", ENDING, "--json", "raise").json["signals"] == ["SIGTERM"]
    assert cli("run", ENDING, "--json").json["signals"] == [None]


def test_arguments_by_lane_and_outputs_in_files(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "lists").write_text("one 'two three'\n\n\"four\"\n")
    folder = tmp_path / "made" / "here"
    ended = cli("run", TEXT, "--args-from", tmp_path / "lists", "--output-dir", folder)
    assert ended.status == 0
    assert "EXIT" in ended.text
    assert sorted(p.name for p in folder.iterdir()) == ["0.err", "0.out", "1.err", "1.out", "2.err", "2.out"]
    assert (
        (folder / "0.out")
        .read_bytes()
        .startswith(b"argument 0: -\nargument 1: one\nargument 2: two three\nNAME=(none)\n")
    )
    assert (folder / "1.out").read_bytes().startswith(b"argument 0: -\nNAME")
    assert (folder / "2.out").read_bytes().startswith(b"argument 0: -\nargument 1: four\nNAME")
    assert (folder / "2.err").read_bytes() == b"0 words\n"


def test_outputs_have_the_names_of_inputs(cli: Cli, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    (inputs / "first.txt").write_bytes(b"hello")
    (inputs / "second").write_bytes(b"")
    cli("run", TEXT, "--inputs", inputs, "--output-dir", tmp_path / "out")
    assert b"HELLO" in (tmp_path / "out" / "first.txt.out").read_bytes()
    assert (tmp_path / "out" / "second.err").read_bytes() == b"0 words\n"


def test_unknown_calls_have_names(cli: Cli) -> None:
    found = cli("run", ENDING, "--json", "unknown").json
    assert found["unknown_calls"] == {"clone": 1}
    assert "clone (2 times)" in cli("run", ENDING, "--lanes", 2, "unknown").text


def test_a_program_can_be_taken_for_bare_metal(cli: Cli) -> None:
    assert cli("run", "--environment", "bare-metal", "--max-instructions", 100_000, TEXT).out == b""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--env", "NAME"], "write NAME=VALUE"),
        (["--root", "/nothing/here"], "is no folder"),
        (["--environment", "windows"], "environment must be one of auto, bare-metal, linux"),
        (["--args-from", "/nothing"], "No such file"),
        (["--seed", "-1"], "seed must be a number"),
    ],
)
def test_mistakes_are_said_in_a_line(cli: Cli, words: list[str], message: str) -> None:
    ended = cli("run", TEXT, *words)
    assert ended.status == 2
    assert message in ended.err.decode()
    assert ended.err.count(b"\n") == 1


def test_lists_of_arguments_are_checked(cli: Cli, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.write_text("fine\n'open\n")
    assert "line 2" in cli("run", TEXT, "--args-from", lists).err.decode()
    lists.write_text("")
    assert "no lines" in cli("run", TEXT, "--args-from", lists).err.decode()
    lists.write_text("a\nb\n")
    assert "3 lanes, but" in cli("run", TEXT, "--lanes", 3, "--args-from", lists).err.decode()
    assert "instead of arguments" in cli("run", TEXT, "--args-from", lists, "--", "more").err.decode()


def test_inputs_as_a_file_and_variables_by_lane(cli: Cli, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    (inputs / "a").write_bytes(b"first")
    (inputs / "b").write_bytes(b"the second")
    (tmp_path / "variables").write_text("SEEN='x y' OTHER=1\n\n")
    ended = cli(
        *("run", LISTING, "--inputs", inputs, "--input-as", "/in/file", "--env-from", tmp_path / "variables"),
        *("--env", "SEEN=all", "--json", "--", "/in/../in/file", "/file"),
    )
    assert ended.json["output"] == [
        "SEEN=x y\n/in/../in/file: 5 5 3 first|rst|1\n/file: none\n",
        "SEEN=all\n/in/../in/file: 10 10 8 the second|e second|1\n/file: none\n",
    ]
    assert ended.json["exit_codes"] == [3, 3]
    (tmp_path / "variables").write_text("SEEN='x\n")
    assert b"line 1" in cli("run", LISTING, "--env-from", tmp_path / "variables").err
    (tmp_path / "variables").write_text("SEEN\n")
    assert b"NAME=VALUE" in cli("run", LISTING, "--env-from", tmp_path / "variables").err
