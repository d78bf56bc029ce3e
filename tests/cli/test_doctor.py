"""`vmjit doctor`."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Cli
from vmjit.cli import doctor
from vmjit.errors import DeviceMissingError, KernelExecutionError


def test_what_is_there_works(cli: Cli) -> None:
    ended = cli("doctor")
    assert ended.status == 0, ended
    assert ended.err == b""
    assert "cpu" in ended.text
    assert "33 lanes in" in ended.text
    assert "fails" not in ended.text


def test_what_is_missing_says_how_to_have_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise DeviceMissingError(f"no {name}; install it with: pip install something", device=name)

    monkeypatch.setattr("vmjit.devices.registry.open_device", missing)
    found = {f.name: f for f in doctor.devices()}
    assert found["cpu"].state == "works"
    assert (found["ptx"].state, found["ptx"].how) == ("missing", "pip install something")
    assert cli("doctor").status == 0


def test_a_device_that_fails_is_an_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise KernelExecutionError("the kernel went up in smoke", device=name)

    monkeypatch.setattr("vmjit.devices.registry.open_device", broken)
    ended = cli("doctor")
    assert ended.status == 1
    assert "up in smoke" in ended.text


def test_a_device_that_computes_nonsense_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof compares results: with another program it does not hold."""
    monkeypatch.setattr(doctor, "proof", lambda: (0x00100073).to_bytes(4, "little"))
    finding = doctor._prove("cpu", "this computer", lambda: "")
    assert finding.state == "fails"
    assert "wrong results" in finding.what
