"""LLVM IR written as text at once, with the methods of llvmlite's builder that regions use.

llvmlite keeps an object for every instruction and names and prints them at the end: four fifths of the time in which a
region's IR was generated. Types and constants are llvmlite's; so a lowering serves both builders.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from llvmlite import ir

from vmjit.kernels.emit import HANDLER_CONVENTION, I1, PTR, VOID, Handler, handler_type


class TextValue:
    """The result of an instruction, an argument or a label's name."""

    __slots__ = ("_reference", "type")

    def __init__(self, reference: str, type_: Any) -> None:
        self._reference = reference
        self.type = type_

    def get_reference(self) -> str:
        return self._reference


class TextBlock:
    __slots__ = ("label", "lines")

    def __init__(self, label: str) -> None:
        self.label = label
        self.lines: list[Any] = []


class TextPhi(TextValue):
    __slots__ = ("_incoming",)

    def __init__(self, reference: str, type_: Any) -> None:
        super().__init__(reference, type_)
        self._incoming: list[str] = []

    def add_incoming(self, value: Any, block: TextBlock) -> None:
        self._incoming.append(f"[{value.get_reference()}, %{block.label}]")

    def __str__(self) -> str:
        return f"{self._reference} = phi {self.type} {', '.join(self._incoming)}"


class TextSwitch:
    __slots__ = ("_cases", "_head")

    def __init__(self, head: str) -> None:
        self._head = head
        self._cases: list[str] = []

    def add_case(self, value: Any, block: TextBlock) -> None:
        self._cases.append(f"{value.type} {value.get_reference()}, label %{block.label}")

    def __str__(self) -> str:
        return f"{self._head} [{' '.join(self._cases)}]"


class TextBranch:
    __slots__ = ("_function", "_text")

    def __init__(self, text: str, function: TextFunction) -> None:
        self._text = text
        self._function = function

    def set_weights(self, weights: Sequence[int]) -> None:
        operands = ", ".join(f"i32 {w}" for w in weights)
        node = self._function.metadata(f'!{{!"branch_weights", {operands}}}')
        self._text += f", !prof {node}"

    def keep_rolled(self) -> None:
        """Have LLVM neither unroll nor vectorise the loop that this closes."""
        itself = f"!{len(self._function.nodes)}"
        hints = '!{!"llvm.loop.unroll.disable"}, !{!"llvm.loop.vectorize.enable", i1 false}'
        node = self._function.metadata(f"distinct !{{{itself}, {hints}}}")
        self._text += f", !llvm.loop {node}"

    def __str__(self) -> str:
        return self._text


class TextFunction:
    """One function of a module of its own. What it calls is declared in `module`, which is llvmlite's."""

    def __init__(self, name: str, ftype: Any, convention: str) -> None:
        self.module = ir.Module(name=name)
        self.ftype = ftype
        self.name = name
        self.convention = convention
        self.args = [TextValue(f"%a{i}", type_) for i, type_ in enumerate(ftype.args)]
        self.blocks: list[TextBlock] = []
        self.nodes: dict[str, int] = {}
        self.count = 0

    def append_basic_block(self, name: str = "") -> TextBlock:
        block = TextBlock(f"{name or 'b'}.{len(self.blocks)}")
        self.blocks.append(block)
        return block

    def new_reference(self) -> str:
        self.count += 1
        return f"%v{self.count}"

    def metadata(self, text: str) -> str:
        """The name of a metadata node."""
        return f"!{self.nodes.setdefault(text, len(self.nodes))}"

    def __str__(self) -> str:
        arguments = ", ".join(f"{a.type} {a.get_reference()}" for a in self.args)
        parts = [*(f"{f}\n" for f in self.module.functions)]
        parts.append(f"define {self.convention} {self.ftype.return_type} @{self.name}({arguments}) nounwind {{\n")
        for block in self.blocks:
            parts.append(f"{block.label}:\n")
            parts += [f"{line}\n" for line in block.lines]
        parts.append("}\n")
        parts += [f"!{number} = {text}\n" for text, number in self.nodes.items()]
        return "".join(parts)


class TextBuilder:
    def __init__(self, function: TextFunction) -> None:
        self.function = function
        self.module = function.module
        self.block = function.append_basic_block("entry")

    # -- where

    def append_basic_block(self, name: str = "") -> TextBlock:
        return self.function.append_basic_block(name)

    def position_at_end(self, block: TextBlock) -> None:
        self.block = block

    @contextlib.contextmanager
    def goto_block(self, block: TextBlock) -> Iterator[None]:
        before, self.block = self.block, block
        yield
        self.block = before

    def goto_entry_block(self) -> contextlib.AbstractContextManager[None]:
        return self.goto_block(self.function.blocks[0])

    def _value(self, text: str, type_: Any) -> TextValue:
        reference = self.function.new_reference()
        self.block.lines.append(f"{reference} = {text}")
        return TextValue(reference, type_)

    # -- plain computation

    def _icmp(self, predicate: str, a: Any, b: Any) -> TextValue:
        return self._value(f"icmp {predicate} {a.type} {a.get_reference()}, {b.get_reference()}", I1)

    def icmp_signed(self, operator: str, a: Any, b: Any) -> TextValue:
        return self._icmp(_SIGNED[operator], a, b)

    def icmp_unsigned(self, operator: str, a: Any, b: Any) -> TextValue:
        return self._icmp(_UNSIGNED[operator], a, b)

    def not_(self, a: Any) -> TextValue:
        return self._value(f"xor {a.type} {a.get_reference()}, -1", a.type)

    def select(self, c: Any, a: Any, b: Any) -> TextValue:
        text = f"select i1 {c.get_reference()}, {a.type} {a.get_reference()}, {b.type} {b.get_reference()}"
        return self._value(text, a.type)

    def _cast(self, name: str, a: Any, type_: Any) -> Any:
        return a if a.type == type_ else self._value(f"{name} {a.type} {a.get_reference()} to {type_}", type_)

    def zext(self, a: Any, type_: Any) -> Any:
        return self._cast("zext", a, type_)

    def sext(self, a: Any, type_: Any) -> Any:
        return self._cast("sext", a, type_)

    def trunc(self, a: Any, type_: Any) -> Any:
        return self._cast("trunc", a, type_)

    def ptrtoint(self, a: Any, type_: Any) -> Any:
        return self._cast("ptrtoint", a, type_)

    def inttoptr(self, a: Any, type_: Any) -> Any:
        return self._cast("inttoptr", a, type_)

    def _intrinsic(self, name: str, a: Any, *more: Any) -> Any:
        ftype = ir.FunctionType(a.type, [a.type, *(m.type for m in more)])
        return self.call(self.module.declare_intrinsic(name, [a.type], ftype), [a, *more])

    def ctlz(self, a: Any, flag: Any) -> Any:
        return self._intrinsic("llvm.ctlz", a, flag)

    def cttz(self, a: Any, flag: Any) -> Any:
        return self._intrinsic("llvm.cttz", a, flag)

    def ctpop(self, a: Any) -> Any:
        return self._intrinsic("llvm.ctpop", a)

    def bswap(self, a: Any) -> Any:
        return self._intrinsic("llvm.bswap", a)

    def bitreverse(self, a: Any) -> Any:
        return self._intrinsic("llvm.bitreverse", a)

    def asm(
        self,
        ftype: Any,
        text: str,
        constraint: str,
        args: Sequence[Any],
        side_effect: bool,
    ) -> TextValue:
        effect = "sideeffect " if side_effect else ""
        return self._value(
            f'call {ftype.return_type} asm {effect}"{text}", "{constraint}"({_operands(args)})', ftype.return_type
        )

    # -- memory

    def alloca(self, type_: Any, name: str = "") -> TextValue:
        return self._value(f"alloca {type_}", PTR)

    def gep(self, base: Any, indices: Sequence[Any], source_etype: Any) -> TextValue:
        return self._value(f"getelementptr {source_etype}, ptr {base.get_reference()}, {_operands(indices)}", PTR)

    def load(self, pointer: Any, typ: Any, align: int | None = None) -> TextValue:
        aligned = f", align {align}" if align else ""
        return self._value(f"load {typ}, ptr {pointer.get_reference()}{aligned}", typ)

    def store(self, value: Any, pointer: Any, align: int | None = None) -> None:
        aligned = f", align {align}" if align else ""
        self.block.lines.append(f"store {value.type} {value.get_reference()}, ptr {pointer.get_reference()}{aligned}")

    # -- control

    def phi(self, type_: Any) -> TextPhi:
        phi = TextPhi(self.function.new_reference(), type_)
        self.block.lines.append(phi)
        return phi

    def branch(self, target: TextBlock) -> None:
        self.block.lines.append(f"br label %{target.label}")

    def cbranch(self, condition: Any, then: TextBlock, otherwise: TextBlock) -> TextBranch:
        text = f"br i1 {condition.get_reference()}, label %{then.label}, label %{otherwise.label}"
        branch = TextBranch(text, self.function)
        self.block.lines.append(branch)
        return branch

    def switch(self, value: Any, default: TextBlock) -> TextSwitch:
        switch = TextSwitch(f"switch {value.type} {value.get_reference()}, label %{default.label}")
        self.block.lines.append(switch)
        return switch

    def call(self, function: Any, args: Sequence[Any], cconv: str = "", tail: str = "") -> TextValue | None:
        ftype = function.function_type
        text = f"{tail} call {cconv} {ftype.return_type} {function.get_reference()}({_operands(args)})"
        if ftype.return_type == VOID:
            self.block.lines.append(text)
            return None
        return self._value(text, ftype.return_type)

    def ret_void(self) -> None:
        self.block.lines.append("ret void")

    def unreachable(self) -> None:
        self.block.lines.append("unreachable")


_SIGNED = {"==": "eq", "!=": "ne", "<": "slt", "<=": "sle", ">": "sgt", ">=": "sge"}
_UNSIGNED = {"==": "eq", "!=": "ne", "<": "ult", "<=": "ule", ">": "ugt", ">=": "uge"}


def _operands(args: Sequence[Any]) -> str:
    return ", ".join([f"{a.type} {a.get_reference()}" for a in args])


def _binary(name: str) -> Any:
    def method(self: TextBuilder, a: Any, b: Any, flags: Sequence[str] = ()) -> TextValue:
        head = f"{name} {' '.join(flags)}" if flags else name
        return self._value(f"{head} {a.type} {a.get_reference()}, {b.get_reference()}", a.type)

    return method


for _method, _opcode in {
    "and_": "and",
    "or_": "or",
    **{n: n for n in ("add", "sub", "mul", "xor", "shl", "lshr", "ashr", "udiv", "sdiv", "urem", "srem")},
}.items():
    setattr(TextBuilder, _method, _binary(_opcode))


class TextHandler(Handler):
    """A handler that is a module of its own, as text."""

    def __init__(self, name: str, xlen: Any) -> None:
        self.function = TextFunction(name, handler_type(xlen), HANDLER_CONVENTION)
        self.builder = TextBuilder(self.function)
        self.frame, self.ip, self.remaining, self.base, self.lo, self.limit = self.function.args
