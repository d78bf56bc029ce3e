"""Wrong translations planted on purpose: each is found at the instruction that it is of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vmjit.cpu_engine
from tests.differential.asm import encode
from tests.differential.oracles import have_qemu, program
from tests.filetests.test_filetests import check_listing
from vmjit import Machine, Program
from vmjit.cache import CodeCache, DiskCache
from vmjit.cases.case_file import read_case
from vmjit.cases.reduce import draft_of, fails_on, reduced
from vmjit.cases.run_case import differences, run_code
from vmjit.cases.tier_run import run_on
from vmjit.decoders.riscv.decoder import Matched
from vmjit.divergence import TierSide, find_difference
from vmjit.divergence.case import case_of
from vmjit.divergence.qemu_side import QemuSide
from vmjit.divergence.reference_side import ReferenceSide
from vmjit.divergence.report import Report, explained
from vmjit.divergence.sides import Side
from vmjit.divergence.unicorn_side import UnicornSide
from vmjit.errors import ArgumentError
from vmjit.ir.types import Type
from vmjit.translators import lowering

ISA = "rv64imac_zba_zbb_zbs"
BASE, DATA = 0x10000, 0x40000
THREE = (
    "add sub sll slt sltu xor srl sra or and addw subw sllw srlw sraw mul mulh mulhsu mulhu div divu rem remu mulw divw "
    "remw sh1add andn orn xnor min maxu rol ror bset"
).split()
LOADS = ("lb", "lh", "lw", "ld", "lbu", "lhu", "lwu")
ROUNDS = 60


def the_program() -> Program:
    """Every instruction above in a loop, on operands that change with each, and each result in the next operands."""
    code = [encode("lui", rd=8, imm=DATA >> 12), encode("addi", rd=9, rs1=0, imm=ROUNDS)]
    code += [encode("addi", rd=6, rs1=0, imm=1365), encode("addi", rd=7, rs1=0, imm=-77)]
    body = []
    for name in THREE:
        body += [
            encode(name, rd=5, rs1=6, rs2=7),
            encode("add", rd=6, rs1=6, rs2=5),
            encode("slli", rd=28, rs1=7, imm=7),
            encode("xor", rd=7, rs1=28, rs2=6),
            encode("addi", rd=7, rs1=7, imm=913),
        ]
    for offset, name in zip(range(0, 64, 8), LOADS, strict=False):
        body += [
            encode("sd", rs1=8, rs2=7, imm=offset),
            encode(name, rd=5, rs1=8, imm=offset + (4 if name == "ld" else 2) % 8 * (name not in ("lw", "lwu", "ld"))),
            encode("add", rd=7, rs1=7, rs2=5),
        ]
    # Two ways, by the lowest bit of what came out.
    body += [
        encode("andi", rd=28, rs1=7, imm=1),
        encode("beq", rs1=28, rs2=0, imm=8),
        encode("xor", rd=6, rs1=6, rs2=7),
        encode("bltu", rs1=6, rs2=7, imm=8),
        encode("sub", rd=7, rs1=7, rs2=6),
        encode("addi", rd=9, rs1=9, imm=-1),
    ]
    back = -sum(map(len, body))
    assert back > -4096
    return program(
        ISA, b"".join([*code, *body, encode("bne", rs1=9, rs2=0, imm=back), encode("ebreak")]), BASE, data=(DATA, 64)
    )


def machine(tier: str, lanes: int = 1) -> Machine:
    return Machine(the_program(), lanes, "cpu", tier, memory="4KiB", environment="bare-metal")


def found(left: Side, right: Side) -> Report:
    difference = find_difference(left, right, 1_000_000, window=4096)
    assert difference is not None
    return explained(difference, left, right, hex)


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    for right in (TierSide("scalar", machine("scalar")), UnicornSide(machine("interpreter"))):
        assert find_difference(TierSide("interpreter", machine("interpreter")), right, 1_000_000) is None
        assert right.machine.pc[0] == BASE + 4 * (4 + 5 * len(THREE) + 3 * len(LOADS) + 7)


Lowering = Callable[[Any, Type, list[Any]], Any]


def _plus_one(old: Lowering) -> Lowering:
    def lower(b: Any, t: Type, a: list[Any]) -> Any:
        right = old(b, t, a)
        return b.add(right, lowering.splat(right.type, 1))

    return lower


def _swapped(old: Lowering) -> Lowering:
    return lambda b, t, a: old(b, t, [a[1], a[0], *a[2:]])


def _negated(old: Lowering) -> Lowering:
    return lambda b, t, a: b.not_(old(b, t, a))


def _like(name: str) -> Callable[[Lowering], Lowering]:
    return lambda old: lowering.LOWERINGS[name]


# By op: what becomes of its lowering, and the instructions that show it.
LOWERED: list[tuple[str, Callable[[Lowering], Lowering], str]] = [
    ("sub", _swapped, "sub subw"),
    ("mul", _plus_one, "mul mulw"),
    ("mulhs", _like("mulhu"), "mulh"),
    ("mulhu", _plus_one, "mulhu"),
    ("mulhsu", _like("mulhu"), "mulhsu"),
    ("divs", _like("divu"), "div divw"),
    ("divu", _plus_one, "divu"),
    ("rems", _like("remu"), "rem remw"),
    ("remu", _plus_one, "remu"),
    ("or", _like("xor"), "or orn bset"),
    ("and", _like("or"), "and andn andi"),
    ("shr", _like("sar"), "srl srlw"),
    ("sar", _like("shr"), "sra sraw"),
    ("shl", _plus_one, "sll sllw slli sh1add bset"),
    ("rotl", _swapped, "rol"),
    ("rotr", _swapped, "ror"),
]


def test_there_are_such_ops() -> None:
    assert {op for op, _, _ in LOWERED} <= lowering.LOWERINGS.keys()
    assert len(LOWERED) + len(DECODED) >= 20


@pytest.mark.parametrize(("op", "change", "instructions"), LOWERED, ids=[op for op, _, _ in LOWERED])
def test_a_wrong_lowering(
    op: str, change: Callable[[Lowering], Lowering], instructions: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = CodeCache(DiskCache(tmp_path / "code"))  # no other machine may find what is wrong
    monkeypatch.setattr(vmjit.cpu_engine, "process_cache", lambda: cache)
    left, right = TierSide("interpreter", machine("interpreter")), TierSide("scalar", machine("scalar"))
    monkeypatch.setitem(lowering.LOWERINGS, op, change(lowering.LOWERINGS[op]))
    report = found(left, right)
    step = report.steps[report.culprit]
    assert step.text.split()[0] in instructions.split(), report.text
    assert step.text in report.text
    path = tmp_path / "case.test"
    path.write_text(case_of(report, f"a wrong {op}").text(), encoding="utf-8")
    case = read_case(path)
    check_listing(case)
    assert differences(case, 64, run_code(case)) == []
    # It shows what is wrong, and one instruction of it does.
    small = reduced(draft_of(path), fails_on("scalar", "cpu"))
    assert differences(case, 64, run_on(case, "scalar"))
    assert len(small.code) == 1
    path.write_text(small.text(), encoding="utf-8")
    assert path.read_text().startswith(f"# a wrong {op}\ntest: run\n")
    assert differences(read_case(path), 64, run_code(read_case(path))) == []
    monkeypatch.undo()
    with pytest.raises(ArgumentError, match="does not fail"):
        reduced(small, fails_on("scalar", "cpu"))


@pytest.mark.parametrize("op", ["mul", pytest.param("shr", marks=pytest.mark.slow)])
@pytest.mark.parametrize("tier", ["simd", pytest.param("auto", marks=pytest.mark.slow)])
def test_a_wrong_lowering_for_what_is_compiled_in_time(
    op: str, tier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lanes that differ, whose groups run in SIMD registers."""
    cache = CodeCache(DiskCache(tmp_path / "code"))
    monkeypatch.setattr(vmjit.cpu_engine, "process_cache", lambda: cache)
    sides = [TierSide(name, machine(name, 33)) for name in ("interpreter", tier)]
    for side in sides:
        side.machine.registers["t2"] = np.arange(33)
    _, change, instructions = next(row for row in LOWERED if row[0] == op)
    monkeypatch.setitem(lowering.LOWERINGS, op, change(lowering.LOWERINGS[op]))
    report = found(*sides)
    assert report.steps[report.culprit].text.split()[0] in instructions.split(), report.text


# A row that gets another's meaning.
DECODED = [
    ("add", "sub"),
    ("sltu", "slt"),
    ("sll", "srl"),
    ("xor", "or"),
    ("subw", "addw"),
    ("mulhu", "mulh"),
    ("divu", "div"),
    ("remu", "rem"),
    ("lb", "lbu"),
    ("lhu", "lh"),
    ("lw", "lwu"),
    ("bltu", "bge"),
]


SIDES: dict[str, Callable[[Machine], Side]] = {"unicorn": UnicornSide, "qemu": QemuSide, "reference": ReferenceSide}


@pytest.mark.parametrize(
    ("name", "other", "against"),
    [*((*row, "unicorn") for row in DECODED), *((*row, "qemu") for row in DECODED[:3]), (*DECODED[4], "reference")],
)
def test_a_wrong_row(name: str, other: str, against: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if against == "qemu" and not have_qemu(64):
        pytest.skip("QEMU's user mode is not installed")
    left, right = SIDES[against](machine("interpreter")), TierSide("interpreter", machine("interpreter"))
    decoder = right.machine._engine.decoder
    match, meaning = decoder.match, decoder._bases[other].meaning

    def wrong(raw: int) -> Matched | None:
        found = match(raw)
        if found is None or found.base.name != name:
            return found
        return replace(found, base=replace(found.base, meaning=meaning))

    monkeypatch.setattr(decoder, "match", wrong)
    right.machine._engine.reset_code()
    report = found(left, right)
    assert report.steps[report.culprit].text.split()[0] == name, report.text
    assert report.difference.count == 1
