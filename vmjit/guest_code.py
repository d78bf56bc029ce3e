"""Guest code as the lanes of one code space see it: its bytes, its blocks, and what is decoded when.

What decoded code looks like is said by `CodeSpace` (the CPU's stream) and `DeviceCodeSpace` (slots and tables).
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vmjit.decoders.riscv.decoder import Decoder, Instruction
from vmjit.ir.block import Block
from vmjit.ir.values import Terminator

# Stretches of code decoded ahead along static edges when one is asked for.
_DECODE_AHEAD = 256


@dataclass(frozen=True)
class CodeSpan:
    """Executable guest memory as a lane sees it."""

    lo: int
    data: bytes

    @property
    def end(self) -> int:
        return self.lo + len(self.data)


class GuestCode(ABC):
    """The code of lanes whose executable memory holds `spans`. All methods may be called from any thread."""

    def __init__(
        self, decoder: Decoder, spans: Iterable[CodeSpan], hooks: Mapping[int, Sequence[int]] | None = None
    ) -> None:
        self.decoder = decoder
        self.hooks = hooks or {}
        """Functions by guest address, called before lanes execute what is there."""
        self.spans = tuple(sorted(spans, key=lambda s: s.lo))
        self._starts, self._ends = [s.lo for s in self.spans], sorted(s.end for s in self.spans)
        self.lock = threading.RLock()
        self._blocks: dict[int, Block] = {}
        self._instructions: dict[int, Instruction] = {}
        self._mask = decoder.registers.type.mask

    @abstractmethod
    def _is_decoded(self, pc: int) -> bool:
        """Whether lanes can go on at `pc`."""

    @abstractmethod
    def _decode_from(self, pc: int) -> list[int]:
        """Decode up to the next jump; the addresses that it leads to."""

    def fetch(self, pc: int, size: int) -> bytes:
        """Up to `size` bytes of code at `pc`, fewer where executable memory ends."""
        for span in self.spans:
            if span.lo <= pc < span.end:
                data = span.data[pc - span.lo : pc - span.lo + size]
                missing = size - len(data)
                return data + self.fetch(pc + len(data), missing) if missing and data else data
        return b""

    def executable(self, pc: int) -> bool:
        return bisect_right(self._starts, pc) > bisect_right(self._ends, pc)  # begun before it, and not ended

    def goes_on_at(self, pc: int) -> bool:
        """Whether a block may go on at an address behind its first instruction."""
        return pc not in self.hooks and self.executable(pc)

    def decode(self, pc: int) -> bool:
        """Have the code at `pc` and what it leads to. False if nothing can be executed there."""
        with self.lock:
            if not self.executable(pc):
                return False
            todo = [pc]
            budget = _DECODE_AHEAD
            while todo and budget:
                place = todo.pop()
                if self.executable(place) and not self._is_decoded(place):
                    todo.extend(self._decode_from(place))
                    budget -= 1
            return True

    def instruction(self, pc: int) -> Instruction:
        """The instruction at a guest address."""
        found = self._instructions.get(pc)
        if found is None:
            found = self._instructions[pc] = self.decoder.decode(self.fetch, pc)
        return found

    def block(self, pc: int) -> Block:
        """The block at a guest address as IR."""
        with self.lock:
            block = self._blocks.get(pc)
            if block is None:
                if pc in self.hooks:  # an instruction that only the interpreter can run
                    instruction = self.decoder.lift(self.instruction(pc))[0]
                    instruction.ops = []
                    block = Block(pc, self.decoder.registers, [instruction], Terminator("ebreak"))
                else:
                    block = self.decoder.block_of(self.instruction, self.goes_on_at, pc)
                self._blocks[pc] = block
            return block
