"""Loops that regions run several iterations of in a row: whatever they access and wherever they end, as interpreted."""

from __future__ import annotations

import numpy as np
import pytest

from tests.differential import asm
from tests.differential.oracles import check_in_pieces, machine, program
from vmjit.decoders.riscv import REGISTERS, Decoder, parse_isa
from vmjit.translators.loop_unrolling import unrolled_loops
from vmjit.translators.region_body import budget_needs
from vmjit.translators.regions import Region

CODE, DATA, SIZE = 0x10000, 0x20000, 512
LANES = 24
POINTERS, COUNT, FLAG, VALUES = (10, 11), 12, 13, (14, 15, 16)

LOADS = {32: ("lb", "lbu", "lh", "lhu", "lw"), 64: ("lb", "lbu", "lh", "lhu", "lw", "lwu", "ld")}
STORES = {32: ("sb", "sh", "sw"), 64: ("sb", "sh", "sw", "sd")}
SIZES = {"b": 1, "h": 2, "w": 4, "d": 8}


def access(random: np.random.Generator, xlen: int) -> bytes:
    name = str(random.choice(LOADS[xlen] + STORES[xlen]))
    size = SIZES[name[1]]
    distance = int(random.integers(-3, 4)) * size + int(random.random() < 0.1)
    pointer, value = int(random.choice(POINTERS)), int(random.choice(VALUES))
    if name[0] == "l":
        return asm.encode(name, xlen, rd=value, rs1=pointer, imm=distance)
    return asm.encode(name, xlen, rs1=pointer, rs2=value, imm=distance)


def loop(random: np.random.Generator, xlen: int) -> bytes:
    """Accesses, some of them passed over where a value is even, steps of the pointers, and back while it counts."""
    always = b"".join(access(random, xlen) for _ in range(random.integers(0, 4)))
    skipped = b"".join(access(random, xlen) for _ in range(random.integers(1, 4)))
    steps = [int(random.choice([-8, -4, -2, -1, 1, 2, 4, 8, 12])) for _ in POINTERS]
    moved = b"".join(asm.encode("addi", xlen, rd=p, rs1=p, imm=s) for p, s in zip(POINTERS, steps, strict=True))
    test = asm.encode("andi", xlen, rd=FLAG, rs1=VALUES[0], imm=1)
    branch = asm.encode("beq", xlen, rs1=FLAG, imm=len(skipped) + 4)
    body = always + test + branch + skipped + moved + asm.encode("addi", xlen, rd=COUNT, rs1=COUNT, imm=-1)
    return body + asm.encode("bne", xlen, rs1=COUNT, imm=-len(body)) + asm.encode("ebreak", xlen)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("xlen", [32, 64])
def test_as_interpreted(xlen: int, seed: int) -> None:
    random = np.random.default_rng((xlen, seed))
    prog = program(f"rv{xlen}im", loop(random, xlen), CODE, data=(DATA, SIZE))
    contents = random.integers(0, 256, (LANES, SIZE), np.uint8)
    # Aligned for most lanes, so that loops get far; near the ends of the memory for some.
    starts = random.integers(0, SIZE // 8, (2, LANES)) * 8 + random.integers(0, 8, (2, LANES)) * (
        np.arange(LANES) % 3 == 0
    )
    counts = random.integers(1, 40, LANES)
    machines = [machine(prog, LANES, "interpreter"), machine(prog, LANES, "scalar", device="host")]
    for m in machines:
        m.memory.write(DATA, contents)
        for pointer, row in zip(POINTERS, starts, strict=True):
            m.registers[pointer] = DATA + row.astype(np.uint64)
        m.registers[COUNT] = counts.astype(np.uint64)
    check_in_pieces(*machines, (3, 17, 50, 1, None), DATA, SIZE)


@pytest.mark.parametrize("xlen", [32, 64])
def test_the_loops_are_unrolled(xlen: int) -> None:
    """What the test above is about does happen."""
    code = loop(np.random.default_rng((xlen, 0)), xlen)
    decoder = Decoder(parse_isa(f"rv{xlen}im"))
    blocks, todo = {}, [CODE]
    while todo:
        pc = todo.pop()
        if pc not in blocks:
            blocks[pc] = decoder.block(lambda at, size: code[at - CODE :][:size], pc)
            todo += blocks[pc].successors()
    region = Region([CODE], blocks)
    (found,) = unrolled_loops(region, set(budget_needs(region))).values()
    assert found.head == CODE
    assert found.copies > 1
    assert found.groups
    assert REGISTERS[xlen, False].zero not in {group.register for group in found.groups}
