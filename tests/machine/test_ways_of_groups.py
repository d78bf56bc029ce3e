"""Functions full of short branches, which groups run in step with all their ways, beside the interpreter."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.differential.oracles import EXECUTE, READ, WRITE
from tests.machine.harness import A0, A1, A2, A3, A4, A5, A6, CODE, S0, S1, T0, T1, ZERO, Assembly
from tests.machine.test_lane_groups import BYTES, LANES, PLACE, _always, check, counted
from tests.unit.test_lane_forms import region_of
from vmjit import Machine
from vmjit.decoders.riscv.isa import parse_isa
from vmjit.program import Program, Segment
from vmjit.translators.if_conversion import hammocks
from vmjit.translators.regions import Region, split_blocks

RA = 1
VALUES = (A0, A1, A2, A3, S0)

__all__ = ["_always"]  # its fixture holds here too


def function(a: Assembly, source: random.Random, blocks: int) -> None:
    """Blocks that go on, jump and branch forward only, and return in several places."""
    a.label("function")
    # Where few rounds are left, a lane's return address is made odd by two.
    a.put("sltu", T1, T0, A6)
    a.put("slli", T1, T1, imm=1)
    a.put("add", RA, RA, T1)
    for number in range(blocks):
        a.label(f"block {number}")
        for _ in range(source.randrange(1, 4)):
            some = [source.choice(VALUES) for _ in range(3)]
            match source.randrange(7):
                case 0:
                    a.put("lw", some[0], A4, imm=4 * source.randrange(8))
                case 1:
                    a.put("sw", 0, A4, some[0], 4 * source.randrange(8))
                case 2:
                    a.put("andi", A5, some[0], imm=0x3C)
                    a.put("add", A5, A5, S1)
                    a.put("sb", 0, A5, some[1], 3)
                case 3:
                    a.put("addi", some[0], some[1], imm=source.randrange(-99, 99))
                case 4:
                    a.put("srli", some[0], some[1], imm=source.randrange(1, 9))
                case _:
                    a.put(source.choice(["add", "xor", "sub", "mul"]), *some)
        later = [f"block {n}" for n in range(number + 1, blocks)]
        kind = source.randrange(10)
        if not later or kind == 0:
            a.put("jalr", 0, RA)
        elif kind == 1:
            a.put("jal", 0, to=source.choice(later))
        elif kind < 8:
            name = source.choice(["beq", "bne", "blt", "bge", "bltu", "bgeu"])
            a.put(name, 0, source.choice(VALUES), source.choice((*VALUES, ZERO)), to=source.choice(later[:4]))


def branching(seed: int, isa: str, blocks: int) -> Program:
    source = random.Random(seed)
    a = Assembly(int(isa[2:4]))
    a.li(S1, PLACE)
    a.put("addi", T0, ZERO, imm=60)
    counted(a, "round", lambda: a.put("jal", RA, to="function"))
    a.put("ebreak")
    function(a, source, blocks)
    data = source.randbytes(BYTES)
    segments = (Segment(CODE, len(a.code), a.code, READ | EXECUTE), Segment(PLACE, BYTES, data, READ | WRITE))
    return Program(segments, CODE, parse_isa(isa), name="ways")


@pytest.mark.parametrize("isa", ["rv32im", "rv64imac"])
@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(n, marks=pytest.mark.slow) for n in range(4, 60))])
def test_functions_of_short_branches(seed: int, isa: str) -> None:
    """Lanes with numbers and pointers of their own; some fault, some return to odd addresses, budgets end inside."""
    source = random.Random(seed)
    lanes = 2 * LANES + 1
    few = [source.randrange(1 << 16) for _ in range(3)]
    wrong = source.randrange(lanes)

    def start(m: Machine) -> None:
        chosen = random.Random(seed)
        for register in VALUES:
            m.registers[register] = np.array([chosen.choice(few) for _ in range(lanes)], np.uint64)
        pointers = np.full(lanes, PLACE + 2, np.uint64)
        odd = np.zeros(lanes, np.uint64)
        if seed % 4 == 1:
            pointers[wrong] = 16
        if seed % 4 == 2:
            odd[wrong] = 20
        if seed % 4 == 3:
            pointers += np.arange(lanes, dtype=np.uint64) * np.uint64(4)
        m.registers[A4], m.registers[A6] = pointers, odd

    vectored = check(branching(seed, isa, 3 + seed % 9), lanes, (17, 100, 1, 333, None), start=start)
    assert vectored or seed > 3


def joins(*labels: str, a: Assembly) -> dict[str, tuple[tuple[str, ...], str | None]]:
    """By the label of a block that branches: the blocks between, and where they meet (None: at a return)."""
    places = {a.labels[name]: name for name in labels}
    whole = region_of(a.code, CODE, f"rv{a.xlen}im", CODE)
    region = Region(whole.entries, split_blocks(whole.blocks), whole.returns)
    found = {}
    for pc, hammock in hammocks(region).items():
        inside = tuple(places.get(p, hex(p)) for p in hammock.blocks)
        found[places.get(pc, hex(pc))] = (inside, None if hammock.join is None else places[hammock.join])
    return found


def test_ways_that_meet_at_a_return() -> None:
    """As compilers lay out `value > high ? high : value < low ? low : value` before a return."""
    a = Assembly(32)
    a.label("start")
    a.put("bge", 0, A0, A1, to="high")
    a.label("test")
    a.put("bge", 0, A0, A2, to="store")
    a.label("low")
    a.put("addi", A0, A2)
    a.label("store")
    a.put("sw", 0, S1, A0)
    a.put("jalr", 0, RA)
    a.label("high")
    a.put("addi", A0, A1)
    a.put("sw", 0, S1, A0)
    a.put("jalr", 0, RA)
    found = joins("start", "test", "low", "store", "high", a=a)
    assert found["start"] == (("test", "low", "store", "high"), None)
    assert found["test"] == (("low",), "store")


def test_a_loop_or_a_call_between_is_no_hammock() -> None:
    a = Assembly(32)
    a.label("start")
    a.put("beq", 0, A0, A1, to="end")
    a.label("loop")
    a.put("addi", A0, A0, imm=1)
    a.put("bne", 0, A0, A1, to="loop")
    a.label("other")
    a.put("beq", 0, A2, A1, to="end")
    a.label("call")
    a.put("jal", RA, to="far")
    a.label("end")
    a.put("ebreak")
    a.label("far")
    a.put("jalr", 0, RA)
    assert joins("start", "loop", "other", "call", "end", "far", a=a) == {}
