"""Which window accesses try first: by what their addresses are computed from."""

from __future__ import annotations

import struct
from dataclasses import replace

import vmjit
from tests.cli.conftest import guest
from tests.differential.asm import encode
from tests.unit.test_value_ranges import BASE, region
from vmjit.compile_thread import COMPILE_THREAD
from vmjit.cpu_engine import CpuEngine
from vmjit.decoders.riscv import REGISTERS
from vmjit.translators.origins import Origin, SeenPointers, seen_pointers
from vmjit.translators.pointer_origins import PointerOrigins, origin_of
from vmjit.translators.region_body import PageWindows, WindowPlan

PAGED = PageWindows(data_size=0x2000, stack_lo=0x80000, stack_size=0x10000, hull_lo=0x20000, hull_size=0x70000)
WINDOWS = WindowPlan(0x21000, 0x6F000, 0x10000, 0x4000, more=False, paged=PAGED)
FILE = REGISTERS[32, False]
SP, A0, A1, A2, S1, RA = 2, 10, 11, 12, 9, 1


def origins(
    *code: bytes, entries: tuple[int, ...] = (BASE,), seen: dict[int, SeenPointers] | None = None
) -> list[Origin]:
    """Of the accesses in a program, in their order."""
    made = region(b"".join(code) + encode("ebreak", 32), list(entries))
    made.seen = seen or {}
    found = PointerOrigins(made, FILE, WINDOWS)
    ops = (op for pc in sorted(made.blocks) for op in made.blocks[pc].ops())
    return [found.of(op) for op in ops if op.name in ("load", "store")]


def i(name: str, rd: int = 0, rs1: int = 0, imm: int = 0) -> bytes:
    return encode(name, 32, rd=rd, rs1=rs1, imm=imm)


def load(rs1: int, imm: int = 0) -> bytes:
    return i("lw", A2, rs1, imm)


def test_what_addresses_are_computed_from() -> None:
    assert origins(load(SP, 8), load(A0), encode("sw", 32, rs1=SP, rs2=A0, imm=4)) == [
        Origin.STACK, Origin.UNKNOWN, Origin.STACK]  # fmt: skip
    data = encode("lui", 32, rd=A0, imm=0x22)
    assert origins(data, i("addi", A0, A0, -2047), load(A0), load(A0, 100)) == [Origin.DATA] * 2
    assert origins(encode("lui", 32, rd=A0, imm=0x20), load(A0)) == [Origin.DATA], "what is read-only once relocated"
    assert origins(encode("lui", 32, rd=A0, imm=0x11), load(A0)) == [Origin.SHARED]
    assert origins(encode("lui", 32, rd=A0, imm=0x55), load(A0)) == [Origin.UNKNOWN]


def test_an_index_changes_nothing() -> None:
    data = encode("lui", 32, rd=A0, imm=0x22)
    shifted = encode("slli", 32, rd=A1, rs1=A1, imm=2)
    indexed = encode("add", 32, rd=A0, rs1=A1, rs2=A0)
    assert origins(data, shifted, indexed, load(A0)) == [Origin.DATA]
    assert origins(i("addi", A1, SP, 16), indexed, load(A0)) == [Origin.STACK]
    assert origins(data, i("addi", A1, SP, 16), indexed, load(A0)) == [Origin.UNKNOWN], "of two pointers none"
    assert origins(i("addi", A0, SP, 64), i("andi", A0, A0, -16), load(A0)) == [Origin.STACK]
    assert origins(load(SP), load(A2)) == [Origin.STACK, Origin.UNKNOWN], "what was loaded may be anything"


def test_ways_that_meet() -> None:
    """A loop's pointer keeps its origin; where ways disagree, nothing is known."""
    data = encode("lui", 32, rd=A0, imm=0x22)
    loop = load(A0) + i("addi", A0, A0, 4) + encode("bne", 32, rs1=A1, rs2=0, imm=-8)
    assert origins(data, loop) == [Origin.DATA] * 2, "the first time around, and then"
    assert origins(data, loop, entries=(BASE, BASE + 4)) == [Origin.DATA] * 2, "an entry is no news"
    assert origins(data, loop, entries=(BASE + 4,)) == [Origin.UNKNOWN]
    other = encode("beq", 32, rs1=A1, rs2=0, imm=12) + i("addi", A0, SP, 0) + encode("jal", 32, rd=0, imm=4) + load(A0)
    assert origins(data, other) == [Origin.UNKNOWN]


def test_a_call_keeps_what_the_abi_saves() -> None:
    setup = encode("lui", 32, rd=S1, imm=0x22) + encode("lui", 32, rd=A0, imm=0x22)
    call = encode("jal", 32, rd=RA, imm=20)
    behind = load(S1) + load(A0) + encode("ebreak", 32)
    callee = i("addi", 0) + i("jalr", 0, RA)
    assert origins(setup, call, behind, i("addi", 0), callee, entries=(BASE, BASE + 12)) == [
        Origin.DATA, Origin.UNKNOWN]  # fmt: skip


def test_accesses_that_are_decided_together() -> None:
    made = region(load(SP) + load(A0) + encode("ebreak", 32), [BASE])
    found = PointerOrigins(made, FILE, WINDOWS)
    stack, unknown = (op for op in made.blocks[BASE].ops() if op.name == "load")
    assert origin_of(found, [stack]) is Origin.STACK
    assert origin_of(found, [stack, unknown]) is Origin.UNKNOWN
    assert origin_of(found, []) is Origin.UNKNOWN
    assert origin_of(None, [stack]) is Origin.UNKNOWN


def test_what_registers_were_seen_to_lead_to() -> None:
    """An argument, and what was loaded in another block; what the code itself says comes first."""
    seen = SeenPointers(stack=1 << A0 | 1 << A1)
    assert origins(load(A0), load(A1), seen={BASE: seen}) == [Origin.STACK] * 2
    assert origins(load(A0), load(A2), seen={BASE: SeenPointers(data=1 << A2)}) == [Origin.UNKNOWN] * 2, "overwritten"
    data = encode("lui", 32, rd=A0, imm=0x22)
    assert origins(data, load(A0), seen={BASE: seen}) == [Origin.DATA]
    jump = encode("jal", 32, rd=0, imm=4)
    assert origins(load(SP), jump, load(A2), seen={BASE + 8: SeenPointers(shared=1 << A2)}) == [
        Origin.STACK, Origin.SHARED]  # fmt: skip
    assert origins(data, jump, load(A0), load(A1), seen={BASE + 8: seen}) == [Origin.DATA, Origin.STACK]


def test_what_addresses_lead_to() -> None:
    addresses = [0, 0x10000, 0x13FFF, 0x14000, 0x20000, 0x7FFFF, 0x80000, 0x8FFFF, 0x90000]
    seen = seen_pointers(WINDOWS, addresses, None)
    assert seen == SeenPointers(stack=0b011000000, data=0b000110000, shared=0b000000110)
    assert seen.origins() == {
        1: Origin.SHARED, 2: Origin.SHARED, 4: Origin.DATA, 5: Origin.DATA, 6: Origin.STACK, 7: Origin.STACK,
    }  # fmt: skip
    assert seen_pointers(WINDOWS, addresses, 6).stack == 1 << 7
    assert seen_pointers(replace(WINDOWS, paged=None), addresses, None) == SeenPointers()


def test_a_structure_on_the_stack_is_seen() -> None:
    """The reader of csv gets one by a pointer: its regions know, and a later machine takes over what they know, so that
    it finds their code. On memory for bare metal nothing is noted."""
    program = vmjit.load(guest("csv", "rv32im"))
    known = []
    for environment in ("linux", "linux", "bare-metal"):
        m = vmjit.Machine(program, tier="auto", memory="64KiB", environment=environment, threads=1)
        engine = m._engine
        assert isinstance(engine, CpuEngine)
        for _ in range(4):
            m.reset()
            m.set_input([struct.pack("<II", 1, 200)])
            m.run()
            COMPILE_THREAD.wait()
        (space,) = engine.spaces
        found = [origin for seen in space.seen.values() for origin in seen.origins().values()]
        assert (Origin.DATA in found and Origin.STACK in found) == (environment == "linux")
        arguments = {seen.origins().get(A0) for seen in space.seen.values()}
        assert (Origin.STACK in arguments) == (environment == "linux")
        known.append([region.seen for region in engine.compiler.regions.all(space)])
    assert any(known[0])
    assert known[1][: len(known[0])] == known[0]
    assert not any(known[2])
