"""The README's tables are those of the committed result files."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.readme_table import main
from benchmarks.results_file import RESULTS_DIR

ROOT = Path(__file__).resolve().parents[2]
# By the part of the README.
SHOWN = {"benchmarks": "2026-11-30-epyc-avx512-2-cores.json", "floats": "2026-11-29-floats-epyc-2-cores.json"}


@pytest.mark.parametrize("section", SHOWN)
def test_the_tables_are_up_to_date(section: str, capsys: pytest.CaptureFixture[str]) -> None:
    results = RESULTS_DIR / SHOWN[section]
    status = main([str(results), "--check", str(ROOT / "README.md"), "--section", section])
    assert status == 0, f"{capsys.readouterr().out} (python -m benchmarks.readme_table {results} --write README.md)"


def test_other_tables_are_noticed(tmp_path: Path) -> None:
    changed = tmp_path / "README.md"
    changed.write_text((ROOT / "README.md").read_text().replace("| crc32 |", "| crc33 |", 1))
    assert main([str(RESULTS_DIR / SHOWN["benchmarks"]), "--check", str(changed)]) == 1
