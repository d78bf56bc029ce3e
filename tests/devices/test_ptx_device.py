"""The device "ptx": the emitted PTX is executed, and gives what the CPU's tiers and the reference give."""

from __future__ import annotations

import numpy as np
import pytest

import vmjit
from tests.cli.conftest import Cli, cli, guest
from tests.devices.same_as_cpu import check_guest
from tests.differential import asm
from tests.differential.oracles import machine, program
from tests.differential.test_edge_operands import CODE, DATA, ISA, OUT, A, B, built, complain, operands
from vmjit import Stop
from vmjit.devices.registry import open_device

__all__ = ["cli"]

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")


@pytest.mark.parametrize("tier", ["interpreter", "scalar"])
@pytest.mark.parametrize("xlen", [32, 64])
def test_computing_instructions(xlen: int, tier: str) -> None:
    """Every instruction that computes, on every pair of operands that matters, against the reference's table."""
    code, listed = built(xlen)
    pairs = operands(xlen)
    size = len(listed) * xlen // 8
    prog = program(f"rv{xlen}{ISA}", code + asm.encode("ebreak"), CODE, data=(DATA, size))
    m = machine(prog, len(pairs), tier, device="ptx")
    m.registers[A] = np.array([a for a, _ in pairs], np.uint64)
    m.registers[B] = np.array([b for _, b in pairs], np.uint64)
    m.registers[OUT] = DATA
    result = m.run()
    assert result.stops() == {"EBREAK": len(pairs)}
    got = m.memory.read(DATA, size).view(np.uint32 if xlen == 32 else np.uint64).T
    complain(xlen, got, f"ptx, {tier}")
    if tier == "scalar":
        assert result.tiers["scalar"] > 0


@pytest.mark.parametrize(
    ("name", "isa"),
    [
        ("crc32", "rv32im"),
        ("montecarlo", "rv64imac"),
        *(
            pytest.param(name, isa, marks=pytest.mark.slow)
            for name in ("calls", "json", "matmul", "sha256", "sieve", "sort")
            for isa in ("rv32im", "rv64imac")
        ),
    ],
)
def test_guests_give_the_same_bits_as_on_the_cpu(name: str, isa: str) -> None:
    """Lane counts that do not fill a warp; the second run is in code compiled meanwhile."""
    check_guest("ptx", name, isa, "auto", 35)


@pytest.mark.parametrize("architecture", ["sm_75", "sm_100"])
def test_both_dialects_of_nvvm(architecture: str) -> None:
    """A divergent loop with a store and a fault in some lanes, on the oldest and the newest dialect."""
    code = asm.encode("sw", 32, rs1=12, rs2=10, imm=0) + asm.encode("addi", 32, rd=12, rs1=12, imm=4)
    code += asm.encode("addi", 32, rd=10, rs1=10, imm=-1) + asm.encode("bne", 32, rs1=10, imm=-12)
    code += asm.encode("ebreak")
    lanes = 40
    m = machine(program("rv32i", code, data=(0x40000, 256)), lanes, "scalar", device=f"ptx:{architecture}", memory=512)
    end = 0x40000 + 256 + 512
    m.registers["a2"] = end - 4 * 8
    m.registers["a0"] = np.arange(lanes) % 12 + 1
    result = m.run()
    faults = np.arange(lanes) % 12 + 1 > 8
    assert (result.stop == np.where(faults, Stop.FAULT, Stop.EBREAK)).all()
    assert (result.fault_address[faults] == end).all()
    assert (m.retired == np.where(faults, 32, 4 * (np.arange(lanes) % 12 + 1))).all()


def test_what_was_executed_is_counted() -> None:
    device = open_device("ptx")
    before = (device.counts.launches, device.counts.thread_instructions)  # type: ignore[attr-defined]
    code = asm.encode("addi", rd=10, rs1=10, imm=1) * 10 + asm.encode("ebreak")
    m = machine(program("rv64i", code), 3, "interpreter", device="ptx")
    assert m.run().stops() == {"EBREAK": 3}
    assert device.counts.launches > before[0]  # type: ignore[attr-defined]
    assert device.counts.thread_instructions > before[1] + 3 * 10  # type: ignore[attr-defined]


def test_on_the_command_line(cli: Cli) -> None:
    ended = cli("run", guest("hello", "rv32im"), "--device", "ptx", "--json", "--lanes", 3)
    assert ended.err == b""
    assert ended.json["device"] == "ptx"
    assert ended.json["stops"] == {"EXIT": 3}


def test_an_executor_runs_there() -> None:
    """lw a0, 0(a1); addi a0, a0, 1; sw a0, 4(a1)."""
    code = bytes.fromhex("03a505001305150023a2a500")
    x = np.zeros((32, 37), np.uint32)
    x[11] = 0x8000
    memory = np.zeros((37, 8), np.uint8)
    memory[:, 0] = np.arange(37)
    outcome = vmjit.Executor("rv32i", "ptx", "interpreter", fallback=False).execute(
        code, 0x1000, x, memory, memory_address=0x8000
    )
    assert (outcome.success, outcome.executed_on) == (True, "ptx")
    assert memory[:, 4].tolist() == list(range(1, 38))
    assert x[10].tolist() == list(range(1, 38))


@pytest.mark.parametrize("device", ["ptx:", "ptx:vax", "ptx:sm_", "cuda:one", "toaster", ""])
def test_devices_that_are_none(cli: Cli, device: str) -> None:
    if device == "ptx:":
        assert open_device(device).info().architecture == "sm_90"
        return
    line = cli("run", guest("hello"), "--device", device).complaint()
    assert "no architecture" in line or "no device" in line
