"""What a machine shows and takes: registers, pc, guest memory, inputs, arguments, reset."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

import vmjit
from tests.differential.oracles import EXECUTE, READ, TIERS, WRITE, machine, program, settle
from tests.machine.harness import A0, A2, A3, A4, A7, ARENA, CODE, DATA, S0, SP, T0, ZERO, Assembly, Scene
from vmjit import ArgumentError, GuestAddressError, Machine, Stop
from vmjit.decoders.riscv.isa import parse_isa
from vmjit.program import Program, Segment

GUESTS = Path(__file__).resolve().parents[1] / "guests" / "bin"
ABI = "zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6".split()

everywhere = pytest.mark.parametrize("tier", TIERS)
both = pytest.mark.parametrize("xlen", [32, 64])


def adder(xlen: int = 64, count: int = 50) -> Assembly:
    """a2 += 5, `count` times; the second instruction of the loop adds."""
    a = Assembly(xlen)
    a.put("addi", S0, ZERO, imm=count)
    a.label("loop")
    a.put("addi", A2, A2, imm=5)
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.put("ebreak")
    return a


def addi(value: int) -> bytes:
    a = Assembly(64)
    a.put("addi", A2, A2, imm=value)
    return a.code


def small(lanes: int = 3, xlen: int = 64, **settings: object) -> Machine:
    return Machine(program(f"rv{xlen}imac", adder(xlen).code, data=(DATA, 256)), lanes, memory=4096, **settings)  # type: ignore[arg-type]


def echo(lanes: int = 3, tier: str = "auto") -> Machine:
    return Machine(vmjit.load(GUESTS / "echo.rv64imac.elf"), lanes, tier=tier, memory="16KiB")


# -- registers


@both
def test_registers_have_three_names(xlen: int) -> None:
    m = small(xlen=xlen)
    for i, name in enumerate(ABI):
        m.registers[i] = [100 + i, 200 + i, -i]
        for key in (i, np.int64(i), name, f"x{i}"):
            value = m.registers[key]  # type: ignore[index]
            assert (value.shape, value.dtype) == ((3,), np.dtype(f"uint{xlen}"))
            assert value.tolist() == ([100 + i, 200 + i, -i % (1 << xlen)] if i else [0, 0, 0])
    assert m.registers["fp"].tolist() == m.registers["s0"].tolist()
    assert list(m.registers) == [f"x{i}" for i in range(32)]
    whole = m.registers.array()
    assert (whole.shape, whole.dtype) == ((32, 3), np.dtype(f"uint{xlen}"))
    assert whole[5].tolist() == m.registers["t0"].tolist()


@both
def test_values_of_registers(xlen: int) -> None:
    m = small(xlen=xlen)
    top = (1 << xlen) - 1

    def after(value: object) -> list[int]:
        m.registers["a0"] = value  # type: ignore[assignment]
        found: list[int] = m.registers["a0"].tolist()
        return found

    assert after(7) == [7] * 3
    assert after(-1) == [top] * 3
    assert after(top) == [top] * 3
    assert after(-(1 << (xlen - 1))) == [1 << (xlen - 1)] * 3
    assert after([1, 2, 3]) == [1, 2, 3]
    assert after((-1, 0, 1)) == [top, 0, 1]
    assert after([9]) == [9] * 3
    assert after(np.int16(-2)) == [top - 1] * 3
    assert after(np.array([-3, 0, 3], np.int8)) == [top - 2, 0, 3]
    assert after(np.array([top, 1, 0], np.uint64)) == [top, 1, 0]
    assert after(np.arange(6, dtype=np.uint32)[::2]) == [0, 2, 4]
    m.registers["zero"] = 55
    assert m.registers["x0"].tolist() == [0, 0, 0]


def test_registers_are_copies() -> None:
    m = small()
    m.registers["a0"][:] = 99
    m.registers.array()[:] = 99
    m.pc[:] = 99
    m.retired[:] = 99
    m.stop[:] = 99
    assert m.registers["a0"].tolist() == [0, 1, 2]
    assert m.registers["a1"].tolist() == [3, 3, 3]
    assert m.pc.tolist() == [CODE] * 3
    assert m.retired.tolist() == m.stop.tolist() == [0, 0, 0]


@pytest.mark.parametrize("key", ["x32", "x-1", "a8", "", "A0", "reservation", 32, 33, -1, 1.0, None, (1,)])
def test_registers_that_are_none(key: object) -> None:
    m = small()
    with pytest.raises(ArgumentError, match=r"no register .*x0 to x31"):
        m.registers[key]  # type: ignore[index]
    with pytest.raises(ArgumentError, match="no register"):
        m.registers[key] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    "value", [[1, 2], [1, 2, 3, 4], [], np.zeros((3, 1), int), np.zeros((1, 3), int), 1.5, [1.0, 2.0, 3.0], True,
              [True, False, True], "1", None, [1, None, 2], [1 << 64, 0, 0]],
)  # fmt: skip
def test_values_that_registers_do_not_take(value: object) -> None:
    m = small()
    before = m.registers.array()
    with pytest.raises(ArgumentError, match=r"registers take integers|expected one value or an array of shape \(3,\)"):
        m.registers["a5"] = value  # type: ignore[assignment]
    assert (m.registers.array() == before).all()


@both
def test_pc_can_be_set(xlen: int) -> None:
    m = small(xlen=xlen)
    assert (m.pc.shape, m.pc.dtype) == ((3,), np.uint64)
    m.registers["a2"] = 1000
    m.registers["s0"] = 1
    m.pc = [CODE + 4, CODE + 16, CODE + 8]
    assert m.run().stops() == {"EBREAK": 3}
    assert m.registers["a2"].tolist() == [1005, 1000, 1000]
    assert m.retired.tolist() == [3, 0, 2]
    m.pc = CODE + 16
    assert m.pc.tolist() == [CODE + 16] * 3
    m.pc = -4
    assert m.pc.tolist() == [(1 << xlen) - 4] * 3
    for wrong in ([1, 2], 1.5, "main", None):
        with pytest.raises(ArgumentError):
            m.pc = wrong  # type: ignore[assignment]
    assert m.pc.tolist() == [(1 << xlen) - 4] * 3


# -- memory


def symbolic(lanes: int = 3) -> Machine:
    """A machine with a symbol for each of its segments, of which two are adjacent."""
    segments = (
        Segment(CODE, len(adder().code), adder().code, READ | EXECUTE),
        Segment(DATA, 16, bytes(range(16)), READ | WRITE),
        Segment(DATA + 16, 16, bytes(range(100, 116)), READ),
    )
    symbols = {"code": CODE, "table": DATA, "constants": DATA + 16}
    return Machine(Program(segments, CODE, parse_isa("rv64imac"), symbols), lanes, memory=4096)


def test_reading_memory() -> None:
    m = symbolic()
    for place in (DATA + 2, hex(DATA + 2), str(DATA + 2)):
        found = m.memory.read(place, 4)
        assert (found.shape, found.dtype) == ((3, 4), np.uint8)
        assert found.tolist() == [[2, 3, 4, 5]] * 3
    assert m.memory.read("constants", 3).tolist() == [[100, 101, 102]] * 3
    assert m.memory.read(DATA + 14, 4).tolist() == [[14, 15, 100, 101]] * 3
    assert m.memory.read("code", 0).shape == (3, 0)
    assert m.memory.read(0x999999, 0).shape == (3, 0)
    assert m.memory.read("code", 8)[1].tobytes() == adder().code[:8]
    m.memory.read("table", 16)[:] = 77
    m.memory.read("constants", 16).copy()[:] = 77
    assert m.memory.read("table", 1).tolist() == [[0]] * 3
    top = int(m.registers["sp"][0])
    assert not m.memory.read(top - 16, 16).any()


def test_a_read_of_constants_does_not_open_them() -> None:
    """What read gives is a copy, of the shared image too."""
    m = symbolic()
    found = m.memory.read("constants", 2)
    if found.flags.writeable:
        found[:] = 0
    assert m.memory.read("constants", 2).tolist() == [[100, 101]] * 3


@pytest.mark.parametrize(
    "data",
    [b"\x09\x08", bytearray(b"\x09\x08"), memoryview(b"\x09\x08"), np.array([9, 8], np.uint8), np.array([[9, 8]] * 3, np.uint8)],
    ids=["bytes", "bytearray", "memoryview", "row", "rows"],
)  # fmt: skip
@pytest.mark.parametrize("place", ["table", "constants", "code", DATA + 15, hex(DATA)])
def test_writing_memory_of_all_lanes(data: object, place: str | int) -> None:
    """The guest's permissions do not hold the host back."""
    m = symbolic()
    before = m.memory.read(DATA, 32)
    m.memory.write(place, data)  # type: ignore[arg-type]
    assert m.memory.read(place, 2).tolist() == [[9, 8]] * 3
    changed = (m.memory.read(DATA, 32) != before).sum(axis=1)
    assert changed.tolist() == ([0] * 3 if place == "code" else [2] * 3)


def test_writing_memory_lane_by_lane() -> None:
    m = symbolic()
    for place in ("table", "constants", "code"):
        rows = np.arange(24, dtype=np.uint8).reshape(3, 8) + len(place)
        m.memory.write(place, rows)
        assert (m.memory.read(place, 8) == rows).all(), place
    whole = m.memory.read(DATA, 32)
    assert whole[:, 8:16].tolist() == [list(range(8, 16))] * 3
    assert whole[:, 24:].tolist() == [list(range(108, 116))] * 3
    m.memory.write(DATA + 12, np.full((3, 8), [[1], [2], [3]], np.uint8))  # across both segments
    assert m.memory.read(DATA + 12, 8).tolist() == [[1] * 8, [2] * 8, [3] * 8]


def test_writing_strided_rows() -> None:
    m = symbolic()
    rows = np.arange(48, dtype=np.uint8).reshape(3, 16)[:, ::2]
    m.memory.write("table", rows)
    m.memory.write("constants", rows[::-1])
    assert (m.memory.read("table", 8) == rows).all()
    assert (m.memory.read("constants", 8) == rows[::-1]).all()


def test_memory_that_is_not_there() -> None:
    m = symbolic()
    top = int(m.registers["sp"][0])
    for place, size, missing in (
        (0, 1, 0),
        (CODE - 1, 2, CODE - 1),
        (DATA + 30, 4 + ARENA, top),
        (top, 1, top),
        (-8, 4, -8),
        (1 << 70, 1, 1 << 70),
        (DATA, 1 << 60, top),
    ):
        with pytest.raises(GuestAddressError, match="outside the program's memory") as caught:
            m.memory.read(place, size)
        assert caught.value.address == missing
        if size < 10000:
            with pytest.raises(GuestAddressError):
                m.memory.write(place, bytes(size))
    with pytest.raises(GuestAddressError):
        m.memory.write(top - 2, b"\x07\x07\x07")
    assert m.memory.read(top - 2, 2).tolist() == [[0, 0]] * 3, "a write that fails writes nothing"
    assert issubclass(GuestAddressError, IndexError)


def test_memory_arguments_that_make_no_sense() -> None:
    m = symbolic()
    for place, size in ((DATA, -1), ("nowhere", 4), ("", 4), ("0xzz", 4)):
        with pytest.raises(ArgumentError):
            m.memory.read(place, size)
    wrong = (
        np.zeros(4, np.int8),
        np.zeros((2, 4), np.uint8),
        np.zeros((3, 4), np.uint16),
        np.zeros((3, 4, 1), np.uint8),
        np.uint8(3),
        [1, 2, 3],
        "text",
        5,
        None,
    )
    for data in wrong:
        with pytest.raises(ArgumentError):
            m.memory.write(DATA, data)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="no symbol 'nowhere'"):
        m.memory.write("nowhere", b"")
    assert m.memory.read(DATA, 4).tolist() == [[0, 1, 2, 3]] * 3


@everywhere
@pytest.mark.parametrize("writable", [False, True])
def test_code_that_the_host_writes_takes_effect(writable: bool, tier: str) -> None:
    """Before the first run, between runs in the middle of a loop, for all lanes and for each its own."""
    m = machine(program("rv64imac", adder().code, writable=writable), 3, tier)
    m.memory.write(CODE + 4, addi(7))
    m.run(1 + 3 * 10)
    assert m.registers["a2"].tolist() == [70] * 3
    settle()
    m.memory.write(CODE + 4, addi(-1))
    m.run(3 * 10)
    assert m.registers["a2"].tolist() == [60] * 3
    m.memory.write(CODE + 4, np.array([list(addi(k)) for k in (1, 2, 3)], np.uint8))
    m.run(3 * 20)
    assert m.registers["a2"].tolist() == [80, 100, 120]
    settle()
    m.memory.write(CODE + 4, addi(100))
    assert m.run().stops() == {"EBREAK": 3}
    assert m.registers["a2"].tolist() == [1080, 1100, 1120]
    assert m.retired.tolist() == [1 + 3 * 50] * 3


# -- inputs


@pytest.mark.parametrize("tier", TIERS)
def test_forms_of_input(tier: str) -> None:
    m = echo(tier=tier)
    words = [b"first", b"", b"the third lane's"]
    forms: list[tuple[object, list[bytes]]] = [
        (b"same for all", [b"same for all"] * 3),
        (bytearray(b"array"), [b"array"] * 3),
        (memoryview(b"view"), [b"view"] * 3),
        (b"", [b""] * 3),
        (words, words),
        (tuple(words), words),
        ([bytearray(w) for w in words], words),
        ([memoryview(w) for w in words], words),
        ([np.frombuffer(w, np.uint8) for w in words], words),
        (np.frombuffer(b"abcdef", np.uint8).reshape(3, 2), [b"ab", b"cd", b"ef"]),
        (np.frombuffer(b"abcdef", np.uint8).reshape(2, 3).T, [b"ad", b"be", b"cf"]),
        (np.zeros((3, 0), np.uint8), [b""] * 3),
    ]
    for given, wanted in forms:
        m.reset()
        m.set_input(given)  # type: ignore[arg-type]
        result = m.run()
        assert [result.output(i) for i in range(3)] == [w.upper() for w in wanted], repr(given)
        assert result.exit_code.tolist() == [len(w) for w in wanted]


def test_an_input_does_not_depend_on_the_caller_s_array() -> None:
    m = echo()
    given = np.full((3, 4), ord("a"), np.uint8)
    m.set_input(given)
    given[:] = ord("z")
    assert m.run().output(2) == b"AAAA"


BAD_INPUTS: dict[str, object] = {
    "too few": [b"one", b"two"],
    "too many": [b"1", b"2", b"3", b"4"],
    "none": [],
    "texts": ["a", "b", "c"],
    "text": "abc",
    "numbers": [1, 2, 3],
    "other lanes": np.zeros((2, 3), np.uint8),
    "one dimension": np.zeros(3, np.uint8),
    "signed": np.zeros((3, 2), np.int8),
    "a gap": [b"a", None, b"c"],
    "number": 5,
    "None": None,
}


@pytest.mark.parametrize("wrong", BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_inputs_that_are_none(wrong: object) -> None:
    """They are refused, and the inputs that were set before stay."""
    m = echo()
    m.set_input([b"a", b"b", b"c"])
    with pytest.raises(ArgumentError, match="input"):
        m.set_input(wrong)  # type: ignore[arg-type]
    result = m.run()
    assert [result.output(i) for i in range(3)] == [b"A", b"B", b"C"]


# -- arguments


@both
def test_arguments_lie_on_the_stack(xlen: int) -> None:
    given = ["prog", b"two words", "", "ünïcode"]
    m = small(lanes=2, xlen=xlen, arguments=given)
    n = xlen // 8

    def word(address: int) -> int:
        return int.from_bytes(m.memory.read(address, n)[1].tobytes(), "little")

    for _ in range(2):
        (sp,) = set(m.registers["sp"].tolist())
        assert sp % 16 == 0
        assert word(sp) == 4
        texts = []
        for i in range(4):
            start = word(sp + n * (1 + i))
            raw = m.memory.read(start, 16 if i < 3 else 10)[0].tobytes()
            texts.append(raw.partition(b"\0")[0])
        assert texts == [b"prog", b"two words", b"", "ünïcode".encode()]
        assert [word(sp + n * (5 + i)) for i in range(4)] == [0] * 4
        m.run()
        m.memory.write(sp, bytes(4 * n))
        m.reset()


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(ArgumentError, match="do not fit"):
        small(arguments=["x" * 5000])
    assert small(arguments=["x" * 3000]).run().stops() == {"EBREAK": 3}


@both
def test_what_a_lane_finds(xlen: int) -> None:
    m = small(lanes=5, xlen=xlen)
    registers = m.registers.array()
    assert registers[A0].tolist() == [0, 1, 2, 3, 4]
    assert registers[11].tolist() == [5] * 5
    assert len(set(registers[SP].tolist())) == 1
    assert int(registers[SP][0]) % 16 == 0
    assert not np.delete(registers, [A0, 11, SP], axis=0).any()
    assert m.retired.tolist() == [0] * 5


# -- reset


def writing(xlen: int = 64) -> Assembly:
    """Reads 4 bytes, adds them to the word at DATA, writes the word out, moves the break, exits with the lane."""
    a = Assembly(xlen)
    a.put("add", S0, ZERO, A0)
    a.put("addi", A7, ZERO, imm=63)
    a.put("addi", A0, ZERO)
    a.put("addi", 11, A3, imm=16)
    a.put("addi", A2, ZERO, imm=4)
    a.put("ecall")
    a.put("addi", 21, ZERO, imm=20)
    a.label("loop")
    a.put("lw", A4, A3, imm=16)
    a.put("lw", T0, A3)
    a.put("add", T0, T0, A4)
    a.put("sw", 0, A3, T0)
    a.put("sw", 0, SP, T0, imm=-64)
    a.put("addi", 21, 21, imm=-1)
    a.put("bne", rs1=21, to="loop")
    a.put("addi", A7, ZERO, imm=64)
    a.put("addi", A0, ZERO, imm=1)
    a.put("addi", 11, A3)
    a.put("ecall")
    a.put("addi", A7, ZERO, imm=57)
    a.put("addi", A0, ZERO, imm=1)
    a.put("ecall")
    a.put("addi", A7, ZERO, imm=214)
    a.put("add", A0, ZERO, 25)
    a.put("ecall")
    a.put("addi", A7, ZERO, imm=1000)
    a.put("ecall")
    a.put("addi", A7, ZERO, imm=93)
    a.put("add", A0, ZERO, S0)
    a.put("ecall")
    return a


@everywhere
@both
def test_reset_restores_everything(xlen: int, tier: str) -> None:
    words = [struct.pack("<i", k) for k in (5, -3, 1 << 20)]
    scene = Scene(writing(xlen), [{A3: DATA, 25: DATA + 4096 + k} for k in (0, 16, 32)])
    m = scene.machine(tier)
    m.set_input(words)
    first = None
    at_start = (m.memory.read(DATA, 256 + ARENA), m.environment.brk.copy())
    for _ in range(3):
        result = m.run()
        assert result.stops() == {"EXIT": 3}
        assert result.exit_code.tolist() == [0, 1, 2]
        assert [result.output(i) for i in range(3)] == [struct.pack("<i", 20 * k) for k in (5, -3, 1 << 20)]
        assert result.unknown_calls == {1000: 3}
        assert m.environment.brk.tolist() == [DATA + 4096, DATA + 4112, DATA + 4128]
        seen = (
            m.registers.array().tolist(),
            m.retired.tolist(),
            m.pc.tolist(),
            m.memory.read(DATA, 256 + ARENA).tolist(),
        )
        assert first in (None, seen)
        first = seen
        settle()
        m.reset()
        assert not m.registers.array()[3:10].any()
        assert m.registers["a0"].tolist() == [0, 1, 2]
        assert m.pc.tolist() == [CODE] * 3
        assert m.retired.tolist() == m.stop.tolist() == [0, 0, 0]
        assert (m.memory.read(DATA, 256 + ARENA) == at_start[0]).all()
        assert (m.environment.brk == at_start[1]).all()
        again = m.run(0)
        assert [again.output(i) for i in range(3)] == [b""] * 3
        assert again.exit_code.tolist() == [-1] * 3
        assert again.unknown_calls == {}
        m.reset()
        scene.start(m)


@everywhere
def test_reset_after_a_fault_and_in_the_middle(tier: str) -> None:
    a = adder(count=50)
    m = machine(program("rv64imac", a.code), 3, tier)
    m.run(31)
    m.reset()
    m.pc = [0, CODE, CODE + 1]
    assert m.run().stops() == {"FAULT": 2, "EBREAK": 1}
    m.reset()
    result = m.run(77)
    assert result.stops() == {"BUDGET": 3}
    assert result.fault_address.tolist() == result.fault_access.tolist() == [0, 0, 0]
    m.reset()
    assert m.run().stops() == {"EBREAK": 3}
    assert m.retired.tolist() == [151] * 3
    assert m.registers["a2"].tolist() == [250] * 3


@pytest.mark.parametrize("tier", ["scalar", "auto"])
def test_reset_keeps_compiled_code(tier: str) -> None:
    m = machine(program("rv64imac", adder(count=200).code), 4, tier)
    m.run()
    settle()
    before = (m._engine.compiler.statistics.regions, m._engine.compiler.statistics.compiled, len(m._engine.spaces))
    assert before[0] > 0
    for _ in range(3):
        m.reset()
        result = m.run()
        assert result.retired.tolist() == [601] * 4
        assert result.tiers["scalar"] > 1500
        settle()
    after = (m._engine.compiler.statistics.regions, m._engine.compiler.statistics.compiled, len(m._engine.spaces))
    assert after == before


@everywhere
def test_reset_takes_back_what_the_host_wrote(tier: str) -> None:
    """The same and different bytes by lane, in writable memory, in constants and in code."""
    segments = ((DATA, bytes(range(64)), READ | WRITE), (DATA + 64, bytes(range(64)), READ))
    a = adder()
    scene = Scene(a, [{}, {}, {}], segments=segments)
    m = scene.machine(tier)
    for by_lane in (False, True, True):
        for place in (DATA + 3, DATA + 64 + 3, CODE + 4):
            data = np.array([list(addi(k if by_lane else 9)) for k in (11, 12, 13)], np.uint8)
            m.memory.write(place, data if by_lane else data[0])
        m.run()
        assert m.registers["a2"].tolist() == ([550, 600, 650] if by_lane else [450] * 3)
        settle()
        m.reset()
        assert m.memory.read(DATA, 128).tolist() == [[*range(64), *range(64)]] * 3
        assert m.memory.read(CODE, len(a.code))[2].tobytes() == a.code
        m.run()
        assert m.registers["a2"].tolist() == [250] * 3
        m.reset()


def test_stops_and_exit_codes_have_names() -> None:
    m = echo()
    m.set_input(b"x" * 300)
    result = m.run()
    assert result.stops() == {"EXIT": 3}
    assert result.exit_code.tolist() == [300 % 256] * 3
    assert Stop(int(result.stop[0])) is Stop.EXIT
