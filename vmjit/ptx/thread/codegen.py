"""One PTX function to LLVM IR, for one thread: operands, results, the frame around.

What single instructions do stands in the codegen_* modules. Registers are allocas, which LLVM turns into values; in a
kernel with barriers they lie in a frame that outlives the call, because a thread leaves the kernel at a barrier and
comes back when all others have. A function returns 0 when it has returned, EXITED when its thread has ended, FAULT when
the context says what is wrong, and from a kernel the number of the barrier it waits at.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from vmjit.ptx.assembly.blocks import Block, ends_block, is_barrier
from vmjit.ptx.assembly.syntax import (
    SINK,
    FloatLiteral,
    Function,
    Instruction,
    IntegerLiteral,
    Negation,
    Operand,
    Pair,
    Register,
    SpecialRegister,
    Symbol,
    Variable,
)
from vmjit.ptx.errors import PtxError, PtxUnsupported
from vmjit.ptx.image import MAX_CALL_DEPTH, Image
from vmjit.ptx.thread.context import Fault, Word
from vmjit.ptx.thread.special import special
from vmjit.ptx.types import BITS, is_float, is_signed

if TYPE_CHECKING:
    from vmjit.ptx.thread.compiler import KernelCompiler

RETURNED, FAULT, EXITED = 0, -1, 1

Translate = Callable[["FunctionCode", Instruction], None]

_LLVM_TYPES = {"pred": "i1", "f16": "half", "f32": "float", "f64": "double"}
_FRAME_SLOT = 8  # bytes of a register in the frame of a kernel with barriers
_FRAME_SLACK = 16


def llvm_type(type_name: str) -> str:
    return _LLVM_TYPES.get(type_name) or f"i{BITS[type_name]}"


class FunctionCode:
    """The IR of one function while it grows."""

    def __init__(self, compiler: KernelCompiler, image: Image, function: Function) -> None:
        self.compiler, self.image, self.function = compiler, image, function
        self.flow = image.flow(function)
        self.resume_points: list[str] = []  # labels behind barriers
        self.line = function.line
        self._lines: list[str] = []
        self._names = 0
        self._buffers: dict[Variable, str] = {}
        self._local = image.local_memory(function)
        instructions = [i for block in self.flow.blocks for i in block.instructions]
        self.has_barriers = any(is_barrier(instruction) for instruction in instructions)
        self.frame_bytes = len(function.registers) * _FRAME_SLOT + _FRAME_SLACK if self.has_barriers else 0

    # Emitting

    def emit(self, line: str) -> None:
        self._lines.append(f"  {line}")

    def value(self, expression: str) -> str:
        """A new name for the value of an IR instruction."""
        self._names += 1
        name = f"%t{self._names}"
        self.emit(f"{name} = {expression}")
        return name

    def label(self) -> str:
        """A new label, not yet placed."""
        self._names += 1
        return f"l{self._names}"

    def place(self, label: str) -> None:
        self._lines.append(f"{label}:")

    def branch(self, condition: str, then: str, otherwise: str) -> None:
        self.emit(f"br i1 {condition}, label %{then}, label %{otherwise}")

    def jump(self, label: str) -> None:
        self.emit(f"br label %{label}")

    def context_pointer(self, word: int) -> str:
        return self.value(f"getelementptr i64, ptr %ctx, i64 {int(word)}")

    def context(self, word: int) -> str:
        return self.value(f"load i64, ptr {self.context_pointer(word)}")

    def set_context(self, word: int, value: str | int) -> None:
        self.emit(f"store i64 {value}, ptr {self.context_pointer(word)}")

    def fault(self, kind: Fault, address: str | int = 0) -> None:
        """Ends the function, and the launch."""
        self.set_context(Word.FAULT, int(kind))
        self.set_context(Word.FAULT_ADDRESS, address)
        self.set_context(Word.FAULT_LINE, self.line)
        self.set_context(Word.FAULT_FUNCTION, self.function.number)
        self.emit(f"ret i64 {FAULT}")

    def unsupported(self, instruction: Instruction, reason: str = "") -> PtxUnsupported:
        where = self.function.where(instruction.line)
        return PtxUnsupported(
            f"{where}: {instruction.text}{': ' if reason else ''}{reason} (not supported by the thread engine)",
            line=instruction.line,
        )

    # Reading operands

    def read(self, operand: Operand, type_name: str) -> str:
        """An operand as a value of a type: the same bits, cut or extended with zeros."""
        if isinstance(operand, Negation):
            return self.value(f"xor i1 {self.read(operand.operand, 'pred')}, true")
        if isinstance(operand, (IntegerLiteral, FloatLiteral)):
            return self._literal(operand, type_name)
        if isinstance(operand, Register):
            loaded = self.value(f"load {llvm_type(operand.storage)}, ptr {self.pointer(operand)}")
            return self.cast(loaded, operand.storage, type_name)
        if isinstance(operand, SpecialRegister):
            return self.cast(special(self, operand.name), "u64", type_name)
        if isinstance(operand, Symbol):
            return self.cast(self.symbol(operand), "u64", type_name)
        raise PtxError(f"{self.function.where(self.line)}: an operand of a form that does not fit here", line=self.line)

    @staticmethod
    def pointer(register: Register) -> str:
        return f"%R{register.index}"

    def _literal(self, literal: IntegerLiteral | FloatLiteral, type_name: str) -> str:
        if type_name == "pred":
            return "true" if literal.value else "false"
        bits = BITS[type_name]
        if is_float(type_name) or isinstance(literal, FloatLiteral):
            formats = {32: "<fI", 64: "<dQ"}[bits]
            pattern = struct.unpack(f"<{formats[2]}", struct.pack(f"<{formats[1]}", literal.value))[0]
            if not is_float(type_name):
                return str(pattern)
            return self.value(f"bitcast i{bits} {pattern} to {llvm_type(type_name)}")
        return str(literal.value & ((1 << bits) - 1))

    def cast(self, value: str, have: str, want: str) -> str:
        if "pred" in (have, want):
            return value
        have_bits, want_bits = BITS[have], BITS[want]
        have_type, want_type = llvm_type(have), llvm_type(want)
        if have_bits == want_bits:
            return value if have_type == want_type else self.value(f"bitcast {have_type} {value} to {want_type}")
        if have_type[0] != "i":
            value = self.value(f"bitcast {have_type} {value} to i{have_bits}")
        value = self.value(f"{'trunc' if have_bits > want_bits else 'zext'} i{have_bits} {value} to i{want_bits}")
        return value if want_type[0] == "i" else self.value(f"bitcast i{want_bits} {value} to {want_type}")

    def symbol(self, symbol: Symbol) -> str:
        """The address a symbol stands for, an i64."""
        target = symbol.target
        if isinstance(target, Variable) and target.space in ("local", "shared", "param", "reg"):
            offset = target.offset + symbol.offset
            if target.space == "shared":
                return self.value(f"add i64 {self.context(Word.SHARED)}, {offset}")
            is_parameter = target in self.function.parameters and target.space == "param"
            if target.space == "local" or (is_parameter and not self.function.is_entry):
                return self.value(f"add i64 %local, {offset}")
            if is_parameter:
                return self.value(f"add i64 {self.value('ptrtoint ptr %params to i64')}, {offset}")
            where = self.function.where(self.line)
            raise PtxUnsupported(f"{where}: the address of {target.name}, which has none", line=self.line)
        return str(self.image.fixed_address(symbol))

    # Writing results

    def write(self, destination: Operand, value: str, type_name: str) -> None:
        """Sets a register to a value of a type; a narrower signed one is extended by its sign."""
        if destination is SINK:
            return
        if not isinstance(destination, Register):
            kind = "two destinations" if isinstance(destination, Pair) else "a destination that is no register"
            raise PtxUnsupported(f"{self.function.where(self.line)}: {kind}", line=self.line)
        if type_name == "pred" or destination.type == "pred":
            self.emit(f"store i1 {value}, ptr {self.pointer(destination)}")
            return
        if BITS[type_name] < destination.bits and is_signed(type_name):
            value = self.value(f"sext i{BITS[type_name]} {value} to i{destination.bits}")
            type_name = f"s{destination.bits}"
        value = self.cast(value, type_name, destination.storage)
        self.emit(f"store {llvm_type(destination.storage)} {value}, ptr {self.pointer(destination)}")

    def select(self, condition: str, type_: str, a: str, b: str) -> str:
        return self.value(f"select i1 {condition}, {type_} {a}, {type_} {b}")

    def buffer(self, variable: Variable) -> str:
        """The bytes of a .param variable of this function's own."""
        if variable not in self._buffers:
            self._buffers[variable] = f"%buffer{len(self._buffers)}"
        return self._buffers[variable]

    # The function

    def build(self, opcodes: dict[str, Translate], end: Callable[[FunctionCode, Instruction, Block], None]) -> str:
        """The IR of the function. `end` translates what ends a block. Raises `PtxUnsupported`."""
        self._prologue()
        prologue, self._lines = self._lines, []
        for block in self.flow.blocks:
            self._block(block, opcodes, end)
        body, self._lines = self._lines, []
        self._enter_body()
        kind = "" if self.function.is_entry else "internal "
        head = [f"define {kind}{self.signature(self.function)} {{", "entry:", *self._allocations()]
        return "\n".join([*head, *prologue, *self._lines, *body, "}"])

    @staticmethod
    def signature(function: Function) -> str:
        if function.is_entry:
            return f"i64 @f{function.number}(ptr %ctx, ptr %params, ptr %frame)"
        parameters = [f"ptr %p{k}" for k in range(len(function.parameters))]
        returns = [f"ptr %q{k}" for k in range(len(function.returns))]
        return f"i64 @f{function.number}({', '.join(['ptr %ctx', *parameters, *returns])})"

    def _allocations(self) -> list[str]:
        lines = ["  %carry = alloca i1", "  store i1 false, ptr %carry", "  %count = alloca i64"]
        for register in self.function.registers:
            name, type_ = self.pointer(register), llvm_type(register.storage)
            if self.has_barriers:
                lines.append(f"  {name} = getelementptr i8, ptr %frame, i64 {register.index * _FRAME_SLOT}")
            else:
                lines += [f"  {name} = alloca {type_}", f"  store {type_} zeroinitializer, ptr {name}"]
        for variable, name in self._buffers.items():
            lines.append(f"  {name} = alloca [{max(variable.size, 1)} x i8], align 16")
        return lines

    def _prologue(self) -> None:
        for name, word in (("count", Word.COUNT), ("budget", Word.BUDGET), ("depth", Word.DEPTH)):
            self.emit(f"%{name}.p = getelementptr i64, ptr %ctx, i64 {int(word)}")
        self.emit("%count.0 = load i64, ptr %count.p")
        self.emit("store i64 %count.0, ptr %count")
        self.emit("%depth.0 = load i64, ptr %depth.p")
        if not self.function.is_entry:
            self._check_depth()
        if self._local.bytes:
            self._take_local_memory()

    def _check_depth(self) -> None:
        """Endless recursion ends here, before the host's stack does."""
        deep, budget, good = self.label(), self.label(), self.label()
        deeper = self.value("add i64 %depth.0, 1")
        self.emit(f"store i64 {deeper}, ptr %depth.p")
        self.branch(self.value(f"icmp ugt i64 {deeper}, {MAX_CALL_DEPTH}"), deep, budget)
        self.place(deep)
        self.fault(Fault.CALL_DEPTH)
        self.place(budget)
        self.check_budget(good)

    def _take_local_memory(self) -> None:
        bad, good = self.label(), self.label()
        self.emit(f"%stack.p = getelementptr i64, ptr %ctx, i64 {int(Word.STACK)}")
        self.emit("%local = load i64, ptr %stack.p")
        end = self.value(f"add i64 %local, {self._local.bytes}")
        self.branch(self.value(f"icmp ule i64 {end}, {self.context(Word.STACK_END)}"), good, bad)
        self.place(bad)
        self.fault(Fault.LOCAL_MEMORY)
        self.place(good)
        self.emit(f"store i64 {end}, ptr %stack.p")
        if not self.has_barriers:  # else the driver fills it, once for all times the thread comes back
            start = self.value("inttoptr i64 %local to ptr")
            poison = self.image.poison
            self.emit(f"call void @llvm.memset.p0.i64(ptr {start}, i8 {poison}, i64 {self._local.bytes}, i1 false)")
        for index, parameter in self._local.parameters.items():
            place = self.value(f"inttoptr i64 {self.value(f'add i64 %local, {parameter.offset}')} to ptr")
            self.emit(f"call void @llvm.memcpy.p0.p0.i64(ptr {place}, ptr %p{index}, i64 {parameter.size}, i1 false)")

    def _enter_body(self) -> None:
        if not self.resume_points:
            self.jump("b0")
            return
        cases = " ".join(f"i64 {k}, label %{label}" for k, label in enumerate(self.resume_points, 1))
        self.emit(f"switch i64 {self.context(Word.RESUME)}, label %b0 [ {cases} ]")

    def _block(
        self, block: Block, opcodes: dict[str, Translate], end: Callable[[FunctionCode, Instruction, Block], None]
    ) -> None:
        self.place(f"b{block.index}")
        if block.count:
            count = self.value("load i64, ptr %count")
            self.emit(f"store i64 {self.value(f'add i64 {count}, {block.count}')}, ptr %count")
        for instruction in block.instructions:
            self.line = instruction.line
            if ends_block(instruction):
                end(self, instruction, block)
                return
            self._guarded(instruction, opcodes)
        self.go_to(block.index, block.next)

    def _guarded(self, instruction: Instruction, opcodes: dict[str, Translate]) -> None:
        after = self.skip_unless(instruction)
        translate = opcodes.get(instruction.opcode)
        if translate is None:
            raise self.unsupported(instruction)
        try:
            translate(self, instruction)
        except (KeyError, IndexError) as error:  # a type or modifier that a table does not have
            raise self.unsupported(instruction, f"no {error.args[0]!r}") from error
        except PtxError as error:
            if "line" in error.details:
                raise
            raise type(error)(f"{self.function.where(self.line)}: {error.message}", line=self.line) from None
        if after is not None:
            self.jump(after)
            self.place(after)

    def skip_unless(self, instruction: Instruction, after: str | None = None) -> str | None:
        """Branches around what follows unless the guard holds; the label to be placed after it, None without guard."""
        guard = instruction.guard
        if guard is None:
            return None
        holds, after = self.label(), after or self.label()
        condition = self.read(guard.register, "pred")
        self.branch(condition, *((after, holds) if guard.negated else (holds, after)))
        self.place(holds)
        return after

    def leave(self, result: int) -> None:
        """Returns, with the context as the caller expects it."""
        self.emit(f"store i64 {self.value('load i64, ptr %count')}, ptr %count.p")
        self.emit("store i64 %depth.0, ptr %depth.p")
        if self._local.bytes:
            self.emit("store i64 %local, ptr %stack.p")
        self.emit(f"ret i64 {result}")

    def go_to(self, source: int, target: int) -> None:
        """To another block; where that may be a loop, only while the budget lasts."""
        if target <= source:
            self.check_budget(f"b{target}", place=False)
        else:
            self.jump(f"b{target}")

    def check_budget(self, good: str, *, place: bool = True) -> None:
        """Volatile: another thread takes the budget away when time is over."""
        bad = self.label()
        count = self.value("load i64, ptr %count")
        budget = self.value("load volatile i64, ptr %budget.p")
        self.branch(self.value(f"icmp ugt i64 {count}, {budget}"), bad, good)
        self.place(bad)
        self.fault(Fault.BUDGET)
        if place:
            self.place(good)
