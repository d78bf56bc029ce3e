"""Rows: with planted times, on no clock."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest

from tests.bench.fakes import Fake, results, row
from vmjit.bench.contestants import Inputs, Run
from vmjit.bench.guests import bundled_guest
from vmjit.bench.measure import overhead
from vmjit.bench.self_check import findings
from vmjit.bench.sheets import sheets, speed_sheet


def cells(name: str, found: object) -> list[str]:
    (line,) = [line for line in found.lines if line[0] == name]  # type: ignore[attr-defined]
    return list(line)


def test_planted_times_come_out() -> None:
    found = row(Fake("vmjit auto", 1e-3, start=5e-3), Fake("slow", 3e-3, start=50e-3), lanes=8, repeat=10)
    for name, work, start in (("vmjit auto", 1e-3, 5e-3), ("slow", 3e-3, 50e-3)):
        entry = found["entries"][name]
        assert entry["steady"] == pytest.approx([8 * 10 * work] * 7)
        assert entry["instance"] == pytest.approx([start + 10 * work] * 7)
        assert entry["fixed"] == pytest.approx([start] * 7)
        assert entry["phases"] == {"run": pytest.approx(start + 10 * work)}
    ratio = found["ratios"]["vmjit auto : slow"]
    assert (ratio["median"], ratio["differs"]) == (pytest.approx(3.0), True)
    assert found["instructions"] == 8 * 10 * 1000


def test_an_empty_guest_measures_as_nothing() -> None:
    guest = bundled_guest("empty")
    found = row(Fake("vmjit auto", 1e-3, start=20e-3), Fake("peer", 1e-3, start=2.0), guest=guest)
    assert all(entry["steady"] == [0.0] * 7 for entry in found["entries"].values())
    assert not found["ratios"]
    sheet = speed_sheet(found, results([found]))
    assert cells("vmjit auto", sheet)[1].startswith("nothing")
    assert "too short to tell" in cells("peer", sheet)
    assert all(finding.fine for finding in findings(results([found])))


def test_one_that_is_not_empty_is_noticed() -> None:
    found = row(Fake("vmjit auto", 1e-3, start=1e-3), guest=bundled_guest("empty"))
    found["entries"]["vmjit auto"]["steady"] = [3e-3] * 7
    (finding,) = findings(results([found]))
    assert not finding.fine


def test_equal_contestants_come_out_equal() -> None:
    found = row(Fake("vmjit auto", 1e-3, noise=0.04), Fake("again", 1e-3, noise=0.04))
    ratio = found["ratios"]["vmjit auto : again"]
    assert ratio["low"] <= 1 <= ratio["high"]
    assert not ratio["differs"]
    assert any("within noise" in text for text in cells("again", speed_sheet(found, results([found]))))
    (finding,) = findings(results([found]))
    assert finding.fine
    (finding,) = findings(results([row(Fake("vmjit auto", 1e-3), Fake("again", 1.1e-3))]))
    assert not finding.fine


def test_noise_that_is_larger_than_the_difference_leaves_no_ratio() -> None:
    found = row(Fake("vmjit auto", 1e-3, noise=0.5), Fake("peer", 1.05e-3, noise=0.5))
    assert not found["ratios"]["vmjit auto : peer"]["differs"]
    (text,) = [text for text in cells("peer", speed_sheet(found, results([found]))) if "noise" in text]
    assert text.startswith("within noise (±")


def test_answers_that_differ_leave_no_figures() -> None:
    liar = Fake("liar", 1e-3, answer=lambda data: b"lie")
    found = row(Fake("vmjit auto", 1e-3), liar)
    assert not found["agree"]
    assert "answers differ" in found["problem"]
    assert not found["ratios"]
    (sheet,) = sheets(results([found]))
    assert not sheet.lines
    assert "liar" in sheet.notes[0]


def test_one_lie_in_one_round_is_noticed() -> None:
    """Turns are three runs of four instances, of which the last is compared."""
    times = iter(range(1000))
    found = row(
        Fake("vmjit auto", 1e-3, answer=lambda data: b"lie!" if next(times) == 12 + 9 else data[:4]),
        Fake("b", 1e-3),
        repeat=2,
    )
    assert "not the same in every round" in found["problem"]


def test_samples_are_scaled_and_given_more_work() -> None:
    """A process start of 20 ms beside work of 10 µs."""
    found = row(Fake("vmjit auto", 1e-5), Fake("peer", 1e-5, start=20e-3), lanes=64, every=16, repeat=1)
    entry = found["entries"]["peer"]
    assert (entry["every"], entry["steady"]) == (16, pytest.approx([64 * 1e-5] * 7))
    assert entry["instance"] == pytest.approx([20e-3 + 1e-5] * 7)
    assert any("peer 1 in 16" in note for note in speed_sheet(found, results([found])).notes)


def test_turns_go_forth_and_back() -> None:
    log: list[str] = []
    row(Fake("a", 1e-3, log=log), Fake("b", 1e-3, log=log), rounds=3)
    # Each turn is a run without work that is not counted, one that is, and the run.
    assert "".join(log).endswith("aaabbb" + "bbbaaa" + "aaabbb")


def test_work_is_chosen_so_that_runs_take_as_long_as_asked() -> None:
    found = row(Fake("vmjit auto", 1e-4), Fake("peer", 1e-4), lanes=1, seconds=0.2)
    assert statistics.median(found["entries"]["vmjit auto"]["steady"]) == pytest.approx(0.2, rel=0.1)


def test_measuring_nothing_measures_next_to_nothing() -> None:
    """On the real clock; however busy the machine is, the quickest of many is quick."""
    assert 0 < min(overhead(200)) < 1e-4


def test_cpu_time_counts_where_it_is_asked_for() -> None:
    """Also for how much work there is: a busy machine is not to have less."""

    class Waits(Fake):
        def measure(self, inputs: Inputs) -> Run:
            run = super().measure(inputs)
            return replace(run, seconds=10 * run.seconds)

    found = row(Waits("vmjit auto", 1e-4), clock="cpu", lanes=1, seconds=0.2)
    assert statistics.median(found["entries"]["vmjit auto"]["steady"]) == pytest.approx(0.2, rel=0.1)
