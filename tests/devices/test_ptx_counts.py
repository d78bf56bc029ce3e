"""How many PTX instructions a guest instruction costs once what is hot is compiled, counted in the PTX machine.

The counts are the same on every computer; they change with what vmjit emits and with NVVM. The tier is scalar.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

import pytest

import vmjit
from tests.cli.conftest import guest
from tests.devices.golden_values import Golden
from vmjit.compile_thread import COMPILE_THREAD, Urgency
from vmjit.devices.ptx import PtxDevice
from vmjit.devices.registry import open_device

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")

GUESTS = ("crc32", "sha256", "matmul", "sort", "sieve", "json", "montecarlo", "calls")
ALU_BOUND = ("crc32", "sha256", "montecarlo")
ISAS = ("rv32im", "rv64imac")

# Their code is found piece by piece, and the PTX machine compiles the whole kernel for each.
SLOW = ("json", "calls", "matmul", "sieve", "sort")

# A pinned count may be exceeded by this much.
TOLERANCE = 1.02

MOST_ON_AVERAGE = 3.0
MOST_ALU_BOUND = 1.6


def counted(name: str, isa: str) -> float:
    """PTX instructions per guest instruction in the second of two equal runs, with everything around them."""
    device = open_device("ptx")
    assert isinstance(device, PtxDevice)
    engine, device.engine = device.engine, "thread"
    try:
        machine = vmjit.Machine(vmjit.load(guest(name, isa)), 1, "ptx", "scalar", memory="16KiB")
        for _ in range(2):
            machine.reset()
            machine.set_input([struct.pack("<II", 1, 1)])
            before = device.counts.thread_instructions
            result = machine.run()
            assert result.stops() == {"EXIT": 1}
    finally:
        device.engine = engine
    return (device.counts.thread_instructions - before) / result.instructions


@pytest.fixture(autouse=True)
def compiled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is hot is compiled before the next launch, and launches become longer whatever they take, so that counts do
    not depend on the computer's speed."""

    def submit(job: Callable[[], None], urgency: Urgency = Urgency.SCALAR) -> None:
        job()

    monkeypatch.setattr(COMPILE_THREAD, "submit", submit)
    monkeypatch.setattr("vmjit.device_part._SLICE_SECONDS", (math.inf, math.inf))


@pytest.fixture
def golden(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Golden:
    return Golden("ptx_counts.json", request, capsys)


CASES = [pytest.param(name, isa, marks=[pytest.mark.slow] if name in SLOW else []) for isa in ISAS for name in GUESTS]


@pytest.mark.parametrize(("name", "isa"), CASES)
def test_instructions_per_guest_instruction(name: str, isa: str, golden: Golden) -> None:
    found = round(counted(name, isa), 4)
    pinned = golden.pinned(f"{name}.{isa}", found, tools())
    if pinned is not None:
        assert found <= pinned * TOLERANCE, f"{name} for {isa}: {found}, and {pinned} is pinned"
    if name in ALU_BOUND:
        assert found <= MOST_ALU_BOUND


@pytest.mark.parametrize("isa", ISAS)
def test_the_pinned_counts_reach_the_target(isa: str, golden: Golden) -> None:
    missing = [name for name in GUESTS if f"{name}.{isa}" not in golden.values]
    if missing:
        pytest.skip(f"nothing is pinned yet for {', '.join(missing)}")
    logarithms = [math.log(golden.values[f"{name}.{isa}"]) for name in GUESTS]
    assert math.exp(sum(logarithms) / len(logarithms)) <= MOST_ON_AVERAGE


def tools() -> dict[str, str]:
    device = open_device("ptx")
    assert isinstance(device, PtxDevice)
    return {"architecture": device.architecture, "compiler": " ".join(device.target.identity[2:])}
