"""Devices that fail: the lanes go on from their last good state on the CPU, with the results they would have had."""

from __future__ import annotations

import gc
import logging
import struct
from collections.abc import Iterator

import numpy as np
import pytest

import vmjit
from tests.cli.conftest import guest
from tests.devices.flaky import FlakyDevice, flaky, flaky_gpus
from tests.differential.oracles import machine, program
from tests.machine.harness import DATA
from tests.machine.interrupted import writer
from vmjit import RunResult, Stop

LANES = 37
INPUTS = [struct.pack("<II", seed, 1) for seed in range(LANES)]


@pytest.fixture(autouse=True)
def _gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with flaky_gpus(monkeypatch, 2):
        yield


def crc() -> vmjit.Program:
    return vmjit.load(guest("crc32", "rv32im"))


def new(device: str, **options: object) -> vmjit.Machine:
    m = vmjit.Machine(crc(), LANES, device, "interpreter", "16KiB", **options)  # type: ignore[arg-type]
    m.set_input(INPUTS)
    return m


def same(m: vmjit.Machine, got: RunResult, want: vmjit.Machine, expected: RunResult) -> None:
    assert got.stops() == expected.stops()
    assert [got.output(i) for i in range(LANES)] == [expected.output(i) for i in range(LANES)]
    assert (m.retired == want.retired).all()
    assert (m.pc == want.pc).all()
    assert (m.registers.array() == want.registers.array()).all()
    for span in want._layout.spans:
        assert (m.memory.read(span.lo, span.size) == want.memory.read(span.lo, span.size)).all()


CUES = [
    *(("allocate", n) for n in (1, 2, 4, 7)),  # the sixth can be done without
    *(("copy_to", n) for n in (1, 3, 6, 9)),
    *(("copy_from", n) for n in (1, 2, 3)),
    ("scatter", 1),
    ("gather", 1),
    ("launch", 1),
    ("launch", 3),
    ("synchronize", 2),
]


def test_memory_for_outputs_can_be_done_without() -> None:
    want = new("cpu")
    expected = want.run()
    flaky().fail["allocate"] = 6
    m = new("flaky", fallback=False)
    same(m, m.run(), want, expected)
    assert flaky().calls["gather"] > 0


@pytest.mark.parametrize("lost", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize(("kind", "number"), CUES)
def test_whatever_fails_the_results_are_the_same(
    kind: str, number: int, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "gather":  # what lanes write is gathered where it is not kept on the device
        monkeypatch.setattr("vmjit.device_outputs._MOST", 0)
    want = new("cpu")
    expected = want.run()
    device = flaky()
    (device.lost_at if lost else device.fail)[kind] = number
    m = new("flaky")
    got = m.run()
    same(m, got, want, expected)
    assert device.calls[kind] >= number
    assert m.device == got.device == "cpu"
    (fallback,) = got.fallbacks
    assert fallback.device == "flaky"
    assert kind in fallback.reason
    assert m.statistics.fallbacks == 1
    m.reset()
    assert m.run().fallbacks == ()


@pytest.mark.parametrize(("kind", "number"), CUES)
def test_without_fallback_it_is_an_error(kind: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "gather":
        monkeypatch.setattr("vmjit.device_outputs._MOST", 0)
    flaky().fail[kind] = number
    with pytest.raises(vmjit.DeviceError, match=f"flaky: {kind} failed"):
        new("flaky", fallback=False).run()


def test_kernels_that_the_device_does_not_take() -> None:
    flaky().fail["load"] = 1
    got = new("flaky").run()
    assert "load failed" in got.fallbacks[0].reason
    assert not got.fallbacks[0].replayed
    assert got.stops() == {"EXIT": LANES}


@pytest.mark.parametrize("budget", [1000, 5000])
def test_a_device_that_vanishes_between_two_runs(budget: int) -> None:
    """With everything a host may do between runs: registers, memory, input. Nothing of it is lost, nothing is done
    twice."""

    place = crc().segments[-1].address

    def steps(m: vmjit.Machine, device: FlakyDevice | None) -> RunResult:
        m.run(budget)
        m.memory.write(place, np.arange(LANES * 8, dtype=np.uint8).reshape(LANES, 8))
        m.registers["t6"] = np.arange(LANES)
        m.run(budget)
        m.registers["t5"] = 7
        m.memory.write(place, b"late")
        if device is not None:
            device.lost = True
        return m.run(budget)

    want = new("cpu")
    expected = steps(want, None)
    m = new("flaky")
    got = steps(m, flaky())
    same(m, got, want, expected)
    assert [f.replayed for f in got.fallbacks] == [True]


def test_memory_of_a_device_that_vanished_can_be_read() -> None:
    want = new("cpu")
    want.run(3000)
    m = new("flaky")
    m.run(3000)
    flaky().lost = True
    for span in want._layout.spans:
        assert (m.memory.read(span.lo, span.size) == want.memory.read(span.lo, span.size)).all()
    same(m, m.run(), want, want.run())


def _many_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 for 60 writes of 8 instructions."""
    for name in ("FIRST", "MIN", "MAX"):
        monkeypatch.setattr(f"vmjit.device_part._{name}_QUANTUM", 12)


# Every second copy is of what lanes wrote.
LATE = [("synchronize", 30), ("copy_from", 40), ("copy_from", 41), ("copy_to", 90), ("launch", 30)]


@pytest.mark.parametrize("served", [False, True], ids=["kept on the device", "served"])
@pytest.mark.parametrize(("kind", "at"), LATE)
def test_outputs_are_not_written_twice(kind: str, at: int, served: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long run in which the device fails late, with states kept on the way and without."""
    if served:
        monkeypatch.setattr("vmjit.device_outputs._MOST", 0)
    _many_launches(monkeypatch)
    for seconds in (10.0, 0.0):
        monkeypatch.setattr("vmjit.recovery._SECONDS", seconds)
        monkeypatch.setattr("vmjit.recovery._COST_FACTOR", seconds)
        code = writer(60).code
        device = flaky()
        device.calls = dict.fromkeys(device.calls, 0)
        device.lost, device.lost_at = False, {kind: at}
        m = machine(program("rv64imac", code, data=(DATA, 64)), 2, "interpreter", device="flaky", fallback=True)
        m.registers["s1"] = DATA
        got = m.run()
        assert got.stops() == {"EXIT": 2}
        assert [got.output(lane) for lane in range(2)] == [bytes(range(60, 0, -1))] * 2
        assert m.retired.tolist() == [2 + 8 * 60 + 3] * 2
        assert [f.replayed for f in got.fallbacks] == [True]


@pytest.mark.parametrize(("kind", "at"), LATE)
def test_outputs_of_two_devices(kind: str, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one fails when what the lanes of the first wrote in the same pass is taken over already."""
    _many_launches(monkeypatch)
    program_ = program("rv64imac", writer(60).code, data=(DATA, 64))
    m = machine(program_, 70, "interpreter", device="flaky:all", fallback=True)
    flaky("flaky:1").lost_at[kind] = at
    m.registers["s1"] = DATA
    got = m.run()
    assert got.stops() == {"EXIT": 70}
    assert [got.output(lane) for lane in range(70)] == [bytes(range(60, 0, -1))] * 70
    assert [f.replayed for f in got.fallbacks] == [True]


def test_budgets_hold_across_a_failure() -> None:
    for at in (1, 2):
        device = flaky()
        device.calls = dict.fromkeys(device.calls, 0)
        device.lost, device.lost_at = False, {"synchronize": at}
        m = new("flaky")
        got = m.run(4321)
        assert (got.retired == 4321).all()
        assert (got.stop == Stop.BUDGET).all()
        assert (m.run(1000).retired == 1000).all()


def test_the_log_tells(caplog: pytest.LogCaptureFixture) -> None:
    flaky().fail["launch"] = 2
    with caplog.at_level(logging.WARNING, "vmjit"):
        got = new("flaky").run()
    assert [r.getMessage() for r in caplog.records] == [str(got.fallbacks[0])]
    assert "left flaky: flaky: launch failed" in str(got.fallbacks[0])


def test_an_executor_falls_back() -> None:
    code = bytes.fromhex("13051500")  # addi a0, a0, 1
    for kind in ("allocate", "copy_to", "launch", "synchronize", "copy_from", "load"):
        device = flaky()
        device.calls, device.fail = dict.fromkeys(device.calls, 0), {kind: 1}
        e = vmjit.Executor("rv32i", "flaky", "interpreter")
        x, memory = np.zeros((32, 5), np.uint32), np.arange(80, dtype=np.uint8).reshape(5, 16).copy()
        outcome = e.execute(code, 0x1000, x, memory, memory_address=0x8000)
        assert outcome.executed_on == "cpu"
        assert x[10].tolist() == [1] * 5
        assert (memory.reshape(-1) == np.arange(80)).all()
        assert e.statistics.fallbacks == 1
        assert e.execute(code, 0x1000, x, memory, memory_address=0x8000).executed_on == "cpu"
        device.calls = dict.fromkeys(device.calls, 0)
        with pytest.raises(vmjit.DeviceError):
            vmjit.Executor("rv32i", "flaky", "interpreter", fallback=False).execute(code, 0x1000, x, memory)


def test_devices_get_their_memory_back() -> None:
    device = flaky()
    m = new("flaky")
    m.run()
    assert device.allocated > 0
    del m
    gc.collect()
    assert device.allocated == 0
    device.fail["launch"] = device.calls["launch"] + 2
    m = new("flaky")
    m.run()
    gc.collect()
    assert device.allocated == 0


def test_one_of_two_devices_fails() -> None:
    lanes = 100
    inputs = [struct.pack("<II", seed, 1) for seed in range(lanes)]
    want = vmjit.Machine(crc(), lanes, "cpu", "interpreter", "16KiB")
    want.set_input(inputs)
    expected = want.run()
    for at in (None, 1, 4):
        m = vmjit.Machine(crc(), lanes, "flaky:all", "interpreter", "16KiB")
        if at is not None:
            flaky("flaky:1").lost_at["synchronize"] = flaky("flaky:1").calls["synchronize"] + at
        m.set_input(inputs)
        got = m.run()
        assert got.device == ("flaky:all" if at is None else "cpu")
        assert [got.output(i) for i in range(lanes)] == [expected.output(i) for i in range(lanes)]
        assert (m.retired == want.retired).all()
    assert flaky("flaky:0").calls["launch"] > 0
