"""The benchmark harness: what it compares, how it reads figures off, the programs it times."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rich.console import Console

import vmjit
from benchmarks.compile_costs import LOOP_INSTRUCTIONS, PIPELINE, cost_name, hot_loop
from benchmarks.counts import Counted, callgrind_counts, check
from benchmarks.counts import Row as CountRow
from benchmarks.guests.build import ALL_BENCHMARKS, BENCHMARKS, BIN_DIR, targets_of
from benchmarks.measure import make_row
from benchmarks.report import summaries, target_lines
from benchmarks.results_file import Results, Row, empty_results
from benchmarks.run import PARTS, parse_arguments
from benchmarks.small_costs import dirtying_program
from benchmarks.targets import reached
from vmjit.bench.contestants import Run, Sampled
from vmjit.bench.guests import make_input
from vmjit.bench.rounds import disagreement


def answer(*lanes: int) -> list[bytes]:
    return [lane.to_bytes(4, "little") for lane in lanes]


def row(guest: str, seconds: dict[str, float], isa: str = "rv32im") -> Row:
    """A row of one round in which everybody agrees; each contestant's ratio to native."""
    runs = {name: [Run(s, s, answer(1), 10**6)] for name, s in seconds.items()}
    return make_row(guest, isa, 4096, 1, runs, [(name, "native") for name in seconds if name != "native"], {})


def line(results: Results, what: str, isa: str) -> tuple[float | None, bool | None, str]:
    (found,) = (t for t in reached(results) if t["what"] == what and t["isa"] == isa)
    return found["reached"], found["met"], found["guest"]


# -- answers


def test_a_sample_is_compared_in_its_own_lanes() -> None:
    whole = Run(1.0, 1.0, answer(1, 2, 3, 4), 40)
    assert not disagreement({"a": [whole], "b": [Run(1.0, 1.0, answer(1, 3), every=2)]})
    assert not disagreement({"a": [Run(1.0, 1.0, answer(1, 3), every=2)], "b": [Run(1.0, 1.0, answer(1), every=4)]})
    assert "answers differ" in disagreement({"a": [whole], "b": [Run(1.0, 1.0, answer(1, 4), every=2)]})


def test_lanes_outside_a_sample_are_compared_among_the_others() -> None:
    runs = {
        "a": [Run(1.0, 1.0, answer(1, 2, 3, 4))],
        "b": [Run(1.0, 1.0, answer(1, 9, 3, 4))],
        "sample": [Run(1.0, 1.0, answer(1, 3), every=2)],
    }
    assert "answers differ" in disagreement(runs)


def test_an_answer_that_is_missing_differs() -> None:
    assert "answers differ" in disagreement({"a": [Run(1.0, 1.0, answer(1, 2))], "b": [Run(1.0, 1.0, answer(1))]})


def test_a_sample_s_time_is_scaled_to_all() -> None:
    class Inner:
        name = "inner"
        seen: list[bytes] = []

        def warm(self, inputs: Any) -> None: ...

        def measure(self, inputs: Any) -> Run:
            self.seen = list(inputs)
            return Run(2.0, 3.0, [], 100)

        def close(self) -> None: ...

    inner = Inner()
    inputs = [make_input(seed, 1) for seed in range(8)]
    run = Sampled(inner, 4).measure(inputs)
    assert (run.seconds, run.cpu_seconds, run.every, run.instructions) == (8.0, 12.0, 4, 0)
    assert inner.seen == [inputs[0], inputs[4]]


def test_cpu_time_counts_only_where_both_have_it() -> None:
    runs = {
        "auto": [Run(2.0, 1.0, answer(1))],
        "two cores": [Run(1.0, 1.9, answer(1))],
        "native": [Run(4.0, 4.0, answer(1))],
    }
    pairs = [("auto", "native"), ("two cores", "auto"), ("two cores", "native")]
    found = make_row("crc32", "rv32im", 4096, 1, runs, pairs, {"auto": "cpu", "two cores": "run"})["ratios"]
    assert {name: summary["median"] for name, summary in found.items()} == {
        "auto : native": 4.0,
        "two cores : auto": 2.0,
        "two cores : native": 4.0,
    }


# -- counts


def test_generated_code_is_told_from_the_rest() -> None:
    dump = """events: Ir

ob=(1) /lib/libpython.so
fn=(1) call
0 100
cob=(2) ???
calls=1 0
0 7000

ob=(2) ???
fn=(2) 0x4000
0 5
+3 6
"""
    assert callgrind_counts(dump.splitlines()) == Counted(total=111, generated=11)


@pytest.mark.parametrize(("figure", "fine", "says"), [(1.03, True, ""), (1.1, False, "MORE"), (0.9, True, "fewer")])
def test_only_more_instructions_are_a_failure(figure: float, fine: bool, says: str) -> None:
    def rows(generated: float) -> list[CountRow]:
        return [CountRow("crc32", "rv32im", "scalar", 2.0, generated)]

    console = Console(width=200)
    with console.capture() as captured:
        assert check(rows(1.0), rows(figure), console) is fine
    assert says in captured.get()
    assert bool(captured.get()) is bool(says)


# -- what must be reached


def test_means_and_worst_are_by_kind() -> None:
    results = empty_results({}, {}, {})
    results["batch"] = [
        row("crc32", {"auto": 0.25, "native": 1.0}),
        row("sha256", {"auto": 1.0, "native": 1.0}),
        row("sort", {"auto": 2.0, "native": 1.0}),
        row("crc32", {"auto": 100.0, "native": 1.0}, isa="rv64imac"),
    ]
    assert line(results, "batch, auto : native, guests that agree, mean", "rv32im") == (pytest.approx(2.0), False, "")
    assert line(results, "batch, auto : native, guests that agree, worst", "rv32im") == (1.0, True, "sha256")
    assert line(results, "batch, auto : native, guests that part, mean", "rv32im") == (pytest.approx(0.5), False, "")
    assert line(results, "batch, auto : native, all guests, mean", "rv32im") == (pytest.approx(2 ** (1 / 3)), False, "")
    mean, worst = summaries(results["batch"][:3], "ratios")
    assert mean == {"auto : native": "1.26"}
    assert worst == {"auto : native": "0.50 sort"}


def test_a_row_whose_answers_differ_has_no_figures() -> None:
    results = empty_results({}, {}, {})
    results["batch"] = [row("crc32", {"auto": 0.1, "native": 1.0}), row("sha256", {"auto": 0.2, "native": 1.0})]
    results["batch"][0]["agree"] = False
    assert line(results, "batch, auto : native, guests that agree, mean", "rv32im") == (pytest.approx(5.0), True, "")


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    found = reached(empty_results({}, {}, {}))
    assert found
    assert all(target["reached"] is None and target["met"] is None for target in found)


def test_costs_have_their_lines() -> None:
    results = empty_results({}, {}, {})
    value = {"median": 5000.0, "min": 5000.0, "max": 5000.0}
    results["compile_costs"] = [{"name": cost_name(PIPELINE, "rv32im"), "unit": "", "value": value}]  # type: ignore[typeddict-item]
    what = "whole pipeline, cold, guest instructions/s"
    assert line(results, what, "rv32im") == (5000.0, True, "")
    assert line(results, what, "rv64imac") == (None, None, "")
    header, lines = target_lines(reached(results))
    assert header == ["", "rv32im", "reached"]
    assert [what, "≥ 4000", "5,000 ✓"] in lines


# -- the command line


def test_parts_are_named_with_commas() -> None:
    assert parse_arguments(["--part", "batch,small"]).part == ["batch", "small"]
    assert parse_arguments([]).part == list(PARTS)
    with pytest.raises(SystemExit):
        parse_arguments(["--part", "batch,nothing"])


def test_many_lanes_are_a_multiple() -> None:
    assert parse_arguments(["--lanes", "100"]).many == 1600
    with pytest.raises(SystemExit):
        parse_arguments(["--lanes", "100", "--many", "250"])


# -- what is run


def test_every_guest_is_built_and_said_to_be_of_a_kind() -> None:
    files = {f"{guest}.{target.name}.elf" for guest in ALL_BENCHMARKS for target in targets_of(guest)}
    assert files == {path.name for path in BIN_DIR.glob("*.elf")}
    assert all(character.kinds for character in ALL_BENCHMARKS.values())
    assert {character.lanes for character in BENCHMARKS.values()} == {"agree", "part"}


@pytest.mark.parametrize("isa", ["rv32im", "rv64im"])
def test_the_hot_loop_has_its_instructions_and_ends(isa: str) -> None:
    machine = vmjit.Machine(vmjit.Program.from_bytes(hot_loop(), isa), tier="interpreter", memory="16KiB")
    assert machine.run().stops() == {"EXIT": 1}
    assert len(hot_loop()) == 4 * (LOOP_INSTRUCTIONS + 4)
    # A fifth of a part is behind a branch, and the others are executed fifty times.
    assert 0.9 * 50 * LOOP_INSTRUCTIONS < machine.retired[0] <= 50 * LOOP_INSTRUCTIONS + 4


def test_the_dirtying_program_writes_a_whole_page() -> None:
    machine = vmjit.Machine(vmjit.Program.from_bytes(dirtying_program(), "rv64i"), 2, memory="16KiB")
    assert machine.run().stops() == {"EXIT": 2}
    top = int(machine.registers["sp"][0]) & -4096
    words = np.ascontiguousarray(machine.memory.read(top - 4096, 4096)).view(np.uint64)
    assert words.tolist() == [list(range(1, 513))] * 2
