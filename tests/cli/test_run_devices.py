"""`vmjit run` on devices: time limits, fallbacks, and what is said about them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, guest
from tests.devices.flaky import flaky, flaky_gpus


@pytest.fixture
def inputs(tmp_path: Path) -> str:
    (tmp_path / "seed").write_bytes(struct.pack("<II", 1, 3))
    return str(tmp_path / "seed")


@pytest.fixture
def for_ever(tmp_path: Path) -> str:
    (tmp_path / "for ever").write_bytes(struct.pack("<II", 1, 0x7FFFFFFF))
    return str(tmp_path / "for ever")


@pytest.mark.parametrize("device", ["cpu", "host"])
def test_a_time_limit(cli: Cli, for_ever: str, device: str) -> None:
    words = ("run", guest("crc32", "rv32im"), "--input", for_ever, "--max-seconds", "0.2", "--device", device)
    ended = cli(*words)
    assert ended.status == 124
    assert "out of time at pc" in ended.err.decode()
    many = cli(*words, "--lanes", "5")
    assert many.status == 124
    assert "out of time" in many.err.decode()
    found = cli(*words, "--lanes", "5", "--json").json
    assert found["timed_out"]
    assert found["stops"] == {"RUNNING": 5}
    assert 0.2 <= found["seconds"] < 10


@pytest.mark.parametrize("bad", ["-1", "nan", "inf", "soon", ""])
def test_a_time_limit_that_is_none(cli: Cli, bad: str) -> None:
    ended = cli("run", guest("crc32", "rv32im"), f"--max-seconds={bad}")
    assert ended.status == 2
    assert "seconds" in ended.err.decode()


def test_a_fallback_is_told(cli: Cli, inputs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("run", guest("crc32", "rv32im"), "--input", inputs, "--device", "flaky", "--lanes", "40")
    with flaky_gpus(monkeypatch):
        flaky().fail["launch"] = 2
        ended = cli(*words)
        assert ended.status == 0
        assert "40 on cpu" in ended.text
        assert "launch failed" in ended.text
        assert ended.err.decode().startswith("vmjit: warning: left flaky: flaky: launch failed")
        flaky().fail["launch"] = flaky().calls["launch"] + 2
        found = cli(*words, "--json").json
        assert found["device"] == "cpu"
        assert "launch failed" in found["fallbacks"][0]
        flaky().fail["launch"] = flaky().calls["launch"] + 1
        refused = cli(*words, "--no-fallback")
        assert (refused.status, refused.err.decode()) == (2, "vmjit: flaky: launch failed\n")
