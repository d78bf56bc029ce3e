"""System calls that loops of a piece of guest code make: lanes in such a loop wait for the host again and again."""

from __future__ import annotations

from vmjit.decoders.riscv.decoder import Decoder
from vmjit.ir.block import Block
from vmjit.ir.values import Const, Op, Operand, Register
from vmjit.translators.regions import is_call

_A7 = 17
_EXIT_CALLS = (93, 94)


def calls_in_loops(decoder: Decoder, code: bytes, address: int) -> list[int]:
    """Where loops inside `code` make system calls: the addresses of the ecalls, or of the calls of functions that make
    some, in order.

    Computed jumps are taken to leave the code, but a call is taken to come back behind itself. An ecall that ends the
    program, as far as its own block shows, does not come back.
    """
    return _Code(decoder, code, address).calls_in_loops()


class _Code:
    """Blocks of a piece of code, and its functions by their entries."""

    def __init__(self, decoder: Decoder, code: bytes, address: int) -> None:
        self.decoder = decoder
        self.code = code
        self.address = address
        self.blocks: dict[int, Block] = {}
        self.functions: dict[int, set[int]] = {}
        todo = [address]
        while todo:
            entry = todo.pop()
            if self._inside(entry) and entry not in self.functions:
                body = self.functions[entry] = self._reachable([entry])
                todo += [callee for pc in body for callee in self._callees(pc)]

    def _inside(self, pc: int) -> bool:
        return self.address <= pc < self.address + len(self.code)

    def _fetch(self, pc: int, size: int) -> bytes:
        return self.code[pc - self.address : pc - self.address + size] if self._inside(pc) else b""

    def block(self, pc: int) -> Block:
        if pc not in self.blocks:
            self.blocks[pc] = self.decoder.block(self._fetch, pc)
        return self.blocks[pc]

    def _callees(self, pc: int) -> tuple[int, ...]:
        block = self.block(pc)
        return block.successors() if is_call(block) else ()

    def _following(self, pc: int) -> tuple[int, ...]:
        """Blocks of the same function that control goes on to."""
        block = self.block(pc)
        if is_call(block) or (block.terminator.name == "ecall" and not _exits(block)):
            return (block.end,)
        return block.successors()

    def _reachable(self, starts: list[int]) -> set[int]:
        seen: set[int] = set()
        todo = list(starts)
        while todo:
            pc = todo.pop()
            if self._inside(pc) and pc not in seen:
                seen.add(pc)
                todo += self._following(pc)
        return seen

    def _calling_functions(self) -> set[int]:
        """The functions that make system calls, by themselves or through others."""
        calling: set[int] = set()
        before = -1
        while len(calling) > before:
            before = len(calling)
            calling |= {entry for entry, body in self.functions.items() if any(self._calls(pc, calling) for pc in body)}
        return calling

    def _calls(self, pc: int, calling: set[int]) -> bool:
        block = self.block(pc)
        if block.terminator.name == "ecall":
            return not _exits(block)
        return any(callee in calling for callee in self._callees(pc))

    def calls_in_loops(self) -> list[int]:
        calling = self._calling_functions()
        found = set()
        for body in self.functions.values():
            for pc in body:
                if self._calls(pc, calling) and pc in self._reachable(list(self._following(pc))):
                    found.add(self.block(pc).instructions[-1].pc)
        return sorted(found)


def _exits(block: Block) -> bool:
    """Whether the block's call is `exit` or `exit_group` by the number it writes to a7."""
    number = None
    for op in block.ops():
        if isinstance(op.dest, Register) and op.dest.index == _A7:
            number = _constant(op)
    return number in _EXIT_CALLS


def _constant(op: Op) -> int | None:
    """The number that an op writes, if it is one of the instruction's own."""
    operand: Operand | None
    if op.name == "add" and isinstance(op.args[0], Register) and op.args[0].index == 0:
        operand = op.args[1]
    else:
        operand = op.args[0] if op.name == "copy" else None
    return operand.value if isinstance(operand, Const) else None
