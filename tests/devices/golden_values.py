"""Measured values that are pinned in JSON files: what was found is compared with them, or replaces them.

`pytest --update-golden`, in one process, rewrites what differs and prints what changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).with_name("golden")


class Golden:
    """One file: `tools` the versions that the values were measured with, `values` by key."""

    def __init__(
        self,
        name: str,
        request: pytest.FixtureRequest,
        capsys: pytest.CaptureFixture[str],
        *,
        folder: Path = FOLDER,
    ) -> None:
        self.path = folder / name
        self.update: bool = request.config.getoption("--update-golden")
        self.capsys = capsys
        read = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        self.tools: dict[str, str] = read.get("tools", {})
        self.values: dict[str, Any] = read.get("values", {})

    def comparable(self, tools: dict[str, str]) -> bool:
        """Whether what these tools give is what is pinned, or is about to be."""
        return self.update or self.tools == tools

    def pinned(self, key: str, found: Any, tools: dict[str, str]) -> Any:
        """What is pinned for the key: after an update, what was found. None under other tools than it was made with."""
        if self.update and (self.values.get(key) != found or self.tools != tools):
            with self.capsys.disabled():
                print(f"\n{self.path.name}: {key}: {self.values.get(key)} -> {found}", end="")
            if self.tools != tools:
                self.values, self.tools = {}, tools
            self.values[key] = found
            self._write()
        if self.tools != tools:
            return None
        assert key in self.values, f"nothing is pinned for {key}; pytest --update-golden does it"
        return self.values[key]

    def superfluous(self, prefix: str, keys: set[str]) -> set[str]:
        """Keys that begin so and are none of these: after an update there are none."""
        found = {key for key in self.values if key.startswith(prefix)} - keys
        if self.update and found:
            self.values = {key: value for key, value in self.values.items() if key not in found}
            self._write()
            with self.capsys.disabled():
                print("".join(f"\n{self.path.name}: {key}: gone" for key in sorted(found)), end="")
            return set()
        return found

    def _write(self) -> None:
        content = {"tools": self.tools, "values": dict(sorted(self.values.items()))}
        self.path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
