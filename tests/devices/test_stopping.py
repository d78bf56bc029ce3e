"""Runs on devices that are ended from outside: by Ctrl-C, by a time limit, by slices that are bounded."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import vmjit
from tests.differential.oracles import machine, program, settle
from tests.machine.test_runs import interrupted_run, spinner, spun
from vmjit import Machine, Stop
from vmjit.device_engine import DeviceEngine
from vmjit.device_part import _MAX_QUANTUM, _MIN_QUANTUM, DevicePart

DEVICES = ["cpu", "host", "host:0,host:1"]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """The handler that a program of Python's own has, wherever the tests run."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def spinning(iterations: int, device: str, lanes: int = 40) -> tuple[Machine, np.ndarray]:
    m = machine(program("rv64imac", spinner(iterations).code), lanes, "auto", device=device)
    m.registers["a3"] = factors = np.arange(lanes, dtype=np.uint64) * 12345 + 1
    return m, factors


def check(m: Machine, factors: np.ndarray, iterations: int) -> None:
    """Stopped lanes are whole: what they have computed goes with what they have retired."""
    for lane, factor in enumerate(factors.tolist()):
        done = int(m.retired[lane]) - 2
        if done > 0 and done % 4 == 0:
            assert int(m.registers["a2"][lane]) == spun(factor, done // 4)
            assert int(m.registers["s0"][lane]) == iterations - done // 4


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("device", DEVICES[1:])
def test_an_interrupted_run_ends_soon_and_goes_on(device: str) -> None:
    iterations = 1 << 30
    m, factors = spinning(iterations, device, 8)
    result, seconds = interrupted_run(m, 0.2)
    assert result.interrupted
    assert not result.timed_out
    assert seconds < 3
    assert result.stops() == {"RUNNING": 8}
    check(m, factors, iterations)
    again = m.run(max_seconds=0.3)
    assert (again.interrupted, again.timed_out) == (False, True)
    check(m, factors, iterations)
    assert int(again.retired.min()) > 0


@pytest.mark.usefixtures("interruptible")
def test_two_interrupts_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one comes while the device runs: what lanes have run there is taken over all the same."""
    m, factors = spinning(3_000, "host")
    engine: Any = m._engine
    assert isinstance(engine, DeviceEngine)
    device = engine.parts[0].device
    launch = type(device).launch
    calls = []

    def pressed(self: Any, *arguments: Any) -> None:
        launch(self, *arguments)
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(type(device), "launch", pressed)
    assert m.run().interrupted
    assert len(calls) == 2
    assert int(m.retired.max()) > 0
    check(m, factors, 3_000)
    assert m.run().stops() == {"EBREAK": 40}
    assert m.retired.tolist() == [2 + 4 * 3_000] * 40
    assert m.registers["a2"].tolist() == [spun(f, 3_000) for f in factors.tolist()]


@pytest.mark.parametrize("device", DEVICES)
def test_a_guest_without_end_ends_in_time(device: str) -> None:
    m, factors = spinning(1 << 30, device)
    m.run(1000)
    settle()
    started = time.perf_counter()
    result = m.run(max_seconds=0.3)
    assert 0.3 <= time.perf_counter() - started < 5
    assert result.timed_out
    assert not result.interrupted
    assert set(result.stops()) == {"RUNNING"}
    check(m, factors, 1 << 30)
    later = m.run(7, max_seconds=60)
    assert not later.timed_out
    assert (later.stop == Stop.BUDGET).all()
    assert (later.retired == 7).all()


@pytest.mark.parametrize("device", DEVICES[:2])
def test_no_time_at_all(device: str) -> None:
    m, _ = spinning(1000, device)
    result = m.run(max_seconds=0)
    assert result.timed_out
    assert (result.retired == 0).all()
    assert m.run().stops() == {"EBREAK": 40}


@pytest.mark.parametrize("bad", [-1, float("nan"), "soon", True, [1]])
def test_limits_that_are_none(bad: object) -> None:
    m, _ = spinning(10, "cpu")
    with pytest.raises(vmjit.ArgumentError, match="max_seconds"):
        m.run(max_seconds=bad)  # type: ignore[arg-type]


def test_a_limit_holds_for_an_executor() -> None:
    for device in DEVICES[:2]:
        e = vmjit.Executor("rv64i", device, "interpreter")
        x = np.zeros((32, 2), np.uint64)
        started = time.perf_counter()
        outcome = e.execute(bytes.fromhex("6f000000"), 0x1000, x, max_seconds=0.2)  # j .
        assert 0.2 <= time.perf_counter() - started < 5
        assert (outcome.stop == Stop.RUNNING).all()
        assert (outcome.pc == 0x1000).all()
        assert (outcome.retired > 0).all()


def test_launches_are_bounded() -> None:
    """Slices grow while launches are short and shrink when one is long, within bounds: no watchdog waits for a guest."""
    m, _ = spinning(10, "host")
    engine: Any = m._engine
    part: DevicePart = engine.parts[0]
    for _ in range(40):
        part._adapt(0.0001)
    assert part._quantum == _MAX_QUANTUM
    part._adapt(0.1)
    assert part._quantum == _MAX_QUANTUM
    for _ in range(40):
        part._adapt(1.0)
    assert part._quantum == _MIN_QUANTUM
