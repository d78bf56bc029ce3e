"""`vmjit run` with one lane: like a program of this machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import vmjit
from tests.cli.conftest import ISAS, Cli, guest, process
from vmjit.cli.run import parse

TIERS = ("auto", "interpreter", "scalar")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("tier", TIERS)
def test_streams_and_exit_code_are_the_guests(cli: Cli, isa: str, tier: str) -> None:
    ended = cli("run", guest("hello", isa), "--tier", tier, "--device", "cpu", "--threads", 1)
    assert (ended.status, ended.out, ended.err) == (7, b"hello, world\n", b"hello, errors\n")


def test_our_input_is_the_guests(cli: Cli) -> None:
    ended = cli("run", guest("echo"), stdin=b"abc\xff\x00")
    assert (ended.status, ended.out) == (5, b"ABC\xff\x00")


def test_a_guest_that_does_not_read_does_not_wait_for_our_input() -> None:
    with process("run", guest("hello"), stdin=-1, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        assert running.wait(timeout=60) == 7  # while the pipe is open


def test_input_from_a_file_and_from_ours(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "given").write_bytes(b"from a file")
    assert cli("run", guest("echo"), "--input", tmp_path / "given", stdin=b"ours").out == b"FROM A FILE"
    assert cli("run", guest("echo"), "--input", "-", stdin=b"ours").out == b"OURS"


STOPS = [
    (b"\x00", 139, "FAULT reading 0x0 (no memory) at pc {pc}"),
    (b"\x01", 139, "FAULT writing 0x"),
    (b"\x02", 139, "FAULT executing 0x0 (no memory) at pc 0x0: no code there"),
    (b"\x05", 133, "EBREAK at pc {pc}"),
    (b"\x06", 132, "UNSUPPORTED at pc {pc}"),
    (b"\x06\x01", 132, "byte 0xffffffff"),
]


@pytest.mark.parametrize(("given", "status", "message"), STOPS)
@pytest.mark.parametrize("isa", ISAS)
def test_a_stop_is_a_line_and_a_status(cli: Cli, given: bytes, status: int, message: str, isa: str) -> None:
    program = vmjit.load(guest("fault", isa))
    machine = vmjit.Machine(program, arguments=["x"])
    machine.set_input(given)
    pc = f"{int(machine.run().pc[0]):#x}"
    ended = cli("run", guest("fault", isa), stdin=given)
    assert (ended.status, ended.out) == (status, b"")
    (line,) = ended.err.decode().splitlines()
    assert line.startswith("vmjit: stopped: ")
    assert message.format(pc=pc) in line


def test_the_line_shows_the_instruction_and_its_symbol(cli: Cli) -> None:
    line = cli("run", guest("fault"), stdin=b"\x05").err.decode()
    assert "<guest_start+0x" in line
    assert line.endswith(": c.ebreak\n")


@pytest.mark.parametrize("tier", TIERS)
def test_a_budget_stops_exactly(cli: Cli, tier: str) -> None:
    ended = cli("run", guest("fault"), "--max-instructions", "1e5", "--tier", tier, "--json", stdin=b"\x07")
    assert ended.status == 124
    assert ended.json["retired"] == [100_000]
    line = cli("run", guest("fault"), "--max-instructions", "0x10", stdin=b"\x07").err.decode()
    assert line.startswith("vmjit: stopped: BUDGET at pc 0x")


def test_output_before_a_stop_is_passed_on(cli: Cli) -> None:
    ended = cli("run", guest("hello"), "--max-instructions", 36)
    assert ended.status == 124
    assert ended.err.startswith(b"vmjit: stopped: BUDGET")


def test_json_with_one_lane_keeps_the_status(cli: Cli) -> None:
    ended = cli("run", guest("hello"), "--json")
    assert (ended.status, ended.err) == (7, b"")
    found = json.loads(ended.out)
    assert found["output"] == ["hello, world\n"]
    assert found["error_output"] == ["hello, errors\n"]
    assert found["exit_codes"] == [7]


def test_output_that_is_no_text_is_escaped_in_json(cli: Cli) -> None:
    assert cli("run", guest("echo"), "--json", stdin=b"a\xff\xc3\xa9").json["output"] == ["A\\xffé"]


def test_arguments_may_stand_among_the_options() -> None:
    options = parse(["--lanes", "2", "guest.elf", "one", "--json", "two", "--", "--lanes", "-x", "--"])
    assert (options.program, options.lanes, options.json) == ("guest.elf", 2, True)
    assert options.arguments == ["one", "two", "--lanes", "-x", "--"]
    assert parse(["--json", "--", "guest.elf", "-v"]).arguments == ["-v"]


def test_the_guest_finds_its_arguments(cli: Cli, tmp_path: Path) -> None:
    # The budget ends before the first instruction: the stack is as the guest finds it.
    name = guest("hello", "rv32im")
    dump = tmp_path / "heap.npy"
    program = vmjit.load(name)
    end = int(vmjit.Machine(program, memory="4KiB").registers["sp"][0])
    options = ("--max-instructions", 0, "--memory", "4KiB", "--dump", f"{end - 256:#x}:256={dump}")
    assert cli("run", name, "a b", *options, "--", "-é").status == 124
    stack = np.load(dump)[0].tobytes()
    assert b"\0".join([name.encode(), b"a b", "-é".encode(), b""]) in stack


def test_the_isa_can_be_given(cli: Cli) -> None:
    assert cli("run", guest("hello", "rv64imac"), "--isa", "rv64imac", "--json").json["isa"] == "rv64imac"
    without = cli("run", guest("hello", "rv64imac"), "--isa", "rv64ima")
    assert without.status in (132, 139)  # compressed instructions are unknown then
