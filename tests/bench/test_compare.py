"""Old against new."""

from __future__ import annotations

import pytest

from tests.bench.fakes import Fake, results, row
from vmjit.bench.compare import SAME, Change, compare, regressions
from vmjit.bench.results_file import Results


def session(work: float, *, noise: float = 0.02, machine: float = 1.0, peer: bool = True, repeat: int = 10) -> Results:
    """vmjit with `work` a repeat, on a machine that takes `machine` times as long for everything."""
    peers = [Fake("native", machine * 1e-3, noise=noise)] if peer else []
    return results([row(Fake("vmjit auto", machine * work, noise=noise), *peers, repeat=repeat)])


def verdicts(old: Results, new: Results) -> dict[str, str]:
    return {change.figure: change.verdict for change in compare(old, new)[0]}


@pytest.mark.parametrize("peer", [True, False])
def test_what_got_slower_and_what_got_faster(peer: bool) -> None:
    old = session(1e-3, peer=peer)
    assert verdicts(old, session(1.2e-3, peer=peer))["steady state"] == "slower"
    assert verdicts(old, session(0.8e-3, peer=peer))["steady state"] == "faster"
    assert set(verdicts(old, session(1.01e-3, peer=peer)).values()) == {SAME}
    assert not regressions(compare(old, old)[0])


def test_noise_is_no_regression() -> None:
    assert not regressions(compare(session(1e-3, noise=0.4), session(1.15e-3, noise=0.4))[0])


def test_a_machine_that_is_slower_today_is_no_regression() -> None:
    """Speeds are taken in relation to a peer that both files have."""
    old, slow_day = session(1e-3), session(1e-3, machine=1.7)
    (change, *_) = compare(old, slow_day)[0]
    assert (change.by, change.verdict, change.ratio) == ("native", SAME, pytest.approx(1, abs=0.05))
    assert regressions(compare(session(1e-3, peer=False), session(1e-3, machine=1.7, peer=False))[0])


def test_fewer_than_five_rounds_tell_nothing() -> None:
    old, new = session(1e-3, noise=0), session(2e-3, noise=0)
    for entry in (*old["rows"][0]["entries"].values(), *new["rows"][0]["entries"].values()):
        entry["steady"], entry["instance"] = entry["steady"][:4], entry["instance"][:4]
    assert not regressions(compare(old, new)[0])


def test_first_results_and_memory_have_wide_margins() -> None:
    old, new = session(1e-3), session(1e-3)
    old["rows"][0]["entries"]["vmjit auto"] |= {"first": [1.0, 1.1, 1.2], "memory": [1000.0]}
    new["rows"][0]["entries"]["vmjit auto"] |= {"first": [1.3, 1.4, 1.45], "memory": [1050.0]}
    assert not regressions(compare(old, new)[0])
    new["rows"][0]["entries"]["vmjit auto"] |= {"first": [1.6, 1.7, 1.8], "memory": [1200.0]}
    assert [change.figure for change in regressions(compare(old, new)[0])] == ["first result", "memory"]


def test_answers_that_differ_now_are_a_regression() -> None:
    new = session(1e-3)
    new["rows"][0] |= {"agree": False, "problem": "answers differ"}
    (change,) = regressions(compare(session(1e-3), new)[0])
    assert isinstance(change, Change)
    assert change.verdict == "answers differ"


def test_other_work_and_other_processors() -> None:
    """What an instance costs holds its repeats; what it is in relation to a peer with as many does not."""
    old, new = session(1e-3, peer=False), session(1e-3, peer=False, repeat=20)
    assert verdicts(old, new) == {}
    new = session(2e-3)
    new["machine"]["cpu"] = "Another processor"
    new["rows"][0]["entries"]["vmjit auto"]["first"] = [9.0] * 3
    old = session(1e-3)
    old["rows"][0]["entries"]["vmjit auto"]["first"] = [1.0] * 3
    assert set(verdicts(old, new)) == {"steady state", "an instance"}


def test_rows_that_are_gone_are_named() -> None:
    old, new = session(1e-3), session(1e-3)
    new["rows"] = []
    assert compare(old, new) == ([], ["crc32 rv64imac, 4 lanes"])
