"""Loops whose checks the scalar tier makes in front: however they count and whatever they access, as interpreted."""

from __future__ import annotations

import numpy as np
import pytest

from tests.differential import asm
from tests.differential.oracles import check_in_pieces, machine, program
from vmjit.decoders.riscv import REGISTERS, Decoder, parse_isa
from vmjit.memory_layout import plan_memory
from vmjit.translators.counted_loops import CountedLoop, counted_loops, number
from vmjit.translators.region_body import budget_needs
from vmjit.translators.regions import Region

CODE, DATA, SIZE = 0x10000, 0x20000, 512
LANES = 48
POINTERS, TABLE, COUNT, BOUND, STRIDE, INDEX = (10, 11), 12, 13, 14, 15, 16
VALUES = (17, 18, 19)

LOADS = {32: ("lb", "lbu", "lh", "lhu", "lw"), 64: ("lb", "lbu", "lh", "lhu", "lw", "lwu", "ld")}
STORES = {32: ("sb", "sh", "sw"), 64: ("sb", "sh", "sw", "sd")}
UPWARDS, DOWNWARDS = ("bne", "blt", "bltu"), ("bne", "blt", "bltu", "bge", "bgeu")


class Loop:
    """A random loop: accesses through two pointers and a table, one of them passed over now and then, steps, a test."""

    def __init__(self, random: np.random.Generator, xlen: int) -> None:
        self.random = random
        self.xlen = xlen
        self.step = int(random.choice([-8, -4, -3, -1, 1, 2, 3, 4, 8]))
        self.by_register = bool(random.random() < 0.3)
        self.narrow = xlen == 64 and bool(random.random() < 0.5)
        body = b"".join(self.access() for _ in range(random.integers(1, 4)))
        if random.random() < 0.5:
            body += self.table()
        if random.random() < 0.4:
            skipped = self.access() + self.code("add", rd=VALUES[1], rs1=VALUES[1], rs2=VALUES[0])
            body += self.code("andi", rd=INDEX, rs1=VALUES[0], imm=1)
            body += self.code("beq", rs1=INDEX, imm=len(skipped) + 4) + skipped
        body += self.move(POINTERS[0], int(random.choice([-4, -1, 0, 1, 2, 4, 8])))
        if random.random() < 0.3:
            body += self.code("add", rd=POINTERS[1], rs1=POINTERS[1], rs2=STRIDE)
        counter = "addiw" if self.narrow else "addi"
        if self.by_register:
            counter = "addw" if self.narrow else "add"
            body += self.code(counter, rd=COUNT, rs1=COUNT, rs2=STRIDE)
        else:
            body += self.code(counter, rd=COUNT, rs1=COUNT, imm=self.step)
        self.bytes = body + self.back(len(body)) + self.code("ebreak")
        shifts = self.by_register or self.step > 0
        if shifts and random.random() < 0.4:  # as compilers write count < 2^k
            test = self.code("srli", rd=VALUES[2], rs1=COUNT, imm=int(random.choice([3, 5, 5, 12, xlen - 1])))
            pair = (VALUES[2], 0) if random.random() < 0.7 else (0, VALUES[2])
            test += self.code("beq", rs1=pair[0], rs2=pair[1], imm=-len(body + test))
            self.bytes = body + test + self.code("ebreak")

    def code(self, name: str, **operands: int) -> bytes:
        return asm.encode(name, self.xlen, **operands)

    def move(self, register: int, by: int) -> bytes:
        return self.code("addi", rd=register, rs1=register, imm=by) if by else b""

    def access(self) -> bytes:
        random = self.random
        name = str(random.choice(LOADS[self.xlen] + STORES[self.xlen]))
        pointer, value = int(random.choice(POINTERS)), int(random.choice(VALUES))
        distance = int(random.integers(-9, 10))
        if name[0] == "l":
            return self.code(name, rd=value, rs1=pointer, imm=distance)
        return self.code(name, rs1=pointer, rs2=value, imm=distance)

    def table(self) -> bytes:
        """A load of a table at an index that is bounded and no sum of anything."""
        return (
            self.code("andi", rd=INDEX, rs1=VALUES[0], imm=31)
            + self.code("slli", rd=INDEX, rs1=INDEX, imm=2)
            + self.code("add", rd=INDEX, rs1=INDEX, rs2=TABLE)
            + self.code("lw", rd=VALUES[2], rs1=INDEX)
            + self.code("xor", rd=VALUES[0], rs1=VALUES[0], rs2=VALUES[2])
        )

    def back(self, distance: int) -> bytes:
        """The test at the end, the moving side on either side of it."""
        up = self.by_register or self.step > 0
        name = str(self.random.choice(UPWARDS if up else DOWNWARDS))
        moving_first = name == "bne" or (up != name.startswith("bge"))
        first, second = (COUNT, BOUND) if moving_first else (BOUND, COUNT)
        return self.code(name, rs1=first, rs2=second, imm=-distance)

    def counted(self) -> dict[int, CountedLoop]:
        decoder = Decoder(parse_isa(f"rv{self.xlen}im"))

        def fetch(pc: int, size: int) -> bytes:
            return self.bytes[pc - CODE :][:size]

        blocks, todo = {}, [CODE]
        while todo:
            pc = todo.pop()
            if pc not in blocks:
                blocks[pc] = decoder.block(fetch, pc)
                todo += blocks[pc].successors()
        region = Region([CODE], blocks)
        assert region.blocks[CODE].registers is REGISTERS[self.xlen, False]
        return counted_loops(region, budget_needs(region))

    def start(self, lane: int) -> tuple[int, int]:
        """A counter and its bound, some of them where the numbers wrap or the sign changes."""
        iterations = int(self.random.integers(0, 24))
        step = int(self.random.choice([1, 2, 4])) if self.by_register else self.step
        if lane % 4 == 1:  # a bound that may be stepped over
            top = (1 << self.xlen - int(self.random.integers(0, 2))) - 1
            bound = (top if step > 0 else top + 1) + int(self.random.integers(-2, 3))
            return bound - step * iterations + int(self.random.integers(-2, 3)), bound
        edge = int(self.random.choice([0, 0, 1 << 31, (1 << 31) - 5, 1 << 32, 1 << 63, (1 << 64) - 7]))
        moved = step * iterations + (int(self.random.integers(-2, 3)) if lane % 4 == 0 else 0)
        return edge, edge + moved


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("xlen", [32, 64])
def test_as_interpreted(xlen: int, seed: int) -> None:
    random = np.random.default_rng((xlen, seed))
    loop = Loop(random, xlen)
    prog = program(f"rv{xlen}im", loop.bytes, CODE, data=(DATA, SIZE))
    mask = (1 << xlen) - 1
    contents = random.integers(0, 256, (LANES, SIZE), np.uint8)
    registers: dict[int, list[int]] = {r: [] for r in (*POINTERS, TABLE, COUNT, BOUND, STRIDE, VALUES[0])}
    machines = [machine(prog, LANES, tier) for tier in ("interpreter", "full")]
    plan = plan_memory(prog, 4096).window_plan()
    ends = [plan.private_lo, plan.private_lo + plan.private_size]
    for lane in range(LANES):
        count, bound = loop.start(lane)
        registers[COUNT].append(count)
        registers[BOUND].append(bound)
        registers[STRIDE].append(int(random.choice([1, 2, 4, 1, 2, 4, 0, -4, 1 << 31, 1 << 40])))
        for pointer in POINTERS:
            end = int(random.choice(ends)) + int(random.integers(-40, 41))
            registers[pointer].append(end if lane % 3 == 0 else DATA + 200)
        registers[TABLE].append(int(random.choice([DATA, DATA + 128, DATA + SIZE - 64, CODE - 64, CODE])))
        registers[VALUES[0]].append(int(random.integers(0, 1 << 16)))
    for m in machines:
        m.memory.write(DATA, contents)
        for register, values in registers.items():
            m.registers[register] = np.array([v & mask for v in values], np.uint64)
    check_in_pieces(*machines, (3, 29, 200, 1, 5000), DATA, SIZE)


@pytest.mark.parametrize("xlen", [32, 64])
def test_most_of_them_are_counted(xlen: int) -> None:
    """What the test above is about does happen, in every form of the test at the end."""
    found = [c for seed in range(40) for c in Loop(np.random.default_rng((xlen, seed)), xlen).counted().values()]
    assert len(found) >= 12
    assert {c.relation for c in found} >= {"ne", "lt", "ge"}
    assert {c.signed for c in found} == {False, True}
    assert any(c.pace.terms for c in found)
    assert any(c.relation == "lt" and c.bound in map(number, (1 << 3, 1 << 5, 1 << 12)) for c in found)
    assert any(not address.exact for c in found for _, address in c.members.values())
