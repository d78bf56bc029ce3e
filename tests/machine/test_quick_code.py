"""Code that is compiled before it runs: quickly at first, and once more while lanes run."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

import vmjit
from tests.differential.asm import encode
from tests.differential.oracles import machine, program, settle
from vmjit import tiering
from vmjit.cache import CodeCache, DiskCache, forbid_compiling
from vmjit.cpu_engine import CpuEngine
from vmjit.decoders.riscv import REGISTERS
from vmjit.errors import CompileError
from vmjit.interpreter import interpreter_for
from vmjit.kernels.layout import ENTRY_FUNCTION
from vmjit.translators.cpu import CpuTarget, Effort

CODE, DATA = 0x10000, 0x20000

# Adds 3 to a0 and stores it, t0 times.
LOOP = b"".join(
    (
        encode("addi", rd=10, rs1=10, imm=3),
        encode("sw", rs1=11, rs2=10, imm=0),
        encode("addi", rd=5, rs1=5, imm=-1),
        encode("bne", rs1=5, rs2=0, imm=-12),
        encode("ebreak"),
    )
)
LANES = 5


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CodeCache:
    found = CodeCache(DiskCache(tmp_path))
    monkeypatch.setattr("vmjit.cpu_engine.process_cache", lambda: found)
    return found


@pytest.fixture
def efforts(monkeypatch: pytest.MonkeyPatch) -> list[Effort]:
    """The efforts of compilations, as they are made."""
    interpreter_for(REGISTERS[32, False])  # compiled by the first that needs it
    made: list[Effort] = []
    compile_ = CpuTarget.compile

    def noted(self: CpuTarget, text: str, effort: Effort = Effort.FULL) -> bytes:
        made.append(effort)
        return compile_(self, text, effort)

    monkeypatch.setattr(CpuTarget, "compile", noted)
    return made


def new_machine(tier: str = "scalar") -> vmjit.Machine:
    return machine(program("rv32i", LOOP, CODE, data=(DATA, 64)), LANES, tier, threads=1)


def check_run(m: vmjit.Machine, times: int) -> vmjit.RunResult:
    m.reset()
    m.registers[5] = times
    m.registers[10] = np.arange(LANES)
    m.registers[11] = DATA
    result = m.run()
    assert result.stops() == {"EBREAK": LANES}
    expected = [(3 * times + lane) & 0xFFFFFFFF for lane in range(LANES)]
    assert m.registers[10].tolist() == expected
    assert m.memory.read(DATA, 4).view(np.uint32)[:, 0].tolist() == expected
    assert m.retired.tolist() == [4 * times] * LANES
    return result


def functions(m: vmjit.Machine) -> list[int]:
    """The functions that entries lead to."""
    assert isinstance(m._engine, CpuEngine)
    (space,) = m._engine.spaces
    return [int(words[ENTRY_FUNCTION // 8]) for kept in space.compiled for words in kept.entries]


def test_a_short_run_compiles_quickly_and_once(efforts: list[Effort]) -> None:
    m = new_machine()
    result = check_run(m, 100)
    settle()
    assert efforts == [Effort.QUICK] * len(functions(m))
    assert result.tiers["scalar"] == result.instructions


def test_lanes_that_run_for_a_while_get_better_code(efforts: list[Effort]) -> None:
    """While they run: what they were in the middle of goes on in the same state."""
    m = new_machine()
    check_run(m, 100)
    quick = functions(m)
    check_run(m, 40_000_000)
    settle()
    count = len(quick)
    assert efforts == [Effort.QUICK] * count + [Effort.FULL] * count
    assert not set(functions(m)) & set(quick)
    check_run(m, 1000)
    assert len(efforts) == 2 * count


def test_short_runs_add_up(efforts: list[Effort], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiering, "_QUICK_CODE_SECONDS", 1e-3)
    m = new_machine()
    for _ in range(2000):
        check_run(m, 10)
        if m._engine.compiler._quick_ran == 0.0:  # type: ignore[union-attr]
            break
    settle()
    assert efforts.count(Effort.FULL) == efforts.count(Effort.QUICK)


def test_what_is_kept_of_an_earlier_run_is_used_at_once(cache: CodeCache, efforts: list[Effort]) -> None:
    check_run(new_machine("full"), 100)
    before = len(efforts)
    assert set(efforts) == {Effort.FULL}
    in_memory = new_machine()
    check_run(in_memory, 100)
    cache._loaded.clear()
    check_run(new_machine(), 100)
    assert len(efforts) == before


def test_where_nothing_may_be_compiled_quick_code_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    check_run(new_machine(), 100)
    settle()
    monkeypatch.setattr(tiering, "_QUICK_CODE_SECONDS", 0.0)
    with forbid_compiling():
        m = new_machine()
        check_run(m, 100)
        quick = functions(m)
        check_run(m, 100)
        settle()
        check_run(m, 100)
        assert functions(m) == quick


def test_code_that_cannot_be_made_better_stays(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compile_ = CpuTarget.compile

    def refuse(self: CpuTarget, text: str, effort: Effort = Effort.FULL) -> bytes:
        if effort is Effort.FULL:
            raise CompileError("no", log="", ir=text)
        return compile_(self, text, effort)

    m = new_machine()
    check_run(m, 100)
    monkeypatch.setattr(CpuTarget, "compile", refuse)
    monkeypatch.setattr(tiering, "_QUICK_CODE_SECONDS", 0.0)
    check_run(m, 100)
    settle()
    assert "keeps its quick code" in caplog.text
    check_run(m, 100)


def test_a_machine_that_is_gone_is_not_compiled_for(efforts: list[Effort], monkeypatch: pytest.MonkeyPatch) -> None:
    m = new_machine()
    check_run(m, 100)
    submitted = []
    monkeypatch.setattr(tiering.COMPILE_THREAD, "submit", lambda job, urgency: submitted.append(job))
    monkeypatch.setattr(tiering, "_QUICK_CODE_SECONDS", 0.0)
    check_run(m, 100)
    assert submitted
    del m
    gc.collect()
    for job in submitted:
        job()
    assert set(efforts) == {Effort.QUICK}
