"""`vmjit demo`."""

from __future__ import annotations

import struct

import pytest

from tests.cli.conftest import Cli, in_process
from vmjit.cli import demo


def test_the_demo_runs_and_is_right() -> None:
    ended = in_process("demo")
    assert (ended.status, ended.err) == (0, b"")
    words = [line.split() for line in ended.text.splitlines()]
    assert ["lanes", "4,096", "on", "cpu"] in words
    assert any(row[1:-1] == ["EXIT", "│", "0", "│", "4,096"] for row in words)
    assert "16 lanes were checked with zlib: all are right" in ended.text
    for name in ("instructions", "seconds", "MIPS", "tiers"):
        assert any(row[:1] == [name] for row in words)


def test_a_wrong_result_is_seen(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    right = demo.expected
    monkeypatch.setattr(demo, "expected", lambda seed: right(seed) ^ (seed == demo.seed_of(2)))
    ended = cli("demo", "--lanes", 3)
    assert ended.status == 1
    assert "1 of 3 lanes that were checked with zlib are wrong" in ended.text


def test_one_lane_is_enough(cli: Cli) -> None:
    assert cli("demo", "--lanes", 1, "--device", "cpu").status == 0


def test_the_expected_result_by_hand() -> None:
    """zlib over the generator's words, against a CRC-32 bit by bit."""
    crc, words = 0xFFFFFFFF, demo._random_words(1)
    for _ in range(2048 * demo.REPEAT):
        for byte in struct.pack("<I", next(words)):
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    assert demo.expected(1) == crc ^ 0xFFFFFFFF
