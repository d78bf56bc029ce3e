"""Faults are precise: in compiled loops too, a lane stops at the very instruction with the state as before it.

Each scene is a loop in which the lanes go wrong in different iterations, and some never do.
"""

from __future__ import annotations

import random

import pytest

from tests.differential.asm import encode
from tests.differential.oracles import EXECUTE, READ, TIERS, WRITE, settle
from tests.differential.reference import Instruction
from tests.machine.harness import (
    A0,
    A2,
    A3,
    A4,
    A5,
    A6,
    A7,
    ARENA,
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
    check_on,
    ins,
)

XLENS = (32, 64)
WINDOW = 256
TOP = DATA + WINDOW + ARENA
COUNT = 40
ITERATIONS = (1, 2, 7, 33, 200)  # in which a lane goes wrong; the last is more than there are
LOADS = ("lb", "lbu", "lh", "lhu", "lw", "lwu", "ld")
SIZES = {"b": 1, "h": 2, "w": 4, "d": 8}
BAD = 0x1000

everywhere = pytest.mark.parametrize("tier", TIERS)
both = pytest.mark.parametrize("xlen", XLENS)


def loop(xlen: int, body: list[Instruction]) -> Assembly:
    """The body COUNT times, counted down in s0; then ebreak."""
    a = Assembly(xlen)
    a.put("addi", S0, ZERO, imm=COUNT)
    a.label("loop")
    a.extend(body)
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.put("ebreak")
    return a


def at_iteration(register: int) -> list[Instruction]:
    """t1 = 1 in the iteration whose number from 1 is in the register, 0 in the others."""
    return [
        ins("addi", T1, ZERO, 0, COUNT + 1),
        ins("sub", T1, T1, S0),
        ins("xor", T1, T1, register),
        ins("sltiu", T1, T1, 0, 1),
    ]


def accesses(xlen: int) -> tuple[str, ...]:
    """All of one width's, and of the other those that it has alone."""
    return ("lb", "lhu", "lw", "sb", "sh", "sw") if xlen == 32 else ("lbu", "lh", "lwu", "ld", "sw", "sd")


def access(name: str, step: int, offset: int = 0) -> list[Instruction]:
    """One load or store at the pointer a3, which then moves on."""
    is_load = name in LOADS
    return [
        ins(name, T0, A3, 0, offset) if is_load else ins(name, 0, A3, A4, offset),
        ins("add", A4, A4, T0) if is_load else ins("addi", A4, A4, 0, 0x123),
        ins("addi", A3, A3, 0, step),
    ]


def size_of(name: str) -> int:
    return SIZES[name.strip("lsu")]


@everywhere
@both
def test_walking_off_the_end(xlen: int, tier: str) -> None:
    for name in accesses(xlen):
        n = size_of(name)
        lanes = [{A3: TOP - n * (k - 1) - 5, A4: 0xA5A5} for k in ITERATIONS]
        check_on(Scene(loop(xlen, access(name, n, 5)), lanes), tier)


@everywhere
@both
def test_walking_off_the_end_misaligned(xlen: int, tier: str) -> None:
    """The access that leaves memory is half inside."""
    for name in ("lw", "sw", "lhu", "sh") if xlen == 32 else ("ld", "sd", "lw", "sw"):
        n = size_of(name)
        lanes = [{A3: TOP - n * (k - 1) - 1 - k % (n - 1) if k < 100 else DATA + 1, A4: -2} for k in ITERATIONS]
        check_on(Scene(loop(xlen, access(name, n)), lanes), tier)


@everywhere
@both
def test_walking_below_the_start(xlen: int, tier: str) -> None:
    for name in ("lbu", "sw"):
        n = size_of(name)
        lanes = [{A3: DATA + n * (k - 2), A4: 7} for k in ITERATIONS]
        check_on(Scene(loop(xlen, access(name, -n)), lanes), tier)


@everywhere
@both
def test_walking_round_the_address_space(xlen: int, tier: str) -> None:
    """From the data to ever higher addresses, by larger and larger steps."""
    body = [ins("lw", T0, A3, 0, 0), ins("add", A4, A4, T0), ins("add", A3, A3, A5), ins("slli", A5, A5, 0, 1)]
    lanes = [{A3: DATA, A5: step} for step in (0, 1, 4, 64, 1 << 20, 1 << (xlen - 1))]
    check_on(Scene(loop(xlen, body), lanes), tier)


@everywhere
@both
def test_writing_to_a_read_only_segment(xlen: int, tier: str) -> None:
    """Loads walk from the writable segment into the read-only one behind it and on; stores stop at the border."""
    data = (DATA, bytes(range(WINDOW)), READ | WRITE)
    constants = (DATA + WINDOW, bytes(range(255, -1, -1)), READ)
    for name in ("lw", "sb", "sw"):
        n = size_of(name)
        lanes = [{A3: DATA + WINDOW - n * (k - 1), A4: k} for k in (*ITERATIONS[:4], 64)]
        check_on(Scene(loop(xlen, access(name, n)), lanes, segments=(data, constants)), tier)


@everywhere
@both
def test_writing_to_code(xlen: int, tier: str) -> None:
    """Code can be read and not be written."""
    for name in ("lw", "sw"):
        body = [
            *at_iteration(A5),
            ins("sub", T1, ZERO, T1),
            ins("and", T1, T1, A6),
            ins("add", A3, A2, T1),
            *access(name, 0),
        ]
        lanes = [{A2: DATA + 16, A5: k, A6: CODE + 4 - DATA - 16} for k in ITERATIONS]
        check_on(Scene(loop(xlen, body), lanes), tier)


@everywhere
@both
def test_memory_without_any_permission(xlen: int, tier: str) -> None:
    guard = (DATA + WINDOW, bytes(64), 0)
    for name in ("lb", "sw"):
        n = size_of(name)
        lanes = [{A3: DATA + WINDOW - n * (k - 1)} for k in (*ITERATIONS[:4], 64)]
        check_on(Scene(loop(xlen, access(name, n)), lanes, segments=((DATA, bytes(WINDOW), 3), guard)), tier)


@everywhere
@both
def test_code_that_cannot_be_read(xlen: int, tier: str) -> None:
    body = [
        *at_iteration(A5),
        ins("sub", T1, ZERO, T1),
        ins("and", T1, T1, A6),
        ins("add", A3, A2, T1),
        *access("lw", 0),
    ]
    lanes = [{A2: DATA + 16, A5: k, A6: CODE - DATA - 16} for k in ITERATIONS]
    check_on(Scene(loop(xlen, body), lanes, code_permissions=EXECUTE), tier)


@everywhere
@both
def test_straddling_segments(xlen: int, tier: str) -> None:
    """Byte by byte over borders: from writable memory to read-only memory to heap and stack, and from memory to none.

    A store that cannot be made as a whole writes nothing.
    """
    source = random.Random(1)
    segments = [
        (DATA, source.randbytes(32), READ | WRITE),
        (DATA + 32, source.randbytes(32), READ | WRITE | EXECUTE),
        (DATA + 64, source.randbytes(32), READ),
        (DATA + 96, source.randbytes(16), READ | EXECUTE),
    ]
    for name in accesses(xlen):
        # The pointers start before, between and behind the segments.
        lanes = [{A3: DATA + start, A4: -0x1234567} for start in (-20, 0, 16, 24, 33, 60, 90, 105)]
        check_on(Scene(loop(xlen, access(name, 1)), lanes, segments=segments), tier)


@everywhere
@both
def test_misaligned_atomics(xlen: int, tier: str) -> None:
    names = ["amoadd", "amomax", "lr", "sc"]
    for name in [f"{n}.{w}" for n in names for w in ("wd" if xlen == 64 else "w")]:
        for by in (1, 4) if name == "amoadd.d" else (1, 2) if name == "amoadd.w" else (1,):
            body: list[Instruction] = [
                *at_iteration(A5),
                *([ins("slli", T1, T1, 0, {2: 1, 4: 2}[by])] if by > 1 else []),
                ins("add", A3, A3, T1),
                *([ins("lr" + name[2:], A2, A6)] if name.startswith("sc") else []),
                ins(name, T0, A3, 0 if name.startswith("lr") else A4),
                ins("add", A4, A4, T0),
                ins("addi", A4, A4, 0, 3),
            ]
            lanes = [{A3: DATA + 64, A4: 1 << 31, A5: k, A6: DATA + 64} for k in ITERATIONS]
            check_on(Scene(loop(xlen, body), lanes), tier)


@everywhere
@both
def test_atomics_that_leave_memory(xlen: int, tier: str) -> None:
    """Walking aligned; an lr only reads, so it may do so in read-only memory."""
    constants = (DATA + WINDOW, bytes(64), READ)
    for name in ("amoor.w", "lr.w"):
        body: list[Instruction] = [
            ins(name, T0, A3, 0 if name == "lr.w" else A4),
            ins("addi", A4, A4, 0, 3),
            ins("addi", A3, A3, 0, 4),
        ]
        lanes = [{A3: DATA + WINDOW - 4 * (k - 1)} for k in (*ITERATIONS[:4], 64)]
        check_on(Scene(loop(xlen, body), lanes, segments=((DATA, bytes(WINDOW), 3), constants)), tier)


# -- jumps


def jump_out(xlen: int, kind: str) -> Assembly:
    """A loop that in the iteration of a5 takes its way out: with jalr to a7, or with a branch or jal to far away."""
    a = Assembly(xlen)
    a.put("addi", S0, ZERO, imm=COUNT)
    a.put("addi", A2, ZERO)
    a.label("loop")
    a.extend(at_iteration(A5))
    a.put("add", A2, A2, S0)
    if kind == "branch":
        a.put("bne", rs1=T1, imm=-0x400)
    else:
        a.put("beq", rs1=T1, to="on")
        if kind == "jal":
            a.put("jal", RA, imm=-0x800)
        else:
            a.put("jalr", RA, A7, imm=4)
        a.label("on")
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.put("ebreak")
    return a


@everywhere
@both
@pytest.mark.parametrize("kind", ["branch", "jal", "jalr"])
def test_jumping_outside(xlen: int, kind: str, tier: str) -> None:
    a = jump_out(xlen, kind)
    targets = (0, BAD, DATA, -8, CODE - 4)
    lanes = [{A5: k, A7: target - 4} for k, target in zip(ITERATIONS, targets, strict=True)]
    check_on(Scene(a, lanes), tier)


@everywhere
@both
def test_calls_through_a_table_with_bad_entries(xlen: int, tier: str) -> None:
    """The same computed call goes well many times before it goes wrong."""
    a = Assembly(xlen)
    a.put("addi", S0, ZERO, imm=COUNT)
    a.label("loop")
    a.extend(at_iteration(A5))
    a.put("sub", T1, ZERO, T1)
    a.put("and", T1, T1, A6)
    a.put("add", T1, T1, A7)
    a.put("jalr", RA, T1)
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.put("ebreak")
    function = a.label("function")
    a.put("add", A4, A4, S0)
    a.put("jalr", ZERO, RA)
    lanes = [
        {A5: k, A6: far, A7: function} for k, far in zip(ITERATIONS, (64, -0x10000, 0x100, 1 << 20, 64), strict=True)
    ]
    lanes += [{A5: 200, A7: function + 1}]  # the lowest bit does not count
    check_on(Scene(a, lanes), tier)


@everywhere
@both
def test_running_off_the_end_of_code(xlen: int, tier: str) -> None:
    """The last instruction is no jump; behind it, execution goes on where nothing is."""
    a = Assembly(xlen)
    a.put("addi", S0, ZERO, imm=COUNT)
    a.label("loop")
    a.extend(at_iteration(A5))
    a.put("bne", rs1=T1, to="end")
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.put("ebreak")
    a.label("end")
    a.put("add", A2, A2, S0)
    a.put("addi", A2, A2, imm=1)
    check_on(Scene(a, [{A5: k} for k in ITERATIONS]), tier)


@everywhere
def test_an_instruction_that_is_half_there(tier: str) -> None:
    """Its first two bytes are the last of the segment: the fetch faults at the two that are missing."""
    a = Assembly(64)
    a.put("addi", S0, ZERO, imm=COUNT)
    a.label("loop")
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    code = a.code + encode("add", rd=A4, rs1=A4, rs2=S0)[:2]
    scene = Scene(a, [{A0: 1}, {A0: 2}])
    place = a.unknown(code[-2:])
    m = scene.machine(tier)
    for _ in range(2):
        result = m.run()
        assert result.stops() == {"FAULT": 2}
        assert result.fault_pc.tolist() == [place] * 2
        assert result.fault_address.tolist() == [place + 2] * 2
        assert result.fault_access.tolist() == [3] * 2
        assert m.retired.tolist() == [1 + 2 * COUNT] * 2


@everywhere
@both
def test_an_unknown_instruction(xlen: int, tier: str) -> None:
    """Behind a branch that is taken in one iteration, and behind the loop."""
    for raw in (bytes(4), b"\xff" * 4, b"\x7f\x00\x00\x00"):
        a = Assembly(xlen)
        a.put("addi", S0, ZERO, imm=COUNT)
        a.label("loop")
        a.extend(at_iteration(A5))
        a.put("addi", A2, A2, imm=5)
        a.put("beq", rs1=T1, to="on")
        a.put("addi", A2, A2, imm=7)
        if raw[:2] == b"\0\0":  # two bytes are all that is read of it
            a.unknown(raw[:2])
            a.unknown(raw[2:])
        else:
            a.unknown(raw)
        a.label("on")
        a.put("addi", S0, S0, imm=-1)
        a.put("bne", rs1=S0, to="loop")
        a.unknown(b"\x00\x00")
        check_on(Scene(a, [{A5: k} for k in ITERATIONS]), tier)


# -- jumps to where no instruction can start


@everywhere
@both
@pytest.mark.parametrize("kind", ["branch", "jal", "jalr"])
def test_misaligned_jumps_without_compressed_instructions(xlen: int, kind: str, tier: str) -> None:
    """The jump itself faults: it has not retired and has not written its link."""
    a = Assembly(xlen)
    a.put("addi", S0, ZERO, imm=COUNT)
    a.label("loop")
    a.extend(at_iteration(A5))
    a.put("add", A2, A2, S0)
    if kind == "branch":
        a.put("bne", rs1=T1, imm=6)
    elif kind == "jal":
        a.put("beq", rs1=T1, to="on")
        a.put("jal", RA, imm=-10)
    else:
        a.put("slli", T1, T1, imm=1)
        a.put("add", T1, T1, A7)
        a.put("jalr", RA, T1, imm=0)
        a.label("function")
    a.label("on")
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.put("ebreak")
    lanes = [{A5: k, A7: a.labels["on"], RA: 0x77} for k in ITERATIONS]
    check_on(Scene(a, lanes, isa=f"rv{xlen}im"), tier)
    # Behind a branch that is not taken, the same target does no harm.
    check_on(Scene(a, [{A5: 200, A7: a.labels["on"]}] * 2, isa=f"rv{xlen}im"), tier)


@everywhere
def test_the_host_sets_a_misaligned_pc(tier: str) -> None:
    a = loop(32, [ins("addi", A2, A2, 0, 1)])
    scene = Scene(a, [{}, {}, {}], isa="rv32im")
    m = scene.machine(tier)
    m.pc = [CODE, CODE + 2, CODE + 1]
    result = m.run()
    assert result.stops() == {"EBREAK": 1, "FAULT": 2}
    assert result.fault_access.tolist() == [0, 5, 5]
    assert result.fault_address.tolist() == result.fault_pc.tolist() == [0, CODE + 2, CODE + 1]
    assert m.retired.tolist() == [1 + 3 * COUNT, 0, 0]
    m.pc = CODE
    assert m.run().stops() == {"EBREAK": 3}


# -- other lanes, going on


@everywhere
def test_a_fault_can_be_mended(tier: str) -> None:
    """A lane that faulted goes on when the host has mended what was wrong, as if it had never been."""
    a = loop(64, access("lw", 4))
    lanes = [{A3: TOP - 4 * (k - 1)} for k in ITERATIONS]
    scene = Scene(a, lanes)
    m = scene.machine(tier)
    harts = scene.harts(m)
    assert m.run().stops() == {"FAULT": 4, "EBREAK": 1}
    pointers = m.registers["a3"]
    pointers[:4] = DATA
    m.registers["a3"] = pointers
    result = m.run()
    assert result.stops() == {"EBREAK": 5}
    assert result.fault_address.tolist() == [0] * 5
    for hart in harts:
        hart.run()
        if hart.fault:
            hart.x[A3] = DATA
            hart.run()
    assert m.retired.tolist() == [h.retired for h in harts]
    assert m.registers.array()[A4].tolist() == [h.x[A4] for h in harts]


@everywhere
def test_many_lanes_fault_in_their_own_iterations(tier: str) -> None:
    """500 lanes on several threads, of which every seventh ends well."""
    a = loop(64, access("sw", 4))
    wanted = [(i * 37) % COUNT + 1 if i % 7 else 100 for i in range(500)]
    lanes = [{A3: TOP - 4 * (k - 1), A4: k} for k in wanted]
    scene = Scene(a, lanes)
    m = scene.machine(tier, threads=3)
    result = m.run()
    # Three instructions a store, two for the loop, one before it.
    expected = [1 + 5 * (k - 1) if k <= COUNT else 1 + 5 * COUNT for k in wanted]
    assert result.retired.tolist() == expected
    assert result.stop.tolist() == [4 if k <= COUNT else 3 for k in wanted]
    assert result.fault_address.tolist() == [TOP if k <= COUNT else 0 for k in wanted]


# -- budgets


def program_with_calls(xlen: int) -> Assembly:
    """Two loops, a call of a function with a loop of its own, a call in the call, and a computed jump."""
    a = Assembly(xlen)
    a.put("addi", S0, ZERO, imm=6)
    a.label("outer")
    a.put("jal", RA, to="function")
    a.put("add", A2, A2, A4)
    a.put("andi", T0, S0, imm=1)
    a.put("beq", rs1=T0, to="even")
    a.put("sw", 0, A3, A2)
    a.put("addi", A3, A3, imm=4)
    a.label("even")
    a.put("lw", T0, A3, imm=-4)
    a.put("jalr", RA, A7)
    a.put("addi", S0, S0, imm=-1, short="c.addi")
    a.put("bne", rs1=S0, to="outer")
    a.put("ebreak")
    a.label("leaf")
    a.put("xor", A4, A4, T0)
    a.put("addi", A4, A4, imm=1, short="c.addi")
    a.put("jalr", ZERO, RA)
    a.label("function")
    a.put("add", A6, ZERO, RA)
    a.put("addi", S1, A5, imm=0)
    a.label("inner")
    a.put("add", A4, A4, S1)
    a.put("addi", S1, S1, imm=-1)
    a.put("bne", rs1=S1, to="inner")
    a.put("jal", RA, to="leaf")
    a.put("jalr", ZERO, A6)
    return a


def budget_scene(xlen: int) -> Scene:
    a = program_with_calls(xlen)
    return Scene(a, [{A3: DATA + 16, A5: k, A7: a.labels["leaf"]} for k in (1, 3, 8)])


@everywhere
@both
def test_every_budget_is_exact(xlen: int, tier: str) -> None:
    """From 0 to past the end, on code that was compiled by the runs before."""
    scene = budget_scene(xlen)
    check_on(scene, tier)
    m = scene.machine(tier)
    m.run()
    settle()
    harts = scene.harts(m)
    compiled = 0
    for budget in range(340):
        m.reset()
        scene.start(m)
        result = m.run(budget)
        compiled += result.tiers["scalar"]
        registers = m.registers.array()
        for lane, hart in enumerate(harts):
            if budget:
                hart.run(1)
            stop = "EBREAK" if hart.retired < budget else "BUDGET"
            got = (int(result.retired[lane]), int(result.pc[lane]), result.stop[lane])
            assert got == (hart.retired, hart.pc, {"EBREAK": 3, "BUDGET": 5}[stop]), f"lane {lane}, budget {budget}"
            assert registers[:, lane].tolist() == hart.x, f"lane {lane}, budget {budget}"
    assert all(h.stop == "ebreak" for h in harts)
    assert (compiled > 0) == (tier != "interpreter")


@everywhere
@both
def test_a_run_in_pieces_equals_a_run_in_one(xlen: int, tier: str) -> None:
    scene = budget_scene(xlen)
    source = random.Random(3)
    check_on(scene, tier, [1] * 330)
    check_on(scene, tier, [source.randrange(0, 40) for _ in range(30)] + [None])


@everywhere
def test_budgets_and_faults_meet(tier: str) -> None:
    """Budgets that end right before, at and behind the instruction that faults."""
    a = loop(64, access("lw", 4))
    lanes = [{A3: TOP - 4 * (k - 1)} for k in (3, 4, 100)]
    for first in range(8, 20):
        check_on(Scene(a, lanes), tier, [first, 1, 1, None])


@everywhere
@pytest.mark.parametrize("kind", ["branch", "jal", "jalr"])
def test_budgets_end_at_a_jump_to_nowhere(kind: str, tier: str) -> None:
    """A budget that ends with the jump is used up; the fetch that faults comes with the next run."""
    a = jump_out(64, kind)
    lanes = [{A5: k, A7: BAD - 4} for k in (2, 3, 200)]
    for first in range(14, 28):
        check_on(Scene(a, lanes), tier, [first, None])


@everywhere
def test_large_budgets(tier: str) -> None:
    scene = Scene(loop(32, [ins("addi", A2, A2, 0, 1)]), [{}])
    check_on(scene, tier, [(1 << 62) - 1, 1 << 40])
