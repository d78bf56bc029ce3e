"""A region for each row of the instruction tables, and one to compare it with that does the same without the row's work.

A row's region is two instructions. The first changes every register that the second reads and copies it to another
one, so that what the row works on is at hand in registers, whatever it is, and no analysis knows anything of it. The
second is the row's. The region it is compared with has in place of that copies of what is at hand into the registers
that the row writes. So both load the same, store the same and check the same budget, and what one has more than the
other is the row's own. Both leave the region: a control transfer as it does, everything else to the block behind it.

Compressed rows have no meaning of their own, and become what the rows become that they stand for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from vmjit.cases.case_file import decoder_of
from vmjit.decoders.riscv.decoder import Decoder, Instruction
from vmjit.decoders.riscv.registers import FLOAT, FLOAT_STATUS, RESERVATION
from vmjit.decoders.riscv.row import Row
from vmjit.decoders.riscv.tables import ALL_ROWS
from vmjit.ir import Block
from vmjit.ir.block import GuestInstruction
from vmjit.ir.registers import RegisterFile
from vmjit.ir.values import Const, Op, Register, Terminator
from vmjit.translators.region_body import WindowPlan, registers_used
from vmjit.translators.regions import Region

# The first that has a row says which registers there are: programs without floats have code without them.
_ISAS = (
    "imac_zicsr_zifencei_zba_zbb_zbs_zbc_zicond",
    "ima_zicsr_zifencei",
    "imafdc_zicsr_zifencei_zfh",
)

PC, SIZE = 0x1000, 4
WINDOWS = WindowPlan(private_lo=0x20000, private_size=0x10000, shared_lo=0x10000, shared_size=0x1000, more=False)

# The numbers of operands; a rounding mode is the status register's, as compilers have it.
_OPERANDS = {"rd": 10, "fd": 10, "rs1": 11, "fs1": 11, "rs2": 12, "fs2": 12, "fs3": 14, "rm": 7, "shamt": 5, "zimm": 5}
_LOW, _HIGH = 20, 0x12345 << 12

# Where copies of what is at hand are: these registers are no row's.
_COPY_ABOVE, _COPY_BELOW = 8, 8

# What registers are changed by, and what is copied in place of a result.
_INTEGER_BY, _INTEGER_COPIED, _FLOAT_BY, _FLOAT_COPIED = 31, 13, FLOAT + 31, FLOAT + 13


@dataclass(frozen=True, eq=False)
class RowRegion:
    """One row for one width. `region` has the row's instruction, `without` what it is compared with; `group` names the
    latter, which rows with the same registers share."""

    name: str
    row: Row
    decoder: Decoder
    instruction: Instruction
    region: Region
    without: Region
    group: str

    @property
    def registers(self) -> RegisterFile:
        return self.decoder.registers


def _word(row: Row) -> int:
    word = row.pattern.match
    for field in row.pattern.fields:
        upper = min(target for _, target, _ in field.pieces) >= 12
        word |= field.insert(_OPERANDS.get(field.name, _HIGH if upper else _LOW))
    return word


def _decoded(row: Row, xlen: int) -> tuple[Decoder, Instruction]:
    """The row's instruction behind the first, by a decoder that has the row."""
    data, place = _word(row).to_bytes(row.size, "little"), PC + SIZE
    for isa in _ISAS:
        decoder = decoder_of(f"rv{xlen}{isa}")
        found = decoder.decode(lambda pc, n: data[pc - place :][:n], place)
        if found.matched is not None and found.matched.row is row:
            return decoder, found
    raise LookupError(f"no decoder gives {row.name} ({row.extensions}) for {data.hex()}")


def _region(decoder: Decoder, first: list[Op], second: list[Op], terminator: Terminator | None) -> Region:
    instructions = [GuestInstruction(PC, SIZE, 0, first, "at hand"), GuestInstruction(PC + SIZE, SIZE, 0, second, "")]
    if terminator is None:
        terminator = Terminator("jump", (), (Const(PC + 2 * SIZE, decoder.registers.type),))
    return Region([PC], {PC: Block(PC, decoder.registers, instructions, terminator)})


def _row_region(row: Row, xlen: int, name: str) -> RowRegion:
    decoder, instruction = _decoded(row, xlen)
    registers = decoder.registers
    guest, terminator = decoder.lift(instruction)
    alone = _region(decoder, [], guest.ops, terminator)
    read, written = (sorted(found) for found in registers_used(alone, registers))
    floats, integers = (
        [i for i in written if (i >= FLOAT) is kind and i not in (FLOAT_STATUS, registers.zero)]
        for kind in (True, False)
    )
    changed = [i for i in read if i not in (FLOAT_STATUS, registers.zero)]
    changed += [_INTEGER_COPIED] * bool(integers) + [_FLOAT_COPIED] * bool(floats)
    first = [op for i in sorted(set(changed)) for op in _at_hand(registers, i)]
    copies = [
        Op("copy", registers.type_of(i), Register(i), (Register(_FLOAT_COPIED if i >= FLOAT else _INTEGER_COPIED),))
        for i in integers + floats
    ]
    if FLOAT_STATUS in written:
        type_ = registers.type_of(FLOAT_STATUS)
        copies.append(Op("xor", type_, Register(FLOAT_STATUS), (Register(FLOAT_STATUS), Const(1, type_))))
    return RowRegion(
        name,
        row,
        decoder,
        instruction,
        _region(decoder, first, guest.ops, terminator),
        _region(decoder, first, copies, None),
        "_".join([registers.name, *map(str, sorted(set(changed))), "to", *map(str, written)]),
    )


def _at_hand(registers: RegisterFile, index: int) -> tuple[Op, Op]:
    """A register changed by another one, and its value in a third."""
    by = _FLOAT_BY if index >= FLOAT else _INTEGER_BY
    type_, there = registers.type_of(index), index - _COPY_BELOW if index == RESERVATION else index + _COPY_ABOVE
    return (
        Op("xor", type_, Register(index), (Register(index), Register(by))),
        Op("copy", type_, Register(there), (Register(index),)),
    )


def rows_with_meaning(xlen: int) -> list[Row]:
    return [row for row in ALL_ROWS if xlen in row.xlens and row.meaning is not None]


@lru_cache(maxsize=2)
def row_regions(xlen: int) -> tuple[RowRegion, ...]:
    """Of every row with a meaning of its own, in the order of the tables."""
    return tuple(_row_region(row, xlen, name) for name, row in _named(rows_with_meaning(xlen)))


def _named(rows: list[Row]) -> Iterator[tuple[str, Row]]:
    """Rows by name; where several have one, with their operands, or with their extensions where these are alike."""
    names = Counter(row.name for row in rows)
    longer = Counter((row.name, row.assembly) for row in rows)
    for row in rows:
        if names[row.name] == 1:
            yield row.name, row
        else:
            yield f"{row.name} {row.assembly if longer[row.name, row.assembly] == 1 else f'({row.extensions})'}", row
