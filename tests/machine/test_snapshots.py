"""Snapshots: what lanes do from one is what they did, on every tier; of one lane for all; as files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import guest
from tests.machine.harness import A0, A1, A2, A7, CODE, DATA, EVERYWHERE, S0, S1, SP, T0, T1, TIERS, ZERO, Assembly
from vmjit import ArgumentError, Machine, RunResult, Snapshot, SnapshotError, Stop, lane_rows, load
from vmjit.decoders.riscv.isa import parse_isa
from vmjit.program import Program, Segment

both = pytest.mark.parametrize("xlen", [32, 64])
PAGE = 4096


def counting(xlen: int, *, writable: bool = True) -> Program:
    """Reads a byte of input, sums a table that it has made, in steps of the byte, writes to its stack, and exits with
    the sum; data are at `DATA`, on two pages."""
    a = Assembly(xlen)
    word = 4
    a.put("lui", S0, imm=DATA >> 12)
    a.put("addi", T0, ZERO, imm=1000)
    a.label("fill")
    a.put("sw", 0, S0, T0)
    a.put("addi", S0, S0, imm=word)
    a.put("addi", T0, T0, imm=-1)
    a.put("bne", rs1=T0, to="fill")
    a.label("ready")
    a.put("addi", A0, ZERO, imm=0)
    a.put("addi", A1, SP, imm=-64)
    a.put("addi", A2, ZERO, imm=1)
    a.put("addi", A7, ZERO, imm=63)
    a.put("ecall")
    a.put("lbu", T1, SP, imm=-64)
    a.put("addi", S1, ZERO, imm=0)
    a.put("addi", T0, ZERO, imm=1000)
    a.label("sum")
    a.put("addi", S0, S0, imm=-word)
    a.put("lw", A2, S0)
    a.put("mul", A2, A2, T1)
    a.put("add", S1, S1, A2)
    a.put("sw", 0, S0, S1)
    a.put("addi", T0, T0, imm=-1)
    a.put("bne", rs1=T0, to="sum")
    a.put("sw", 0, SP, S1, imm=-64)
    for register, number in ((A0, 1), (A2, 4), (A7, 64)):
        a.put("addi", register, ZERO, imm=number)
    a.put("ecall")
    a.put("addi", A0, S1)
    a.put("addi", A7, ZERO, imm=93)
    a.put("ecall")
    permissions = 7 if writable else 5
    segments = (Segment(CODE, len(a.code), a.code, permissions), Segment(DATA, 2 * PAGE, b"some data", 3))
    return Program(segments, CODE, parse_isa(f"rv{xlen}imac"), dict(a.labels))


READY = 3 + 4 * 1000 - 1  # instructions until then


def outcome(m: Machine, r: RunResult) -> list[Any]:
    """All that can be seen of a run."""
    lanes = range(m.lanes)
    arrays = [r.stop, r.exit_code, m.retired, m.pc, m.registers.array(), m.memory.read(DATA, 2 * PAGE)]
    outputs = [(r.output(i), r.error_output(i)) for i in lanes]
    return [*(a.tolist() for a in arrays), m.memory.read(CODE, 64).tolist(), outputs]


@both
@pytest.mark.parametrize(("device", "tier"), EVERYWHERE)
def test_the_same_again(xlen: int, device: str, tier: str) -> None:
    """From the start, from the middle and from the end, in turns; with other inputs, the others."""
    lanes = 70
    m = Machine(counting(xlen), lanes, device, tier)
    m.set_input([bytes([i]) for i in range(lanes)])
    start = m.snapshot()
    m.run(max_instructions=5000)
    middle = m.snapshot()
    halfway = outcome(m, m.run(max_instructions=0))
    expected = outcome(m, m.run())
    end = m.snapshot()
    for snapshot in (middle, start, start, middle, middle):
        m.restore(snapshot)
        assert outcome(m, m.run()) == expected
    m.restore(end)
    assert outcome(m, m.run()) == expected
    m.restore(middle)
    assert outcome(m, m.run(max_instructions=0)) == halfway
    m.restore(start)
    m.set_input(b"\x07")
    seven = m.run()
    assert (seven.exit_code == expected[1][7]).all()
    m.reset()
    assert m.run().exit_code.tolist() == seven.exit_code.tolist(), "inputs outlast a reset"


@both
@pytest.mark.parametrize(("device", "tier"), EVERYWHERE)
def test_one_lane_for_all(xlen: int, device: str, tier: str) -> None:
    """A start-up that is run once, and inputs from there."""
    lanes = 70
    p = counting(xlen)
    one = Machine(p, 3, device, "interpreter")
    one.run(max_instructions=READY)
    assert (one.pc == p.symbols["ready"]).all()
    snapshot = one.snapshot(lane=2)
    assert snapshot.lanes == 1
    m = Machine(p, lanes, device, tier)
    for _ in range(3):
        m.restore(snapshot)
        m.set_input([bytes([i]) for i in range(lanes)])
        r = m.run()
        apart = Machine(p, lanes, "cpu", "interpreter")
        apart.set_input([bytes([i]) for i in range(lanes)])
        expected = apart.run()
        assert r.exit_code.tolist() == expected.exit_code.tolist()
        assert [r.output(i) for i in range(lanes)] == [expected.output(i) for i in range(lanes)]
        assert (m.registers["a0"] == apart.registers["a0"]).all()
        assert (m.memory.read(DATA, 2 * PAGE) == apart.memory.read(DATA, 2 * PAGE)).all()
        assert (m.retired == apart.retired).all()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux maps an image")
@pytest.mark.parametrize("tier", TIERS)
def test_mapped_memory(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same from an image that lanes share, whose pages are theirs once written; groups of lanes too."""
    monkeypatch.setattr(lane_rows, "_MAPPED_FROM", 0)
    monkeypatch.setattr(lane_rows, "_MOST_MAPPINGS", 10)
    test_the_same_again(64, "cpu", tier)
    test_one_lane_for_all(32, "cpu", tier)


@pytest.mark.parametrize("tier", TIERS)
def test_only_what_was_touched(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes that did not run since are left alone."""
    p = counting(64)
    m = Machine(p, 40, "cpu", tier)
    m.set_input([bytes([i]) for i in range(40)])
    m.run(max_instructions=READY)
    snapshot = m.snapshot()
    before = m.memory.read(DATA, 2 * PAGE)
    m.restore(snapshot)
    renewed: list[int] = []
    original = Snapshot.renew_memory

    def renew(self: Snapshot, memory: Any, lanes: Any) -> None:
        renewed.append(int(lanes.sum()))
        original(self, memory, lanes)

    monkeypatch.setattr(Snapshot, "renew_memory", renew)
    m.pc = np.where(np.arange(40) % 4 == 0, p.symbols["ready"], CODE + 2)  # the others fault at once, misaligned
    m._state.stop[np.arange(40) % 4 != 0] = int(Stop.EXIT)
    m.run()
    m.restore(snapshot)
    m.restore(snapshot)
    assert renewed == [10]
    assert (m.memory.read(DATA, 2 * PAGE) == before).all()
    m.memory.write(DATA, b"from the host")
    m.restore(snapshot)
    assert (m.memory.read(DATA, 2 * PAGE) == before).all()
    assert len(set(m.run().exit_code.tolist())) > 20


def test_changed_code() -> None:
    """What lanes wrote to their code is undone, and done."""
    p = counting(64)
    m = Machine(p, 4)
    m.set_input(b"\x05")
    fresh = m.snapshot()
    expected = m.run().exit_code.tolist()
    m.restore(fresh)
    code = m.memory.read(CODE, 4)[0].tobytes()
    m.memory.write(CODE, bytes.fromhex("73001000"))  # ebreak
    broken = m.snapshot()
    assert m.run().stops() == {"EBREAK": 4}
    m.restore(fresh)
    assert m.memory.read(CODE, 4)[0].tobytes() == code
    assert m.run().exit_code.tolist() == expected
    m.restore(broken)
    assert m.run().stops() == {"EBREAK": 4}


def test_segments_of_their_own() -> None:
    """The host gave each lane other bytes in a read-only segment: snapshots know of it, and of when it was not so."""
    p = counting(64, writable=False)
    m = Machine(p, 3)
    m.set_input(b"\x05")
    shared = m.snapshot()
    expected = m.run().exit_code.tolist()
    m.reset()
    rows = np.repeat(m.memory.read(CODE, 4), 1, axis=0)
    rows[1] = np.frombuffer(bytes.fromhex("73001000"), np.uint8)
    m.memory.write(CODE, rows)
    split = m.snapshot()
    lane = m.snapshot(lane=1)
    for _ in range(2):
        assert m.run().stops() == {"EXIT": 2, "EBREAK": 1}
        m.restore(shared)
        assert m.run().exit_code.tolist() == expected
        m.restore(lane)
        assert m.run().stops() == {"EBREAK": 3}
        m.restore(split)


def test_streams_and_break_go_back() -> None:
    p = load(guest("echo", "rv64imac"))
    m = Machine(p, 5)
    m.set_input([b"a%d\nsecond line\n" % i for i in range(5)])
    halves = m.run(max_instructions=300)
    middle = m.snapshot()
    outputs = [halves.output(i) for i in range(5)]
    end = m.run()
    expected = [end.output(i) for i in range(5)]
    m.restore(middle)
    assert [halves.output(i) for i in range(5)] == outputs
    assert [m.run().output(i) for i in range(5)] == expected
    other = Machine(p, 200)
    m.restore(middle)
    other.restore(m.snapshot(lane=3))
    done = other.run()
    assert [done.output(i) for i in range(200)] == [expected[3]] * 200


@pytest.mark.parametrize("lane", [None, 1])
@both
def test_files(xlen: int, lane: int | None, tmp_path: Path) -> None:
    p = counting(xlen)
    m = Machine(p, 3)
    m.set_input([b"\x01", b"\x02", b"\x03"])
    m.run(max_instructions=READY + 20)
    m.snapshot(lane).save(tmp_path / "s")
    expected = outcome(m, m.run())
    again = Machine(p, 3, tier="interpreter")
    again.restore(Snapshot.load(tmp_path / "s"))
    found = outcome(again, again.run())
    assert found == expected if lane is None else found[0:2] == [[x[1]] * 3 for x in expected[0:2]]
    assert [path.name for path in tmp_path.iterdir()] == ["s"], "no other file is left"


def test_snapshots_of_other_machines(tmp_path: Path) -> None:
    p = counting(64)
    m = Machine(p, 3)
    s = m.snapshot()
    for other, what in (
        (Machine(p, 4), "3 lanes"),
        (Machine(counting(64, writable=False), 3), "another program"),
        (Machine(p, 3, memory="2MiB"), "bytes of heap"),
        (Machine(p, 3, environment="linux", memory="1MiB"), "another environment"),
    ):
        before = other.registers.array()
        with pytest.raises(SnapshotError, match=what):
            other.restore(s)
        assert (other.registers.array() == before).all()
    for lane in (-1, 3, "x", True):
        with pytest.raises(ArgumentError):
            m.snapshot(lane=lane)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="Snapshot"):
        m.restore("s")  # type: ignore[arg-type]
    with pytest.raises(SnapshotError, match="No such file"):
        Snapshot.load(tmp_path / "none")
    with pytest.raises(SnapshotError, match="cannot be written"):
        s.save(tmp_path / "no" / "folder")
