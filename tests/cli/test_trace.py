"""`vmjit trace`, and what stands behind it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import vmjit
from tests.cli.conftest import Cli, guest
from tests.differential.asm import encode
from tests.differential.oracles import program
from tests.linux.build import path_of
from vmjit.decoders.riscv.registers import REGISTERS
from vmjit.tracing import Event, TracedCall, TracedInstruction, Tracer

ISA = "rv64imac"
GCC = shutil.which("riscv64-linux-gnu-gcc")
LINE = re.compile(r" *(\d+)  (0x[0-9a-f]+) (<\S+>)? +([0-9a-f]{4}|[0-9a-f]{8}) +(\S.*)$")


def everything(guest_program: vmjit.Program) -> list[tuple[int, int]]:
    return [(s.address, s.end) for s in guest_program.segments if s.executable]


@pytest.mark.parametrize("isa", ["rv32im", "rv64imac"])
@pytest.mark.parametrize("name", ["hello", "sort"])
def test_what_is_told_is_what_happens(name: str, isa: str) -> None:
    """Registers and memory made of what was told are the lanes' at the end; single steps come to the same pcs."""
    sort = vmjit.load(guest(name, isa))
    machine = vmjit.Machine(sort, 2, "cpu", memory="64KiB")
    registers = [[int(v) for v in machine.registers.array()[:, lane]] for lane in range(2)]
    events: list[list[TracedInstruction]] = [[], []]

    def note(event: Event) -> None:
        assert isinstance(event, TracedInstruction)
        events[event.lane].append(event)

    Tracer(machine, note, ranges=everything(sort)).run(3000)
    retired = machine.retired.tolist()
    file = REGISTERS[sort.xlen, False]
    stepped = vmjit.Machine(sort, 2, "cpu", "interpreter", memory="64KiB")
    for lane, (told, values) in enumerate(zip(events, registers, strict=True)):
        assert [event.retired for event in told] == list(range(len(told)))
        assert retired[lane] <= len(told) <= retired[lane] + 1  # the last may have stopped the lane
        for event in told[: retired[lane]]:
            for register, value in event.registers.items():
                values[file.index(register)] = value
            if event.text == "ecall":
                values[file.index("a0")] = values[file.index("a2")]  # all was written
        if machine._state.stop[lane] != vmjit.Stop.EXIT:
            assert values == machine.registers.array()[:, lane].tolist()
        memory = {}
        for event in told[: retired[lane]]:
            for address, data, stores in event.memory:
                memory |= {address + i: byte for i, byte in enumerate(data) if stores}
        for address, byte in memory.items():
            assert machine.memory.read(address, 1)[lane, 0] == byte
    for number, event in enumerate(events[1][:500]):
        assert stepped.pc[1] == event.pc, number
        stepped.run(1)


def test_lines(cli: Cli) -> None:
    lines = cli("trace", guest("hello")).text.splitlines()
    assert len(lines) == 48
    assert all(LINE.match(line) for line in lines)
    assert lines[7].split() == "7 0x10198 <guest_start+0xc> 0545 c.li a0, 1 a0=0x1".split()
    sp = re.search(r" sp=(0x[0-9a-f]+)$", lines[3])  # below the arguments, so where it is depends on the path's length
    assert sp
    assert lines[4].endswith(f"[{int(sp[1], 16) + 8:#x}]=0x0")


def test_filters(cli: Cli) -> None:
    path = guest("hello")
    every = cli("trace", path).text.splitlines()
    assert cli("trace", path, "--first", 10, "--count", 5).text.splitlines() == every[10:15]
    in_function = [line for line in every if "guest_write_all" in line]
    assert cli("trace", path, "--at", "guest_write_all").text.splitlines() == in_function
    assert cli("trace", path, "--at", "0x10198").text.splitlines() == [every[7]]
    assert cli("trace", path, "--at", "0x10194..0x1019a").text.splitlines() == every[6:8]
    assert cli("trace", path, "--max-instructions", 20).text.splitlines()[:20] == every[:20]
    both = cli("trace", path, "--lanes", 12, "--lane", 3, "--lane", 11, "--at", "guest_start").text.splitlines()
    assert {line[:2] for line in both} == {" 3", "11"}
    assert [line[4:] for line in both if line.startswith("11")] == [line for line in every if "guest_start" in line]


def test_objects(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "trace.jsonl"
    assert cli("trace", guest("hello"), "--json", "--calls", "--at", "guest_write_all", "-o", out).text == ""
    objects = [json.loads(line) for line in out.read_text().splitlines()]
    calls = [o for o in objects if o["kind"] == "call"]
    assert [(o["name"], o["result"]) for o in calls] == [("write", 13), ("write", 14), ("exit", None)]
    assert calls[0]["arguments"][2] == 13
    first = objects[0]
    assert (first["symbol"], first["text"], first["registers"]) == ("guest_write_all", "c.mv a3, a2", {"a3": 13})
    assert first["memory"] == []
    assert [o["retired"] for o in objects] == sorted(o["retired"] for o in objects)


SOURCE = """\
__attribute__((noinline)) int leaf(int x)
{
  for (int i = 0; i < 5; i++)
    x = x * 5 + i;
  return x;
}
int main(void) { return leaf(3) & 1; }
"""


@pytest.mark.skipif(GCC is None, reason="no compiler for RISC-V Linux is installed")
def test_source_lines(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "leaf.c").write_text(SOURCE)
    subprocess.run([str(GCC), "-g", "-O1", "-static", "leaf.c", "-o", "leaf"], cwd=tmp_path, check=True)
    path = tmp_path / "leaf"
    objects = [json.loads(line) for line in cli("trace", path, "--at", "leaf", "--json").text.splitlines()]
    assert {o["file"] for o in objects} == {"leaf.c"}
    assert {4} < {o["line"] for o in objects} <= {2, 3, 4, 5, 6}
    one = [json.loads(line) for line in cli("trace", path, "--at", "leaf.c:4", "--json").text.splitlines()]
    assert one
    assert one == [o for o in objects if o["line"] == 4]
    text = cli("trace", path, "--at", "leaf.c:4", "--at", "_start", "--count", 40).text.splitlines()
    columns = [line.split()[3] for line in text]
    assert "leaf.c:4" in columns
    started = next(line for line in text if "<_start>" in line)
    assert re.search(r"<_start> {30,}[0-9a-f]{4}", started), "no line is said of it"
    calls = cli("trace", path, "--calls", "--json").text.splitlines()
    assert {json.loads(line)["file"] for line in calls} == {None}
    for place, said in (("leaf.c:100", "the nearest is 7"), ("other.c:4", "there are leaf.c")):
        assert said in cli("trace", path, "--at", place).complaint()
    assert "compile it with -g" in cli("trace", guest("hello"), "--at", "hello.c:4").complaint()


def test_calls_of_linux_programs(cli: Cli) -> None:
    text = cli("trace", "--calls", path_of("text", 64), "one", stdin=b"12").text
    assert re.search(r"^ *\d+  set_tid_address\(0x[0-9a-f]+, .*\) = 1000$", text, re.MULTILINE)
    assert re.search(r"^ *\d+  ioctl\(1, 0x5413, .*\) = -25$", text, re.MULTILINE)
    assert text.splitlines()[-1].split("(")[0].split()[1] == "exit_group"


def test_instructions_of_linux_programs(cli: Cli) -> None:
    """Their permissions are by page, also for what fetches what is traced."""
    path = path_of("text", 64)
    first = cli("trace", path, "--count", 3, "one", stdin=b"12").text.splitlines()
    assert all(LINE.match(line) for line in first)
    entry = vmjit.load(path).entry
    assert next(line.split()[:2] for line in first) == ["0", hex(entry)]


def test_faults_are_told() -> None:
    code = encode("sw", rs1=0, rs2=5, imm=64) + encode("ebreak")
    told: list[Event] = []
    machine = vmjit.Machine(program(ISA, code), 1, "cpu", "interpreter", memory="4KiB")
    Tracer(machine, told.append, ranges=[(0x10000, 0x10004)]).run()
    assert machine._state.stop[0] == vmjit.Stop.FAULT
    (event,) = told
    assert isinstance(event, TracedInstruction)
    assert (event.text, event.registers, event.memory) == ("sw t0, 64(zero)", {}, ((64, bytes(4), True),))


@pytest.mark.parametrize("tier", ["interpreter", "scalar", "auto", "simd"])
def test_lanes_that_are_traced_do_the_same(tier: str) -> None:
    """Whatever runs the rest, and afterwards nothing is left of it."""
    sort = vmjit.load(guest("sort"))
    told: list[Event] = []
    lanes = 33
    machine = vmjit.Machine(sort, lanes, "cpu", tier, memory="64KiB")
    plain = vmjit.Machine(sort, lanes, "cpu", tier, memory="64KiB")
    start = sort.symbols["guest_main"]
    Tracer(machine, told.append, ranges=[(start, start + 1)], calls=True, lanes=[0, 32]).run()
    result = plain.run()
    assert np.array_equal(machine.registers.array(), plain.registers.array())
    assert np.array_equal(machine.retired, plain.retired)
    assert [lane for lane in range(lanes) if machine.environment.output(lane) != result.output(lane)] == []
    assert {event.lane for event in told} == {0, 32}
    assert {type(event) for event in told} == {TracedInstruction, TracedCall}
    engine = machine._engine
    assert (engine.breakpoints, engine.environment) == (frozenset(), machine.environment)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--at", "nowhere"), "nowhere"),
        (("--at", "0x4"), "no executable segment"),
        (("--at", "guest_start..guest_start"), "ends at 0x"),
        (("--lane", "1"), "there is no lane 1"),
        (("--count", "0"), "at least 1"),
        (("-o", "/nowhere/at/all"), "/nowhere/at/all"),
        (("--tier", "fast"), "tier must be one of"),
    ],
)
def test_mistakes(cli: Cli, options: tuple[str, ...], said: str) -> None:
    assert said in cli("trace", guest("hello"), *options).complaint()
