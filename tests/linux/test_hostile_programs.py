"""Programs that take all they can get: each ends with a clear stop, and the lanes beside it come out unharmed."""

from __future__ import annotations

import numpy as np
import pytest

import vmjit
from tests.linux.build import path_of
from vmjit import Machine, RunResult, Stop

XLENS = pytest.mark.parametrize("xlen", [32, 64])
WAYS = ("recurse", "map", "holes", "touch", "write", "fork", "open", "good")
TIMES = 4
"""Lanes of each way, one after the other, so that they share groups."""


def machine(xlen: int, tier: str, ways: tuple[str, ...] = WAYS, **options: object) -> Machine:
    program = vmjit.load(path_of("hostile", xlen))
    arguments = [["hostile", way] for way in ways * TIMES]
    return Machine(program, len(arguments), "cpu", tier, lane_arguments=arguments, **options)  # type: ignore[arg-type]


def by_way(result: RunResult, way: str, ways: tuple[str, ...] = WAYS) -> list[tuple[str, int, bytes]]:
    """(stop, exit code, output) of the lanes that went it."""
    lanes = range(ways.index(way), len(ways) * TIMES, len(ways))
    return [(Stop(int(result.stop[i])).name, int(result.exit_code[i]), result.output(i)) for i in lanes]


@XLENS
@pytest.mark.parametrize("tier", ["interpreter", pytest.param("auto", marks=pytest.mark.slow)])
def test_each_ends_and_harms_nobody(xlen: int, tier: str) -> None:
    m = machine(xlen, tier, memory="16MiB", memory_limit="64MiB")
    r = m.run(max_seconds=100)
    assert not r.timed_out
    assert by_way(r, "good") == [("EXIT", 7, b"good\n")] * TIMES
    assert {stop for stop, _, _ in by_way(r, "recurse")} <= {"FAULT", "MEMORY"}
    assert by_way(r, "fork") == [("EXIT", 7, b"alone\nfork\n")] * TIMES
    assert by_way(r, "open") == [("EXIT", 7, b"no no no no no \nopen\n")] * TIMES
    assert by_way(r, "holes") == [("EXIT", 7, b"holes, up to a limit\nholes\n")] * TIMES
    for stop, code, output in by_way(r, "map"):
        assert (stop, code) in (("EXIT", 7), ("MEMORY", -1))
        assert output == b"mapped all\nmap\n" or stop == "MEMORY"
    assert {(stop, code) for stop, code, _ in by_way(r, "touch")} <= {("MEMORY", -1), ("EXIT", 5)}
    for stop, _, output in by_way(r, "write"):
        assert stop == "MEMORY"
        assert output == b"x" * len(output)
        assert len(output) > 100_000
    assert "clone" in r.unknown_call_names or "fork" in r.unknown_call_names
    assert not r.successful
    again = m.run()
    assert (again.retired[r.stop == int(Stop.MEMORY)] == 0).all(), "they are at their end"


@pytest.mark.parametrize("tier", ["interpreter", "scalar", "auto", "simd"])
def test_lanes_over_their_share(tier: str) -> None:
    """As long as there is room, lanes may have any part of it; then those over their share stop, and only they."""
    ways = ("touch", "good")
    m = machine(64, tier, ways, memory="64MiB", memory_limit="1GiB")
    r = m.run(max_seconds=60)
    assert {(s, c) for s, c, _ in by_way(r, "touch", ways)} == {("EXIT", 5)}, "mmap gave none any more"
    small = machine(64, tier, ways, memory="64MiB", memory_limit="40MiB")
    r = small.run(max_seconds=60)
    assert by_way(r, "good", ways) == [("EXIT", 7, b"good\n")] * TIMES
    stopped = r.stop == int(Stop.MEMORY)
    assert stopped.any()
    own = small._lane_memory.own_bytes_of_lanes()  # type: ignore[union-attr]
    assert own[stopped].max() < 64 * 4096, "it was given back"
    assert own.sum() < 3 * 40 << 20
    small.reset()
    r = small.run(max_instructions=2000)
    assert not (r.stop == int(Stop.MEMORY)).any()
    assert np.isin(r.stop, (int(Stop.EXIT), int(Stop.BUDGET))).all()


def test_random_bytes_as_programs() -> None:
    """Code that is none: each lane stops, whatever it did."""
    random = np.random.default_rng(5)
    for _ in range(20):
        code = random.integers(0, 256, 400, np.uint8).tobytes()
        program = vmjit.Program.from_bytes(code, "rv64gc")
        m = Machine(program, 5, "cpu", "interpreter", memory="64KiB", environment="linux", memory_limit="64MiB")
        m.registers["a0"] = random.integers(0, 1 << 32, 5)
        m.pc = program.entry + 2 * random.integers(0, 200, 5)
        r = m.run(max_instructions=10_000)
        assert set(r.stop.tolist()) <= {
            int(s) for s in (Stop.EXIT, Stop.FAULT, Stop.BUDGET, Stop.EBREAK, Stop.UNSUPPORTED)
        }
