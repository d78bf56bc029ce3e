"""System calls in bulk: every lane makes its own, against a model of one lane, and against Linux where that agrees."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.differential.oracles import EXECUTE, READ, TIERS, WRITE, machine, write_elf
from tests.machine.harness import A0, A2, A3, A7, CODE, DATA, S0, S1, S2, ZERO, Assembly
from vmjit import Machine
from vmjit.decoders.riscv.isa import parse_isa
from vmjit.program import Program, Segment

EBADF, EFAULT, EINVAL, ENOSYS, ESPIPE = -9, -14, -22, -38, -29
LSEEK, READ_CALL, WRITE_CALL, FSTAT, CLOSE = 62, 63, 64, 80, 57
EXIT, EXIT_GROUP, CLOCK, TIME_OF_DAY, BRK, CLOCK64 = 93, 94, 113, 169, 214, 403

SEGMENT = 4096
CONSTANTS = 0x30000  # readable, not writable
BUFFER = DATA + 2048
CALLS = 40  # at most, in a program
RECORD = 5  # words of a call: number, three arguments, result
ARENA = 8192
HEAP = DATA + SEGMENT
NOWHERE = 0x200

both = pytest.mark.parametrize("xlen", [32, 64])
Call = tuple[int, int, int, int]


def caller(xlen: int) -> Assembly:
    """Makes the calls of a table at DATA one after the other and stores their results in it; then writes the table to
    standard output if s2 says so, and exits with 0."""
    n = xlen // 8
    load, store = ("lw", "sw") if xlen == 32 else ("ld", "sd")
    a = Assembly(xlen)
    a.li(S0, DATA)
    a.put(load, S1, S0)
    a.put(load, S2, S0, imm=n)
    a.put("addi", S0, S0, imm=2 * n)
    a.put("beq", rs1=S1, to="done")
    a.label("loop")
    for register, place in ((A7, 0), (A0, 1), (11, 2), (A2, 3)):
        a.put(load, register, S0, imm=place * n)
    a.put("ecall")
    a.put(store, 0, S0, A0, imm=4 * n)
    a.put("addi", S0, S0, imm=RECORD * n)
    a.put("addi", S1, S1, imm=-1)
    a.put("bne", rs1=S1, to="loop")
    a.label("done")
    a.put("beq", rs1=S2, to="exit")
    a.put("addi", A7, ZERO, imm=WRITE_CALL)
    a.put("addi", A0, ZERO, imm=2)
    a.li(11, DATA)
    a.put("sub", A2, S0, 11)
    a.put("ecall")
    a.label("exit")
    a.put("addi", A7, ZERO, imm=EXIT)
    a.put("addi", A0, ZERO)
    a.put("ecall")
    return a


BEFORE = 6  # instructions before the first call's ecall, without its four loads: li, two loads, addi, beq


def table(xlen: int, calls: Sequence[Call], tell: bool = False) -> bytes:
    mask = (1 << xlen) - 1
    words = [len(calls), int(tell), *(w & mask for call in calls for w in (*call, 0))]
    return struct.pack(f"<{len(words)}{'I' if xlen == 32 else 'Q'}", *words)


def results_in(xlen: int, raw: bytes, count: int) -> list[int]:
    words = struct.unpack(f"<{2 + RECORD * count}{'i' if xlen == 32 else 'q'}", raw[: (2 + RECORD * count) * xlen // 8])
    return [words[2 + RECORD * k + 4] for k in range(count)]


CONSTANT_BYTES = bytes(range(65, 91)) * 9 + bytes(22)


def segments(xlen: int, first: bytes) -> list[tuple[int, bytes, int]]:
    return [(CODE, caller(xlen).code, READ | EXECUTE), (DATA, first.ljust(SEGMENT, b"\0"), READ | WRITE),
            (CONSTANTS, CONSTANT_BYTES, READ)]  # fmt: skip


def calling(
    xlen: int,
    scripts: Sequence[Sequence[Call]],
    inputs: Sequence[bytes],
    tier: str = "interpreter",
    device: str = "cpu",
) -> Machine:
    """A machine whose lanes have made the calls of their scripts."""
    pieces = tuple(Segment(a, len(d), d, p) for a, d, p in segments(xlen, b""))
    m = machine(Program(pieces, CODE, parse_isa(f"rv{xlen}imac")), len(scripts), tier, memory=ARENA, device=device)
    rows = [np.frombuffer(table(xlen, script).ljust(SEGMENT, b"\0"), np.uint8) for script in scripts]
    m.memory.write(DATA, np.stack(rows))
    m.set_input(list(inputs))
    assert m.run().stops() == {"EXIT": len(scripts)}
    return m


# -- the model: one lane, as Linux and the module's docstring have it


@dataclass
class Model:
    xlen: int
    stdin: bytes
    memory: dict[int, int]  # address -> byte, of all that can be read
    writable: set[int]
    position: int = 0
    brk: int = HEAP
    closed: set[int] = field(default_factory=set)
    outputs: dict[int, bytearray] = field(default_factory=lambda: {1: bytearray(), 2: bytearray()})
    retired: int = BEFORE
    unknown: int = 0

    def signed(self, value: int, bits: int) -> int:
        value &= (1 << bits) - 1
        return value - (1 << bits) if value >> (bits - 1) else value

    def store(self, address: int, data: bytes) -> bool:
        where = range(address, address + len(data))
        if any(a not in self.writable for a in where):
            return False
        self.memory.update(zip(where, data, strict=True))
        return True

    def call(self, number: int, first: int, second: int, third: int) -> int:
        mask = (1 << self.xlen) - 1
        a = [v & mask for v in (first, second, third)]
        s = [self.signed(v, self.xlen) for v in a]
        fd = self.signed(a[0], 32)
        known = fd in (0, 1, 2) and fd not in self.closed
        self.retired += 4  # the loads; the call itself is the fifth, as far as the clock has come
        now = self.retired + 1
        self.retired += 1 + 4
        if number == READ_CALL:
            if fd != 0 or not known:
                return EBADF
            if s[2] < 0:
                return EINVAL
            data = self.stdin[self.position : self.position + s[2]]
            if not self.store(a[1], data):
                return EFAULT
            self.position += len(data)
            return len(data)
        if number == WRITE_CALL:
            if fd not in (1, 2) or not known:
                return EBADF
            if s[2] < 0:
                return EINVAL
            if s[2] > 1 << 20 or any(x not in self.memory for x in range(a[1], a[1] + s[2])):
                return EFAULT
            self.outputs[fd] += bytes(self.memory[x] for x in range(a[1], a[1] + s[2]))
            return s[2]
        if number == CLOSE:
            if not known:
                return EBADF
            self.closed.add(fd)
            return 0
        if number == LSEEK:
            return self._lseek(fd, known, s[1], s[2])
        if number == FSTAT:
            return self._fstat(fd, known, a[1])
        if number in (CLOCK, CLOCK64):
            if not 0 <= self.signed(a[0], self.xlen) < 16:
                return EINVAL
            word = "I" if self.xlen == 32 and number == CLOCK else "Q"
            return 0 if self.store(a[1], struct.pack(f"<2{word}", now // 10**9, now % 10**9)) else EFAULT
        if number == TIME_OF_DAY:
            word = "I" if self.xlen == 32 else "Q"
            good = a[0] == 0 or self.store(a[0], struct.pack(f"<2{word}", now // 10**9, now % 10**9 // 1000))
            return 0 if good else EFAULT
        if number == BRK:
            if HEAP <= a[0] < HEAP + ARENA:
                self.brk = a[0]
            return self.brk
        self.unknown += 1
        return ENOSYS

    def _lseek(self, fd: int, known: bool, offset: int, whence: int) -> int:
        if not known:
            return EBADF
        if fd != 0:
            return ESPIPE
        origins = {0: 0, 1: self.position, 2: len(self.stdin)}
        goal = origins.get(whence, -(1 << 70)) + offset
        if not 0 <= goal < 1 << 31:
            return EINVAL
        self.position = goal
        return goal

    def _fstat(self, fd: int, known: bool, address: int) -> int:
        if not known:
            return EBADF
        size = len(self.stdin) if fd == 0 else 0
        mode = 0o100444 if fd == 0 else 0o020620
        stat = struct.pack("<QQII", 0, fd + 1, mode, 1).ljust(48, b"\0") + struct.pack(
            "<qiiq", size, 4096, 0, -(-size // 512)
        )
        return 0 if self.store(address, stat.ljust(104 if self.xlen == 32 else 128, b"\0")) else EFAULT


def new_model(xlen: int, calls: Sequence[Call], stdin: bytes) -> Model:
    memory = dict(enumerate(table(xlen, calls).ljust(SEGMENT, b"\0"), DATA))
    memory.update(enumerate(bytes(ARENA), HEAP))
    writable = set(memory)
    memory.update(enumerate(CONSTANT_BYTES, CONSTANTS))
    memory.update(enumerate(caller(xlen).code, CODE))
    return Model(xlen, stdin, memory, writable)


def check(m: Machine, xlen: int, scripts: Sequence[Sequence[Call]], inputs: Sequence[bytes]) -> None:
    raw = m.memory.read(DATA, SEGMENT)
    result = m.run(0)
    unknown = 0
    for lane, (calls, stdin) in enumerate(zip(scripts, inputs, strict=True)):
        model = new_model(xlen, calls, stdin)
        n = xlen // 8
        wanted = []
        for k, call in enumerate(calls):
            value = model.call(*call)
            wanted.append(model.signed(value, xlen))
            place = DATA + (2 + RECORD * k + 4) * n
            model.store(place, (value & (1 << xlen) - 1).to_bytes(n, "little"))
        got = results_in(xlen, raw[lane].tobytes(), len(calls))
        told = [f"{c} -> {g}, want {w}" for c, g, w in zip(calls, got, wanted, strict=True) if g != w]
        assert not told, f"lane {lane}: {told[0]}"
        assert result.output(lane) == bytes(model.outputs[1])
        assert result.error_output(lane) == bytes(model.outputs[2])
        assert raw[lane].tobytes() == bytes(model.memory[DATA + i] for i in range(SEGMENT)), f"lane {lane}"
        heap = m.memory.read(HEAP, ARENA)[lane].tobytes()
        assert heap == bytes(model.memory[HEAP + i] for i in range(ARENA)), f"lane {lane}"
        assert int(m.environment.brk[lane]) == model.brk
        unknown += model.unknown
    assert sum(m.environment.unknown_calls.values()) == unknown


# -- against the model


def calls(xlen: int) -> st.SearchStrategy[Call]:
    """Calls with good and bad arguments; a bad one is near a good one."""
    top = (1 << xlen) - 1
    borders = [BUFFER, BUFFER, BUFFER + 100, CONSTANTS, CONSTANTS + 256, HEAP, HEAP + ARENA, CODE, NOWHERE, 0, top]
    pointer = st.builds(
        lambda b, d: (b + d) & top,
        st.sampled_from(borders),
        st.sampled_from([0, 0, 0, 1, -1, -7, -16, 8, 100]),
    )
    fd = st.sampled_from([0, 0, 1, 1, 2, 3, -1, 99, top, 1 << 31, (1 << 32) + 1])
    size = st.one_of(st.integers(0, 40), st.sampled_from([0, -1, top >> 1, -(top >> 1) - 1, 1 << 30, 1000, 5000]))
    offset = st.sampled_from([0, 1, 5, -1, -5, 100, 1 << 20, (1 << 31) - 1, -(1 << 31), top >> 1, -(top >> 1) - 1])
    brk = st.sampled_from([0, HEAP, HEAP - 1, HEAP + 16, HEAP + ARENA - 1, HEAP + ARENA, HEAP + ARENA + 1, top, DATA])
    return st.one_of(
        st.tuples(st.just(READ_CALL), fd, pointer, size),
        st.tuples(st.just(READ_CALL), st.just(0), pointer, size),
        st.tuples(st.just(WRITE_CALL), fd, pointer, size),
        st.tuples(st.just(WRITE_CALL), st.just(1), pointer, size),
        st.tuples(st.just(LSEEK), fd, offset, st.sampled_from([0, 1, 2, 3, -1])),
        st.tuples(st.just(LSEEK), st.just(0), offset, st.integers(0, 2)),
        st.tuples(st.just(FSTAT), fd, pointer, st.just(0)),
        st.tuples(
            st.sampled_from([CLOCK, CLOCK64]), st.sampled_from([0, 1, 7, 15, 16, -1, top >> 1]), pointer, st.just(0)
        ),
        st.tuples(st.just(TIME_OF_DAY), st.one_of(pointer, st.just(0)), st.just(0), st.just(0)),
        st.tuples(st.just(BRK), brk, st.just(0), st.just(0)),
        st.tuples(st.just(CLOSE), fd, st.just(0), st.just(0)),
        st.tuples(st.sampled_from([0, 56, 1000, 9999, top]), fd, pointer, size),
    )


@both
@pytest.mark.parametrize("device", ["cpu", "host"])
def test_every_call_in_every_lane(xlen: int, device: str) -> None:
    """Random scripts, other ones in each lane, so that many kinds of calls wait together."""

    @settings(max_examples=30, report_multiple_bugs=False)
    @given(st.lists(st.tuples(st.lists(calls(xlen), max_size=12), st.binary(max_size=60)), min_size=1, max_size=8))
    def run(lanes: list[tuple[list[Call], bytes]]) -> None:
        scripts, inputs = [script for script, _ in lanes], [stdin for _, stdin in lanes]
        check(calling(xlen, scripts, inputs, device=device), xlen, scripts, inputs)

    run()


@both
@pytest.mark.parametrize("tier", TIERS)
def test_hundreds_of_lanes(xlen: int, tier: str) -> None:
    """All kinds at once in many lanes; a lane's calls do not come to another's streams, break or descriptors."""
    source = random.Random(xlen)
    choices: list[Call] = [
        (READ_CALL, 0, BUFFER, 7),
        (READ_CALL, 0, BUFFER + 100, 0),
        (READ_CALL, 0, NOWHERE, 3),
        (WRITE_CALL, 1, BUFFER, 9),
        (WRITE_CALL, 2, CONSTANTS, 26),
        (WRITE_CALL, 1, CONSTANTS + 250, 7),
        (LSEEK, 0, -2, 2),
        (LSEEK, 0, 1, 1),
        (FSTAT, 0, BUFFER + 200, 0),
        (FSTAT, 1, BUFFER + 400, 0),
        (CLOCK, 1, BUFFER + 600, 0),
        (TIME_OF_DAY, BUFFER + 700, 0, 0),
        (BRK, HEAP + 64, 0, 0),
        (CLOSE, 0, 0, 0),
        (CLOSE, 2, 0, 0),
        (1234, 0, 0, 0),
    ]
    lanes = 120
    scripts = [[source.choice(choices) for _ in range(source.randrange(30))] for _ in range(lanes)]
    inputs = [source.randbytes(source.randrange(40)) for _ in range(lanes)]
    check(calling(xlen, scripts, inputs, tier), xlen, scripts, inputs)


# -- single calls


def results(xlen: int, script: Sequence[Call], stdin: bytes = b"") -> list[int]:
    m = calling(xlen, [script], [stdin])
    check(m, xlen, [script], [stdin])
    return results_in(xlen, m.memory.read(DATA, SEGMENT)[0].tobytes(), len(script))


@both
def test_reads(xlen: int) -> None:
    script = [
        (READ_CALL, 0, BUFFER, 3),
        (READ_CALL, 0, BUFFER + 3, 0),
        (READ_CALL, 0, NOWHERE, 0),
        (READ_CALL, 0, NOWHERE, 3),
        (READ_CALL, 0, CONSTANTS, 3),
        (READ_CALL, 0, CODE, 3),
        (READ_CALL, 0, CONSTANTS - 1, 2),
        (READ_CALL, 0, BUFFER + 3, 100),
        (READ_CALL, 0, BUFFER, 100),
        (READ_CALL, 0, NOWHERE, 100),
        (READ_CALL, 0, BUFFER, -1),
        (READ_CALL, 1, BUFFER, 1),
        (READ_CALL, 5, BUFFER, 1),
        (READ_CALL, -1, BUFFER, 1),
    ]
    # What failed has not taken anything from the input. At its end, nothing is stored, so no pointer is bad.
    wanted = [3, 0, 0, EFAULT, EFAULT, EFAULT, EFAULT, 5, 0, 0, EINVAL, EBADF, EBADF, EBADF]
    assert results(xlen, script, b"abcdefgh") == wanted


@both
def test_writes(xlen: int) -> None:
    top = (1 << xlen) - 8
    script = [
        (WRITE_CALL, 1, CONSTANTS, 5),
        (WRITE_CALL, 1, CONSTANTS, 0),
        (WRITE_CALL, 1, NOWHERE, 0),
        (WRITE_CALL, 1, NOWHERE, 1),
        (WRITE_CALL, 1, HEAP + ARENA - 4, 4),
        (WRITE_CALL, 1, HEAP + ARENA - 4, 5),
        (WRITE_CALL, 1, top, 16),
        (WRITE_CALL, 1, BUFFER, -1),
        (WRITE_CALL, 2, CONSTANTS + 1, 2),
        (WRITE_CALL, 0, CONSTANTS, 1),
        (WRITE_CALL, 3, CONSTANTS, 1),
        (WRITE_CALL, 1, CODE, 4),
        (WRITE_CALL, 1, CONSTANTS, (1 << (xlen - 1)) - 1),
    ]
    assert results(xlen, script) == [5, 0, 0, EFAULT, 4, EFAULT, EFAULT, EINVAL, 2, EBADF, EBADF, 4, EFAULT]


@both
def test_a_closed_descriptor(xlen: int) -> None:
    script = [
        (CLOSE, 1, 0, 0),
        (WRITE_CALL, 1, CONSTANTS, 3),
        (CLOSE, 1, 0, 0),
        (FSTAT, 1, BUFFER, 0),
        (LSEEK, 1, 0, 1),
        (WRITE_CALL, 2, CONSTANTS, 3),
        (CLOSE, 0, 0, 0),
        (READ_CALL, 0, BUFFER, 0),
        (LSEEK, 0, 0, 0),
        (CLOSE, 3, 0, 0),
        (CLOSE, -1, 0, 0),
    ]
    assert results(xlen, script, b"x") == [0, EBADF, EBADF, EBADF, EBADF, 3, 0, EBADF, EBADF, EBADF, EBADF]


@both
def test_seeking(xlen: int) -> None:
    script = [
        (LSEEK, 0, 4, 0),
        (READ_CALL, 0, BUFFER, 2),
        (LSEEK, 0, -1, 1),
        (LSEEK, 0, -2, 2),
        (READ_CALL, 0, BUFFER, 9),
        (LSEEK, 0, 50, 2),
        (READ_CALL, 0, BUFFER, 9),
        (LSEEK, 0, -61, 1),
        (LSEEK, 0, 0, 1),
        (LSEEK, 0, -1, 0),
        (LSEEK, 0, 0, 3),
        (LSEEK, 0, 0, -1),
        (LSEEK, 1, 0, 1),
        (LSEEK, 9, 0, 1),
    ]
    wanted = [4, 2, 5, 8, 2, 60, 0, EINVAL, 60, EINVAL, EINVAL, EINVAL, ESPIPE, EBADF]
    assert results(xlen, script, b"0123456789") == wanted


@both
def test_the_break(xlen: int) -> None:
    script = [(BRK, p, 0, 0) for p in (0, HEAP + 10, HEAP - 1, HEAP + ARENA, 0, HEAP + ARENA - 1, HEAP, -1, 5)]
    assert results(xlen, script) == [
        HEAP, HEAP + 10, HEAP + 10, HEAP + 10, HEAP + 10, HEAP + ARENA - 1, HEAP, HEAP, HEAP
    ]  # fmt: skip


@both
def test_the_break_stays_below_the_stack(xlen: int) -> None:
    """It is compared with the lane's stack pointer, where lanes differ."""
    a = Assembly(xlen)
    a.put("addi", A7, ZERO, imm=BRK)
    a.put("add", A0, ZERO, A3)
    a.put("ecall")
    a.put("ebreak")
    pieces = (Segment(CODE, len(a.code), a.code, READ | EXECUTE), Segment(DATA, 16, b"", READ | WRITE))
    m = Machine(Program(pieces, CODE, parse_isa(f"rv{xlen}im")), 3, memory=4096)
    heap = DATA + 16
    m.registers["sp"] = [heap + 100, heap + 200, heap + 4096]
    m.registers["a3"] = heap + 150
    m.run()
    assert m.registers["a0"].tolist() == [heap, heap + 150, heap + 150]


@both
def test_time_is_virtual(xlen: int) -> None:
    """One nanosecond an instruction; the same in every run, on every tier."""
    script: list[Call] = [(CLOCK, k % 2, BUFFER + 32 * k, 0) for k in range(4)]
    script += [(CLOCK64, 4, BUFFER + 128, 0), (TIME_OF_DAY, BUFFER + 160, 0, 0)]
    seen = []
    for tier in TIERS:
        m = calling(xlen, [script] * 2, [b""] * 2, tier)
        seen.append(m.memory.read(BUFFER, 192).tobytes())
    assert len(set(seen)) == 1
    n = xlen // 8
    times = [int.from_bytes(seen[0][32 * k + n : 32 * k + 2 * n], "little") for k in range(4)]
    assert np.diff(times).tolist() == [9, 9, 9]  # the instructions from one call to the next
    assert int.from_bytes(seen[0][128 + 8 : 128 + 16], "little") == times[3] + 9


@both
@pytest.mark.parametrize("tier", TIERS)
def test_exits(xlen: int, tier: str) -> None:
    """exit and exit_group; a status is what fits a byte."""
    a = Assembly(xlen)
    a.put("add", A7, ZERO, A3)
    a.put("ecall")
    m = machine(Program((Segment(CODE, len(a.code), a.code, 5),), CODE, parse_isa(f"rv{xlen}im")), 6, tier)
    m.registers["a3"] = [EXIT, EXIT_GROUP] * 3
    m.registers["a0"] = [0, 1, 255, 256, -1, 0x1234]
    result = m.run()
    assert result.exit_code.tolist() == [0, 1, 255, 0, 255, 0x34]
    assert result.stops() == {"EXIT": 6}
    assert result.retired.tolist() == [2] * 6
    assert result.pc.tolist() == [CODE + 4] * 6


@both
def test_unknown_calls_are_counted(xlen: int) -> None:
    scripts: list[list[Call]] = [[(1000, 1, 2, 3)] * 3, [(1000, 0, 0, 0), (56, 0, 0, 0)], []]
    m = calling(xlen, scripts, [b""] * 3)
    assert m.run(0).unknown_calls == {1000: 4, 56: 1}
    check(m, xlen, scripts, [b""] * 3)


def test_output_is_kept_in_order() -> None:
    """Many small writes to both streams by lanes that are not in step."""
    lanes = 50
    scripts: list[list[Call]] = [
        [(WRITE_CALL, 1 + (k + lane) % 2, CONSTANTS + (k * lane) % 26, k % 5) for k in range(lane % 31)]
        for lane in range(lanes)
    ]
    m = calling(64, scripts, [b""] * lanes)
    check(m, 64, scripts, [b""] * lanes)


def test_a_buffer_up_to_the_top_of_the_address_space() -> None:
    """A program may have memory up to the last byte; calls with pointers there are like any others."""
    top = 1 << 64
    pieces = (
        Segment(CODE, len(caller(64).code), caller(64).code, READ | EXECUTE),
        Segment(DATA, SEGMENT, b"", READ | WRITE),
        Segment(top - 256, 256, bytes(range(256)), READ | WRITE),
    )
    m = Machine(Program(pieces, CODE, parse_isa("rv64imac")), 1, memory=ARENA)
    script: list[Call] = [
        (WRITE_CALL, 1, top - 4, 4),
        (WRITE_CALL, 1, top - 4, 5),
        (READ_CALL, 0, top - 2, 2),
        (WRITE_CALL, 1, top - 4, 4),
        (READ_CALL, 0, top - 2, 3),
        (CLOCK, 0, top - 16, 0),
        (CLOCK, 0, top - 15, 0),
    ]
    m.memory.write(DATA, table(64, script))
    m.set_input(b"abcdef")
    result = m.run()
    assert result.stops() == {"EXIT": 1}
    assert results_in(64, m.memory.read(DATA, SEGMENT)[0].tobytes(), len(script)) == [
        4,
        EFAULT,
        2,
        4,
        EFAULT,
        0,
        EFAULT,
    ]
    assert result.output(0) == bytes([252, 253, 254, 255, 252, 253]) + b"ab"


ACROSS = 0x60000


def across(xlen: int) -> tuple[list[tuple[int, bytes, int]], list[Call]]:
    """Segments side by side, of which one can only be read, and calls whose buffers lie in both."""
    pieces = segments(xlen, b"")
    pieces[1:1] = [(ACROSS, bytes(range(256)) * 16, READ), (ACROSS + 4096, bytes(range(256)) * 16, READ | WRITE)]
    pieces[3:3] = [(ACROSS + 8192, bytes(range(256)) * 16, READ)]
    script: list[Call] = [
        (WRITE_CALL, 1, ACROSS + 4096 - 5, 10),
        (WRITE_CALL, 1, ACROSS + 8192 - 5, 10),
        (WRITE_CALL, 1, ACROSS + 100, 10_000),
        (WRITE_CALL, 1, ACROSS - 1, 2),
        (WRITE_CALL, 1, ACROSS + 3 * 4096 - 1, 1),
    ]
    return pieces, script


@both
def test_a_buffer_across_segments(xlen: int, tmp_path: Path) -> None:
    """What the guest can read byte by byte, a call can read too, wherever vmjit keeps it."""
    pieces, script = across(xlen)
    m = Machine(Program(tuple(Segment(a, len(d), d, p) for a, d, p in pieces), CODE, parse_isa(f"rv{xlen}imac")))
    m.memory.write(DATA, table(xlen, script))
    result = m.run()
    got = results_in(xlen, m.memory.read(DATA, SEGMENT)[0].tobytes(), len(script))
    assert got == [10, 10, 10_000, EFAULT, 1]
    row = bytes(range(256)) * 48
    wanted = row[4091:4101] + row[8187:8197] + row[100:10_100] + row[-1:]
    assert result.output(0) == wanted
    if shutil.which(f"qemu-riscv{xlen}") is not None:
        pieces = [
            (a, table(xlen, script, tell=True).ljust(SEGMENT, b"\0") if a == DATA else d, p) for a, d, p in pieces
        ]
        assert on_linux(xlen, script, b"", tmp_path, pieces) == (got, wanted)


# -- against Linux, as qemu-user has it, where both agree by specification


def on_linux(
    xlen: int,
    script: Sequence[Call],
    stdin: bytes,
    folder: Path,
    pieces: Sequence[tuple[int, bytes, int]] | None = None,
) -> tuple[list[int], bytes]:
    """Results and standard output of the same calls made by the same program; standard input is a file."""
    pieces = pieces or segments(xlen, table(xlen, script, tell=True))
    path = folder / "guest.elf"
    path.write_bytes(write_elf(xlen, [(a, d, len(d), p) for a, d, p in pieces], CODE))
    path.chmod(0o755)
    (folder / "stdin").write_bytes(stdin)
    with (folder / "stdin").open("rb") as file:
        done = subprocess.run(
            [f"qemu-riscv{xlen}", str(path)], stdin=file, capture_output=True, timeout=60, check=False
        )
    assert done.returncode == 0, done
    return results_in(xlen, done.stderr, len(script)), done.stdout


@both
def test_against_linux(xlen: int, tmp_path: Path) -> None:
    if shutil.which(f"qemu-riscv{xlen}") is None:
        pytest.skip(f"qemu-riscv{xlen} is not installed")
    script: list[Call] = [
        (READ_CALL, 0, BUFFER, 5),
        (WRITE_CALL, 1, BUFFER, 5),
        (READ_CALL, 0, BUFFER, 0),
        (WRITE_CALL, 1, BUFFER, 0),
        (READ_CALL, 0, NOWHERE, 3),
        (WRITE_CALL, 1, NOWHERE, 3),
        (READ_CALL, 0, CONSTANTS, 3),
        (WRITE_CALL, 1, CONSTANTS + 3, 10),
        (READ_CALL, 1, BUFFER, 3),
        (WRITE_CALL, 0, BUFFER, 3),
        (READ_CALL, 99, BUFFER, 3),
        (WRITE_CALL, -1, BUFFER, 3),
        (FSTAT, 99, BUFFER + 64, 0),
        (TIME_OF_DAY, NOWHERE, 0, 0) if xlen == 64 else (1000, 0, 0, 0),
        (1000, 0, 0, 0),
        (CLOCK, 0, NOWHERE, 0) if xlen == 64 else (CLOCK64, 0, NOWHERE, 0),
        (CLOSE, 99, 0, 0),
        (READ_CALL, 0, BUFFER + 5, 100),
        (READ_CALL, 0, BUFFER, 100),
        (WRITE_CALL, 1, BUFFER, 11),
        (CLOSE, 0, 0, 0),
        (CLOSE, 0, 0, 0),
        (READ_CALL, 0, BUFFER, 1),
    ]
    if xlen == 64:  # on 32 bits, Linux has _llseek under this number
        seeks: list[Call] = [
            (LSEEK, 0, 3, 0), (LSEEK, 0, -1, 1), (LSEEK, 0, 2, 1), (LSEEK, 0, -2, 2), (LSEEK, 0, 100, 0),
            (READ_CALL, 0, BUFFER, 4), (LSEEK, 0, -101, 1), (LSEEK, 0, -1, 0), (LSEEK, 0, 0, 99), (LSEEK, 1, 0, 1),
            (LSEEK, 99, 0, 1), (LSEEK, 0, 5, 0), (FSTAT, 0, NOWHERE, 0), (CLOCK, 0, BUFFER + 256, 0),
            (TIME_OF_DAY, BUFFER + 256, 0, 0), (TIME_OF_DAY, 0, 0, 0), (FSTAT, 0, BUFFER + 256, 0),
        ]  # fmt: skip
        script[1:1] = seeks
    stdin = b"hello, world"
    wanted, output = on_linux(xlen, script, stdin, tmp_path)
    m = calling(xlen, [script], [stdin])
    got = results_in(xlen, m.memory.read(DATA, SEGMENT)[0].tobytes(), len(script))
    assert list(zip(script, got, strict=True)) == list(zip(script, wanted, strict=True))
    assert m.run(0).output(0) == output
