"""System calls that loops of a piece of guest code make: lanes in such a loop wait for the host again and again."""

from __future__ import annotations

from vmjit.decoders.riscv.decoder import Decoder
from vmjit.ir.block import Block
from vmjit.ir.values import Const, Register
from vmjit.translators.regions import is_call

_A7 = 17
_EXIT_CALLS = (93, 94)


def calls_in_loops(decoder: Decoder, code: bytes, address: int) -> list[int]:
    """The addresses of the ecalls from which control may come back to them inside `code`, in order.

    Computed jumps are taken to leave the code, but a call is taken to come back behind itself. A call that ends the
    program, as far as its own block shows, does not come back.
    """

    def fetch(pc: int, size: int) -> bytes:
        return code[pc - address : pc - address + size] if pc >= address else b""

    def inside(pc: int) -> bool:
        return address <= pc < address + len(code)

    blocks: dict[int, Block] = {}
    todo = [address]
    while todo:
        pc = todo.pop()
        if inside(pc) and pc not in blocks:
            blocks[pc] = decoder.block(fetch, pc)
            todo += _following(blocks[pc])
    found = []
    for pc, block in blocks.items():
        if block.terminator.name == "ecall" and not _exits(block) and pc in _reachable(blocks, _following(block)):
            found.append(block.instructions[-1].pc)
    return sorted(found)


def _following(block: Block) -> list[int]:
    following = list(block.successors())
    if block.terminator.name == "ecall" or is_call(block):
        following.append(block.end)
    return following


def _exits(block: Block) -> bool:
    """Whether the block's call is `exit` or `exit_group` by the number it writes to a7."""
    number = None
    for op in block.ops():
        if isinstance(op.dest, Register) and op.dest.index == _A7:
            number = op.args[0] if op.name == "copy" else None
    return isinstance(number, Const) and number.value in _EXIT_CALLS


def _reachable(blocks: dict[int, Block], starts: list[int]) -> set[int]:
    seen: set[int] = set()
    todo = list(starts)
    while todo:
        pc = todo.pop()
        if pc in blocks and pc not in seen:
            seen.add(pc)
            todo += _following(blocks[pc])
    return seen
