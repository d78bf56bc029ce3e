"""The intermediate representation: one op table, blocks of guest instructions, a text form that round-trips."""

from vmjit.ir.block import Block, GuestInstruction
from vmjit.ir.builder import Builder
from vmjit.ir.evaluate import Evaluator, Trap
from vmjit.ir.ops import OPS, TERMINATORS, OpSpec, TerminatorSpec
from vmjit.ir.registers import RegisterFile, register_file
from vmjit.ir.text import format_block, parse_block
from vmjit.ir.types import I1, I8, I16, I32, I64, Type
from vmjit.ir.values import Const, ConstSlot, Op, Operand, Register, RegisterSlot, Temp, Terminator
from vmjit.ir.verify import verify_block

__all__ = [
    "I1",
    "I8",
    "I16",
    "I32",
    "I64",
    "OPS",
    "TERMINATORS",
    "Block",
    "Builder",
    "Const",
    "ConstSlot",
    "Evaluator",
    "GuestInstruction",
    "Op",
    "OpSpec",
    "Operand",
    "Register",
    "RegisterFile",
    "RegisterSlot",
    "Temp",
    "Terminator",
    "TerminatorSpec",
    "Trap",
    "Type",
    "format_block",
    "parse_block",
    "register_file",
    "verify_block",
]
