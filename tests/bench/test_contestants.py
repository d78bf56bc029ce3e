"""Real contestants: that they compute the same, and tell what they cost."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import vmjit
from tests.cli.conftest import guest
from vmjit.bench.emulators import Emulator, Icicle, Unicorn
from vmjit.bench.guests import any_guest, bundled_guest, choose
from vmjit.bench.machines import MachineContestant
from vmjit.bench.native_build import build, build_native, source_command
from vmjit.bench.peak_memory import peak_memory
from vmjit.bench.peers import KINDS, chosen_peers, command_kind
from vmjit.bench.processes import AllRecords, EachAProcess, run_process
from vmjit.errors import ArgumentError

GCC = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
EMULATORS = [
    pytest.param(kind, marks=pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed"))
    for kind, package in ((Unicorn, "unicorn"), (Icicle, "icicle"))
]
SETTINGS: dict[str, Any] = {"device": "cpu", "tier": "interpreter", "memory": "64KiB", "threads": 1}


@pytest.mark.parametrize("kind", EMULATORS)
@pytest.mark.parametrize("isa", ["rv32im", "rv64imac", "rv64gc"])
def test_emulators_compute_what_vmjit_computes(kind: type[Emulator], isa: str) -> None:
    chosen = bundled_guest("mandelbrot" if isa == "rv64gc" else "sort", isa)
    ours = MachineContestant("ours", chosen.elf, 3, SETTINGS)
    theirs = kind("theirs", chosen.elf, 1 << 16)
    first = theirs.first(chosen.inputs(3, 1))
    assert first.seconds > 0
    for inputs in (chosen.inputs(3, 2), chosen.inputs(3, 0), chosen.inputs(3, 2)):
        assert list(theirs.measure(inputs).answers) == list(ours.measure(inputs).answers)
    assert set(theirs.measure(chosen.inputs(1, 1)).phases) == {"reset", "run"}


@pytest.mark.parametrize("kind", EMULATORS)
def test_statuses_and_faults_are_answers(kind: type[Emulator]) -> None:
    for name in ("hello", "fault"):
        path = guest(name)
        ours = MachineContestant("ours", path, 1, SETTINGS).measure([b""])
        assert list(kind("theirs", path, 1 << 20).measure([b""]).answers) == list(ours.answers)


def test_a_machine_tells_its_phases() -> None:
    chosen = bundled_guest("crc32")
    machine = MachineContestant("ours", chosen.elf, 4, SETTINGS)
    first = machine.first(chosen.inputs(4, 1))
    assert first.compile_seconds is not None
    run = machine.measure(chosen.inputs(4, 1))
    assert list(run.phases) == ["reset", "input", "run", "output"]
    assert all(seconds > 0 for seconds in run.phases.values())
    assert run.phases["run"] >= run.seconds
    assert [len(answer) for answer in run.answers] == [4] * 4


@GCC
def test_native_records(tmp_path: Path) -> None:
    (program,) = build_native(tmp_path, ["crc32"])
    chosen = bundled_guest("crc32", "rv32")
    native = AllRecords("native", program, lambda: 0.5)
    ours = MachineContestant("ours", chosen.elf, 5, SETTINGS)
    run = native.measure(chosen.inputs(5, 3))
    assert list(run.answers) == list(ours.measure(chosen.inputs(5, 3)).answers)
    assert 0 < run.seconds <= run.phases["run"]
    assert native.first(chosen.inputs(1, 1)).compile_seconds == 0.5
    # No work is next to no time: what is left is the call.
    assert native.measure(chosen.inputs(5, 0)).seconds < 1e-3


def test_processes_have_statuses_and_take_their_input() -> None:
    assert run_process(["cat"], b"text").output == b"text"
    echo = EachAProcess("shell", ["sh", "-c", "cat; exit 3"])
    assert list(echo.measure([b"a", b"b"]).answers) == [b"a\n[status 3]", b"b\n[status 3]"]
    killed = EachAProcess("shell", ["sh", "-c", "kill -11 $$"])
    assert list(killed.measure([b""]).answers) == [b"\n[status -11]"]


@pytest.mark.skipif(sys.platform != "linux", reason="ptrace as on Linux")
def test_peak_memory_is_the_program_s_own(tmp_path: Path) -> None:
    """Neither ours nor less than what it had."""
    with (tmp_path / "empty").open("wb+") as source:
        small = peak_memory(["cat"], source)
        assert peak_memory(["/nowhere/at/all"], source) is None
        large = peak_memory([sys.executable, "-S", "-c", "x = b'1' * 50_000_000; del x"], source)
    if small is None or large is None:
        pytest.skip("programs cannot be traced here")
    assert 100_000 < small < 10_000_000
    assert 50_000_000 < large < 100_000_000


@GCC
def test_compilers_that_fail_are_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "bad.c").write_text("int main(void) { return nothing; }\n")
    with pytest.raises(ArgumentError, match=r"gcc failed: .*nothing"):
        build(source_command(tmp_path / "bad.c", tmp_path / "bad"))


def test_inputs_are_taken_in_turns() -> None:
    found = any_guest(guest("echo"), None, None, (), [b"a", b"b"])
    assert list(found.inputs(3, 7)) == [b"a", b"b", b"a"]
    assert vmjit.load(found.elf).isa == found.isa


def test_guests_are_chosen_by_name() -> None:
    def names(*given: str) -> list[str]:
        return [one.name for one in choose(given, None, None, (), [b""])]

    assert names() == ["crc32", "sort"]
    assert len(names("all")) == 25
    assert names("json", guest("hello"), "empty") == ["json", "hello.rv64imac.elf", "empty"]
    assert {one.isa for one in choose(["all"], "rv32", None, (), [b""])} == {"rv32im", "rv32gc"}


def test_commands_are_peers() -> None:
    kind = command_kind("mine=emulate --fast '{elf}' -x")
    assert kind.name == "mine"
    assert "is not there" in kind.absent()
    assert command_kind("c=cat").absent() == ""
    assert kind.every(bundled_guest("crc32"), 64) == 4
    for bad in ("mine", "=cat", "mine=", "native=cat", "vmjit=cat", "mine='"):
        with pytest.raises(ArgumentError):
            command_kind(bad)


def test_peers_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    kinds, missing = chosen_peers([])
    assert not {"native", "qemu"} & {kind.name for kind in kinds}
    assert {"native", "qemu"} <= set(missing)
    with pytest.raises(ArgumentError, match="peer native: gcc is not installed"):
        chosen_peers(["native"])
    assert chosen_peers(["none"]) == ([], {})


def test_what_peers_cannot_run() -> None:
    other = any_guest(guest("hello"), None, None, ("-v",), [b""])
    assert "--source" in KINDS["native"].unable(other)
    assert "bare-metal" in KINDS["unicorn"].unable(other)
    assert not KINDS["native"].unable(bundled_guest("crc32"))
    with pytest.raises(ArgumentError, match="not built for rv64gc"):
        bundled_guest("crc32", "rv64gc")
    assert bundled_guest("nbody", "rv32").isa == "rv32gc"
