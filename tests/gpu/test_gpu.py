"""Guests on a GPU against the CPU and the reference: every tier, divergent lanes, odd numbers of lanes, every stop."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import vmjit
from tests.cli.conftest import guest
from tests.devices.same_as_cpu import check_guest
from tests.differential import asm
from tests.differential.oracles import TIERS, machine, program, settle
from tests.differential.test_edge_operands import CODE, DATA, ISA, OUT, A, B, built, complain, operands
from vmjit import Stop
from vmjit.crossover import crossover
from vmjit.devices.registry import open_device
from vmjit.devices.selection import device_names
from vmjit.errors import DeviceMemoryError

pytestmark = pytest.mark.gpu

ISAS = ("rv32im", "rv64imac")
GUESTS = ("calls", "crc32", "json", "matmul", "montecarlo", "sha256", "sieve", "sort")


def test_what_is_known(hardware: str) -> None:
    info = open_device(hardware).info()
    assert info.name
    assert info.architecture
    assert 0 < info.memory_free <= info.memory_total
    assert min(info.multiprocessors, info.clock, info.l2) > 0
    assert info.lockstep in (32, 64)


@pytest.mark.parametrize("tier", ["interpreter", "scalar"])
@pytest.mark.parametrize("xlen", [32, 64])
def test_computing_instructions(gpu: str, xlen: int, tier: str) -> None:
    """Every instruction that computes, on every pair of operands that matters, against the reference's table."""
    code, listed = built(xlen)
    pairs = operands(xlen)
    size = len(listed) * xlen // 8
    prog = program(f"rv{xlen}{ISA}", code + asm.encode("ebreak"), CODE, data=(DATA, size))
    m = machine(prog, len(pairs), tier, device=gpu)
    m.registers[A] = np.array([a for a, _ in pairs], np.uint64)
    m.registers[B] = np.array([b for _, b in pairs], np.uint64)
    m.registers[OUT] = DATA
    assert m.run().stops() == {"EBREAK": len(pairs)}
    complain(xlen, m.memory.read(DATA, size).view(np.uint32 if xlen == 32 else np.uint64).T, f"{gpu}, {tier}")


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", GUESTS)
def test_guests_give_the_same_bits_as_on_the_cpu(hardware: str, name: str, isa: str, tier: str) -> None:
    check_guest(hardware, name, isa, tier, 1001, cpu_tier="auto")


@pytest.mark.parametrize("lanes", [1, 31, 32, 33, 127, 20_001])
def test_odd_numbers_of_lanes(hardware: str, lanes: int) -> None:
    check_guest(hardware, "crc32", "rv64imac", "auto", lanes, cpu_tier="auto")


def test_one_guest(gpu: str) -> None:
    check_guest(gpu, "crc32", "rv32im", "auto", 35, cpu_tier="auto")


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("xlen", [32, 64])
def test_lanes_that_part(gpu: str, xlen: int, tier: str) -> None:
    """Lane i runs off its memory at its own iteration or ends at its own; all lanes of a warp differ."""
    code = asm.encode("sw", xlen, rs1=12, rs2=10, imm=0) + asm.encode("addi", xlen, rd=12, rs1=12, imm=4)
    code += asm.encode("addi", xlen, rd=10, rs1=10, imm=-1) + asm.encode("bne", xlen, rs1=10, imm=-12)
    code += asm.encode("ebreak")
    lanes = 70
    m = machine(program(f"rv{xlen}i", code, data=(0x40000, 256)), lanes, tier, device=gpu, memory=512)
    end = 0x40000 + 256 + 512
    steps = np.arange(lanes) % 37 + 1
    for _ in range(2):
        m.reset()
        m.registers["a2"] = end - 20 * 4
        m.registers["a0"] = steps
        result = m.run()
        faults = steps > 20
        assert (result.stop == np.where(faults, Stop.FAULT, Stop.EBREAK)).all()
        assert (result.fault_address[faults] == end).all()
        assert (result.fault_pc[faults] == 0x10000).all()
        assert (m.retired == np.where(faults, 80, 4 * steps)).all()
        settle()


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("xlen", [32, 64])
def test_budgets_are_exact(gpu: str, xlen: int, tier: str) -> None:
    loop = asm.encode("addi", xlen, rd=10, rs1=10, imm=1) + asm.encode("addi", xlen, rd=11, rs1=11, imm=-1)
    loop += asm.encode("bne", xlen, rs1=11, imm=-8) + asm.encode("ebreak")
    m = machine(program(f"rv{xlen}i", loop), 40, tier, device=gpu)
    for limit in (0, 1, 2, 3, 4, 7, 50, 299):
        m.reset()
        m.registers["a0"], m.registers["a1"] = 0, 100
        assert m.run(limit).stops() == {"BUDGET": 40}
        assert (m.retired == limit).all()
        assert (m.registers["a0"] == (limit + 2) // 3).all()
        assert m.run().stops() == {"EBREAK": 40}
        assert (m.retired == 300).all()
        settle()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["counters", "echo", "fault", "lanes", "smc", "syscalls"])
def test_test_guests_end_as_on_the_cpu(gpu: str, name: str, isa: str) -> None:
    """Among them self-modifying code, system calls and faults."""
    prog = vmjit.load(guest(name, isa))
    ended = []
    for device, tier in (("cpu", "interpreter"), (gpu, "interpreter")):
        m = vmjit.Machine(prog, 35, device, tier, arguments=["guest", "1"], fallback=False)
        m.set_input([bytes([65 + i % 26]) * (i % 7) for i in range(35)])
        result = m.run(200_000)
        ended.append(
            (
                result.stop.tolist(),
                result.exit_code.tolist(),
                result.fault_address.tolist(),
                result.fault_pc.tolist(),
                m.retired.tolist(),
                [result.output(i) for i in range(35)],
            )
        )
    assert ended[1] == ended[0]


def test_copies(gpu: str) -> None:
    device = open_device(gpu)
    rng = np.random.default_rng(1)
    content = rng.integers(0, 256, 100_003, np.uint8)
    buffer = device.allocate(len(content))
    assert not device.copy_from(buffer, len(content)).any()
    device.copy_to(buffer, content)
    rows = rng.integers(0, 256, (90, 777), np.uint8)
    device.copy_to(buffer, rows, 5, 1001)
    device.fill(buffer, rows[0, :80], 16, 800, 100)
    offsets = rng.permutation(len(content))[:5000]
    device.scatter(buffer, offsets, rows.reshape(-1)[:5000])
    for row in range(90):
        content[5 + row * 1001 : 5 + row * 1001 + 777] = rows[row]
    for row in range(100):
        content[16 + row * 800 : 16 + row * 800 + 80] = rows[0, :80]
    content[offsets] = rows.reshape(-1)[:5000]
    assert (device.copy_from(buffer, len(content))[0] == content).all()
    assert (
        device.copy_from(buffer, 33, 7, 1000, 90) == np.stack([content[7 + 1000 * r :][:33] for r in range(90)])
    ).all()
    assert (device.gather(buffer, offsets) == content[offsets]).all()
    device.clear(buffer)
    assert not device.copy_from(buffer, len(content)).any()
    device.free(buffer)


def test_more_memory_than_there_is(hardware: str) -> None:
    device = open_device(hardware)
    with pytest.raises(DeviceMemoryError):
        device.allocate(device.info().memory_total * 2)
    device.free(device.allocate(1 << 20))


@pytest.mark.parametrize("xlen", [32, 64])
def test_from_how_many_lanes_it_pays(hardware: str, xlen: int) -> None:
    """Measured here and kept: `device="auto"` goes by it."""
    found = crossover(open_device(hardware), xlen)
    assert [n for n, _, _ in found.measured] == sorted({n for n, _, _ in found.measured})
    assert all(c > 0 and d > 0 for _, c, d in found.measured)
    assert crossover(open_device(hardware), xlen) == found
    print(f"{hardware}, rv{xlen}: {found}")


def test_the_placement_s_choice_runs(hardware: str) -> None:
    prog = vmjit.load(guest("crc32", "rv64imac"))
    m = vmjit.Machine(prog, 4096, memory="16KiB", fallback=False)
    m.set_input(struct.pack("<II", 1, 1))
    result = m.run()
    assert result.device == m.placement.device
    assert m.placement.reasons
    assert result.stops() == {"EXIT": 4096}


def test_lanes_on_all_gpus(hardware: str) -> None:
    kind = hardware.partition(":")[0]
    if len(device_names(f"{kind}:all")) < 2:
        pytest.skip(f"there is one {kind} device")
    check_guest(f"{kind}:all", "sha256", "rv64imac", "auto", 10_001, cpu_tier="auto")


def test_a_guest_without_end_ends_in_time(gpu: str) -> None:
    m = machine(program("rv64i", (0x6F).to_bytes(4, "little")), 100, "interpreter", device=gpu)
    started = time.monotonic()
    result = m.run(max_seconds=1)
    assert result.timed_out
    assert result.stops() == {"RUNNING": 100}
    assert 1 <= time.monotonic() - started < 20


_ENDLESS = """
import json, sys, time
import vmjit
from vmjit.program import Program
m = vmjit.Machine(Program.from_bytes((0x0000006F).to_bytes(4, "little"), "rv64i"), 4096, sys.argv[1], memory=4096, fallback=False)
m.run(10)
print("running", flush=True)
result = m.run()
print(json.dumps({"interrupted": result.interrupted, "stops": result.stops()}))
"""


def test_control_c(gpu: str, repository: Path) -> None:
    """A guest without an end is left soon after Ctrl-C, and the run says so."""
    process = subprocess.Popen([sys.executable, "-c", _ENDLESS, gpu], cwd=repository, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    time.sleep(1)
    started = time.monotonic()
    process.send_signal(2)
    text, _ = process.communicate(timeout=60)
    assert json.loads(text) == {"interrupted": True, "stops": {"RUNNING": 4096}}
    assert time.monotonic() - started < 20
