"""What the interpreter runs as one is as two: in every outcome, with the budget ending between them, with any registers."""

from __future__ import annotations

import random

import pytest

from tests.differential.asm import BRANCHES, LOADS, ONLY64, STORES
from tests.differential.reference import Instruction
from tests.machine.harness import A2, A3, A4, A5, A6, CODE, DATA, T0, T1, ZERO, Assembly, Scene, check_on, ins
from vmjit.cpu_engine import CpuEngine
from vmjit.decoders.riscv.fusion import FUSED_PAIRS

XLENS = (32, 64)
BAD = 0x1000
PAIRS = [(first, follower) for first, followers in FUSED_PAIRS.items() for follower in followers.split()]
IMMEDIATES = {"lui": 0x12345, "auipc": 0, "jalr": 0, "slli": 5, "srli": 3, "slliw": 7, "srliw": 4}


def instruction(name: str, rd: int, rs1: int, rs2: int) -> Instruction:
    if name in LOADS:
        return ins(name, rd, rs1, 0, 8)
    if name in STORES:
        return ins(name, 0, rs1, rs2, 8)
    if name in ("lui", "auipc"):
        return ins(name, rd, 0, 0, IMMEDIATES[name])
    if name in ("addi", "addiw", "andi", "jalr", "slli", "srli", "slliw", "srliw"):
        return ins(name, rd, rs1, 0, IMMEDIATES.get(name, -24))
    return ins(name, rd, rs1, rs2)


def program(xlen: int, first: str, follower: str, rd: int, return_to: int) -> Assembly:
    """The pair, then ebreak; what a jump or a branch leads to sets a6 before."""
    second, _, operand = follower.partition("/")
    a = Assembly(xlen)
    a.append(instruction(first, T0, A2, A3))
    rs1, rs2 = {"": (A4, A5), "rs1": (T0, A4), "rs2": (A4, T0)}[operand]
    if second == "jal":
        a.put("jal", return_to, to="away")
    elif second in BRANCHES:
        a.put(second, 0, rs1, rs2, to="away")
    elif second == "jalr":
        # After auipc the address is relative to it: behind the pair and the first ebreak.
        a.put("jalr", return_to, rs1, imm=12 if operand else 0)
    else:
        a.append(instruction(second, rd, rs1, rs2))
    a.put("ebreak")
    a.label("away")
    a.put("addi", A6, ZERO, imm=1)
    a.put("ebreak")
    return a


def lanes(xlen: int, second: str) -> list[dict[int, int]]:
    """Registers with which both are well, either faults, and values at random."""
    rng = random.Random(f"{xlen} {second}")
    good = CODE + 12 if second == "jalr" else DATA + 32
    found = [
        {A2: DATA + 16, A3: 8, A4: good, A5: good},
        {A2: DATA + 249, A3: 1, A4: good, A5: good + 1},
        {A2: BAD, A3: 8, A4: good, A5: 5},
        {A2: DATA + 16, A3: 8, A4: BAD, A5: good},
        {A2: BAD, A3: -4, A4: BAD, A5: BAD},
        {A2: 24, A3: 0, A4: 0, A5: 0},
    ]
    found += [{r: rng.getrandbits(xlen) & ~1 for r in (A2, A3, A4, A5)} for _ in range(3)]
    return found


def _pairs_of(xlen: int) -> list[tuple[int, str, str]]:
    """The pairs that there are for a width."""
    return [(xlen, f, s) for f, s in PAIRS if xlen == 64 or not {f, s.partition("/")[0]} & ONLY64]


@pytest.mark.parametrize(("xlen", "first", "follower"), [case for xlen in XLENS for case in _pairs_of(xlen)])
def test_pair(xlen: int, first: str, follower: str) -> None:
    second = follower.partition("/")[0]
    for rd, return_to in ((T1, 1), (T0, 0)):
        scene = Scene(program(xlen, first, follower, rd, return_to), lanes(xlen, second))
        m = scene.machine("interpreter")
        m.run()
        engine = m._engine
        assert isinstance(engine, CpuEngine)
        space = engine.spaces[0]
        assert int(space.stream[space.records[CODE] + 1, 0]) in engine.interpreter.fused.values()
        for schedule in ((None,), (1, None), (2, 1, None)):
            check_on(scene, "interpreter", schedule)


def test_pairs_that_overlap() -> None:
    """Each slot that can start a pair does, and says what its own handler is."""
    a = Assembly(32)
    for name in ("sltu", "add", "addi", "xor"):
        a.append(instruction(name, T0, A2, A3))
    a.put("ebreak")
    m = Scene(a, [{}]).machine("interpreter")
    m.run()
    engine = m._engine
    assert isinstance(engine, CpuEngine)
    space, interpreter = engine.spaces[0], engine.interpreter
    record = space.records[CODE]
    fused = set(interpreter.fused.values())
    starts = [int(space.stream[record + 1 + i, 0]) in fused for i in range(5)]
    assert starts == [True, True, True, False, False]
    own = [interpreter.handlers[int(space.stream[record + 1 + i, 1]) >> 48] for i in range(5)]
    assert not fused & set(own)
    assert own[3:] == [int(space.stream[record + 1 + i, 0]) for i in (3, 4)]
