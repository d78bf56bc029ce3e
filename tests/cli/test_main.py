"""The command as such: help, version, statuses and streams of the process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import vmjit
from tests.cli.conftest import ROOT, Cli, guest, in_process, process
from vmjit.cli.main import COMMANDS


def test_version(cli: Cli) -> None:
    assert cli("--version").text == f"vmjit {vmjit.__version__}\n"


@pytest.mark.parametrize("words", [("--help",), ("-h",), ()])
def test_help_lists_the_commands(cli: Cli, words: tuple[str, ...]) -> None:
    ended = cli(*words)
    assert ended.status == 0
    for name, command in COMMANDS.items():
        assert f"  {name}" in ended.text
        assert command.summary in ended.text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(cli: Cli, name: str) -> None:
    ended = cli(name, "--help")
    assert (ended.status, ended.err) == (0, b"")
    assert "example" in ended.text
    assert f"  vmjit {name} " in ended.text.split("example")[-1]


def test_help_imports_nothing_heavy() -> None:
    check = """
import sys
from vmjit.cli.main import COMMANDS, main
main(["--help"])
for name in COMMANDS:
    main([name, "--help"])
heavy = {"numpy", "llvmlite", "rich", "elftools", "numba"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else 0)
"""
    subprocess.run([sys.executable, "-c", check], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)


def test_python_dash_m() -> None:
    done = subprocess.run([sys.executable, "-m", "vmjit", "--version"], check=True, capture_output=True, cwd=ROOT)
    assert done.stdout.startswith(b"vmjit ")


def test_unknown_commands_and_options(cli: Cli) -> None:
    assert "no command 'walk'; there are: run, demo" in cli("walk").complaint()
    assert "--fast" in cli("--fast").complaint()
    assert "vmjit run --help" in cli("run", guest("hello"), "--fast").complaint()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_broken_pipe_ends_quietly(unbuffered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    read, write = os.pipe()
    os.close(read)
    with process(
        "disassemble", guest("json"), stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.PIPE
    ) as running:
        os.close(write)
        _, err = running.communicate(timeout=60)
    assert err == b""
    assert running.returncode == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_line() -> None:
    with (
        open("/dev/full", "wb") as full,
        process("disassemble", guest("json"), stdin=-3, stdout=full, stderr=-1) as running,
    ):
        _, err = running.communicate(timeout=60)
    assert err == b"vmjit: No space left on device\n"
    assert running.returncode == 2


@pytest.mark.parametrize(
    ("words", "status"), [(("run", "nowhere"), 2), (("run", guest("hello"), "--max-instructions", 1), 124)]
)
def test_without_standard_error_nothing_goes_elsewhere(words: tuple[object, ...], status: int) -> None:
    with process(
        *words, stdin=subprocess.DEVNULL, stdout=-1, preamble="import os; os.close(2); sys.stderr = None"
    ) as running:
        assert running.communicate(timeout=60)[0] == b""
    assert running.returncode == status


def test_raw_bytes_pass_through_a_process() -> None:
    every = bytes(range(256)).replace(b"abcdefghijklmnopqrstuvwxyz", b"")
    ended = in_process("run", guest("echo"), stdin=every)
    assert (ended.status, ended.out, ended.err) == (len(every) & 255, every, b"")
