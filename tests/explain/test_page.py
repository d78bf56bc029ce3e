"""The page in a real browser: it opens from disk, and marks, finds and shows what belongs together."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vmjit
from tests.cli.conftest import guest
from tests.explain.browser import CHROMIUM, Browser
from vmjit.explain.explanation import explain
from vmjit.machine import Machine

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; Debian has it in the package chromium")


def make(tier: str) -> Machine:
    machine = Machine(vmjit.load(guest("crc32")), 8, "cpu", tier, memory="64KiB")
    machine.set_input([struct.pack("<II", lane, 1 + lane % 2) for lane in range(8)])
    return machine


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "explained <1>.html"
    explanation = explain(vmjit.load(guest("crc32")), "guest_main", make=make, source=guest("crc32"))
    path.write_text(explanation.html(), encoding="utf-8")
    return path


@pytest.fixture
def browser(page: Path, tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "profile") as opened:
        opened.call("Network.enable")
        opened.open(page)
        yield opened
        left = [e for e in opened.problems() if not e["params"].get("documentURL", "file:").startswith("file:")]
        assert not [e for e in left if e["method"] == "Runtime.exceptionThrown"]
        urls = [e["params"]["request"]["url"] for e in opened.problems() if "request" in e["params"]]
        assert all(url.startswith(("file:", "blob:", "data:")) for url in urls), urls


def place_of(browser: Browser, column: int, row: str) -> tuple[float, float, int]:
    """Where a row is on the screen, and its guest instruction."""
    box = browser.run(
        f"(() => {{ const row = [...columns[{column}].list.querySelectorAll('.row')].find((row) => {row});"
        "const b = row.getBoundingClientRect(); return [b.x + 30, b.y + 9, Number(row.dataset.g)]; })()"
    )
    return float(box[0]), float(box[1]), int(box[2])


def colours(browser: Browser, g: int) -> list[str]:
    """The background of the guest instruction's lines, by column that shows some."""
    found: list[str] = browser.run(
        f"columns.filter((c) => !c.box.hidden).map((c) => c.list.querySelector('.row[data-g=\"{g}\"]'))"
        ".filter((row) => row).map((row) => getComputedStyle(row).backgroundColor)"
    )
    return found


def test_it_is_small_and_alone(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text) < 2_000_000
    assert not re.search(r"(?:src|href)\s*=|https?://|@import|url\(", text.partition('<script id="data"')[0])


def test_hover_and_click(browser: Browser) -> None:
    clear = "rgba(0, 0, 0, 0)"
    x, y, g = place_of(browser, 0, "row.textContent.includes('c.or a2, a3')")
    assert set(colours(browser, g)) == {clear}
    browser.mouse(x, y)
    marked = colours(browser, g)
    assert len(marked) >= 2
    assert clear not in marked
    assert "c.or a2, a3" in browser.run("byId('detail').textContent")
    browser.mouse(x, y + 18)
    assert set(colours(browser, g)) == {clear}
    # Clicking keeps it, and brings it into view everywhere.
    browser.run("columns[4].list.scrollTop = 100000")
    browser.mouse(x, y)
    browser.click(x, y)
    browser.mouse(700, 5)
    kept = colours(browser, g)
    shown = browser.run(
        f"columns.filter((c) => !c.box.hidden && c.first.has({g})).every((c) => {{ const b = c.list.getBoundingClientRect();"
        f"return [...c.list.querySelectorAll('.row[data-g=\"{g}\"]')].some((row) => {{"
        "const r = row.getBoundingClientRect(); return r.top >= b.top - 1 && r.bottom <= b.bottom + 19; }); })"
    )
    assert shown
    assert kept
    assert clear not in kept
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Escape")
    assert set(colours(browser, g)) == {clear}


def test_every_column_highlights_all_of_an_instruction(browser: Browser) -> None:
    """What the page says belongs to an instruction is what the listings say."""
    wrong = browser.run(
        "(() => { let wrong = 0; for (const c of columns) c.list.querySelectorAll('.row').forEach((row) => {"
        "const i = Math.round(parseFloat(row.style.top) / 18); if (Number(row.dataset.g) !== c.guest[i]) wrong++; });"
        "return wrong; })()"
    )
    assert wrong == 0


def test_search(browser: Browser) -> None:
    browser.run("byId('search').focus()")
    browser.call("Input.insertText", text="xor")
    count = browser.run("byId('matches').textContent")
    found = re.fullmatch(r"1 of (\d+)", count)
    assert found
    wanted = browser.run(
        "columns.filter((c) => !c.box.hidden).flatMap((c) => c.lines).filter((l) => l.includes('xor')).length"
    )
    assert int(found[1]) == wanted
    assert "xor" in browser.run("document.querySelector('.row.found').textContent")
    first = browser.run("document.querySelector('.row.found').style.top")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter")
    assert browser.run("byId('matches').textContent").startswith("2 of")
    assert browser.run("document.querySelector('.row.found').style.top") != first
    browser.call("Input.insertText", text="no such text")
    assert browser.run("byId('matches').textContent") == "0 found"


def test_columns_can_be_shown_and_hidden(browser: Browser) -> None:
    names = browser.run("[...byId('targets').children].map((b) => b.textContent)")
    assert names[:5] == ["ir", "llvm", "scalar", "simd", "ptx"]
    shown = browser.run("columns.filter((c) => !c.box.hidden).length")
    browser.run("[...byId('targets').children].find((b) => b.getAttribute('aria-pressed') === 'false').click()")
    assert browser.run("columns.filter((c) => !c.box.hidden).length") == shown + 1
    rows = browser.run("columns.filter((c) => !c.box.hidden).map((c) => c.list.querySelectorAll('.row').length)")
    assert min(rows) > 10


def test_what_ran_is_told(browser: Browser) -> None:
    x, y, _ = place_of(browser, 0, "row.textContent.includes('c.addi sp, -32')")
    browser.mouse(x, y)
    told = browser.run("byId('detail').textContent")
    assert "ran 8 times, in 8 of 8 lanes" in told
    parted = browser.run(
        "Object.entries(data.run.branches).filter(([, b]) => b.parts).map(([g]) => (tell(Number(g)), byId('detail').textContent))"
    )
    assert parted
    assert all("lanes part here" in text for text in parted)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read(browser: Browser, scheme: str) -> None:
    """Text on its background, by WCAG 2's contrast: 4.5 to 1 at least, marked lines too."""
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.run("pin(1, null)")

    def luminance(colour: str) -> float:
        parts = np.array([float(n) for n in re.findall(r"[\d.]+", colour)[:3]]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    pairs: list[list[str]] = browser.run(
        "(() => { const back = (e) => { while (e) { const c = getComputedStyle(e).backgroundColor;"
        "if (c !== 'rgba(0, 0, 0, 0)') return c; e = e.parentElement; } return 'rgb(255, 255, 255)'; };"
        "return [...document.querySelectorAll('.row, .row span, header span, .head b, footer div, footer span')]"
        ".filter((e) => e.textContent.trim()).map((e) => [getComputedStyle(e).color, back(e), e.textContent]); })()"
    )
    assert len(pairs) > 100
    for text, back, what in pairs:
        bright, dark = sorted((luminance(text), luminance(back)), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, (text, back, what)


def test_a_picture_shows_lines(browser: Browser) -> None:
    picture = browser.picture()
    assert picture.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", picture[16:24])
    assert width >= 1400
    assert height >= 600
    assert len(picture) > 100_000  # an empty page has some thousand bytes


SCROLL = """new Promise((done) => {
  const work = [];
  let n = 0;
  function frame() {
    const started = performance.now();
    columns.forEach((column, i) => { column.list.scrollTop += 20 + 30 * i; column.draw(); });
    const rows = columns[0].list.querySelectorAll('.row');
    rows[n % rows.length].dispatchEvent(new MouseEvent('mousemove', {bubbles: true}));
    document.body.offsetHeight;
    work.push(performance.now() - started);
    if (++n < 120) requestAnimationFrame(frame); else done(work);
  }
  requestAnimationFrame(frame);
})"""


def test_scrolling_and_pointing_keep_up(browser: Browser) -> None:
    """Only what is in view is in the document, however far it is scrolled, and a frame's work is small."""
    work: list[Any] = browser.run(SCROLL)
    rows = browser.run("document.querySelectorAll('.row').length")
    assert rows < 800
    assert sorted(work)[len(work) // 2] < 16.7  # half of the frames, on a machine that may be busy


def test_jupyter_shows_it(browser: Browser, tmp_path: Path) -> None:
    shown = vmjit.load(guest("crc32")).explain("update", targets=["ir", "scalar"])._repr_html_()
    path = tmp_path / "notebook.html"
    path.write_text(f"<script>window.ready = Promise.resolve()</script>{shown}", encoding="utf-8")
    browser.open(path)
    inside = browser.run(
        "document.querySelector('iframe').contentWindow.ready.then(() => "
        "document.querySelector('iframe').contentDocument.querySelectorAll('.row').length)"
    )
    assert inside > 20
