"""Which registers are read after a block: only those have to be written back when it ends."""

from __future__ import annotations

from collections.abc import Iterator

from vmjit.ptx.assembly.blocks import Block
from vmjit.ptx.assembly.syntax import Address, Group, Instruction, Negation, Operand, Pair, Register, Vector

CARRY = -1  # the number that stands for the carry flag CC.CF

_WITHOUT_DESTINATION = frozenset(
    """st red bra brx ret exit trap bar barrier membar fence prefetch prefetchu call nanosleep discard applypriority
    brkpt pmevent griddepcontrol""".split()
)


def bit_of(register: int) -> int:
    """The bit that stands for a register, or for the carry flag, in a block's sets."""
    return 1 << (register + 1)


def registers_of(operand: Operand | None) -> Iterator[int]:
    """The numbers of all registers in an operand."""
    if isinstance(operand, Register):
        yield operand.index
    elif isinstance(operand, Address):
        yield from registers_of(operand.base)
    elif isinstance(operand, Negation):
        yield from registers_of(operand.operand)
    elif isinstance(operand, (Vector, Group)):
        for item in operand.items:
            yield from registers_of(item)
    elif isinstance(operand, Pair):
        yield from registers_of(operand.first)
        yield from registers_of(operand.second)


def uses_and_definitions(instruction: Instruction) -> tuple[list[int], list[int]]:
    """The registers an instruction reads, and those it writes."""
    sources = list(instruction.operands)
    defined: list[int] = []
    is_reduction = instruction.opcode in ("bar", "barrier") and instruction.has("red")
    if sources and (is_reduction or instruction.opcode not in _WITHOUT_DESTINATION):
        defined += registers_of(sources.pop(0))
    used = [register for source in sources for register in registers_of(source)]
    if instruction.guard is not None:
        used.append(instruction.guard.register.index)
        used += defined  # the old value stays where the guard does not hold
    if instruction.has("cc") or instruction.opcode in ("addc", "subc", "madc"):
        used.append(CARRY)
        defined.append(CARRY)
    return used, defined


def find_live_registers(blocks: list[Block]) -> None:
    """Sets `used`, `defined` and `live_out` of every block, to the least solution of the usual equations."""
    predecessors: list[list[int]] = [[] for _ in blocks]
    for block in blocks:
        _summarize(block)
        for successor in block.successors:
            predecessors[successor].append(block.index)
    live_in = [block.used for block in blocks]
    waiting = dict.fromkeys(range(len(blocks)))
    while waiting:
        index, _ = waiting.popitem()
        block = blocks[index]
        block.live_out = 0
        for successor in block.successors:
            block.live_out |= live_in[successor]
        entering = block.used | (block.live_out & ~block.defined)
        if entering != live_in[index]:
            live_in[index] = entering
            waiting.update(dict.fromkeys(predecessors[index]))


def _summarize(block: Block) -> None:
    block.used = block.defined = 0
    for instruction in block.instructions:
        used, defined = uses_and_definitions(instruction)
        for register in used:
            block.used |= bit_of(register) & ~block.defined
        for register in defined:
            block.defined |= bit_of(register)
