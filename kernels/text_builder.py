"""LLVM IR written as text while it is built: the part of llvmlite's builder that kernels use, several times as fast.

llvmlite keeps an object with names and operands for every instruction and turns them into text at the end. What is
emitted here is never looked at again, so a value is its type and its reference. Functions are llvmlite's, in its
modules, beside others that its own builder fills; types and constants are its own too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

from llvmlite import ir

_I1, _I32 = ir.IntType(1), ir.IntType(32)
_POINTER = ir.PointerType()
_VOID = ir.VoidType()

_UNSIGNED = {"==": "eq", "!=": "ne", "<": "ult", "<=": "ule", ">": "ugt", ">=": "uge"}
_SIGNED = {"==": "eq", "!=": "ne", "<": "slt", "<=": "sle", ">": "sgt", ">=": "sge"}
_ORDERED = {"==": "oeq", "<": "olt", "<=": "ole", ">": "ogt", ">=": "oge"}
_UNORDERED = {"uno": "uno"}


def _reference(value: Any) -> str:
    """What an operand is called. A constant is mostly made for one use: llvmlite's cache of its text never hits."""
    return value._get_reference() if value.__class__ is ir.Constant else value.get_reference()  # type: ignore[no-any-return]


class Value:
    """The result of an instruction."""

    __slots__ = ("reference", "type")

    def __init__(self, type_: Any, reference: str) -> None:
        self.type = type_
        self.reference = reference

    def get_reference(self) -> str:
        return self.reference


class Phi(Value):
    """A phi, whose incoming values may be added until the module becomes text."""

    __slots__ = ("incomings",)

    def __init__(self, type_: Any, reference: str) -> None:
        super().__init__(type_, reference)
        self.incomings: list[tuple[Any, Block]] = []

    def add_incoming(self, value: Any, block: Block) -> None:
        self.incomings.append((value, block))

    def __str__(self) -> str:
        ways = ", ".join(f"[{_reference(value)}, {block.get_reference()}]" for value, block in self.incomings)
        return f"{self.reference} = phi {self.type} {ways}"


class ConditionalBranch:
    """A branch to one of two blocks."""

    def __init__(self, function: Function, text: str) -> None:
        self._function = function
        self._text = text

    def set_weights(self, weights: Sequence[int]) -> None:
        self._text += f", !prof {self._function.weights(tuple(weights))}"

    def keep_rolled(self) -> None:
        """Have LLVM neither unroll nor vectorise the loop that this closes."""
        self._text += f", !llvm.loop {self._function.rolled()}"

    def __str__(self) -> str:
        return self._text


class Switch:
    """A switch, whose cases may be added until the module becomes text."""

    def __init__(self, value: Any, default: Block) -> None:
        self._value = value
        self._default = default
        self._cases: list[tuple[Any, Block]] = []

    def add_case(self, value: Any, block: Block) -> None:
        self._cases.append((value, block))

    def __str__(self) -> str:
        cases = " ".join(f"{v.type} {_reference(v)}, label {b.get_reference()}" for v, b in self._cases)
        value = f"{self._value.type} {_reference(self._value)}"
        return f"switch {value}, label {self._default.get_reference()} [{cases}]"


class Block:
    """A basic block: lines of text, and instructions that are not complete yet."""

    def __init__(self, function: Function, name: str) -> None:
        self.function = function
        self.name = name
        self.reference = f"%{name}"
        self.lines: list[Any] = []
        self.is_terminated = False

    def get_reference(self) -> str:
        return self.reference

    def descr(self, buf: list[str]) -> None:
        """Append this block's text, as llvmlite's function asks its blocks to."""
        buf.append(f"{self.name}:\n")
        buf += [f"  {line}\n" for line in self.lines]


class _RolledLoop:
    """Metadata that names itself, as a loop's must; llvmlite has none such."""

    def __init__(self, module: Any) -> None:
        self.reference = f"!{len(module.metadata)}"
        module.metadata.append(self)

    def __str__(self) -> str:
        hints = '!{!"llvm.loop.unroll.disable"}, !{!"llvm.loop.vectorize.enable", i1 false}'
        return f"{self.reference} = distinct !{{{self.reference}, {hints}}}"


class Function(ir.Function):  # type: ignore[misc]
    """One of llvmlite's functions, to be filled by a `TextBuilder`."""

    def __init__(self, module: Any, ftype: Any, name: str) -> None:
        super().__init__(module, ftype, name)
        self.serial = count().__next__
        """A number that makes a name unique in this function."""
        self._weights: dict[tuple[int, ...], str] = {}

    def append_basic_block(self, name: str = "") -> Block:
        block = Block(self, f"{name}.{self.serial()}")
        self.blocks.append(block)
        return block

    def weights(self, weights: tuple[int, ...]) -> str:
        """The reference of the metadata that gives a branch these weights."""
        if weights not in self._weights:
            values = (ir.Constant(_I32, weight) for weight in weights)
            self._weights[weights] = self.module.add_metadata(["branch_weights", *values]).get_reference()
        return self._weights[weights]

    def rolled(self) -> str:
        """The reference of metadata of a loop's own, which keeps it as it is."""
        return _RolledLoop(self.module).reference


def _binary(opcode: str) -> Callable[..., Value]:
    def emit(self: TextBuilder, lhs: Any, rhs: Any, *, flags: Sequence[str] = ()) -> Value:
        text = " ".join((opcode, *flags)) if flags else opcode
        return self._value(lhs.type, f"{text} {lhs.type} {_reference(lhs)}, {_reference(rhs)}")

    return emit


def _cast(opcode: str) -> Callable[[TextBuilder, Any, Any], Any]:
    def emit(self: TextBuilder, value: Any, type_: Any) -> Any:
        if value.type is type_ or value.type == type_:
            return value
        return self._value(type_, f"{opcode} {value.type} {_reference(value)} to {type_}")

    return emit


def _compare(predicates: dict[str, str], opcode: str = "icmp") -> Callable[[TextBuilder, str, Any, Any], Value]:
    def emit(self: TextBuilder, predicate: str, lhs: Any, rhs: Any) -> Value:
        operands = f"{lhs.type} {_reference(lhs)}, {_reference(rhs)}"
        return self._value(_I1, f"{opcode} {predicates[predicate]} {operands}")

    return emit


def _intrinsic(name: str) -> Callable[..., Value]:
    def emit(self: TextBuilder, value: Any, *more: Any) -> Value:
        type_ = ir.FunctionType(value.type, [value.type, *(m.type for m in more)])
        return self.call(self.module.declare_intrinsic(name, [value.type], type_), [value, *more])

    return emit


class TextBuilder:
    """Appends instructions to blocks of a `Function`; methods are llvmlite's `IRBuilder`'s."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.function = block.function
        self._serial = block.function.serial
        self.module = block.function.module
        self._place: int | None = None  # where in the block the next instruction goes; None: at its end

    # -- where

    def position_at_end(self, block: Block) -> None:
        self.block = block
        self._place = None

    def append_basic_block(self, name: str = "") -> Block:
        return self.function.append_basic_block(name)

    @contextmanager
    def goto_block(self, block: Block) -> Iterator[None]:
        """Build in another block for a while, before its terminator if it has one."""
        before = self.block, self._place
        self.block, self._place = block, len(block.lines) - 1 if block.is_terminated else None
        yield
        self.block, self._place = before

    def goto_entry_block(self) -> Any:
        return self.goto_block(self.function.blocks[0])

    def _append(self, line: Any) -> None:
        if self._place is None:
            self.block.lines.append(line)
        else:
            self.block.lines.insert(self._place, line)
            self._place += 1

    def _value(self, type_: Any, text: str) -> Value:
        reference = f"%v{self._serial()}"
        if self._place is None:
            self.block.lines.append(f"{reference} = {text}")
        else:
            self._append(f"{reference} = {text}")
        return Value(type_, reference)

    def _terminate(self, line: Any) -> Any:
        self._append(line)
        self.block.is_terminated = True
        return line

    # -- computation

    add, sub, mul = _binary("add"), _binary("sub"), _binary("mul")
    sdiv, udiv, srem, urem = _binary("sdiv"), _binary("udiv"), _binary("srem"), _binary("urem")
    and_, or_, xor = _binary("and"), _binary("or"), _binary("xor")
    shl, lshr, ashr = _binary("shl"), _binary("lshr"), _binary("ashr")
    zext, sext, trunc = _cast("zext"), _cast("sext"), _cast("trunc")
    ptrtoint, inttoptr = _cast("ptrtoint"), _cast("inttoptr")
    fadd, fsub, fmul, fdiv = _binary("fadd"), _binary("fsub"), _binary("fmul"), _binary("fdiv")
    bitcast, fptrunc, fpext = _cast("bitcast"), _cast("fptrunc"), _cast("fpext")
    sitofp, uitofp, fptosi, fptoui = _cast("sitofp"), _cast("uitofp"), _cast("fptosi"), _cast("fptoui")
    fcmp_ordered, fcmp_unordered = _compare(_ORDERED, "fcmp"), _compare(_UNORDERED, "fcmp")
    icmp_signed, icmp_unsigned = _compare(_SIGNED), _compare(_UNSIGNED)
    ctlz, cttz, ctpop = _intrinsic("llvm.ctlz"), _intrinsic("llvm.cttz"), _intrinsic("llvm.ctpop")
    bswap, bitreverse = _intrinsic("llvm.bswap"), _intrinsic("llvm.bitreverse")

    def not_(self, value: Any) -> Value:
        return self.xor(value, ir.Constant(value.type, -1))

    def neg(self, value: Any) -> Value:
        return self.sub(ir.Constant(value.type, 0), value)

    def select(self, condition: Any, lhs: Any, rhs: Any) -> Value:
        values = f"{lhs.type} {_reference(lhs)}, {rhs.type} {_reference(rhs)}"
        return self._value(lhs.type, f"select i1 {_reference(condition)}, {values}")

    def phi(self, type_: Any) -> Phi:
        phi = Phi(type_, f"%v{self._serial()}")
        self._append(phi)
        return phi

    # -- memory

    def alloca(self, type_: Any, name: str = "") -> Value:
        reference = f"%{name}.{self._serial()}"
        self._append(f"{reference} = alloca {type_}")
        return Value(_POINTER, reference)

    def load(self, pointer: Any, *, typ: Any, align: int | None = None) -> Value:
        aligned = f", align {align}" if align else ""
        return self._value(typ, f"load {typ}, ptr {_reference(pointer)}{aligned}")

    def store(self, value: Any, pointer: Any, align: int | None = None) -> None:
        aligned = f", align {align}" if align else ""
        self._append(f"store {value.type} {_reference(value)}, ptr {_reference(pointer)}{aligned}")

    def load_atomic(self, pointer: Any, ordering: str, align: int, *, typ: Any) -> Value:
        return self._value(typ, f"load atomic {typ}, ptr {_reference(pointer)} {ordering}, align {align}")

    def atomic_rmw(self, op: str, pointer: Any, value: Any, ordering: str) -> Value:
        operands = f"ptr {_reference(pointer)}, {value.type} {_reference(value)}"
        return self._value(value.type, f"atomicrmw {op} {operands} {ordering}")

    def gep(self, pointer: Any, indices: Sequence[Any], *, source_etype: Any) -> Value:
        places = ", ".join([f"{index.type} {_reference(index)}" for index in indices])
        return self._value(_POINTER, f"getelementptr {source_etype}, ptr {_reference(pointer)}, {places}")

    def field(self, pointer: Any, offset: int) -> Value:
        """The address so many bytes behind a pointer."""
        return self._value(_POINTER, f"getelementptr i8, ptr {_reference(pointer)}, i64 {offset}")

    # -- control

    def extract_value(self, aggregate: Any, index: int) -> Value:
        type_ = aggregate.type.elements[index]
        return self._value(type_, f"extractvalue {aggregate.type} {_reference(aggregate)}, {index}")

    def call(
        self, function: Any, args: Sequence[Any], *, cconv: str = "", tail: str | None = None, attributes: str = ""
    ) -> Value:
        result = function.function_type.return_type
        words = " ".join(filter(None, (tail, "call", cconv, str(result), function.get_reference())))
        text = f"{words}({', '.join(f'{arg.type} {_reference(arg)}' for arg in args)}) {attributes}".rstrip()
        if result != _VOID:
            return self._value(result, text)
        self._append(text)
        return Value(result, "")

    def asm(self, ftype: Any, asm: str, constraint: str, args: Sequence[Any], side_effect: bool) -> Value:
        return self.call(ir.InlineAsm(ftype, asm, constraint, side_effect), args)

    def branch(self, block: Block) -> None:
        self._terminate(f"br label {block.get_reference()}")

    def cbranch(self, condition: Any, then: Block, otherwise: Block) -> ConditionalBranch:
        labels = f"label {then.get_reference()}, label {otherwise.get_reference()}"
        text = f"br i1 {_reference(condition)}, {labels}"
        branch: ConditionalBranch = self._terminate(ConditionalBranch(self.function, text))
        return branch

    def switch(self, value: Any, default: Block) -> Switch:
        switch: Switch = self._terminate(Switch(value, default))
        return switch

    def ret(self, value: Any) -> None:
        self._terminate(f"ret {value.type} {_reference(value)}")

    def ret_void(self) -> None:
        self._terminate("ret void")

    def unreachable(self) -> None:
        self._terminate("unreachable")


class _Located:
    """An instruction with its debug location."""

    def __init__(self, line: Any, location: Any) -> None:
        self._line = line
        self._location = location

    def __str__(self) -> str:
        return f"{self._line}, !dbg {self._location.get_reference()}"


class LocatedTextBuilder(TextBuilder):
    """A builder whose instructions have the debug location `debug_metadata`, as llvmlite's own has it; None: none."""

    debug_metadata: Any = None

    def _append(self, line: Any) -> None:
        super()._append(line if self.debug_metadata is None else _Located(line, self.debug_metadata))

    def _value(self, type_: Any, text: str) -> Value:
        reference = f"%v{self._serial()}"
        self._append(f"{reference} = {text}")
        return Value(type_, reference)
