"""What is saved: JSON, plots, pages; and what an installed package has."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.bench.fakes import Fake, results, row
from vmjit.bench.guests import BIN_DIR, bundled
from vmjit.bench.native_build import SOURCE_DIR
from vmjit.bench.page import page
from vmjit.bench.plots import plot_name, save_plots, sweeps
from vmjit.bench.results_file import Results, load, save
from vmjit.bench.sheets import comparison_sheet
from vmjit.bench.svg import DotPlot, LinePlot, Series, standalone, tick_text
from vmjit.errors import ArgumentError

VOID = {"meta", "br", "link", "img", "hr", "input"}


@pytest.fixture(scope="module")
def session() -> Results:
    """Two numbers of lanes, a device that is faster from 64 on, and a peer with an odd name."""
    found = results(
        [row(Fake("vmjit auto", 1e-3), Fake("<b>&", 2e-3, start=1e-3, noise=0.1), lanes=n, repeat=3) for n in (4, 64)]
    )
    found["crossings"] = [{"device": "host", "xlen": 64, "lanes": 64, "measured": [(4, 1.0, 2.0), (64, 2.0, 1.0)]}]
    return found


class Reader(HTMLParser):
    """Checks that elements close in order, and keeps what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.fetched += [f"{name}={value}" for name, value in attributes if name in ("src", "href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_pages_are_whole_and_alone(session: Results) -> None:
    text = page(session, [comparison_sheet([], ["gone <i>"])])
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    assert not reader.fetched
    assert {"table", "svg", "style", "h2"} <= reader.seen
    assert not {"script", "link", "img", "b"} & reader.seen
    assert "url(" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text
    assert "&lt;b&gt;&amp;" in text
    assert "crc32 rv64imac, 64 lanes" in text


def test_plots_are_xml_with_every_point(session: Results, tmp_path: Path) -> None:
    (plot,) = sweeps(session)
    assert [series.name for series in plot.series] == ["vmjit auto", "<b>&"]
    assert [point[0] for point in plot.series[0].points] == [4.0, 64.0]
    assert [point[1] for point in plot.series[0].points] == pytest.approx([1e3, 1e3])
    assert plot.marks == [(64.0, "host, rv64: faster than the CPU from 64 lanes on")]
    (saved,) = save_plots([plot], str(tmp_path / "plot.svg"))
    root = ElementTree.parse(saved).getroot()
    circles = root.findall(".//{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 2 + 2 * 2  # the legend's and the points'
    assert all(0 <= float(c.get("cx", "-1")) <= 720 and 0 <= float(c.get("cy", "-1")) <= 400 for c in circles)
    assert standalone(plot) == saved.read_text()


def test_several_plots_have_files_of_their_own(session: Results, tmp_path: Path) -> None:
    (plot,) = sweeps(session)
    saved = save_plots([plot, plot], str(tmp_path / "p.svg"))
    assert [path.name for path in saved] == ["p.svg", "p-2.svg"]


def test_dots() -> None:
    plot = DotPlot("a < b", "times", ["one", "two"], [Series("s", [(0, 2.0, 1.0, 3.0), (1, 0.5, 0.4, 0.6)])])
    root = ElementTree.fromstring(standalone(plot))
    assert len(root.findall(".//{http://www.w3.org/2000/svg}circle")) == 3
    assert "a < b" in "".join(root.itertext())


def test_a_single_point_is_a_plot_too() -> None:
    ElementTree.fromstring(standalone(LinePlot("t", "x", "y", [Series("s", [(1.0, 5.0, 5.0, 5.0)])])))


@pytest.mark.parametrize(("value", "text"), [(16384, "16,384"), (0.05, "0.05"), (1e6, "1e6"), (2e-5, "2e-5")])
def test_ticks(value: float, text: str) -> None:
    assert tick_text(value) == text


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_png(session: Results, tmp_path: Path) -> None:
    (saved,) = save_plots(sweeps(session), str(tmp_path / "p.png"))
    assert saved.read_bytes().startswith(b"\x89PNG")


def test_other_suffixes() -> None:
    with pytest.raises(ArgumentError, match=r"\.svg or \.png"):
        plot_name("plot.pdf")


def test_results_round_trip(session: Results, tmp_path: Path) -> None:
    save(session, tmp_path / "r.json")
    assert load(tmp_path / "r.json") == json.loads(json.dumps(session))
    assert page(load(tmp_path / "r.json")) == page(session)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "other"}, "no result file"),
        ({"schema": 99}, "schema 99"),
        ({"rows": [{}]}, "lacks a row's"),
        ({"rows": [3]}, "lacks a row's"),
        ({"rows": 3}, "lacks a row's"),
        ({"machine": {}}, "lacks the machine's cores, cpu"),
        ({"options": 3}, "lacks the options' clock"),
    ],
)
def test_files_that_are_none(session: Results, tmp_path: Path, change: dict[str, object], said: str) -> None:
    (tmp_path / "r.json").write_text(json.dumps({**session, **change}))
    with pytest.raises(ArgumentError, match=said):
        load(tmp_path / "r.json")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_a_wheel_has_what_the_bench_needs(repository: Path) -> None:
    import tomllib

    settings = tomllib.loads((repository / "pyproject.toml").read_text())
    package = repository / "vmjit"
    packed = {path for glob in settings["tool"]["setuptools"]["package-data"]["vmjit"] for path in package.glob(glob)}
    needed = [*BIN_DIR.glob("*.elf"), *SOURCE_DIR.glob("*"), package / "bench" / "page.html"]
    assert len(needed) > 70
    assert set(needed) <= packed


def test_bundled_guests_have_sources() -> None:
    assert len(bundled()) == 25
    assert all((SOURCE_DIR / f"{name}.c").is_file() and len(isas) == 2 for name, isas in bundled().items())
