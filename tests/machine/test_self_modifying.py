"""Code that changes: written by the guest and taken up at fence.i, or written by the host; lane by lane, many times."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest

from tests.differential.oracles import EXECUTE, READ, TIERS, WRITE, machine, program, settle
from tests.differential.reference import Instruction
from tests.machine.harness import (
    A0,
    A2,
    A3,
    A4,
    A5,
    CODE,
    DATA,
    RA,
    S0,
    S1,
    T0,
    T1,
    ZERO,
    Assembly,
    Scene,
    Unknown,
    check_on,
    ins,
)
from vmjit import Stop

everywhere = pytest.mark.parametrize("tier", TIERS)
both = pytest.mark.parametrize("xlen", [32, 64])
RWX = READ | WRITE | EXECUTE

# What a lane can put in place of the patched instruction.
CHOICES = {
    "other constant": ins("addi", A2, A2, imm=77),
    "negative constant": ins("addi", A2, A2, imm=-2048),
    "other operation": ins("xori", A2, A2, imm=0x55),
    "other register": ins("addi", A4, A2, imm=1),
    "load": ins("lw", A2, A3, imm=4),
    "store": ins("sw", 0, A3, A2, 8),
    "branch over the next": ins("bne", 0, S1, ZERO, 8),
    "multiplication": ins("mul", A2, A2, S1),
    "link": ins("jal", T1, imm=4),
    "fence": ins("fence"),
    "as it was": ins("addi", A2, A2, imm=1),
}
ENDS = {
    "breakpoint": ins("ebreak"),
    "unknown": Unknown("unknown", raw=b"\xff\xff\xff\xff"),
    "bad load": ins("lw", A2, ZERO, imm=0),
    "jump away": ins("jal", ZERO, imm=-0x8000),
}


def patching(xlen: int, inner: int) -> Assembly:
    """Takes the words of a table at a3 + 16, as many as a5 says: each is written over `patch`, and a loop around `patch`
    runs `inner` times."""
    a = Assembly(xlen)
    a.put("addi", T0, A3, imm=16)
    a.label("outer")
    a.put("lw", T1, T0)
    a.put("auipc", A4)
    anchor = a.pc - 4
    store = a.put("sw", 0, A4, T1)
    a.put("fence.i")
    a.put("addi", S1, ZERO, imm=inner)
    a.label("inner")
    patch = a.label("patch")
    a.append(CHOICES["as it was"])
    a.put("addi", A2, A2, imm=3)
    a.put("addi", S1, S1, imm=-1)
    a.put("bne", rs1=S1, to="inner")
    a.put("addi", T0, T0, imm=4)
    a.put("addi", A5, A5, imm=-1)
    a.put("bne", rs1=A5, to="outer")
    a.put("ebreak")
    a.replace(store, ins("sw", 0, A4, T1, patch - anchor))
    return a


def table_of(words: list[Instruction], xlen: int, length: int) -> bytes:
    return struct.pack("<4i", 0, 5, 0, 0) + b"".join(i.data(xlen) for i in words).ljust(4 * length, b"\0")


def patching_scene(xlen: int, scripts: list[list[Instruction]], inner: int = 12) -> Scene:
    a = patching(xlen, inner)
    length = max(map(len, scripts))
    size = 16 + 4 * length
    everything = [*CHOICES.values(), *ENDS.values(), *(i for script in scripts for i in script)]
    return Scene(
        a,
        [{A3: DATA, A5: len(script)} for script in scripts],
        segments=[(DATA, bytes(-(-size // 16) * 16), READ | WRITE)],
        fills={DATA: [table_of(script, xlen, length) for script in scripts]},
        code_permissions=RWX,
        words={i.data(xlen): i for i in everything},
        patches=(a.labels["patch"],),
    )


@everywhere
def test_each_lane_changes_its_code_in_its_own_way(tier: str) -> None:
    """Lane i goes through the choices from the i-th on, so that at any time all lanes have other code."""
    xlen = 64
    names = list(CHOICES)
    scripts = [[CHOICES[names[(i + k) % len(names)]] for k in range(len(names) - i)] for i in range(len(names))]
    check_on(patching_scene(xlen, scripts), tier, [150, 150, None])


@everywhere
def test_lanes_change_their_code_back_and_forth(tier: str) -> None:
    """Compiled code is replaced, and code that was seen before is met again; some lanes change nothing."""
    xlen = 64
    one, other, same = CHOICES["other constant"], CHOICES["other operation"], CHOICES["as it was"]
    scripts = [[one, other] * 6, [other, one] * 6, [same] * 12, [same, one] * 6, [one] * 12]
    check_on(patching_scene(xlen, scripts, inner=40), tier, compiles=tier != "auto")
    check_on(patching_scene(xlen, scripts, inner=40), tier, [7, 100, 33, 0, 500, None])


@everywhere
@both
def test_code_that_ends_a_lane(xlen: int, tier: str) -> None:
    """A lane writes a breakpoint, unknown bytes, a bad load, a jump to nowhere into its loop; others go on."""
    good = CHOICES["multiplication"]
    scripts = [[good] * k + [end] + [good] * 3 for k, end in enumerate(ENDS.values(), 1)]
    scripts += [[good] * 9]
    check_on(patching_scene(xlen, scripts), tier, [60, 60, None])


@everywhere
def test_many_versions(tier: str) -> None:
    """In lanes that share some of them; on the interpreter, more than are kept."""
    source = random.Random(5)
    numbers = [ins("addi", A2, A2, imm=k) for k in range(100 if tier == "interpreter" else 12)]
    scripts = [
        numbers,
        numbers[::-1],
        [source.choice(numbers) for _ in range(len(numbers))],
        [numbers[k // 4] for k in range(len(numbers))],
        [numbers[0]],
    ]
    check_on(patching_scene(64, scripts, inner=5), tier, compiles=tier != "auto")


@everywhere
def test_random_scripts(tier: str) -> None:
    source = random.Random(6)
    for _ in range(3 if tier == "interpreter" else 1):
        scripts = [
            [source.choice(list(CHOICES.values())) for _ in range(source.randrange(1, 9))]
            + source.sample(list(ENDS.values()), source.randrange(2))
            for _ in range(8)
        ]
        check_on(patching_scene(32, scripts), tier, [source.randrange(300), source.randrange(300), None])


RESETS = [("interpreter", versions) for versions in (1, 2, *range(61, 70), 128, 129)]
RESETS += [("scalar", 2), ("auto", 2), ("auto", 64)]


@pytest.mark.parametrize(("tier", "versions"), RESETS)
def test_reset_after_many_versions(versions: int, tier: str) -> None:
    """Whatever was kept of the versions, after a reset the loaded code runs."""
    script = [ins("addi", A2, A2, imm=100 + k) for k in range(versions)]
    scene = patching_scene(64, [script], inner=1)
    m = scene.machine(tier)
    wanted = sum(100 + k + 3 for k in range(versions))
    for _ in range(2):
        assert m.run().stops() == {"EBREAK": 1}
        assert m.registers["a2"].tolist() == [wanted]
        m.reset()
        # The loaded program, without its patches: the loop runs on its own.
        m.pc = scene.assembly.labels["inner"]
        m.registers["s1"] = 10
        m.registers["a5"] = 1
        assert m.run().stops() == {"EBREAK": 1}
        assert m.registers["a2"].tolist() == [40]
        m.reset()
        scene.start(m)


@everywhere
def test_only_fence_i_takes_changes_up_for_sure(tier: str) -> None:
    """A lane that fences without having changed anything, and one that changes its own, do not disturb each other."""
    a = Assembly(64)
    a.put("addi", S0, ZERO, imm=30)
    a.label("loop")
    a.put("fence.i")
    a.put("addi", A2, A2, imm=1)
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.put("ebreak")
    m = machine(program("rv64imac_zifencei", a.code, writable=True), 3, tier)
    m.run(10)
    m.memory.write(CODE + 8, np.array([list(ins("addi", A2, A2, imm=k).data(64)) for k in (1, 2, 3)], np.uint8))
    settle()
    assert m.run().stops() == {"EBREAK": 3}
    # The first ten instructions are two whole iterations and the third one's fence.i.
    assert m.registers["a2"].tolist() == [2 + 28 * k for k in (1, 2, 3)]
    assert m.retired.tolist() == [1 + 4 * 30] * 3


# -- code that the guest makes: a buffer far from the program


@everywhere
def test_a_guest_that_makes_functions(tier: str) -> None:
    """Writes a function into a writable and executable segment, calls it in a loop, writes the next one."""
    xlen = 32
    buffer = 0x7000_0000
    a = Assembly(xlen)
    a.put("addi", S0, ZERO, imm=12)
    a.li(A4, buffer)
    a.label("loop")
    # addi a2, a2, (s0 + lane) ; jalr zero, ra
    a.put("add", T0, S0, A0)
    a.put("slli", T0, T0, imm=20)
    a.li(T1, int.from_bytes(ins("addi", A2, A2).data(xlen), "little"))
    a.put("or", T0, T0, T1)
    a.put("sw", 0, A4, T0)
    a.li(T1, int.from_bytes(ins("jalr", ZERO, RA).data(xlen), "little"))
    a.put("sw", 0, A4, T1, imm=4)
    a.put("fence.i")
    a.put("addi", S1, ZERO, imm=10)
    a.label("calls")
    a.put("jalr", RA, A4)
    a.put("addi", S1, S1, imm=-1)
    a.put("bne", rs1=S1, to="calls")
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.put("ebreak")
    segments = [(buffer, bytes(64), RWX), (DATA, bytes(16), READ | WRITE)]
    scene = Scene(a, [{} for _ in range(4)], segments=segments)
    m = scene.machine(tier)
    for _ in range(2):
        compiled = 0
        result = m.run()
        compiled += result.tiers["scalar"]
        assert result.stops() == {"EBREAK": 4}
        assert m.registers["a2"].tolist() == [10 * sum(s + lane for s in range(1, 13)) for lane in range(4)]
        assert m.retired.tolist() == [3 + 12 * (11 + 10 * 5 + 2)] * 4
        settle()
        m.reset()
    assert (compiled > 0) == (tier != "interpreter")


@everywhere
def test_writable_code_next_to_its_data(tier: str) -> None:
    """Stores to the same segment that leave the code alone change nothing, though each is followed by fence.i."""
    a = Assembly(64)
    a.put("addi", S0, ZERO, imm=40)
    a.put("auipc", A4)
    a.label("loop")
    a.put("ld", T0, A4, imm=64)
    a.put("add", T0, T0, S0)
    a.put("sd", 0, A4, T0, imm=64)
    a.put("fence.i")
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.put("ebreak")
    while a.pc < CODE + 128:
        a.unknown(bytes(4))
    check_on(Scene(a, [{}, {}, {}], code_permissions=RWX), tier, compiles=tier != "auto")


# -- code that the host makes


@everywhere
@pytest.mark.parametrize("writable", [False, True])
def test_many_versions_by_the_host(writable: bool, tier: str) -> None:
    """Again and again other code in each lane, run for a while each time."""
    a = Assembly(64)
    a.label("loop")
    a.put("addi", A2, A2, imm=1)
    a.put("jal", to="loop")
    m = machine(program("rv64imac", a.code, writable=writable), 3, tier)
    total = np.zeros(3, np.int64)
    versions = 100 if tier == "interpreter" else 20
    for version in range(versions):
        values = [version, 2 * version, 7] if version % 3 else [version] * 3
        rows = np.array([list(ins("addi", A2, A2, imm=k).data(64)) for k in values], np.uint8)
        m.memory.write(CODE, rows if version % 2 else rows.copy())
        m.run(20)
        total += 10 * np.array(values)
        assert m.registers["a2"].tolist() == total.tolist(), version
    assert m.retired.tolist() == [20 * versions] * 3


@everywhere
def test_each_of_many_lanes_has_its_own_code(tier: str) -> None:
    """Many lanes, of which no two run the same bytes."""
    a = Assembly(64)
    a.put("addi", S0, ZERO, imm=20)
    a.label("loop")
    a.put("addi", A2, A2, imm=0)
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.put("ebreak")
    lanes = 200 if tier == "interpreter" else 15
    m = machine(program("rv64imac", a.code), lanes, tier)
    rows = np.array([list(ins("addi", A2, A2, imm=k).data(64)) for k in range(lanes)], np.uint8)
    m.memory.write(CODE + 4, rows)
    result = m.run()
    assert result.stops() == {"EBREAK": lanes}
    assert m.registers["a2"].tolist() == [20 * k for k in range(lanes)]
    m.reset()
    m.run()
    assert m.registers["a2"].tolist() == [0] * lanes


@everywhere
def test_the_host_changes_code_in_the_middle_of_a_block(tier: str) -> None:
    """The budget ends inside a block; when the lane goes on, it is in the new code."""
    a = Assembly(64)
    a.label("loop")
    for k in range(8):
        a.put("addi", 10 + k, 10 + k, imm=1)
    a.put("jal", to="loop")
    m = machine(program("rv64imac", a.code, writable=True), 2, tier)
    for i in range(10, 18):
        m.registers[i] = 0
    m.run(9 * 30 + 4)
    settle()
    for k in range(8):
        m.memory.write(CODE + 4 * k, ins("addi", 10 + k, 10 + k, imm=100).data(64))
    m.run(5)
    assert m.registers.array()[10:18, 1].tolist() == [31] * 4 + [130] * 4
    assert m.pc.tolist() == [CODE] * 2


@everywhere
def test_the_host_shrinks_instructions(tier: str) -> None:
    """A four-byte instruction becomes two of two bytes, and back."""
    a = Assembly(64)
    a.put("addi", S0, ZERO, imm=20)
    a.label("loop")
    a.put("addi", A2, A2, imm=1)
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.put("ebreak")
    two = Instruction("addi", A2, A2, imm=5, short="c.addi").data(64) + Instruction(
        "addi", A3, A3, imm=6, short="c.addi"
    ).data(64)
    m = machine(program("rv64imac", a.code, writable=True), 2, tier)
    for data, per_loop, a2, a3 in ((two, 4, 5, 6), (ins("addi", A2, A2, imm=9).data(64), 3, 9, 0), (two, 4, 5, 6)):
        m.memory.write(CODE + 4, data)
        for _ in range(2):
            m.pc = CODE
            m.registers["a2"] = m.registers["a3"] = 0
            result = m.run()
            assert result.retired.tolist() == [1 + 20 * per_loop] * 2
            assert m.registers["a2"].tolist() == [20 * a2] * 2
            assert m.registers["a3"].tolist() == [20 * a3] * 2
            settle()


def test_versions_are_shared() -> None:
    """Lanes whose code has the same bytes share what was decoded and compiled for it, however they came to it."""
    one, other = CHOICES["other constant"], CHOICES["other operation"]
    scene = patching_scene(64, [[one, other], [other, one], [one, one], [other] * 5, [one, other, one]])
    m = scene.machine("auto")
    assert m.run().stops() == {"EBREAK": 5}
    assert len(m._engine.spaces) == 3
    assert Stop.EBREAK in m.stop
