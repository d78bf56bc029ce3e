"""The case files of this folder."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def case_files(folder: str) -> list[Path]:
    """The case files below a folder of the file tests."""
    return sorted((FOLDER / folder).rglob("*.test"))


def case_id(path: Path) -> str:
    return path.relative_to(FOLDER).with_suffix("").as_posix()
