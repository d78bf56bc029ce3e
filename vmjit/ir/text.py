"""The text form of blocks. `parse_block(format_block(block))` gives the block back.

    block 0x10074 riscv64 {
    0x10074 4 0x00150513            ; addi a0, a0, 1
        x10 = add.i64 x10, 0x1
    0x10078 4 0xfe051ee3            ; bnez a0, 0x10074
        %0 = ne.i64 x10, x0
        branch %0 -> 0x10074, 0x1007c
    }

Constants take their type from the op: that of the operand's place in the op table. Comments run from `;` to the end
of the line and hold the disassembly; they are read back as the instruction's text.
"""

from __future__ import annotations

import re

from vmjit.errors import IRError
from vmjit.ir.block import Block, GuestInstruction
from vmjit.ir.ops import OPS, TERMINATORS
from vmjit.ir.registers import RegisterFile, register_file
from vmjit.ir.types import I1, TYPES, Type
from vmjit.ir.values import Const, ConstSlot, Destination, Op, Operand, Register, RegisterSlot, Temp, Terminator


def format_operand(value: Operand, registers: RegisterFile) -> str:
    match value:
        case Register(index):
            return registers.names[index]
        case Temp(index):
            return f"%{index}"
        case Const(number):
            return f"{number:#x}"
        case RegisterSlot(slot):
            return f"r{{{slot}}}"
        case ConstSlot(slot):
            return f"k{{{slot}}}"


def format_op(op: Op, registers: RegisterFile) -> str:
    left = f"{format_operand(op.dest, registers)} = " if op.dest is not None else ""
    kind = f"[{op.kind}]" if op.kind else ""
    args = ", ".join(format_operand(a, registers) for a in op.args)
    return f"{left}{op.name}.{op.type}{kind} {args}".rstrip()


def format_terminator(terminator: Terminator, registers: RegisterFile) -> str:
    parts = [terminator.name + (f"[{terminator.data}]" if terminator.data else "")]
    if terminator.args:
        parts.append(", ".join(format_operand(a, registers) for a in terminator.args))
    if terminator.targets:
        parts.append("-> " + ", ".join(format_operand(t, registers) for t in terminator.targets))
    return " ".join(parts)


def format_block(block: Block, *, comments: bool = True) -> str:
    lines = [f"block {block.pc:#x} {block.registers.name} {{"]
    for instruction in block.instructions:
        head = f"{instruction.pc:#x} {instruction.size} {instruction.raw:#0{2 + 2 * instruction.size}x}"
        lines.append(f"{head:32}; {instruction.text}" if comments and instruction.text else head)
        lines.extend("    " + format_op(op, block.registers) for op in instruction.ops)
    lines.append("    " + format_terminator(block.terminator, block.registers))
    lines.append("}")
    return "\n".join(lines) + "\n"


_HEADER = re.compile(r"block (\S+) (\S+) \{$")
_INSTRUCTION = re.compile(r"(0x[0-9a-f]+) (\d+) (0x[0-9a-f]+)$")
_OP = re.compile(r"(?:(\S+) = )?([a-z_]+)\.(i\d+)(?:\[(\w+)\])?(?: (.*))?$")
_TERMINATOR = re.compile(r"([a-z_]+)(?:\[(\w+)\])?(?: ((?!->).*?))?(?: ?-> (.*))?$")


class _Parser:
    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        self.number = 0
        self.temps: dict[int, Temp] = {}
        self.registers: RegisterFile

    def fail(self, message: str) -> IRError:
        return IRError(f"line {self.number}: {message}")

    def operand(self, text: str, constant_type: Type) -> Operand:
        if text.startswith("%"):
            try:
                return self.temps[int(text[1:])]
            except (KeyError, ValueError):
                raise self.fail(f"temporary {text} is not defined") from None
        try:
            return Register(self.registers.index(text))
        except KeyError:
            pass
        try:
            number = int(text, 0)
        except ValueError:
            raise self.fail(f"{text!r} is neither a register, a temporary nor a number") from None
        if not -(1 << constant_type.bits) < number <= constant_type.mask:
            raise self.fail(f"{text} does not fit {constant_type}")
        return Const(number, constant_type)

    def op(self, match: re.Match[str]) -> Op:
        left, name, type_name, kind, rest = match.groups()
        spec, own = OPS.get(name), TYPES.get(type_name)
        if spec is None or own is None:
            raise self.fail(f"unknown op {name}.{type_name}")
        words = [w.strip() for w in rest.split(",")] if rest else []
        if len(words) != len(spec.operands):
            raise self.fail(f"{name} takes {len(spec.operands)} operands, got {len(words)}")
        places = {"T": own, "A": self.registers.type, "i1": I1}
        args = tuple(self.operand(w, places.get(s, own)) for w, s in zip(words, spec.operands, strict=True))
        dest: Destination | None = None
        if left is not None and left.startswith("%"):
            if not re.fullmatch(r"%[0-9]+", left):
                raise self.fail(f"{left!r} is no temporary: they are %0, %1, …")
            dest = Temp(int(left[1:]), I1 if spec.result == "i1" else own)
            self.temps[dest.index] = dest
        elif left is not None:
            try:
                dest = Register(self.registers.index(left))
            except KeyError:
                raise self.fail(f"no register {left!r} in {self.registers.name}") from None
        return Op(name, own, dest, args, kind or "")

    def terminator(self, line: str) -> Terminator:
        match = _TERMINATOR.match(line)
        spec = TERMINATORS.get(match.group(1)) if match else None
        if match is None or spec is None:
            raise self.fail(f"cannot read {line!r}")
        name, data, args, targets = match.groups()
        xlen = self.registers.type
        words = [w.strip() for w in args.split(",")] if args else []
        places = [w.strip() for w in targets.split(",")] if targets else []
        if len(words) != len(spec.operands) or len(places) != spec.targets:
            raise self.fail(f"{name} takes {len(spec.operands)} operands and {spec.targets} targets")
        values = tuple(self.operand(w, I1 if s == "i1" else xlen) for w, s in zip(words, spec.operands, strict=True))
        goals = tuple(self.operand(w, xlen) for w in places)
        return Terminator(name, values, goals, data or "")

    def header(self, line: str) -> Block:
        match = _HEADER.match(line)
        if match is None:
            raise self.fail(f"expected 'block ADDRESS REGISTERS {{', got {line!r}")
        try:
            self.registers = register_file(match.group(2))
        except KeyError as error:
            raise self.fail(str(error.args[0])) from None
        try:
            return Block(int(match.group(1), 0), self.registers)
        except ValueError:
            raise self.fail(f"{match.group(1)!r} is no address") from None

    def line(self, block: Block, line: str, comment: str) -> Terminator | None:
        """One line inside a block. Gives the terminator when it is that."""
        if match := _INSTRUCTION.match(line):
            self.temps = {}
            pc, size, word = int(match.group(1), 16), int(match.group(2)), int(match.group(3), 16)
            block.instructions.append(GuestInstruction(pc, size, word, [], comment))
        elif match := _OP.match(line):
            if not block.instructions:
                raise self.fail("an op before the first instruction")
            block.instructions[-1].ops.append(self.op(match))
        else:
            return self.terminator(line)
        return None

    def block(self) -> Block:
        block: Block | None = None
        terminator: Terminator | None = None
        ended = False
        for number, raw in enumerate(self.lines, 1):
            self.number = number
            line, _, comment = (part.strip() for part in raw.partition(";"))
            if not line:
                continue
            if ended:
                raise self.fail("the block has ended")
            if block is None:
                block = self.header(line)
            elif line == "}":
                if terminator is None:
                    raise self.fail("the block has no terminator")
                block.terminator = terminator
                ended = True
            elif terminator is not None:
                raise self.fail("behind the terminator comes only }")
            else:
                terminator = self.line(block, line, comment)
        if block is None or not ended:
            raise self.fail("the block does not end")
        return block


def parse_block(text: str) -> Block:
    """Read one block; `IRError` names the line that cannot be read."""
    return _Parser(text).block()
