"""`vmjit cache`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from vmjit.cache import DiskCache


def test_info_and_clear(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMJIT_CACHE_DIR", str(tmp_path / "cache"))
    ended = cli("cache", "info")
    assert ended.status == 0
    assert ended.text.splitlines()[:2] == [f"directory  {tmp_path / 'cache'}", "files      0"]
    cache = DiskCache()
    for i in range(3):
        cache.put(f"{i:064x}", bytes(100))
    other = tmp_path / "cache" / "notes.txt"
    other.write_text("not ours")
    assert "files      3" in cli("cache", "info").text
    cleared = cli("cache", "clear")
    assert (cleared.status, cleared.text) == (0, f"removed 3 files from {tmp_path / 'cache'}\n")
    assert cache.files() == []
    assert other.exists()
