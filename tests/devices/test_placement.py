"""Where lanes are put, and the reasons that are given: with GPUs that are simulated behind the interface."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import vmjit
from tests.cli.conftest import guest
from tests.devices.flaky import flaky, flaky_gpus
from tests.differential.oracles import program
from tests.machine.harness import DATA
from tests.machine.interrupted import writer
from vmjit.cache import CodeCache, DiskCache
from vmjit.crossover import Crossover, crossing, crossover, measure
from vmjit.devices.selection import device_names
from vmjit.errors import ArgumentError, DeviceMissingError

CODE = 0x10000
BRK = 214
ADDI = bytes.fromhex("13051500")  # addi a0, a0, 1
ECALL = bytes.fromhex("73000000")
JUMP_BACK = bytes.fromhex("6ff0dfff")  # j -4


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two, which pay from 64 lanes on."""
    monkeypatch.setattr("vmjit.crossover.crossover", lambda device, xlen: Crossover(64, ()))
    with flaky_gpus(monkeypatch, 2):
        yield


@pytest.fixture
def no_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with flaky_gpus(monkeypatch, 0):
        yield


def executor(device: str = "auto") -> vmjit.Executor:
    return vmjit.Executor("rv32i", device, "interpreter")


def test_a_gpu_takes_what_it_can(gpus: None) -> None:
    placement = executor().can_execute_on_gpu(ADDI, CODE, 64)
    assert placement
    assert placement.device == "flaky:0"
    assert placement.reasons == (placement.reasons[0],)
    assert "flaky:0 (Flaky)" in placement.reasons[0]
    assert executor("flaky:1").can_execute_on_gpu(ADDI, CODE, 64).device == "flaky:1"
    assert executor("cpu").can_execute_on_gpu(ADDI, CODE, 64)


def test_no_device(no_gpus: None) -> None:
    placement = executor().can_execute_on_gpu(ADDI, CODE, 4096)
    assert not placement
    assert placement.device == "cpu"
    assert placement.reasons == ("no flaky device on this computer",)


def test_a_device_that_cannot_be_opened(gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, name: str = "") -> None:
        raise vmjit.DeviceError(f"{name}: the driver is too old")

    monkeypatch.setattr("tests.devices.flaky.FlakyDevice.__init__", refuse)
    placement = executor().can_execute_on_gpu(ADDI, CODE, 4096)
    assert placement.reasons == ("flaky:0: the driver is too old", "flaky:1: the driver is too old")
    m = vmjit.Machine(vmjit.Program.from_bytes(ADDI, "rv32i"), 4096, memory=4096)
    assert m.device == "cpu"


def test_instructions_without_a_lowering_are_named(gpus: None) -> None:
    code = ADDI + bytes.fromhex("33050002") + b"\xff\xff\xff\xff" + ADDI
    placement = executor().can_execute_on_gpu(code, CODE, 4096)
    assert not placement
    assert [r for r in placement.reasons if "0x10004" in r and "33 05 00 02" in r]
    assert [r for r in placement.reasons if "0x10008" in r and "ff ff ff ff" in r]
    assert len(placement.reasons) == 2
    many = executor().can_execute_on_gpu(b"\xff" * 400, CODE, 4096)
    assert len(many.reasons) == 17
    assert many.reasons[-1] == "and 84 more instructions without a lowering"


@pytest.mark.parametrize(
    ("code", "where"),
    [
        (ADDI + ECALL + bytes.fromhex("6ff09fff"), [CODE + 4]),  # 1: addi; ecall; j 1b
        (ECALL + JUMP_BACK, [CODE]),
        (ECALL + ADDI + ECALL, []),
        (ADDI + JUMP_BACK + ECALL, []),
        (bytes.fromhex("9308d005") + ECALL + bytes.fromhex("6ff09fff"), []),  # 1: li a7, 93; ecall; j 1b
        (bytes.fromhex("93080004") + ECALL + bytes.fromhex("6ff09fff"), [CODE + 4]),  # write
        # 1: jal f; j 1b; f: ecall; ret
        (bytes.fromhex("ef008000") + JUMP_BACK + ECALL + bytes.fromhex("67800000"), [CODE]),
        (b"", []),
    ],
)
def test_calls_in_loops(gpus: None, code: bytes, where: list[int]) -> None:
    reasons = executor().can_execute_on_gpu(code, CODE, 4096).reasons
    found = [r for r in reasons if "at every step" in r]
    assert len(found) == len(where)
    assert all(f"{pc:#x}" in r for pc, r in zip(where, found, strict=True))


def test_memory_that_does_not_fit(gpus: None) -> None:
    for name in ("flaky:0", "flaky:1"):
        flaky(name).free_bytes = 10 << 20
    e = executor()
    placement = e.can_execute_on_gpu(ADDI, CODE, 64, memory_bytes=100_000, memory_address=0x80000)
    assert placement
    assert placement.device == "flaky:0"
    both = e.can_execute_on_gpu(ADDI, CODE, 128, memory_bytes=100_000, memory_address=0x80000)
    assert both.device == "flaky:0,flaky:1"
    placement = e.can_execute_on_gpu(ADDI, CODE, 1024, memory_bytes=100_000, memory_address=0x80000)
    assert not placement
    (reason,) = placement.reasons
    assert "does not fit" in reason
    assert f"{2 * (10 << 20)} bytes free" in reason
    lanes = int(reason.split(";")[1].split()[0])
    assert e.can_execute_on_gpu(ADDI, CODE, lanes, memory_bytes=100_000, memory_address=0x80000)
    assert not e.can_execute_on_gpu(ADDI, CODE, lanes + 1, memory_bytes=100_000, memory_address=0x80000)
    needed = int(reason.split("need ")[1].split()[0])
    assert 1024 * 100_000 < needed < 1024 * 102_000


def test_too_few_lanes(gpus: None) -> None:
    placement = executor().can_execute_on_gpu(ADDI, CODE, 63)
    assert not placement
    assert "63" in placement.reasons[0]
    assert "64 lanes on" in placement.reasons[0]


def test_a_handful_of_lanes_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*arguments: object) -> Crossover:
        raise AssertionError("measured")

    monkeypatch.setattr("vmjit.crossover.crossover", measured)
    with flaky_gpus(monkeypatch):
        (reason,) = executor().can_execute_on_gpu(ADDI, CODE, 31).reasons
        assert "31" in reason
        m = vmjit.Machine(vmjit.Program.from_bytes(ADDI, "rv32i"), 1, memory=4096)
        assert m.device == "cpu"


def test_a_device_that_never_pays(gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmjit.crossover.crossover", lambda device, xlen: Crossover(None, ((8, 1.0, 2.0),)))
    (reason,) = executor().can_execute_on_gpu(ADDI, CODE, 4096).reasons
    assert "slower than the CPU at every number of lanes measured, up to 8" in reason


def test_a_machine_goes_where_its_placement_says(gpus: None) -> None:
    prog = vmjit.load(guest("crc32", "rv32im"))
    for lanes, device in ((64, "flaky:0"), (63, "cpu")):
        m = vmjit.Machine(prog, lanes, tier="interpreter", memory="16KiB")
        m.set_input(struct.pack("<II", 1, 1))
        assert (m.device, m.placement.device, bool(m.placement)) == (device, device, device != "cpu")
        assert m.run().device == device
        assert m.statistics.runs == {device: 1}
        assert m.statistics.successes == 1


def test_an_executor_goes_where_the_placement_says(gpus: None) -> None:
    e = executor()
    for lanes, device in ((64, "flaky:0"), (63, "cpu"), (64, "flaky:0")):
        x = np.zeros((32, lanes), np.uint32)
        outcome = e.execute(ADDI, CODE, x)
        assert outcome.executed_on == device
        assert x[10].tolist() == [1] * lanes
        assert outcome.pc.tolist() == [CODE + 4] * lanes
    assert e.statistics.runs == {"flaky:0": 2, "cpu": 1}
    assert e.statistics.successes == 3


def test_an_executor_on_a_device_has_the_caller_s_memory(gpus: None) -> None:
    """lw a0, 0(a1); addi a0, a0, 1; sw a0, 4(a1), at an address that is no multiple of the word too."""
    code = bytes.fromhex("03a50500") + ADDI + bytes.fromhex("23a2a500")
    for base in (0x8000, 0x8001):
        x = np.zeros((32, 70), np.uint32)
        x[11] = base + 2
        memory = np.zeros((70, 11), np.uint8)
        memory[:, 2] = np.arange(70)
        outcome = executor("flaky").execute(code, CODE, x, memory, memory_address=base)
        assert outcome.success
        assert outcome.executed_on == "flaky"
        assert memory[:, 6].tolist() == list(range(1, 71))


def test_a_run_that_needs_the_host_all_the_time_moves(gpus: None) -> None:
    """200 calls of 8 instructions each: placed on the GPU, and found to be in the wrong place there."""
    count = 200
    code = writer(count, call=BRK).code
    m = vmjit.Machine(program("rv64imac", code, data=(DATA, 64)), 64, tier="interpreter", memory=4096)
    assert m.device == "flaky:0"
    m.registers["s1"] = DATA
    got = m.run()
    assert got.stops() == {"EXIT": 64}
    assert got.device == "cpu"
    assert "needs the host at every step" in got.fallbacks[0].reason
    assert not got.fallbacks[0].replayed
    assert (m.retired == 2 + 8 * count + 3).all()
    explicit = vmjit.Machine(program("rv64imac", code, data=(DATA, 64)), 64, "flaky", "interpreter", memory=4096)
    explicit.registers["s1"] = DATA
    assert explicit.run().device == "flaky"


# -- names


def test_names_of_several_devices(gpus: None) -> None:
    assert device_names("flaky") == ["flaky"]
    assert device_names("flaky:all") == ["flaky:0", "flaky:1"]
    assert device_names("flaky:1,flaky:0") == ["flaky:1", "flaky:0"]
    for bad in ("flaky:0,flaky:0", "host:all", "toaster", "flaky,toaster", ""):
        with pytest.raises(ArgumentError):
            vmjit.Machine(vmjit.Program.from_bytes(ADDI, "rv32i"), 2, bad)


def test_all_of_none(no_gpus: None) -> None:
    with pytest.raises(DeviceMissingError, match="no flaky device"):
        vmjit.Machine(vmjit.Program.from_bytes(ADDI, "rv32i"), 2, "flaky:all")


# -- the crossover


@pytest.mark.parametrize(
    ("measured", "lanes"),
    [
        ((), None),
        (((32, 1.0, 2.0), (128, 2.0, 1.9)), 128),
        (((32, 1.0, 0.5), (128, 2.0, 1.9)), 32),
        (((32, 1.0, 0.5), (128, 2.0, 2.1), (512, 4.0, 3.0)), 512),
        (((32, 1.0, 0.5), (128, 2.0, 2.1)), None),
    ],
)
def test_where_the_lines_cross(measured: tuple[tuple[int, float, float], ...], lanes: int | None) -> None:
    assert crossing(measured) == lanes


def test_a_crossover_is_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with flaky_gpus(monkeypatch):
        calls = []

        def counted(device: str, xlen: int) -> Crossover:
            calls.append((device, xlen))
            return Crossover(512, ((32, 1.0, 2.0), (512, 3.0, 2.0)))

        monkeypatch.setattr("vmjit.crossover.measure", counted)
        cache = CodeCache(DiskCache(tmp_path))
        first = crossover(flaky(), 32, cache)
        assert (
            crossover(flaky(), 32, CodeCache(DiskCache(tmp_path)))
            == first
            == Crossover(512, ((32, 1.0, 2.0), (512, 3.0, 2.0)))
        )
        crossover(flaky(), 64, cache)
        assert calls == [("flaky", 32), ("flaky", 64)]


def test_a_measurement_runs_the_work_on_both(monkeypatch: pytest.MonkeyPatch) -> None:
    with flaky_gpus(monkeypatch):
        found = measure("flaky", 32, lanes=(32, 64))
        assert [n for n, _, _ in found.measured] == [32, 64]
        assert all(c > 0 and d > 0 for _, c, d in found.measured)
        assert found.lanes == crossing(found.measured)
        assert flaky().calls["launch"] > 2
