"""The README's tables and plots are those of the committed result files, and what it says of kernels is what is
pinned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.readme import PLOTS_DIR, ROOT, TABLES, by_guest
from benchmarks.readme import main as readme
from benchmarks.readme_table import main
from benchmarks.results_file import RESULTS_DIR, load


@pytest.mark.parametrize("section", TABLES)
def test_the_tables_are_up_to_date(section: str, capsys: pytest.CaptureFixture[str]) -> None:
    results = RESULTS_DIR / TABLES[section]
    status = main([str(results), "--check", str(ROOT / "README.md"), "--section", section])
    assert status == 0, f"{capsys.readouterr().out} (python -m benchmarks.readme_table {results} --write README.md)"


def test_other_tables_are_noticed(tmp_path: Path) -> None:
    changed = tmp_path / "README.md"
    changed.write_text((ROOT / "README.md").read_text().replace("| crc32 |", "| crc33 |", 1))
    assert main([str(RESULTS_DIR / TABLES["benchmarks"]), "--check", str(changed)]) == 1
    assert readme(["--check", "--readme", str(changed)]) == 1


def test_the_plots_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    status = readme(["--check"])
    assert status == 0, capsys.readouterr().out


def test_other_plots_are_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in PLOTS_DIR.iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace("circle", "ellipse"))
    assert readme(["--check", "--plots", str(tmp_path)]) == 1
    assert len(capsys.readouterr().out.splitlines()) >= len(list(PLOTS_DIR.iterdir()))


def test_all_guests_are_plotted() -> None:
    results = load(RESULTS_DIR / TABLES["benchmarks"])
    plot = by_guest(results)
    assert set(plot.categories) == {row["guest"] for row in results["batch"]}
    assert sum(len(series.points) for series in plot.series) == len(results["batch"])


def pinned(name: str) -> dict[str, Any]:
    """What is pinned of kernels, by guest, ISA and, for resources, architecture."""
    todo, found = [json.loads((ROOT / "tests" / "devices" / "golden" / name).read_text())], dict[str, Any]()
    while todo:
        for key, value in todo.pop().items():
            if isinstance(value, dict) and "registers" not in value:
                todo.append(value)
            else:
                found[key] = value
    return found


def test_what_it_says_of_kernels() -> None:
    readme = (ROOT / "README.md").read_text()
    counts = {key: value for key, value in pinned("ptx_counts.json").items() if isinstance(value, float)}
    for guest in {key.split(".")[0] for key in counts}:
        assert f"| {guest} | {counts[f'{guest}.rv32im']:.2f} | {counts[f'{guest}.rv64imac']:.2f} |" in readme
    resources = {k: v["registers"] for k, v in pinned("cuda_resources.json").items() if isinstance(v, dict)}
    least, most = ([f([n for k, n in resources.items() if isa in k]) for isa in ("rv32", "rv64")] for f in (min, max))
    assert (
        f"Kernels need {least[0]} to {most[0]} registers a thread for rv32 and {least[1]} to {most[1]} for rv64"
        in readme
    )
