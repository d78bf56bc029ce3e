"""The instruction tables, row by row."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import capstone
import pytest

from vmjit.decoders.riscv.decoder import Decoder, Template, all_templates, row_template
from vmjit.decoders.riscv.isa import IMPLEMENTED, parse_isa
from vmjit.decoders.riscv.patterns import parse_pattern
from vmjit.decoders.riscv.registers import ABI_NAMES, REGISTERS
from vmjit.decoders.riscv.row import REGISTER_SLOTS, Row, register_index
from vmjit.decoders.riscv.tables import ALL_ROWS
from vmjit.ir.block import Block, GuestInstruction
from vmjit.ir.ops import FLOAT_OPS
from vmjit.ir.registers import RegisterFile
from vmjit.ir.types import Type
from vmjit.ir.values import Const, ConstSlot, Op, Operand, Register, RegisterSlot, Temp, Terminator
from vmjit.ir.verify import verify_block

ALL = {
    xlen: parse_isa(f"rv{xlen}imafdcb_zfh_zbc_zicond_zcb_zicntr_zifencei_zihintpause_zihintntl") for xlen in (32, 64)
}
WITHOUT_C = {xlen: parse_isa(f"rv{xlen}imab_zbc_zicond_zicntr_zifencei") for xlen in (32, 64)}


def rows(xlen: int) -> list[Row]:
    return [r for r in ALL_ROWS if xlen in r.xlens]


def _id(value: object) -> str | None:
    return f"{value.name}-{'/'.join(map(str, sorted(value.xlens)))}" if isinstance(value, Row) else None


ROWS_AND_XLENS = [(row, xlen) for xlen in (32, 64) for row in rows(xlen)]


def words(row: Row, count: int, seed: int = 1) -> Iterator[int]:
    """Random words that the row's pattern accepts."""
    source = random.Random(f"{row.name}{seed}")
    bits = 8 * row.size
    found = 0
    while found < count:
        word = source.getrandbits(bits) & ~row.pattern.mask | row.pattern.match
        if source.randrange(4) == 0:  # also small and extreme operands
            for field in row.pattern.fields:
                word = word & ~field.insert(-1 + field.base) | field.insert(source.choice((0, 1, -1)) + field.base)
        if row.pattern.accepts(word):
            found += 1
            yield word


def decoder_for(row: Row, xlen: int) -> Decoder:
    return Decoder(WITHOUT_C[xlen] if row.extensions == "!zca" else ALL[xlen])


@pytest.mark.parametrize("row", ALL_ROWS, ids=_id)
def test_pattern_covers_every_bit_once(row: Row) -> None:
    pattern = row.pattern
    assert pattern.size in (2, 4)
    taken = pattern.mask
    for field in pattern.fields:
        targets = [(t, w) for _, t, w in field.pieces]
        value_bits = [b for t, w in targets for b in range(t, t + w)]
        assert len(value_bits) == len(set(value_bits)), "a bit of the operand is given twice"
        for source, _, width in field.pieces:
            bits = ((1 << width) - 1) << source
            assert not taken & bits, "a bit of the word is used twice"
            taken |= bits
    assert taken < 1 << (8 * pattern.size)
    assert pattern.match & ~pattern.mask == 0
    assert (pattern.match & 3 == 3) == (pattern.size == 4), "the low bits say the size"


@pytest.mark.parametrize("row", ALL_ROWS, ids=_id)
def test_fields_insert_what_they_extract(row: Row) -> None:
    for word in words(row, 20):
        for field in row.pattern.fields:
            own = field.insert(-1 + field.base)
            assert field.insert(field.extract(word)) == word & own


@pytest.mark.parametrize("row", ALL_ROWS, ids=_id)
def test_extensions_of_rows_are_implemented(row: Row) -> None:
    for word in row.extensions.split("+"):
        assert word.lstrip("!") in IMPLEMENTED
    assert row.xlens <= {32, 64}


@pytest.mark.parametrize("xlen", [32, 64])
def test_rows_do_not_overlap(xlen: int) -> None:
    """Two rows of one ISA accept the same word only where the first is the more special one: counters before csrrs,
    c.nop and c.addi16sp beside their general forms, which exclude them."""
    first_wins = {
        (f"rd{c}{h}", f"csrr{op}{i}")
        for c in ("cycle", "time", "instret")
        for h in ("", "h")
        for op in "sc"
        for i in ("", "i")
    }
    first_wins |= {(f"csrr{op}{i}", f"csrr{op}{i}") for op in "wsc" for i in ("", "i")}  # the float status, the others
    listed = rows(xlen)
    for n, left in enumerate(listed):
        for right in listed[n + 1 :]:
            if left.size != right.size or {left.extensions, right.extensions} == {"zca", "!zca"}:
                continue
            common = left.pattern.mask & right.pattern.mask
            if (left.pattern.match ^ right.pattern.match) & common or (left.name, right.name) in first_wins:
                continue
            both = left.pattern.match | right.pattern.match
            free = ~(left.pattern.mask | right.pattern.mask) & ((1 << 8 * left.size) - 1)
            source = random.Random(n)
            for _ in range(300):
                word = both | source.getrandbits(32) & free
                assert not (left.pattern.accepts(word) and right.pattern.accepts(word)), (
                    f"{left.name} and {right.name}: {word:#x}"
                )
            if left.size == 2:
                sub = free
                while True:
                    word = both | sub
                    assert not (left.pattern.accepts(word) and right.pattern.accepts(word)), (
                        f"{left.name}, {right.name}: {word:#x}"
                    )
                    if not sub:
                        break
                    sub = (sub - 1) & free


@pytest.mark.parametrize(("row", "xlen"), ROWS_AND_XLENS, ids=_id)
def test_words_of_a_row_decode_to_it(row: Row, xlen: int) -> None:
    decoder = decoder_for(row, xlen)
    for word in words(row, 60):
        data = word.to_bytes(row.size, "little")
        instruction = decoder.decode(lambda pc, n, data=data: data[:n], 0x1000)
        assert instruction.size == row.size
        assert instruction.missing == 0
        assert instruction.matched is not None
        found = instruction.matched.row
        if row.name.startswith("csrr"):
            assert found.name == row.name or found.name.startswith("rd")
        else:
            assert found is row
        guest, terminator = decoder.lift(instruction)
        block = Block(0x1000, decoder.registers, [guest], terminator or _jump(decoder, 0x1000 + row.size))
        verify_block(block)
        assert guest.text.split()[0] == found.name


def _jump(decoder: Decoder, pc: int) -> Terminator:
    return Terminator("jump", (), (Const(pc, decoder.registers.type),))


@pytest.mark.parametrize("registers", REGISTERS.values(), ids=lambda r: r.name)
def test_templates_verify(registers: RegisterFile) -> None:
    templates = all_templates(registers)
    assert len(templates) > 100
    for template in templates:
        instruction = GuestInstruction(0, 4, 0, list(template.ops))
        terminator = template.terminator or Terminator("jump", (), (Const(4, registers.type),))
        verify_block(Block(0, registers, [instruction], terminator))
        assert len(template.constants) <= 2, "a slot of the code stream holds two constants"


def _row_templates(xlen: int) -> Iterator[tuple[str, Template]]:
    for row in rows(xlen):
        if row.meaning is not None:
            for rd_is_zero in (False, True):
                for misaligned in (False, True):
                    yield row.name, row_template(row, REGISTERS[xlen, True], rd_is_zero, misaligned)


@pytest.mark.parametrize("xlen", [32, 64])
def test_nothing_traps_after_a_register_was_written(xlen: int) -> None:
    """Registers are as before the instruction at a fault, and the tiers do not undo writes."""
    for name, template in _row_templates(xlen):
        written = False
        stored = False
        for op in template.ops:
            can_trap = op.name in ("load", "store", "store_if", "trap_if", *FLOAT_OPS)
            assert not (written and can_trap), f"{name}: {op.name} after a register write"
            assert not (stored and can_trap), f"{name}: {op.name} after a store"
            written |= isinstance(op.dest, Register | RegisterSlot)
            stored |= op.name in ("store", "store_if")
        if template.terminator is not None and template.terminator.name == "trap":
            assert not written
            assert not stored


@pytest.mark.parametrize("xlen", [32, 64])
def test_templates_read_operands_before_they_are_overwritten(xlen: int) -> None:
    """rd may be rs1 or rs2: no operand register is read after rd was written."""
    for name, template in _row_templates(xlen):
        written = False
        for op in template.ops:
            if written:
                assert not any(isinstance(a, RegisterSlot) for a in op.args), name
            written |= isinstance(op.dest, RegisterSlot)
        if written and template.terminator is not None:
            assert not any(isinstance(a, RegisterSlot) for a in template.terminator.args), name


# -- templates


def _converted(op: Op, value: Const) -> Const:
    """A conversion of a constant, as the lift folds it."""
    return Const(value.type.signed(value.value) if op.name == "sext" else value.value, op.type)


def _filled(template: Template, values: dict[str, int], xlen: Type) -> tuple[list[Op], Terminator | None]:
    """A template with operands in its slots; conversions of constants are folded as `lift` folds them."""
    folded: dict[Temp, Const] = {}

    def fill(operand: Operand) -> Operand:
        if isinstance(operand, RegisterSlot):
            (name,) = (n for n in values if REGISTER_SLOTS.get(n) == operand.slot)
            return Register(register_index(name, values[name]))
        if isinstance(operand, ConstSlot):
            assert operand.type == xlen
            return Const(values[template.constants[operand.slot]], operand.type)
        return folded.get(operand, operand) if isinstance(operand, Temp) else operand

    ops = []
    for op in template.ops:
        dest = op.dest if op.dest is None or isinstance(op.dest, Temp) else fill(op.dest)
        args = tuple(map(fill, op.args))
        if op.name in ("zext", "sext", "trunc") and isinstance(args[0], Const):
            value = _converted(op, args[0])
            if isinstance(dest, Temp):
                folded[dest] = value
                continue
            op = Op("copy", op.type, dest, (value,))  # type: ignore[arg-type]
        else:
            op = Op(op.name, op.type, dest, args, op.kind)  # type: ignore[arg-type]
        ops.append(op)
    terminator = template.terminator
    if terminator is not None:
        # The handlers of environment calls and fences find by the pc where the lane goes on: no constant says it.
        own = terminator.name in ("ecall", "fence_i")
        targets = (Const(values["next_pc"], xlen),) if own else tuple(map(fill, terminator.targets))
        terminator = Terminator(terminator.name, tuple(map(fill, terminator.args)), targets, terminator.data)
    return ops, terminator


def _numbered(ops: list[Op], terminator: Terminator | None) -> tuple[list[Op], Terminator | None]:
    """The same with temporaries numbered in the order of their definitions, and without hints."""
    numbers: dict[Temp, Temp] = {}

    def rename(operand: Operand) -> Operand:
        return numbers[operand] if isinstance(operand, Temp) else operand

    found = []
    for op in ops:
        args = tuple(map(rename, op.args))
        if isinstance(op.dest, Temp):
            numbers[op.dest] = Temp(len(numbers), op.dest.type)
        dest = op.dest if op.dest is None else rename(op.dest)
        found.append(Op(op.name, op.type, dest, args, op.kind))  # type: ignore[arg-type]
    if terminator is None:
        return found, None
    data = "" if terminator.name == "indirect" else terminator.data
    return found, Terminator(terminator.name, tuple(map(rename, terminator.args)), terminator.targets, data)


@pytest.mark.parametrize(("row", "xlen"), [(r, x) for r, x in ROWS_AND_XLENS if r.meaning or r.expands], ids=_id)
def test_a_template_is_the_lifted_instruction_over_slots(row: Row, xlen: int) -> None:
    """Filling the slots with an instruction's operands gives the ops and the terminator that lifting it gives."""
    isas = [WITHOUT_C[xlen], ALL[xlen]] if row.size == 4 and row.extensions not in ("zca", "!zca") else []
    decoders = [Decoder(isa) for isa in isas] or [decoder_for(row, xlen)]
    compared = 0
    for decoder in decoders:
        for word in words(row, 25, seed=3):
            pc = 0x2000 if compared % 3 else (1 << xlen) - 4
            instruction = decoder.decode(lambda p, n, word=word: word.to_bytes(row.size, "little")[:n], pc)
            if instruction.matched is None or instruction.matched.base.meaning is None:
                assert decoder.isa is WITHOUT_C[xlen] or row.name.startswith("csrr")
                continue
            template = decoder.template(instruction)
            values = {
                **instruction.matched.values,
                "target": instruction.target,
                "next_pc": (pc + instruction.size) % (1 << xlen),
            }
            assert [n for n in template.constants if n != "rest"] == [n for n in template.constants if n in values]
            guest, terminator = decoder.lift(instruction)
            filled = _numbered(*_filled(template, values, decoder.registers.type))
            assert filled == _numbered(guest.ops, terminator), guest.text
            compared += 1
    assert compared >= 25


# -- patterns


@pytest.mark.parametrize(
    "text",
    [
        # Widths that are no instruction's.
        "",
        "0",
        "0000 rd 011001",
        "imm[11:0] rs1 000 rd 001001",
        "imm[11:0] rs1 000 rd 00100111",
        "imm[12:0] rs1 000 rd 0010011",
        "imm[5] rd imm[4:0] 0001",
        "0" * 17,
        "0" * 31,
        "0" * 33,
        "0" * 48,
        # Fields without a known width.
        "imm rs1 000 rd 0010011",
        "shamt rs1 000 rd 0010011",
        "fd[4:0] rd2 rs1 000 rd 0010011",
        "rd3 0000000 rs1 000 rd 0010011 00000",
        "rx 0000000000000",
        # Ranges that are empty or reversed, or no ranges.
        "imm[] imm[11:0] rs1 000 rd 0010011",
        "imm[5:10] imm[11:6] rs1 000 rd 0010011",
        "imm[0:11] rs1 000 rd 0010011",
        "imm[4|5:6] 0000000000000",
        "imm[11:] rs1 000 rd 0010011",
        "imm[:0] rs1 000 rd 0010011",
        "imm[11:0|] rs1 000 rd 0010011",
        "imm[|11:0] rs1 000 rd 0010011",
        "imm[11::0] rs1 000 rd 0010011",
        "imm[11:5:0] rs1 000 rd 0010011",
        "imm[11-0] rs1 000 rd 0010011",
        "imm[-1:0] rs1 000 rd 0010011",
        "imm[11:0 rs1 000 rd 0010011",
        "imm11:0] rs1 000 rd 0010011",
        "imm[a:0] rs1 000 rd 0010011",
        "imm[11:0]] rs1 000 rd 0010011",
        "imm[11:0][11:0] 000 00000",
        # Excluded values that are none.
        "000 imm[5] rd!= imm[4:0] 01",
        "000 imm[5] rd!=zero imm[4:0] 01",
        "000 imm[5] rd!={} imm[4:0] 01",
        "000 imm[5] rd!={0 imm[4:0] 01",
        "000 imm[5] rd!=0} imm[4:0] 01",
        "000 imm[5] rd!={0,} imm[4:0] 01",
        "000 imm[5] rd!={,0} imm[4:0] 01",
        "000 imm[5] rd!=-1 imm[4:0] 01",
        "000 imm[5] rd=0 imm[4:0] 01",
        # Words that are nothing.
        "0000 %% 11",
        "0000000 rs2 rs1 000 rd 0110011 ;",
        "0000002 rs2 rs1 000 rd 0110011",
        "0000000, rs2, rs1, 000, rd, 0110011",
        "0000000 RS2 rs1 000 rd 0110011",
        "0000000 rs2'' rs1 000 rd 0110011",
        "0000000 'rs2 rs1 000 rd 0110011",
        "0b00000 rs2 rs1 000 rd 0110011",
    ],
)
def test_a_malformed_pattern_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_pattern(text)


def test_a_pattern() -> None:
    """The pieces of a branch: where each bit of the word goes (specification, "B-type")."""
    pattern = parse_pattern("imm[12|10:5] rs2 rs1!={0,2} 000 imm[4:1|11] 1100011")
    assert (pattern.size, pattern.mask, pattern.match) == (4, 0x0000707F, 0x00000063)
    imm, rs2, rs1 = pattern.fields
    assert (imm.name, imm.signed_bits, imm.base, imm.excluded) == ("imm", 13, 0, frozenset())
    assert imm.pieces == ((31, 12, 1), (25, 5, 6), (8, 1, 4), (7, 11, 1))
    assert (rs2.name, rs2.pieces, rs2.signed_bits) == ("rs2", ((20, 0, 5),), 0)
    assert (rs1.name, rs1.pieces, rs1.excluded) == ("rs1", ((15, 0, 5),), frozenset({0, 2}))
    assert imm.extract(0xFE000EE3) == -4
    assert imm.insert(-4) == 0xFE000E80
    assert not pattern.accepts(0x00010063)
    assert pattern.accepts(0x00008063)


def test_a_compressed_pattern() -> None:
    """Three-bit registers are 8 to 15; `nzuimm` is unsigned and not zero."""
    pattern = parse_pattern("000 nzuimm[5:4|9:6|2|3] rd' 00")
    uimm, rd = pattern.fields
    assert (pattern.size, uimm.name, uimm.signed_bits, uimm.excluded) == (2, "uimm", 0, frozenset({0}))
    assert (rd.name, rd.base) == ("rd", 8)
    assert rd.extract(0x1FFC) == 15
    assert uimm.extract(0x1FFC) == 1020
    assert not pattern.accepts(0x0004)


# -- disassembly against capstone

# capstone prints pseudo instructions; each maps back to what the specification calls the instruction.
_CAPSTONE_SKIPS = re.compile(r"^(c\.nop|c\.unimp|fence|fence\.i)$")


def _capstone(xlen: int) -> capstone.Cs:
    mode = capstone.CS_MODE_RISCV64 if xlen == 64 else capstone.CS_MODE_RISCV32
    return capstone.Cs(capstone.CS_ARCH_RISCV, mode | capstone.CS_MODE_RISCVC)


def _tokens(operands: str) -> list[object]:
    """Operands without spelling: registers by name, numbers by value."""
    found: list[object] = []
    for word in re.findall(r"[A-Za-z_][\w.]*|-?0x[0-9a-f]+|-?\d+", operands):
        found.append("s0" if word == "fp" else int(word, 0) if re.match(r"-?\d", word) else word)
    return found


_ALIASES = {
    # alias: (instruction, its operands from the alias's)
    "nop": ("addi", lambda o: ["zero", "zero", 0]),
    "li": ("addi", lambda o: [o[0], "zero", o[1]]),
    "mv": ("addi", lambda o: [*o, 0]),
    "not": ("xori", lambda o: [*o, -1]),
    "neg": ("sub", lambda o: [o[0], "zero", o[1]]),
    "negw": ("subw", lambda o: [o[0], "zero", o[1]]),
    "sext.w": ("addiw", lambda o: [*o, 0]),
    "seqz": ("sltiu", lambda o: [*o, 1]),
    "snez": ("sltu", lambda o: [o[0], "zero", o[1]]),
    "sltz": ("slt", lambda o: [*o, "zero"]),
    "sgtz": ("slt", lambda o: [o[0], "zero", o[1]]),
    "beqz": ("beq", lambda o: [o[0], "zero", o[1]]),
    "bnez": ("bne", lambda o: [o[0], "zero", o[1]]),
    "blez": ("bge", lambda o: ["zero", *o]),
    "bgez": ("bge", lambda o: [o[0], "zero", o[1]]),
    "bltz": ("blt", lambda o: [o[0], "zero", o[1]]),
    "bgtz": ("blt", lambda o: ["zero", *o]),
    "j": ("jal", lambda o: ["zero", *o]),
    "ret": ("jalr", lambda o: ["zero", 0, "ra"]),
    "jr": ("jalr", lambda o: ["zero", 0, o[0]]),
    **{f"fmv.{f}": (f"fsgnj.{f}", lambda o: [*o, o[1]]) for f in "sd"},
    **{f"fneg.{f}": (f"fsgnjn.{f}", lambda o: [*o, o[1]]) for f in "sd"},
    **{f"fabs.{f}": (f"fsgnjx.{f}", lambda o: [*o, o[1]]) for f in "sd"},
}


def _plain(name: str, operands: list[object]) -> tuple[str, list[object]]:
    if name == "jal" and len(operands) == 1:
        return name, ["ra", *operands]
    if name == "jalr" and len(operands) == 1:
        return name, ["ra", 0, *operands]
    if name == "jalr" and len(operands) == 3 and isinstance(operands[1], str):
        return name, [operands[0], operands[2], operands[1]]
    if name in ("jr",) and len(operands) == 2:
        return "jalr", ["zero", operands[1], operands[0]] if isinstance(operands[0], str) else ["zero", *operands]
    if name in _ALIASES:
        base, rebuild = _ALIASES[name]
        return base, rebuild(operands)
    return name, operands


@pytest.mark.parametrize("xlen", [32, 64])
def test_disassembly_agrees_with_capstone(xlen: int) -> None:
    """Mnemonic and operands of random words of each row, where capstone knows the instruction."""
    reader = _capstone(xlen)
    pc = 0x10000
    compared: set[str] = set()
    wrong: list[str] = []
    for row in rows(xlen):
        decoder = decoder_for(row, xlen)
        for word in words(row, 40, seed=2):
            data = word.to_bytes(row.size, "little")
            found = next(reader.disasm(data, pc), None)
            if found is None or found.mnemonic.startswith(("csr", "rd", "unimp")) or row.name.startswith(("csr", "rd")):
                continue
            text = decoder.text(decoder.decode(lambda p, n, data=data: data[:n], pc))
            name, _, rest = text.partition(" ")
            if _CAPSTONE_SKIPS.match(name) or _CAPSTONE_SKIPS.match(found.mnemonic):
                compared.add(name)
                if name.split(".")[-1] != found.mnemonic.split(".")[-1] and found.mnemonic != "c.nop":
                    wrong.append(f"{word:#x}: {text!r}, capstone {found.mnemonic}")
                continue
            ours, theirs = _tokens(rest), _tokens(found.op_str)
            mnemonic = re.sub(r"\.(aq|rl|aqrl)$", "", found.mnemonic)
            mnemonic = re.sub(r"\.aq\.rl$", "", mnemonic)
            mnemonic, theirs = _plain(mnemonic, theirs)
            if (
                re.match(r"(c\.)?(j|jal|b[a-z]+)$", mnemonic)
                and theirs
                and isinstance(theirs[-1], int)
                and "jalr" not in mnemonic
            ):
                theirs[-1] = (pc + theirs[-1]) & ((1 << xlen) - 1)  # capstone prints offsets
            if mnemonic == "c.lui" and isinstance(theirs[-1], int):
                theirs[-1] &= 0xFFFFF
            if mnemonic in ("c.addi4spn", "c.addi16sp", "c.addi", "c.nop") and ours != theirs:
                theirs = [t for t in theirs if t != "sp"] if "sp" not in ours else theirs
            compared.add(name)
            if (mnemonic, theirs) != (name, ours):
                wrong.append(f"{word:#x}: {text!r}, capstone {found.mnemonic} {found.op_str!r}")
    assert not wrong, f"{len(wrong)}\n" + "\n".join(wrong[:40])
    expected = {
        r.name
        for r in rows(xlen)
        if r.extensions in ("i", "m", "zmmul", "zaamo", "zalrsc", "zca", "f", "d", "zcf", "zcd")
    }
    assert {name for name in expected - compared if not name.startswith("csrr")} <= {"c.nop", "fence"}


def test_abi_names() -> None:
    assert len(ABI_NAMES) == len(set(ABI_NAMES)) == 32
    assert [ABI_NAMES.index(n) for n in ("zero", "ra", "sp", "a0", "a7", "s2", "t3", "t6")] == [
        0,
        1,
        2,
        10,
        17,
        18,
        28,
        31,
    ]
