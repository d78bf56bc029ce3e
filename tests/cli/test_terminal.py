"""What happens at a terminal: the progress bar, and Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.conftest import guest, process

pytestmark = pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs pseudo terminals")


# The bar of a run that is under way.
_RUNNING = rb"[1-9][0-9,]* million instructions"


def read_until(terminal: int, wanted: bytes, seconds: float = 60) -> bytes:
    """What appears at a terminal up to a pattern."""
    seen, end = b"", time.monotonic() + seconds
    while not re.search(wanted, seen):
        assert time.monotonic() < end, seen
        if select.select([terminal], [], [], 0.2)[0]:
            seen += os.read(terminal, 65536)
    return seen


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_ctrl_c_shows_what_was_done(tmp_path: Path, lanes: int, form: tuple[str, ...]) -> None:
    (tmp_path / "endless").write_bytes(b"\x07\x01")
    terminal, theirs = os.openpty()
    words = ("run", guest("fault"), "--input", tmp_path / "endless", "--lanes", lanes, *form)
    with process(*words, stdin=subprocess.DEVNULL, stdout=-1, stderr=theirs) as running:
        os.close(theirs)
        read_until(terminal, _RUNNING)
        running.send_signal(signal.SIGINT)
        assert running.stdout is not None
        out = running.stdout.read()
        seen = read_until(terminal, b"interrupted") if not form else b""
        assert running.wait(60) == 130
    os.close(terminal)
    assert b"Traceback" not in seen
    if form:
        found = json.loads(out)
        assert found["interrupted"] is True
        assert found["stops"] == {"RUNNING": lanes}
        assert found["exit_codes"] == [None] * lanes
        assert found["instructions"] == sum(found["retired"]) > 0
    elif lanes > 1:
        assert b"RUNNING" in out
    else:
        assert out == b""
        assert b"vmjit: interrupted at pc 0x" in seen


def test_ctrl_c_while_reading_our_input() -> None:
    terminal, theirs = os.openpty()
    with process("run", guest("echo"), stdin=-1, stdout=-1, stderr=theirs) as running:
        os.close(theirs)
        read_until(terminal, b"instructions")
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
    os.close(terminal)


def test_a_pipe_sees_no_progress(tmp_path: Path) -> None:
    (tmp_path / "endless").write_bytes(b"\x07")
    words = ("run", guest("fault"), "--input", tmp_path / "endless", "--lanes", 64, "--max-instructions", "2e6")
    with process(*words, stdin=subprocess.DEVNULL, stdout=-1, stderr=-1) as running:
        out, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (1, b"")
    assert b"BUDGET" in out
    assert b"\x1b" not in out
