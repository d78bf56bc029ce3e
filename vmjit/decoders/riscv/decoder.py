"""The decoder: bytes at an address to an instruction, and an instruction to IR."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, partial

from vmjit.decoders.riscv.disassemble import format_instruction
from vmjit.decoders.riscv.isa import Isa
from vmjit.decoders.riscv.registers import FLOAT, registers_of
from vmjit.decoders.riscv.row import REGISTER_SLOTS, Operands, Row, register_index
from vmjit.decoders.riscv.tables import ALL_ROWS, FLOAT_ROWS
from vmjit.decoders.riscv.tables.base import LINK_REGISTERS
from vmjit.ir.block import Block, GuestInstruction
from vmjit.ir.builder import Builder
from vmjit.ir.registers import RegisterFile
from vmjit.ir.values import Const, ConstSlot, Op, Operand, Register, RegisterSlot, Terminator

# Bytes at an address, as many of the wanted ones as can be fetched there.
Fetch = Callable[[int, int], bytes]

# A block ends here at the latest, so that its stream fits the interpreter's scratch space.
MAX_BLOCK_INSTRUCTIONS = 64

_REGISTERS = tuple(Register(index) for index in range(FLOAT + 32))

_PC_RELATIVE = frozenset({"auipc", "jal", "beq", "bne", "blt", "bge", "bltu", "bgeu"})


@dataclass(frozen=True, slots=True)
class Matched:
    """What the word alone says: the row it matched, the row that gives the meaning, that row's operands."""

    row: Row
    base: Row
    values: dict[str, int]


@dataclass(slots=True)
class Instruction:
    """One decoded instruction. `matched` is None where the bytes have no meaning; `missing` counts bytes that could not
    be fetched (the fetch itself faults)."""

    pc: int
    size: int
    raw: int
    matched: Matched | None
    target: int
    misaligned: bool = False
    missing: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """The IR of a row over slots. `constants` names the operands that fill the constant slots, in order; register slots
    are those of `REGISTER_SLOTS`. `links` are the slots that static control transfers go through."""

    ops: tuple[Op, ...]
    terminator: Terminator | None
    constants: tuple[str, ...]

    @property
    def links(self) -> frozenset[int]:
        targets = self.terminator.targets if self.terminator is not None else ()
        return frozenset(t.slot for t in targets if isinstance(t, ConstSlot))


class Decoder:
    """Decodes for one ISA configuration."""

    def __init__(self, isa: Isa) -> None:
        self.isa = isa
        self.registers: RegisterFile = registers_of(isa)
        self._buckets = _buckets(isa)
        self._bases = {row.name: row for row in _rows_for_xlen(isa.xlen) if row.expands is None and _allowed(row, isa)}
        self._matched: dict[int, Matched | None] = {}
        self._mask = self.registers.type.mask

    # -- bytes to instructions

    def decode(self, fetch: Fetch, pc: int) -> Instruction:
        """The instruction at `pc`. Never raises: unknown bytes and bytes that are not there are values."""
        data = fetch(pc, 4)
        size = 2 if len(data) >= 2 and data[0] & 3 != 3 else 4
        if len(data) < size:
            # Fetched by halves of four bytes; the fault is at the first that is not there as a whole.
            fault = (pc + (2 if len(data) >= 2 else 0)) & self._mask
            raw = int.from_bytes(data[:2], "little")
            return Instruction(pc, 2, raw, None, fault, missing=size - len(data))
        raw = int.from_bytes(data[:size], "little")
        matched = self.match(raw)
        target, misaligned = pc, False
        if matched is not None and matched.base.name in _PC_RELATIVE:
            target = (pc + matched.values["imm"]) & self._mask
            misaligned = bool(target & 2) and not self.isa.compressed and matched.base.name != "auipc"
        return Instruction(pc, size, raw, matched, target, misaligned)

    def match(self, raw: int) -> Matched | None:
        """The row that a word (16 or 32 bits) matches, with its operands; None if there is none."""
        try:
            return self._matched[raw]
        except KeyError:
            found = self._matched[raw] = self._match(raw)
            return found

    def _match(self, raw: int) -> Matched | None:
        for row in self._buckets.get(_bucket(raw), ()):
            if row.pattern.accepts(raw):
                values = {field.name: field.extract(raw) for field in row.pattern.fields}
                if row.expands is None:
                    return Matched(row, row, values)
                base = self._bases.get(row.expands[0])
                if base is None:
                    return None
                given = row.expansion(base).operands
                return Matched(row, base, {k: values[v] if isinstance(v, str) else v for k, v in given.items()})
        return None

    # -- instructions to IR

    def template(self, instruction: Instruction) -> Template:
        """The IR over slots that this instruction is an instance of (shared by all such instructions)."""
        matched = instruction.matched
        assert matched is not None
        return row_template(
            matched.base,
            self.registers,
            matched.values.get("rd") == 0 and "rd" in matched.values,
            instruction.misaligned,
        )

    def has_meaning(self, instruction: Instruction) -> bool:
        return instruction.matched is not None and instruction.matched.base.meaning is not None

    def returns(self, instruction: Instruction) -> bool:
        """Whether a computed jump is a return from a call, by its registers."""
        values = instruction.matched.values if instruction.matched is not None else {}
        return values.get("rd") not in LINK_REGISTERS and values.get("rs1") in LINK_REGISTERS

    def lift(self, instruction: Instruction) -> tuple[GuestInstruction, Terminator | None]:
        """The instruction's ops, and its terminator if it ends a block."""
        builder = Builder(self.registers)
        matched = instruction.matched
        text = partial(self.text, instruction)
        guest = GuestInstruction(instruction.pc, instruction.size, instruction.raw, [], text)
        if instruction.missing:
            builder.trap("fetch", builder.const(instruction.target))
        elif matched is None or matched.base.meaning is None:
            data = instruction.raw.to_bytes(instruction.size, "little").hex()
            builder.stop("unsupported", data=data)
        else:
            matched.base.meaning(builder, _InstructionOperands(builder, instruction, matched.values))
        guest.ops = builder.finish()
        return guest, builder.terminator

    def block(self, fetch: Fetch, pc: int, limit: int = MAX_BLOCK_INSTRUCTIONS) -> Block:
        """The block at `pc` as IR: up to its control transfer, to `limit` instructions or to the last one there is."""
        return self.block_of(lambda place: self.decode(fetch, place), lambda place: bool(fetch(place, 1)), pc, limit)

    def block_of(
        self,
        instruction: Callable[[int], Instruction],
        exists: Callable[[int], bool],
        pc: int,
        limit: int = MAX_BLOCK_INSTRUCTIONS,
    ) -> Block:
        """The same of instructions that were decoded elsewhere; `exists` says whether any code is at an address."""
        block = Block(pc, self.registers)
        while len(block.instructions) < limit and (not block.instructions or exists(pc)):
            guest, terminator = self.lift(instruction(pc))
            block.instructions.append(guest)
            if terminator is not None:
                block.terminator = terminator
                return block
            pc = (pc + guest.size) & self._mask
        block.terminator = Terminator("jump", (), (Const(pc, self.registers.type),))
        return block

    def text(self, instruction: Instruction) -> str:
        """The disassembly, in the specification's names."""
        if instruction.missing or instruction.matched is None:
            return f".{instruction.size}byte {instruction.raw:#x}"
        return format_instruction(instruction.matched.row, instruction.raw, instruction.pc, self.isa.xlen)


class _InstructionOperands(Operands):
    """An instruction's operands, made when its meaning asks for them: few ask for all."""

    def __init__(self, builder: Builder, instruction: Instruction, values: dict[str, int]) -> None:
        super().__init__({}, misaligned=instruction.misaligned)
        self._builder = builder
        self._instruction = instruction
        self._values = values

    def __getattr__(self, name: str) -> Operand:
        operand: Operand
        if name in REGISTER_SLOTS:
            operand = _REGISTERS[register_index(name, self._values[name])]
        elif name == "target":
            operand = self._builder.const(self._instruction.target)
        elif name == "next_pc":
            operand = self._builder.const(self._instruction.pc + self._instruction.size)
        else:
            operand = self._builder.const(self._values[name])
        self.__dict__[name] = operand
        return operand


class _TemplateOperands(Operands):
    """Operands that are slots; notes which constants the meaning asks for, in the order it does."""

    def __init__(self, builder: Builder, *, rd_is_zero: bool, misaligned: bool) -> None:
        super().__init__({}, misaligned=misaligned)
        self._builder = builder
        self._rd_is_zero = rd_is_zero
        self.constants: list[str] = []

    def __getattr__(self, name: str) -> Operand:
        if name == "rd" and self._rd_is_zero:
            return Register(0)
        if name in REGISTER_SLOTS:
            type_ = self._builder.registers.type_of(register_index(name, 0))
            return RegisterSlot(REGISTER_SLOTS[name], None if type_ is self._builder.xlen else type_)
        if name not in self.constants:
            self.constants.append(name)
        return ConstSlot(self.constants.index(name), self._builder.xlen)


@cache
def row_template(base: Row, registers: RegisterFile, rd_is_zero: bool, misaligned: bool) -> Template:
    """The template of a base row. `rest` among its constants is the number of instructions left in the block."""
    assert base.meaning is not None
    builder = Builder(registers)
    operands = _TemplateOperands(builder, rd_is_zero=rd_is_zero, misaligned=misaligned)
    base.meaning(builder, operands)
    ops = builder.finish()
    constants = list(operands.constants)
    if builder.terminator is not None and builder.terminator.name in ("ecall", "fence_i"):
        # Where the lane goes on is found from its pc; the handler needs no operand for it.
        constants.clear()
    if any(op.name == "retired" for op in ops):
        constants.append("rest")
    return Template(tuple(ops), builder.terminator, tuple(constants))


def all_templates(registers: RegisterFile) -> list[Template]:
    """The templates of every row with a meaning for these registers, without repetition."""
    found: dict[tuple[object, ...], Template] = {}
    for row in rows_for(registers):
        for rd_is_zero in (False, True):
            for misaligned in (False, True):
                template = row_template(row, registers, rd_is_zero, misaligned)
                found.setdefault((template.ops, template.terminator), template)
    return list(found.values())


def rows_for(registers: RegisterFile) -> list[Row]:
    """The rows with a meaning for these registers."""
    floats = registers.float_status is not None
    rows = (row for row in _rows_for_xlen(registers.type.bits) if row.meaning is not None)
    return [row for row in rows if floats or row not in FLOAT_ROWS]


def _rows_for_xlen(xlen: int) -> list[Row]:
    return [row for row in ALL_ROWS if xlen in row.xlens]


def _allowed(row: Row, isa: Isa) -> bool:
    return isa.xlen in row.xlens and isa.has(row.extensions)


def _bucket(raw: int) -> int:
    """Rows are found by their low bits: quadrant and funct3 of a compressed word, opcode and funct3 of a long one."""
    return raw & 0x707F if raw & 3 == 3 else raw & 0xE003


@lru_cache(maxsize=64)
def _buckets(isa: Isa) -> dict[int, tuple[Row, ...]]:
    buckets: dict[int, list[Row]] = {}
    for row in ALL_ROWS:
        if not _allowed(row, isa):
            continue
        key_mask = 0x707F if row.size == 4 else 0xE003
        free = key_mask & ~row.pattern.mask
        key = row.pattern.match & key_mask
        extra = free
        while True:  # every way to fill the bits of the key that the pattern leaves open
            buckets.setdefault(key | extra, []).append(row)
            if extra == 0:
                break
            extra = (extra - 1) & free
    return {key: tuple(rows) for key, rows in buckets.items()}
