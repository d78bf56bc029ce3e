"""A guest that works through a table of float operands, an instruction after the other, and the table.

A row has 64-bit words: the status register before, three operands (register contents), the result and the status after.
Each lane has rows of its own. Half of the rows are as most programs' operations are: rounding to nearest, the inexact
flag set; the others have every status.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.differential.asm import encode
from tests.differential.oracles import program
from tests.floats.encoding import INSTRUCTIONS, FloatInstruction, boxed, load, read_status, store, write_status
from tests.floats.numbers import Numbers
from vmjit.ir.floats import Exceptions, Rounding, effective_mode
from vmjit.program import Program

CODE, DATA = 0x10000, 0x100000
STATUS, FIRST, RESULT, AFTER, WORDS = 0, 1, 4, 5, 6
_ROW = 8 * WORDS
_TABLE, _COUNT, _STATUS, _SOURCE, _TARGET = 10, 11, 12, 13, 14  # integer registers
_USUAL = int(Exceptions.INEXACT)


@dataclass(frozen=True)
class Step:
    """One loop of the guest: an instruction with a rounding mode, for the next `count` rows."""

    instruction: FloatInstruction
    mode: int
    count: int


@dataclass(frozen=True)
class Vectors:
    """`tables`: (lanes, rows, WORDS) uint64, with what is expected."""

    xlen: int
    steps: tuple[Step, ...]
    tables: NDArray[np.uint64]

    @property
    def bytes(self) -> int:
        return self.tables.shape[1] * _ROW

    def given(self) -> NDArray[np.uint8]:
        """(lanes, bytes): the tables as a machine gets them."""
        given = self.tables.copy()
        given[:, :, RESULT:] = 0
        return given.reshape(len(given), -1).view(np.uint8)

    def program(self, isa: str) -> Program:
        return program(isa, self.code(), CODE, data=(DATA, self.bytes))

    def code(self, ending: bytes = encode("ebreak")) -> bytes:
        code = encode("lui", rd=_TABLE, imm=DATA >> 12)
        for step in self.steps:
            code += encode("addi", rd=_COUNT, imm=step.count)
            body = self._body(step)
            back = encode("bne", rs1=_COUNT, rs2=0, imm=-len(body))
            code += body + back
        return code + ending

    def _body(self, step: Step) -> bytes:
        wide = self.xlen == 64
        get, put = ("ld", "sd") if wide else ("lw", "sw")
        instruction = step.instruction
        body = encode("lw", rd=_STATUS, rs1=_TABLE, imm=0) + write_status(_STATUS)
        sources = []
        for i, kind in enumerate(instruction.operands):
            place = 8 * (FIRST + i)
            sources.append(_SOURCE if kind == "x" else i)
            body += encode(get, rd=_SOURCE, rs1=_TABLE, imm=place) if kind == "x" else load(i, _TABLE, place)
        target = _TARGET if instruction.result == "x" else 3
        body += instruction.encode(target, sources, step.mode) + read_status(_STATUS)
        if instruction.result == "x":
            body += encode(put, rs1=_TABLE, rs2=_TARGET, imm=8 * RESULT)
        else:
            body += store(3, _TABLE, 8 * RESULT)
        body += encode("sw", rs1=_TABLE, rs2=_STATUS, imm=8 * AFTER)
        body += encode("addi", rd=_TABLE, rs1=_TABLE, imm=_ROW)
        return body + encode("addi", rd=_COUNT, rs1=_COUNT, imm=-1)

    def each(self) -> Iterator[Vectors]:
        """The same, a guest for every step."""
        row = 0
        for step in self.steps:
            yield Vectors(self.xlen, (step,), self.tables[:, row : row + step.count])
            row += step.count

    def complaints(self, tables: NDArray[np.uint8], most: int = 10) -> list[str]:
        """How the tables of a run differ from what is expected."""
        got = np.ascontiguousarray(tables).view(np.uint64).reshape(self.tables.shape)
        wrong = (got != self.tables).any(axis=2)
        found = []
        for lane, row in zip(*wrong.nonzero(), strict=True):
            step = self._step_of(int(row))
            want, have = self.tables[lane, row], got[lane, row]
            operands = " ".join(f"{int(x):#018x}" for x in want[FIRST : FIRST + len(step.instruction.operands)])
            found.append(
                f"lane {lane}, row {row}: {step.instruction.name} {operands}, mode {step.mode}, status {int(want[0]):#x}: "
                f"got {int(have[RESULT]):#x} and {int(have[AFTER]):#x}, want {int(want[RESULT]):#x} and {int(want[AFTER]):#x}"
            )
            if len(found) == most:
                break
        return found

    def _step_of(self, row: int) -> Step:
        for step in self.steps:
            if row < step.count:
                return step
            row -= step.count
        raise AssertionError("a row behind the last step")


def write_out(size: int) -> bytes:
    """Write the table to standard output and exit, as a Linux program does."""
    upper = (size + 0x800) >> 12
    return b"".join(
        [
            encode("addi", rd=10, imm=1),
            encode("lui", rd=11, imm=DATA >> 12),
            encode("lui", rd=12, imm=upper),
            encode("addi", rd=12, rs1=12, imm=size - (upper << 12)),
            encode("addi", rd=17, imm=64),
            encode("ecall"),
            encode("addi", rd=10),
            encode("addi", rd=17, imm=93),
            encode("ecall"),
        ]
    )


def _source_bits(instruction: FloatInstruction) -> int:
    """The format of an instruction's float operands."""
    name = instruction.name
    last = name.split(".")[-1]
    if name.startswith("fmv."):
        last = {"w": "s", "x": name.split(".")[1].replace("w", "s")}.get(last, last)
    return {"s": 32, "d": 64, "h": 16}.get(last, 64)


def _row(numbers: Numbers, instruction: FloatInstruction, mode: int, status: int, xlen: int) -> list[int]:
    bits = _source_bits(instruction)
    count = len(instruction.operands)
    if instruction.operands == "x":
        operands = [numbers.integer(xlen)]
    else:
        operands = [boxed(bits, x) for x in numbers.operands("fma" if count == 3 else "", bits, count)]
        if numbers.random.random() < 0.04:
            operands[numbers.random.randrange(count)] = numbers.random.getrandbits(64)  # most likely not boxed
    rounding = effective_mode(mode, status)
    assert rounding is not None
    result, flags = instruction.compute(operands, rounding if instruction.rounds else Rounding.NEAREST_EVEN)
    width = xlen if instruction.result == "x" else 64
    padding = [0] * (3 - count)
    return [status, *operands, *padding, result % (1 << width), status | int(flags)]


def make_vectors(
    xlen: int,
    lanes: int,
    rows: int,
    *,
    seed: int = 1,
    formats: str = "sdh",
    groups: bool = False,
    without: tuple[str, ...] = (),
) -> Vectors:
    """Tables with `rows` rows for every instruction on these formats, with the dynamic rounding mode and with a mode of
    its own.

    `groups`: for lane groups. Every other row has the status of most programs in all lanes, so that groups go the usual
    way; and only the dynamic mode is there, since their code takes long to compile. `without`: beginnings of
    the names of instructions that are left out.
    """
    numbers = Numbers(seed)
    steps, columns = [], []
    for number, instruction in enumerate(INSTRUCTIONS):
        used = set(instruction.name.split(".")[1:]) & set("sdh")
        if (instruction.only64 and xlen == 32) or not used <= set(formats) or instruction.name.startswith(without):
            continue
        for mode in (7, number % 5) if instruction.rounds and not groups else (7,):
            steps.append(Step(instruction, mode, rows))
            for row in range(rows):
                kinds = [(groups and row % 2 == 0) or numbers.random.random() < 0.4 for _ in range(lanes)]
                statuses = [
                    _USUAL if usual else numbers.random.getrandbits(5) | numbers.random.randrange(5) << 5
                    for usual in kinds
                ]
                columns.append([_row(numbers, instruction, mode, status, xlen) for status in statuses])
    tables = np.array(columns, np.uint64).transpose(1, 0, 2)
    return Vectors(xlen, tuple(steps), np.ascontiguousarray(tables))
