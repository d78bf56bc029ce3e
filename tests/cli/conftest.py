"""The command line in this process and in others, and the guests it runs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vmjit.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
ISAS = ("rv32im", "rv64imac")

# SIGINT may be ignored where the tests run in the background; a command at a terminal has Python's handler.
_COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
{}
from vmjit.cli.main import main
sys.exit(main())
"""


def guest(name: str, isa: str = "rv64imac") -> str:
    """The path of a test guest or benchmark guest."""
    for folder in (ROOT / "tests" / "guests" / "bin", ROOT / "benchmarks" / "guests" / "bin"):
        path = folder / f"{name}.{isa}.elf"
        if path.exists():
            return str(path)
    raise FileNotFoundError(name)


@dataclass(frozen=True)
class Ended:
    """How a command line ended."""

    status: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    def complaint(self) -> str:
        """The one line that a mistake is answered with."""
        assert (self.status, self.out) == (2, b""), self
        (line,) = self.err.decode().splitlines()
        assert line.startswith("vmjit: ")
        return line


Cli = Callable[..., Ended]


@pytest.fixture
def cli(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command line in this process, with `stdin` as its standard input."""

    def run(*words: object, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = main([str(word) for word in words])
        captured = capsysbinary.readouterr()
        return Ended(status, captured.out, captured.err)

    return run


def process(*words: object, preamble: str = "", **settings: Any) -> subprocess.Popen[bytes]:
    """Starts a command line in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    environment.pop("COLUMNS", None)
    return subprocess.Popen(
        [sys.executable, "-c", _COMMAND.format(preamble), *map(str, words)], env=environment, **settings
    )


def in_process(*words: object, stdin: bytes = b"") -> Ended:
    """Runs a command line in a process of its own."""
    with process(*words, stdin=-1, stdout=-1, stderr=-1) as running:
        out, err = running.communicate(stdin, timeout=60)
    return Ended(running.returncode, out, err)


@pytest.fixture(autouse=True)
def _wide_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables fold at the width of the terminal that a test happens to have."""
    monkeypatch.setenv("COLUMNS", "160")
