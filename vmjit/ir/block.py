"""Blocks: straight-line guest code up to and including its control transfer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from vmjit.ir.registers import RegisterFile
from vmjit.ir.values import Const, Op, Terminator


class GuestInstruction:
    """One guest instruction and its meaning. `raw` is its bytes as a little-endian number, `text` its disassembly, or
    what makes it: it is rarely read."""

    __slots__ = ("_text", "ops", "pc", "raw", "size")

    def __init__(self, pc: int, size: int, raw: int, ops: list[Op], text: str | Callable[[], str] = "") -> None:
        self.pc = pc
        self.size = size
        self.raw = raw
        self.ops = ops
        self._text = text

    @property
    def text(self) -> str:
        if not isinstance(self._text, str):
            self._text = self._text()
        return self._text

    def _fields(self) -> tuple[int, int, int, list[Op], str]:
        return self.pc, self.size, self.raw, self.ops, self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GuestInstruction) and self._fields() == other._fields()

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return GuestInstruction, self._fields()

    def __repr__(self) -> str:
        return f"GuestInstruction{self._fields()}"


@dataclass(slots=True)
class Block:
    """`terminator` is how the last instruction leaves, or a plain jump where the block was cut short."""

    pc: int
    registers: RegisterFile
    instructions: list[GuestInstruction] = field(default_factory=list)
    terminator: Terminator = field(default_factory=lambda: Terminator("ebreak"))

    @property
    def end(self) -> int:
        """Address after the last instruction."""
        if not self.instructions:
            return self.pc
        return (self.instructions[-1].pc + self.instructions[-1].size) & self.registers.type.mask

    def ops(self) -> Iterator[Op]:
        for instruction in self.instructions:
            yield from instruction.ops

    def successors(self) -> tuple[int, ...]:
        """Static guest addresses this block can go to by itself: by a jump or a branch."""
        if self.terminator.name not in ("jump", "branch"):
            return ()
        return tuple(t.value for t in self.terminator.targets if isinstance(t, Const))
