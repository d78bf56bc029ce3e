"""Debian's gdb-multiarch, driving lanes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.cli.conftest import ROOT, guest
from tests.linux.build import path_of

GDB = shutil.which("gdb-multiarch")
pytestmark = pytest.mark.skipif(GDB is None, reason="gdb-multiarch is not installed")


def debugged(program: str, commands: Sequence[str], *options: str) -> tuple[str, int]:
    """What GDB prints, and the status of `vmjit run`."""
    server = subprocess.Popen(
        [sys.executable, "-m", "vmjit", "run", program, "--gdb", "0", *options],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with server:
        assert server.stderr is not None
        said = server.stderr.readline()
        port = re.fullmatch(r"vmjit: waiting for GDB: target remote 127\.0\.0\.1:(\d+)\n", said)
        assert port is not None, said
        assert GDB is not None
        every = ["set pagination off", "set confirm off", f"target remote 127.0.0.1:{port[1]}", *commands]
        words = [word for command in every for word in ("-ex", command)]
        done = subprocess.run(
            [GDB, "-nx", "-batch", *words, program], capture_output=True, text=True, timeout=120, check=False
        )
        status = server.wait(60)
    return done.stdout + done.stderr, status


@pytest.mark.parametrize("isa", ["rv32im", "rv64imac"])
def test_a_session(isa: str) -> None:
    commands = [
        "info threads", "break guest_write_all", "continue", "p/x $a2", "stepi", "p/x $a3", "x/3i $pc",
        "reverse-stepi", "reverse-stepi", "p/x $pc == (long)&guest_write_all", "delete", "x/s $a1", "p $sp % 16",
        "set var $a5 = 77", "p $a5", "thread 3", "p/x $pc", "info threads", "continue",
    ]  # fmt: skip
    text, status = debugged(guest("hello", isa), commands, "--lanes", "3")
    assert len(re.findall(r"Thread \d \(lane \d, stopped, 0 instructions\)", text)) == 3
    assert "hit Breakpoint 1" in text
    assert re.search(r"^\$1 = 0xd$", text, re.MULTILINE)
    assert re.search(r"<guest_write_all(\+\d+)?>:", text)
    assert '"hello, world\\n"' in text
    assert "= 77" in text
    assert "exited with code 07" in text
    assert status == 1  # three lanes that exit with 7


def test_memory_that_is_watched() -> None:
    commands = ["awatch -l *(long*)($sp-8)", "continue", "p/x $pc", "info threads", "delete", "kill"]
    text, _ = debugged(guest("hello"), commands)
    assert "\nHardware access (read/write) watchpoint 1: -location" in text
    assert re.search(r"^\$1 = 0x10190$", text, re.MULTILINE)  # behind what stored


def test_signals_and_the_way_back() -> None:
    """A Linux program that writes where it may not, and what led there."""
    program = str(path_of("sparse", 64))
    text, status = debugged(
        program, ["continue", "p/x $pc", "reverse-stepi", "stepi", "stepi", "detach"], "--memory", "1MiB", "guarded"
    )
    assert len(re.findall("received signal SIGSEGV", text)) == 2
    assert status == 139


def test_floats() -> None:
    program = str(ROOT / "benchmarks" / "guests" / "bin" / "nbody.rv64gc.elf")
    text, _ = debugged(
        program,
        ["break guest_main", "continue", "p $fa0.double", "set var $fa0 = 1.5", "p $fa0.double", "p $fcsr", "kill"],
    )
    assert re.search(r"^\$2 = 1\.5$", text, re.MULTILINE)
    assert re.search(r"^\$3 = 0|^\$3 = \[", text, re.MULTILINE)


def test_detached_lanes_go_on() -> None:
    text, status = debugged(guest("hello"), ["stepi", "detach"])
    assert "detached" in text
    assert status == 7
