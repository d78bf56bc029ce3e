"""The small guests of this folder on every tier, with what they must write and how they must end."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

import vmjit
from tests.differential.oracles import TIERS, machine, settle
from vmjit import Access, Machine, RunResult, Stop

BIN = Path(__file__).resolve().parent / "bin"
ISAS = ("rv32im", "rv64imac")

everywhere = pytest.mark.parametrize("tier", TIERS)
isas = pytest.mark.parametrize("isa", ISAS)


def elf(name: str, isa: str) -> Path:
    return BIN / f"{name}.{isa}.elf"


def run(name: str, isa: str, tier: str, inputs: list[bytes], memory: str = "64KiB") -> tuple[Machine, RunResult]:
    """One lane an input; twice where the second run meets compiled code, with the same result."""
    m = machine(vmjit.load(elf(name, isa)), len(inputs), tier, memory=memory)
    m.set_input(inputs)
    result = m.run()
    if tier == "auto":
        first = (result.retired.tolist(), [result.output(k) for k in range(len(inputs))], result.pc.tolist())
        settle()
        m.reset()
        result = m.run()
        assert (result.retired.tolist(), [result.output(k) for k in range(len(inputs))], result.pc.tolist()) == first
    return m, result


@everywhere
@isas
def test_hello(isa: str, tier: str) -> None:
    _, result = run("hello", isa, tier, [b""] * 3)
    assert result.stops() == {"EXIT": 3}
    assert result.exit_code.tolist() == [7] * 3
    assert [result.output(k) for k in range(3)] == [b"hello, world\n"] * 3
    assert [result.error_output(k) for k in range(3)] == [b"hello, errors\n"] * 3


@everywhere
@isas
def test_echo(isa: str, tier: str) -> None:
    """Lanes that read more come to their end later."""
    inputs = [b"", b"a", b"seven.b", b"Eight..B", bytes(range(256)), b"az{`AZ" * 500, b"x" * 511]
    _, result = run("echo", isa, tier, inputs)
    upper = bytes(range(256)).upper()
    assert [result.output(k) for k in range(7)] == [
        b"",
        b"A",
        b"SEVEN.B",
        b"EIGHT..B",
        upper,
        b"AZ{`AZ" * 500,
        b"X" * 511,
    ]
    assert result.exit_code.tolist() == [len(data) & 255 for data in inputs]


@everywhere
@isas
def test_lanes(isa: str, tier: str) -> None:
    for lanes in (1, 5):
        _, result = run("lanes", isa, tier, [b""] * lanes)
        assert [struct.unpack("<II", result.output(k)) for k in range(lanes)] == [(k, lanes) for k in range(lanes)]


@everywhere
@isas
def test_counters(isa: str, tier: str) -> None:
    """The guest checks itself that its counters are exact; its status is the number of the check that failed."""
    _, result = run("counters", isa, tier, [b""] * 4)
    assert result.stops() == {"EXIT": 4}
    assert result.exit_code.tolist() == [0] * 4


@everywhere
@isas
def test_system_calls(isa: str, tier: str) -> None:
    """The same: the number of the check that failed, or 0."""
    _, result = run("syscalls", isa, tier, [b"some input", b"", b"x" * 100])
    assert result.exit_code.tolist() == [0] * 3
    assert [result.output(k) for k in range(3)] == [b"ok\n"] * 3


# Compiling each of a lane's sixteen versions before it runs takes seconds: for one ISA it is enough.
VERSIONS = [(isa, tier) for isa in ISAS for tier in TIERS if (isa, tier) != ("rv32im", "scalar")]


@pytest.mark.parametrize(("isa", "tier"), VERSIONS)
def test_self_modifying_code(isa: str, tier: str) -> None:
    """Every lane has its own code all the time."""
    firsts = [0, 1, 2, 37, 100, 255] if tier == "interpreter" else [5]
    _, result = run("smc", isa, tier, [bytes([b]) for b in firsts] + [b""])
    for lane, first in enumerate([*firsts, 0]):
        wanted: list[int] = []
        for i in range(16):
            value = (first + 37 * i) & 0x7FF
            wanted += [value, 10 * (1 if i & 1 else value) + 3]
        assert list(struct.unpack("<32I", result.output(lane))) == wanted
    assert len(set(result.retired[:-1].tolist())) == 1


# -- faults on demand: (input, stop, access)

FAULTS: dict[str, tuple[bytes, Stop, Access]] = {
    "load from address 0": (b"\0", Stop.FAULT, Access.READ),
    "store to constants": (b"\1", Stop.FAULT, Access.WRITE),
    "jump to address 0": (b"\2\0", Stop.FAULT, Access.EXECUTE),
    "jump to data": (b"\2\1", Stop.FAULT, Access.EXECUTE),
    "load from nowhere": (b"\3", Stop.FAULT, Access.READ),
    "misaligned accesses": (b"\4", Stop.EXIT, Access.NONE),
    "ebreak": (b"\5", Stop.EBREAK, Access.NONE),
    "a word of zeros": (b"\6\0", Stop.UNSUPPORTED, Access.NONE),
    "a word of ones": (b"\6\1", Stop.UNSUPPORTED, Access.NONE),
    "an endless jump": (b"\7\0", Stop.BUDGET, Access.NONE),
    "an endless loop": (b"\7\1", Stop.BUDGET, Access.NONE),
    "an unknown call": (b"\x08", Stop.EXIT, Access.NONE),
    "endless recursion": (b"\x09", Stop.FAULT, Access.WRITE),
    "store to code": (b"\x0a", Stop.FAULT, Access.WRITE),
    "call of constants": (b"\x0b", Stop.FAULT, Access.EXECUTE),
    "an unknown case": (b"\x0c", Stop.EXIT, Access.NONE),
}
BUDGET = 300_000


@everywhere
@isas
def test_faults(isa: str, tier: str) -> None:
    """All of them side by side; each lane ends as it must, whatever becomes of its neighbours."""
    program = vmjit.load(elf("fault", isa))
    m = machine(program, len(FAULTS), tier, memory="64KiB")
    m.set_input([data for data, _, _ in FAULTS.values()])
    seen = []
    for _ in range(2):
        result = m.run(BUDGET)
        lanes = dict(zip(FAULTS, range(len(FAULTS)), strict=True))
        for name, (_, stop, access) in FAULTS.items():
            lane = lanes[name]
            got = (Stop(int(result.stop[lane])), Access(int(result.fault_access[lane])))
            assert got == (stop, access), name

        def address(name: str) -> int:
            return int(result.fault_address[lanes[name]])  # noqa: B023

        assert address("load from address 0") == address("jump to address 0") == 0
        assert address("load from nowhere") == 0x7FFFFFF0
        segments = {s.permissions: s for s in program.segments}
        for name, permissions in (
            ("store to constants", 1),
            ("jump to data", 3),
            ("store to code", 5),
            ("call of constants", 1),
        ):
            segment = segments[permissions]
            assert segment.address <= address(name) < segment.end, name
        # The recursion stops where the stack ends at its lower side: below is no memory, or the heap that it ran into.
        assert address("endless recursion") < int(m._layout.heap_start)
        codes = {name: int(result.exit_code[lane]) for name, lane in lanes.items() if result.stop[lane] == Stop.EXIT}
        assert codes == {"misaligned accesses": 0, "an unknown call": 38, "an unknown case": 99}
        assert result.unknown_calls == {9999: 1}
        for name in ("an endless jump", "an endless loop"):
            assert int(result.retired[lanes[name]]) == BUDGET
        for name in ("jump to address 0", "jump to data", "call of constants"):
            assert int(result.pc[lanes[name]]) == address(name)
        seen.append((result.retired.tolist(), result.pc.tolist(), m.registers.array().tolist()))
        settle()
        m.reset()
    assert seen[0] == seen[1]


@isas
def test_faults_are_alike_on_all_tiers(isa: str) -> None:
    seen = []
    for tier in TIERS:
        m = machine(vmjit.load(elf("fault", isa)), len(FAULTS), tier, memory="64KiB")
        m.set_input([data for data, _, _ in FAULTS.values()])
        result = m.run(BUDGET)
        seen.append(
            (result.retired.tolist(), result.fault_address.tolist(), m.registers.array().tolist(), m.pc.tolist())
        )
    assert seen[0] == seen[1] == seen[2]


@isas
@pytest.mark.parametrize("name", ["hello", "echo", "smc"])
def test_against_qemu(name: str, isa: str) -> None:
    xlen = int(isa[2:4])
    if shutil.which(f"qemu-riscv{xlen}") is None:
        pytest.skip(f"qemu-riscv{xlen} is not installed: nothing to compare with")
    data = b"Some Input, some of it Lower\n" * 3
    command = [f"qemu-riscv{xlen}", str(elf(name, isa))]
    done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
    _, result = run(name, isa, "auto", [data])
    assert (result.output(0), result.error_output(0), int(result.exit_code[0])) == (
        done.stdout,
        done.stderr,
        done.returncode,
    )
