"""Every computing instruction on operands that matter, in all lanes at once: one lane is one pair of operands.

Oracles: the plain-Python reference (all), Unicorn (I, M, A, C) and qemu-user (all that QEMU 7.2 knows).
"""

from __future__ import annotations

import itertools
import random
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from tests.differential import asm
from tests.differential.oracles import (
    EVERY_CODE,
    EXECUTE,
    READ,
    WRITE,
    Unicorn,
    have_qemu,
    machine,
    program,
    run_qemu,
    settle,
    write_elf,
)
from tests.differential.reference import AMO, BRANCHES, LOADS, Instruction, Memory, Reference, compute
from vmjit import Machine, RunResult

ISA = "imacb_zbc_zicond_zcb"
CODE, DATA = 0x10000, 0x40000
A, B, RESULT, OUT = 10, 11, 12, 13

# QEMU 7.2 gives the full count for ctzw of a register whose low half is zero only if the upper one is, too; and it
# has neither Zicond nor Zcb.
QEMU_LACKS = {"ctzw", *asm.ZICOND}


def operands(xlen: int) -> list[tuple[int, int]]:
    top = 1 << xlen
    words = [0, 1, 2, 3, 5, 7, 8, 31, 32, 33, 63, 64, 65, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000]
    words += [0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF, 0x55555555, 0xAAAAAAAA, 0x01000080, 0x00FF00FF]
    words += [top - 1, top - 2, top >> 1, (top >> 1) - 1, (top >> 1) + 1, top - 32, top - 64]
    if xlen == 64:
        words += [1 << 32, (1 << 32) + 1, 0xFFFFFFFF00000000, 0xFFFFFFFF80000000, 0x5555555555555555]
        words += [0x0123456789ABCDEF, 0x8000000080000000, 0x7FFFFFFF7FFFFFFF]
    words = sorted(set(words))
    pairs = list(itertools.product(words, words))
    source = random.Random(xlen)
    pairs += [(source.getrandbits(xlen), source.getrandbits(xlen)) for _ in range(200)]
    return pairs


def computing(xlen: int) -> list[Instruction]:
    """Each register form once; each immediate form with several immediates."""
    found = [Instruction(n, RESULT, A, B) for n in asm.REGISTER]
    found += [Instruction(n, RESULT, A) for n in asm.UNARY]
    for name in asm.IMMEDIATE:
        found += [Instruction(name, RESULT, A, imm=i) for i in (0, 1, -1, 2047, -2048, 255, -2)]
    for name in asm.SHIFT:
        width = 32 if xlen == 32 or name in ("slliw", "srliw", "sraiw", "roriw") else 64
        found += [Instruction(name, RESULT, A, imm=i) for i in {0, 1, 7, 8, 16, 31, width - 1, width // 2}]
    found += [Instruction("lui", RESULT, imm=i) for i in (0, 1, 0x7FFFF, 0x80000, 0xFFFFF)]
    found += [Instruction("c.mul", 10, 10, 11, short="c.mul")]
    return [i for i in found if xlen == 64 or i.name not in asm.ONLY64]


def slots(xlen: int) -> list[tuple[str, int | None, list[Instruction]]]:
    """(name, immediate, code that leaves the result in RESULT), every immediate form and branch included."""
    found = []
    for i in computing(xlen):
        if i.name == "c.mul":
            continue
        found.append((i.name, i.imm, [i]))
    for name in BRANCHES:
        skip = [
            Instruction("addi", RESULT, 0, imm=1),
            Instruction(name, rs1=A, rs2=B, imm=8),
            Instruction("addi", RESULT, 0, imm=0),
        ]
        found.append((name, None, skip))
    # Destinations that are operands.
    for name in ("sub", "sll", "div", "rem", "mulhsu"):
        move = Instruction("addi", RESULT, A, imm=0)
        found.append((f"{name} rd=rs1", None, [move, Instruction(name, RESULT, RESULT, B)]))
        move = Instruction("addi", RESULT, B, imm=0)
        found.append((f"{name} rd=rs2", None, [move, Instruction(name, RESULT, A, RESULT)]))
    # A destination of x0 changes nothing.
    for name in ("add", "mul", "div", "andn", "clmul"):
        body = [
            Instruction("addi", RESULT, 0, imm=77),
            Instruction(name, 0, A, B),
            Instruction("add", RESULT, 0, RESULT),
        ]
        found.append((f"{name} x0", None, body))
    return found


def expected(name: str, imm: int | None, a: int, b: int, xlen: int) -> int:
    if name == "lui":
        return compute("addi", (imm or 0) << 12 if (imm or 0) < 0x80000 else ((imm or 0) << 12) - (1 << 32), 0, xlen)
    if name in BRANCHES:
        return int(BRANCHES[name](a, b, xlen))
    stem, _, kind = name.partition(" ")
    if kind == "x0":
        return 77
    if stem in asm.IMMEDIATE or stem in asm.SHIFT:
        return compute(stem, a, imm or 0, xlen)
    return compute(stem, a, b, xlen)


@lru_cache(maxsize=2)
def built(xlen: int) -> tuple[bytes, list[tuple[str, int | None, list[Instruction]]]]:
    """Code that computes every slot and stores the result to the data segment; OUT points there."""
    listed = slots(xlen)
    store, step = ("sw", 4) if xlen == 32 else ("sd", 8)
    code = b""
    place = 0
    for _, _, body in listed:
        code += b"".join(i.data(xlen) for i in body)
        code += asm.encode(store, xlen, rs1=OUT, rs2=RESULT, imm=place)
        place += step
        if place + step > 2040:
            code += asm.encode("addi", xlen, rd=OUT, rs1=OUT, imm=place)
            place = 0
    return code, listed


@lru_cache(maxsize=2)
def table(xlen: int) -> np.ndarray:
    """(slots, pairs) results by the reference."""
    _, listed = built(xlen)
    dtype = np.uint32 if xlen == 32 else np.uint64
    return np.array([[expected(n, i, a, b, xlen) for a, b in operands(xlen)] for n, i, _ in listed], dtype)


def complain(xlen: int, got: np.ndarray, who: str, leave_out: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    _, listed = built(xlen)
    wrong = np.argwhere(got != table(xlen))
    lines = []
    for slot, pair in wrong:
        name, imm, _ = listed[slot]
        if name in leave_out:
            continue
        a, b = operands(xlen)[pair]
        lines.append(
            f"rv{xlen} {name} imm={imm} a={a:#x} b={b:#x}: {got[slot, pair]:#x}, reference {table(xlen)[slot, pair]:#x}"
        )
    assert not lines, f"{who}: {len(lines)} differ\n" + "\n".join(lines[:20])


def check_computing(m: Machine, xlen: int, tier: str) -> RunResult:
    """Run the code of `built` with a pair of operands a lane, and compare what it stored."""
    pairs = operands(xlen)
    m.registers[A] = np.array([a for a, _ in pairs], np.uint64)
    m.registers[B] = np.array([b for _, b in pairs], np.uint64)
    m.registers[OUT] = DATA
    result = m.run()
    assert result.stops() == {"EBREAK": len(pairs)}
    got = m.memory.read(DATA, len(built(xlen)[1]) * xlen // 8).view(np.uint32 if xlen == 32 else np.uint64).T
    complain(xlen, got, tier)
    return result


@pytest.mark.parametrize("tier", EVERY_CODE)
@pytest.mark.parametrize("xlen", [32, 64])
def test_computing_instructions(xlen: int, tier: str) -> None:
    code, listed = built(xlen)
    pairs = operands(xlen)
    size = len(listed) * xlen // 8
    prog = program(f"rv{xlen}{ISA}", code + asm.encode("ebreak"), CODE, data=(DATA, size))
    m = machine(prog, len(pairs), tier)
    for attempt in range(2 if tier == "auto" else 1):
        if attempt:
            settle()
            m.reset()
        result = check_computing(m, xlen, tier)
    if tier != "interpreter":
        assert result.tiers["scalar"] > 0


@pytest.mark.parametrize("xlen", [32, 64])
def test_reference_agrees_with_unicorn(xlen: int) -> None:
    """The reference against QEMU 5's translator, where that knows the instruction; so neither stands alone."""
    _, listed = built(xlen)
    pairs = operands(xlen)[::13]
    columns = range(0, len(operands(xlen)), 13)
    lines = []
    known = [s for s, (n, _, _) in enumerate(listed) if n.partition(" ")[0] not in asm.BITMANIP | asm.ZICOND]
    code = b""
    starts = {}
    for slot in known:
        starts[slot] = CODE + len(code)
        code += b"".join(i.data(xlen) for i in listed[slot][2]) + asm.encode("ebreak")
    emulator = Unicorn(xlen, [(CODE, code, 7)])
    for slot in known:
        for column, (a, b) in zip(columns, pairs, strict=True):
            registers = [0] * 32
            registers[A], registers[B] = a, b
            got = emulator.run(registers, starts[slot]).registers[RESULT]
            if got != int(table(xlen)[slot, column]):
                lines.append(
                    f"{listed[slot][:2]} a={a:#x} b={b:#x}: unicorn {got:#x}, reference {table(xlen)[slot, column]:#x}"
                )
    assert not lines, "\n".join(lines[:20])


@pytest.mark.parametrize("xlen", [32, 64])
def test_reference_agrees_with_qemu(xlen: int, tmp_path: Path) -> None:
    """One static ELF runs every slot on every pair and writes the results to standard output."""
    if not have_qemu(xlen):
        pytest.skip(f"qemu-riscv{xlen} is not installed")
    code, listed = built(xlen)
    known = [s for s, (n, _, _) in enumerate(listed) if n.partition(" ")[0] not in asm.ZICOND]
    step = xlen // 8
    load, store = ("lw", "sw") if xlen == 32 else ("ld", "sd")
    body = b""
    for slot in known:
        body += b"".join(i.data(xlen) for i in listed[slot][2])
        body += asm.encode(store, xlen, rs1=OUT, rs2=RESULT) + asm.encode("addi", xlen, rd=OUT, rs1=OUT, imm=step)
    pairs = operands(xlen)
    data = b"".join(v.to_bytes(step, "little") for pair in pairs for v in pair)
    total = len(known) * len(pairs) * step
    pairs_at, out_at = 0x200000, 0x400000

    def load_address(rd: int, value: int) -> bytes:
        return asm.encode("lui", xlen, rd=rd, imm=value >> 12)

    # x5: next pair, x6: pairs left
    start = load_address(5, pairs_at) + load_address(OUT, out_at)
    start += asm.encode("addi", xlen, rd=6, imm=len(pairs) >> 4) + asm.encode("slli", xlen, rd=6, rs1=6, imm=4)
    start += asm.encode("addi", xlen, rd=6, rs1=6, imm=len(pairs) & 15)
    head = asm.encode(load, xlen, rd=A, rs1=5) + asm.encode(load, xlen, rd=B, rs1=5, imm=step)
    tail = asm.encode("addi", xlen, rd=5, rs1=5, imm=2 * step) + asm.encode("addi", xlen, rd=6, rs1=6, imm=-1)
    loop = head + body + tail
    loop += asm.encode("beq", xlen, rs1=6, rs2=0, imm=8) + asm.encode("jal", xlen, imm=-len(loop) - 4)
    end = load_address(11, out_at) + asm.encode("addi", xlen, rd=10, imm=1)
    end += asm.encode("lui", xlen, rd=12, imm=(total + 4095) >> 12) + asm.encode("addi", xlen, rd=17, imm=64)
    end += asm.encode("ecall") + asm.encode("addi", xlen, rd=10) + asm.encode("addi", xlen, rd=17, imm=93)
    end += asm.encode("ecall")
    text = start + loop + end
    elf = write_elf(
        xlen,
        [
            (CODE, text, len(text), READ | EXECUTE),
            (pairs_at, data, len(data), READ | WRITE),
            (out_at, b"", total + 8192, READ | WRITE),
        ],
        CODE,
        flags=0,
    )
    done = run_qemu(xlen, elf, tmp_path, cpu=f"rv{xlen},zba=true,zbb=true,zbc=true,zbs=true")
    assert done.returncode == 0, done
    values = np.frombuffer(done.stdout[:total], np.uint32 if xlen == 32 else np.uint64)
    got = table(xlen).copy()
    got[known] = values.reshape(len(pairs), len(known)).T
    complain(xlen, got, "qemu-user", QEMU_LACKS)


# -- memory


def _memory_cases(xlen: int) -> list[Instruction]:
    found = [Instruction(n, RESULT, OUT, imm=i) for n in asm.LOADS for i in (0, 1, 2, 3, 5, 7)]
    found += [Instruction(n, rs1=OUT, rs2=B, imm=i) for n in asm.STORES for i in (16, 17, 18, 19, 21, 23)]
    return [i for i in found if xlen == 64 or i.name not in asm.ONLY64]


@pytest.mark.parametrize("tier", EVERY_CODE)
@pytest.mark.parametrize("xlen", [32, 64])
def test_loads_and_stores_at_any_alignment(xlen: int, tier: str) -> None:
    """Each lane has its own bytes; results of the loads are stored behind the area that the stores write."""
    cases = _memory_cases(xlen)
    store, step = ("sw", 4) if xlen == 32 else ("sd", 8)
    code, place = b"", 64
    listing: list[Instruction] = []
    for i in cases:
        listing.append(i)
        if i.name in LOADS:
            listing.append(Instruction(store, rs1=OUT, rs2=RESULT, imm=place))
            place += step
    listing.append(Instruction("ebreak"))
    code = b"".join(i.data(xlen) for i in listing)
    rng = np.random.default_rng(5)
    lanes, size = 33, 1024
    contents = rng.integers(0, 256, (lanes, size), np.uint8)
    contents[:, :64] |= np.where(rng.random((lanes, 64)) < 0.5, 0x80, 0).astype(np.uint8)
    values = rng.integers(0, 1 << 32, lanes, np.uint64) << np.uint64(32 if xlen == 64 else 0) | np.uint64(0x80FF01FE)
    m = machine(program(f"rv{xlen}imac", code, CODE, data=(DATA, size)), lanes, tier)
    m.memory.write(DATA, contents)
    m.registers[OUT] = DATA
    m.registers[B] = values
    assert m.run().stops() == {"EBREAK": lanes}
    got = m.memory.read(DATA, size)
    layout = {CODE + 4 * k: i for k, i in enumerate(listing)}
    for lane in range(lanes):
        emulator = Unicorn(xlen, [(CODE, code, 5), (DATA, contents[lane].tobytes(), 3)])
        registers = [0] * 32
        registers[OUT], registers[B] = DATA, int(values[lane]) & (1 << xlen) - 1
        emulator.run(registers, CODE)
        hart = Reference(xlen, layout, CODE, registers, Memory([(DATA, bytearray(contents[lane].tobytes()), True)]))
        hart.run()
        assert got[lane].tobytes() == emulator.memory(DATA, size) == bytes(hart.memory.spans[0][1])
        assert int(m.retired[lane]) == emulator.retired == hart.retired


@pytest.mark.parametrize("tier", EVERY_CODE)
@pytest.mark.parametrize("xlen", [32, 64])
def test_atomics(xlen: int, tier: str) -> None:
    """Each AMO on every pair: the old value comes back, the new one is in memory."""
    pairs = operands(xlen)[::3]
    names = [f"{n}.{w}" for n in AMO for w in ("wd" if xlen == 64 else "w")]
    step = 8
    listing = []
    for k, name in enumerate(names):
        listing += [
            Instruction("sd" if xlen == 64 else "sw", rs1=OUT, rs2=A, imm=0),
            Instruction(name, RESULT, OUT, B),
            Instruction("sd" if xlen == 64 else "sw", rs1=14, rs2=RESULT, imm=step * 2 * k),
            Instruction("ld" if xlen == 64 else "lw", RESULT, OUT),
            Instruction("sd" if xlen == 64 else "sw", rs1=14, rs2=RESULT, imm=step * (2 * k + 1)),
        ]
    listing.append(Instruction("ebreak"))
    code = b"".join(i.data(xlen) for i in listing)
    m = machine(program(f"rv{xlen}ima", code, CODE, data=(DATA, 1024)), len(pairs), tier)
    m.registers[A] = np.array([a for a, _ in pairs], np.uint64)
    m.registers[B] = np.array([b for _, b in pairs], np.uint64)
    m.registers[OUT] = DATA + 512
    m.registers[14] = DATA
    assert m.run().stops() == {"EBREAK": len(pairs)}
    got = m.memory.read(DATA, 512)
    for lane, (a, b) in enumerate(pairs):
        registers = [0] * 32
        registers[A], registers[B], registers[OUT], registers[14] = a, b, DATA + 512, DATA
        hart = Reference(xlen, {CODE + 4 * k: i for k, i in enumerate(listing)}, CODE, registers,
                         Memory([(DATA, bytearray(1024), True)]))  # fmt: skip
        hart.run()
        assert hart.stop == "ebreak"
        assert got[lane].tobytes() == bytes(hart.memory.spans[0][1][:512]), (hex(a), hex(b))
        if lane % 11 == 0:
            emulator = Unicorn(xlen, [(CODE, code, 5), (DATA, bytes(1024), 3)])
            emulator.run(registers, CODE)
            assert emulator.memory(DATA, 512) == got[lane].tobytes(), (hex(a), hex(b))


@pytest.mark.parametrize("tier", EVERY_CODE)
@pytest.mark.parametrize("xlen", [32, 64])
def test_load_reserved_store_conditional(xlen: int, tier: str) -> None:
    """A pair succeeds, the same sc again fails, one without lr fails, one at another address fails and ends it."""
    width = "d" if xlen == 64 else "w"
    listing = [
        Instruction(f"lr.{width}", 5, OUT),
        Instruction(f"sc.{width}", 6, OUT, A),
        Instruction(f"sc.{width}", 7, OUT, B),
        Instruction("lr.w", 8, OUT),
        Instruction("sc.w", 9, 14, B),  # elsewhere
        Instruction("sc.w", 15, OUT, B),  # the failed one ended the reservation
        Instruction("lr.w", 16, 14),
        Instruction("lr.w", 17, OUT),
        Instruction("sc.w", 18, OUT, 17),  # stores what it read, rd != rs2
        Instruction("lr.w", 17, OUT),
        Instruction("sc.w", 17, OUT, 17),  # rd == rs2
        Instruction("lr.w", 19, 14),
        Instruction("sc.w", 14, 14, B),  # rd == rs1
        Instruction("sc.w", 0, 0, B),  # no reservation: no access, so no fault at address 0 either
        Instruction("ebreak"),
    ]
    code = b"".join(i.data(xlen) for i in listing)
    lanes = 5
    m = machine(program(f"rv{xlen}ima", code, CODE, data=(DATA, 64)), lanes, tier)
    start = [0] * 32
    start[A], start[B], start[OUT], start[14] = 0x80000001, 0x7FFFFFFF, DATA, DATA + 16
    for i in range(1, 32):
        m.registers[i] = start[i]
    assert m.run().stops() == {"EBREAK": lanes}
    hart = Reference(
        xlen, {CODE + 4 * k: i for k, i in enumerate(listing)}, CODE, start, Memory([(DATA, bytearray(64), True)])
    )
    hart.run()
    assert hart.stop == "ebreak"
    assert [int(v) for v in m.registers.array()[:, 3]] == hart.x
    assert m.memory.read(DATA, 64)[4].tobytes() == bytes(hart.memory.spans[0][1])
    emulator = Unicorn(xlen, [(CODE, code, 5), (DATA, bytes(64), 3)])
    outcome = emulator.run(start, CODE)
    assert outcome.registers == hart.x
