"""What the analysis of lanes' values claims holds: on random programs, and in the cases that it is made for."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings

from tests.differential.programs import CODE as CASE_CODE
from tests.differential.programs import Case, cases
from tests.differential.test_random_programs import CONFIGURATIONS, new_reference
from tests.machine.harness import A0, A1, A2, A3, A4, A5, CODE, RA, S0, S1, SP, T0, T1, T2, ZERO, Assembly
from vmjit.decoders.riscv import REGISTERS, Decoder, parse_isa
from vmjit.ir import I64
from vmjit.ir.block import Block
from vmjit.translators.lane_forms import Form, LaneForms
from vmjit.translators.regions import Region, is_call
from vmjit.translators.value_ranges import ValueRanges

LANES = 3
TABLE = (0x60000, 256)  # the shared image

UNIFORM, VARYING = Form(True, False), Form(False, False)
NARROW, BOTH = Form(False, True), Form(True, True)


def region_of(code: bytes, base: int, isa: str, entry: int) -> Region:
    """All that can be reached from an entry, through calls and behind them."""
    decoder, blocks, todo, returns = Decoder(parse_isa(isa)), dict[int, Block](), [entry], set[int]()
    while todo:
        pc = todo.pop()
        if pc in blocks or not base <= pc < base + len(code):
            continue
        block = blocks[pc] = decoder.block(lambda at, size: code[at - base :][:size], pc)
        todo += block.successors()
        if is_call(block):
            returns.add(block.end)
            todo.append(block.end)
    return Region([entry], blocks, returns)


def analysed(region: Region, xlen: int, assumed: dict[int, Form], shared: tuple[int, int]) -> LaneForms:
    registers = REGISTERS[xlen, False]
    return LaneForms(region, registers, assumed, ValueRanges(region, registers), shared)


# -- random programs


def actual(values: list[int], xlen: int) -> Form:
    """What lanes have in common in a register."""
    narrow = all(v < 1 << 31 or v >= (1 << xlen) - (1 << 31) for v in values)
    return Form(len(set(values)) == 1, narrow)


def holds(claimed: Form, values: list[int], xlen: int) -> bool:
    found = actual(values, xlen)
    return found.uniform >= claimed.uniform and found.narrow >= claimed.narrow


def like_lanes(case: Case, source: random.Random) -> list[list[int]]:
    """Registers by lane, of which some are the same in all lanes and some are narrow."""
    rows = [case.registers(lane) for lane in range(LANES)]
    for i in range(1, 32):
        if source.random() < 0.6:
            for row in rows:
                row[i] = rows[0][i]
        if source.random() < 0.5:
            for row in rows:
                row[i] = (row[i] & 0x7FFFFFFF) - (row[i] & 0x80000000) & (1 << case.xlen) - 1
    return rows


def check_case(case: Case) -> int:
    """Run lanes in step from block to block; where they leave a region, they enter one that starts there."""
    source, harts = random.Random(case.seed), [new_reference(case, lane) for lane in range(LANES)]
    for hart, row in zip(harts, like_lanes(case, source), strict=True):
        hart.x = row
    shared, xlen, checked = (CASE_CODE, len(case.code)), case.xlen, 0
    forms: LaneForms | None = None
    for _ in range(120):
        pc = harts[0].pc
        if any(h.pc != pc for h in harts) or pc not in case.listing:
            break
        columns = [[h.x[i] for h in harts] for i in range(32)]
        if forms is None or pc not in forms.at:
            region = region_of(case.code, CASE_CODE, case.isa, pc)
            # Not all that holds is known where lanes enter.
            assumed = {i: actual(c, xlen) for i, c in enumerate(columns) if source.random() < 0.8}
            forms = analysed(region, xlen, assumed, shared)
        for i in range(1, 32):
            assert holds(forms.at[pc][i], columns[i], xlen), f"x{i} at {pc:#x}: {forms.at[pc][i]}, {columns[i]}"
            checked += forms.at[pc][i] != Form(False, xlen == 32)
        block, left = forms.region.blocks[pc], False
        for instruction in block.instructions:
            for hart in harts:
                hart.run(1)
            if any(h.stop != "budget" for h in harts):
                return checked
            claims = [forms.reloads[id(op)] for op in instruction.ops if id(op) in forms.reloads]
            rd = case.listing[instruction.pc].rd
            # Reloads are claims that the group checks when it runs; it leaves where they do not hold.
            left |= any(not holds(claim, [h.x[rd] for h in harts], xlen) for claim in claims)
        following = harts[0].pc
        if len({h.pc for h in harts}) > 1:
            break
        if left or following not in forms.region.successors(pc):
            forms = None
    return checked


_checked = 0


def _make(name: str, examples: int) -> object:
    xlen, extensions = CONFIGURATIONS[name]

    @settings(max_examples=examples)
    @given(cases(xlen, extensions))
    def test(case: Case) -> None:
        global _checked
        _checked += check_case(case)

    return test


test_rv32 = _make("rv32 all", 10)
test_rv64 = _make("rv64 all", 20)


def test_claims_were_checked() -> None:
    """The random programs above did what they are for."""
    assert _checked > 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CONFIGURATIONS))
def test_many(name: str) -> None:
    _make(name, 1000)()  # type: ignore[operator]


# -- what it is made for


def forms_at(a: Assembly, label: str, assumed: dict[int, Form]) -> dict[int, Form]:
    region = region_of(a.code, CODE, f"rv{a.xlen}imac", CODE)
    return analysed(region, a.xlen, assumed, TABLE).at[a.labels[label]]


def straight(*instructions: tuple[str, int, int, int, int], assumed: dict[int, Form] | None = None) -> dict[int, Form]:
    """Forms after a few instructions (name, rd, rs1, rs2, imm) of rv64."""
    a = Assembly(64)
    for name, rd, rs1, rs2, imm in instructions:
        a.put(name, rd, rs1, rs2, imm)
    a.put("jal", 0, to="end")
    a.label("end")
    a.put("ebreak")
    return forms_at(a, "end", assumed or {})


GIVEN = {A0: BOTH, A1: UNIFORM, A2: NARROW, A3: VARYING, SP: BOTH}


@pytest.mark.parametrize(
    ("instruction", "form"),
    [
        (("lui", T0, 0, 0, 0x80000), BOTH),
        (("addi", T0, ZERO, 0, -1), BOTH),
        (("addi", T0, A2, 0, 0), NARROW),
        (("addi", T0, A2, 0, 1), VARYING),
        (("addi", T0, A0, 0, 1), UNIFORM),
        (("addiw", T0, A3, 0, 1), NARROW),
        (("addw", T0, A0, A1, 0), BOTH),
        (("addw", T0, A2, A3, 0), NARROW),
        (("mulw", T0, A3, A3, 0), NARROW),
        (("divuw", T0, A3, A0, 0), NARROW),
        (("mul", T0, A2, A2, 0), VARYING),
        (("and", T0, A2, A2, 0), NARROW),
        (("and", T0, A2, A3, 0), VARYING),
        (("andi", T0, A3, 0, 255), NARROW),
        (("andi", T0, A3, 0, -1), VARYING),
        (("or", T0, A0, A2, 0), NARROW),
        (("xori", T0, A2, 0, -1), NARROW),
        (("xor", T0, A1, A1, 0), UNIFORM),
        (("slt", T0, A3, A1, 0), NARROW),
        (("sltu", T0, A0, A1, 0), BOTH),
        (("srli", T0, A3, 0, 33), NARROW),
        (("srli", T0, A3, 0, 32), VARYING),
        (("srli", T0, A2, 0, 1), VARYING),
        (("srai", T0, A2, 0, 1), NARROW),
        (("srai", T0, A3, 0, 32), NARROW),
        (("srai", T0, A3, 0, 31), VARYING),
        (("slli", T0, A2, 0, 1), VARYING),
        (("srliw", T0, A3, 0, 1), NARROW),
        (("sllw", T0, A3, A2, 0), NARROW),
        (("lbu", T0, A0, 0, 0), NARROW),
        (("lh", T0, A0, 0, 0), NARROW),
        (("lw", T0, A3, 0, 0), NARROW),
        (("lwu", T0, A0, 0, 0), VARYING),
        (("ld", T0, A0, 0, 0), VARYING),
    ],
    ids=lambda v: v[0] if isinstance(v, tuple) else "",
)
def test_one_instruction(instruction: tuple[str, int, int, int, int], form: Form) -> None:
    assert straight(instruction, assumed=GIVEN)[T0] == form


def test_nothing_is_known_of_what_is_not_assumed() -> None:
    assert straight(("addi", T0, A5, 0, 0))[T0] == VARYING


def test_zero_extension_of_a_word() -> None:
    """slli, srli by 32: not narrow, for its top bit is not a sign."""
    found = straight(("slli", T0, A2, 0, 32), ("srli", T1, T0, 0, 32), ("srai", T2, T0, 0, 32), assumed=GIVEN)
    assert (found[T0], found[T1], found[T2]) == (VARYING, VARYING, NARROW)


def test_loads_from_the_shared_image() -> None:
    """At one address all lanes read the same."""
    inside, behind = TABLE[0] >> 12, TABLE[1]
    found = straight(
        ("lui", S0, 0, 0, inside),
        ("lwu", T0, S0, 0, behind - 4),
        ("lw", T1, S0, 0, 8),
        ("lw", T2, S0, 0, behind),
        ("add", S1, S0, A2, 0),
        ("lw", A4, S1, 0, 0),
        assumed=GIVEN,
    )
    assert (found[T0], found[T1], found[T2], found[A4]) == (UNIFORM, BOTH, NARROW, NARROW)


def test_registers_reloaded_from_the_stack() -> None:
    """What was stored there tells what is read: of one place, all that is stored; of other places, nothing."""
    found = straight(
        ("addi", SP, SP, 0, -32),
        ("sd", 0, SP, A1, 8),
        ("sd", 0, SP, A0, 16),
        ("sd", 0, SP, A3, 24),
        ("ld", T0, SP, 0, 8),
        ("ld", T1, SP, 0, 16),
        ("ld", T2, SP, 0, 24),
        ("ld", A4, SP, 0, 0),
        ("lw", A5, SP, 0, 8),
        assumed=GIVEN,
    )
    assert (found[T0], found[T1], found[T2], found[A4], found[A5]) == (UNIFORM, BOTH, VARYING, VARYING, NARROW)


def test_a_place_on_the_stack_with_two_values() -> None:
    found = straight(
        ("sd", 0, SP, A0, 8), ("ld", T0, SP, 0, 8), ("sd", 0, SP, A3, 8), ("ld", T1, SP, 0, 8), assumed=GIVEN
    )
    assert (found[T0], found[T1]) == (VARYING, VARYING)


def test_frames_of_callee_and_caller_are_told_apart() -> None:
    """Both store at 8 from the stack pointer, which stands elsewhere: one what differs, one what is the same."""
    a = Assembly(64)
    a.put("addi", SP, SP, imm=-32)
    a.put("sd", 0, SP, A1, 8)
    a.put("jal", RA, to="callee")
    a.label("back")
    a.put("ld", T0, SP, imm=8)
    a.label("end")
    a.put("jal", 0, to="end")
    a.label("callee")
    a.put("addi", SP, SP, imm=-32)
    a.put("sd", 0, SP, A3, 8)
    a.put("ld", T1, SP, imm=8)
    a.put("addi", SP, SP, imm=32)
    a.put("jalr", 0, RA)
    found = forms_at(a, "end", GIVEN)
    assert (found[T0], found[T1]) == (UNIFORM, VARYING)


def test_reloads_are_told_from_other_loads() -> None:
    """The group checks the one when it runs, not the other."""
    a = Assembly(64)
    a.put("sd", 0, SP, A1, 8)
    a.put("ld", T0, SP, imm=8)
    a.put("ld", T1, SP, imm=16)
    a.put("ebreak")
    region = region_of(a.code, CODE, "rv64imac", CODE)
    found = analysed(region, 64, GIVEN, TABLE)
    loads = [op for op in region.blocks[CODE].ops() if op.name == "load" and op.type is I64]
    assert [found.reloads.get(id(op)) for op in loads] == [UNIFORM, None]


def test_what_loops_join() -> None:
    """A register that the body makes vary does so at the head; a counter stays the same in all lanes."""
    a = Assembly(64)
    a.put("addi", T0, ZERO)
    a.put("addi", T1, ZERO)
    a.put("addi", T2, ZERO)
    a.put("jal", 0, to="head")
    a.label("head")
    a.put("addiw", T0, T0, imm=1)
    a.put("add", T1, T1, A0)
    a.put("addw", T2, T2, A3)
    a.put("add", A0, A0, S0)
    a.put("bne", 0, T0, A1, to="head")
    a.label("end")
    a.put("ebreak")
    found = forms_at(a, "head", {**GIVEN, S0: BOTH})
    assert (found[T0], found[T1], found[T2], found[A0]) == (BOTH, UNIFORM, NARROW, UNIFORM)
    assert forms_at(a, "head", {**GIVEN, S0: VARYING})[T1] == VARYING


def test_what_two_ways_join() -> None:
    a = Assembly(64)
    a.put("beq", 0, A0, ZERO, to="other")
    a.put("addi", T0, ZERO, imm=1)
    a.put("addi", T1, A2)
    a.put("jal", 0, to="join")
    a.label("other")
    a.put("addi", T0, ZERO, imm=2)
    a.put("addi", T1, A1)
    a.put("jal", 0, to="join")
    a.label("join")
    a.put("ebreak")
    found = forms_at(a, "join", GIVEN)
    assert (found[T0], found[T1]) == (BOTH, VARYING)
