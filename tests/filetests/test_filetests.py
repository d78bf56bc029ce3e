"""Whole cases: `decode/` holds bytes and the IR they decode to, `run/` programs or blocks of IR and their outcome.

What blocks become on each target stands in `lower/` (`test_lower.py`), what single instructions do in `instructions/`
(`test_instructions.py`), and what they cost on each target in `counts/` (`test_instruction_counts.py`).

    test: decode
    isa: rv64imac
    at: 0x10074

    code:
      13 05 15 00   ; addi a0, a0, 1
    expect:
      block 0x10074 riscv64 {
      ...

A case `test: run` has `before:` and `after:` sections of state (see `cases.py`) beside `code:`, which then runs on the
evaluator and on every tier, or beside `block:`, IR that runs on the evaluator. Settings: `memory: 0x20000 256` gives
zeroed data memory at an address, `entry: 0x1004` is where it starts if not with the first, `writable: yes` lets the guest write its code, `budget: 10` limits the run.
Registers and memory that `after:` does not name must not have changed.

`pytest --update-golden` rewrites what `decode/` expects and prints the difference.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.differential.oracles import TIERS
from tests.filetests.files import (
    case_files,
    case_id,
    check_listing,
    check_texts,
    decoded,
    hold,
    section_text,
    written_block,
)
from tests.filetests.tiers import run_on_tier
from vmjit.cases.case_file import (
    CaseFile,
    decoder_of,
    parse_state,
    read_case,
    registers_before,
)
from vmjit.cases.hart import RUNNING, Memory, Outcome
from vmjit.cases.run_case import budget_of, differences, run_code, spans_of
from vmjit.cases.tier_run import program_of, start_of
from vmjit.ir import Evaluator, Trap, format_block, parse_block, verify_block

DECODE, RUN = case_files("decode"), case_files("run")
WITH_CODE = [p for p in RUN if "code" in read_case(p).sections]
WITH_BLOCK = [p for p in RUN if p not in WITH_CODE]


# -- decode


def check_decode(path: Path, *, update: bool = False) -> str:
    """Hold a decode case against the decoder. With `update` its expectation is rewritten; gives the difference."""
    case = read_case(path)
    assert case.settings["test"] == "decode"
    check_listing(case)
    block = decoded(case)
    verify_block(block)
    difference = check_texts(path, {"expect": format_block(block)}, update=update)
    again = parse_block(section_text(read_case(path), "expect"))
    assert again == block
    verify_block(again)
    return difference


@pytest.mark.parametrize("path", DECODE, ids=case_id)
def test_decode(path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    hold(check_decode, path, request, capsys)


def test_a_wrong_expectation_fails_and_can_be_updated(tmp_path: Path) -> None:
    path = tmp_path / "case.test"
    good = (
        "# A comment that stays.\ntest: decode\nisa: rv64i\nat: 0x1000\n\ncode:\n  13 05 15 00 ; addi a0, a0, 1\n\n"
        "expect:\n  block 0x1000 riscv64 {\n  0x1000 4 0x00150513             ; addi a0, a0, 1\n"
        "      x10 = add.i64 x10, 0x1\n      jump -> 0x1004\n  }\n"
    )
    path.write_text(good, encoding="utf-8")
    assert check_decode(path) == ""
    path.write_text(good.replace("x10, 0x1", "x10, 0x2"), encoding="utf-8")
    with pytest.raises(AssertionError, match="0x2"):
        check_decode(path)
    difference = check_decode(path, update=True)
    assert "\n-    x10 = add.i64 x10, 0x2\n+    x10 = add.i64 x10, 0x1\n" in difference
    assert path.read_text(encoding="utf-8") == good
    assert check_decode(path, update=True) == ""


# -- run


def run_block(case: CaseFile) -> Outcome:
    """Run one block of IR; a terminator that goes on somewhere is no stop."""
    block = written_block(case)
    xlen = block.registers.type.bits
    before = parse_state(case.sections["before"], xlen, block.pc)
    memory = Memory(spans_of(case, before), xlen)
    reservation = 0 if before.reserved is None else before.reserved + 1
    evaluator = Evaluator([*registers_before(before, xlen), reservation], memory, before.retired or 0)
    stop, fault = RUNNING, None
    try:
        name, pc = evaluator.run(block)
        stop = name if name in ("ecall", "ebreak", "unsupported") else RUNNING
    except Trap as trap:
        stop, pc, fault = "", evaluator.pc, (trap.kind, trap.address)
    *registers, reservation = evaluator.registers
    return Outcome(
        registers,
        pc,
        evaluator.retired,
        stop,
        fault,
        reservation - 1 if reservation else None,
        {span.start: bytes(span.data) for span in memory.spans},
    )


@pytest.mark.parametrize("path", WITH_CODE, ids=case_id)
def test_run_on_the_evaluator(path: Path) -> None:
    case = read_case(path)
    assert case.settings["test"] == "run"
    check_listing(case)
    found = differences(case, decoder_of(case.settings["isa"]).isa.xlen, run_code(case))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("path", WITH_CODE, ids=case_id)
def test_run_on_a_tier(path: Path, tier: str) -> None:
    case = read_case(path)
    program, start = program_of(case), start_of(case)
    found = []
    for run in run_on_tier(program, [start, start], tier, budget_of(case)):
        for got in run.outcomes:
            found += [f"{run.label}: {d}" for d in differences(case, program.xlen, got)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", WITH_BLOCK, ids=case_id)
def test_run_a_block(path: Path) -> None:
    case = read_case(path)
    assert case.settings["test"] == "run"
    block = written_block(case)
    assert parse_block(format_block(block)) == block
    found = differences(case, block.registers.type.bits, run_block(case))
    assert not found, "\n".join(found)


def test_wrong_outcomes_are_reported(tmp_path: Path) -> None:
    """One case, and one wrong word in it at a time."""
    good = (
        "test: run\nisa: rv32ic\nat: 0x1000\nmemory: 0x20000 8\n\ncode:\n  05 05\n  88 c1\n  02 90\n\n"
        "before:\n  a0=1, a1=0x20000\n\nafter:\n  a0=2, mem[0x20000]=02, pc=0x1004, stop=ebreak, retired=2\n"
    )
    path = tmp_path / "case.test"
    path.write_text(good, encoding="utf-8")
    assert differences(read_case(path), 32, run_code(read_case(path))) == []
    for right, wrong in (
        ("a0=2", "a0=3"),
        ("a0=2, ", ""),
        ("]=02", "]=03"),
        ("mem[0x20000]=02, ", ""),
        ("pc=0x1004", "pc=0x1006"),
        ("stop=ebreak", "stop=ecall"),
        ("stop=ebreak", "fault=read:0x0"),
        ("retired=2", "retired=3"),
        ("retired=2", "retired=2, reserved=0x20000"),
        ("retired=2", "retired=2, t6=1"),
    ):
        path.write_text(good.replace(right, wrong), encoding="utf-8")
        assert differences(read_case(path), 32, run_code(read_case(path))), wrong
