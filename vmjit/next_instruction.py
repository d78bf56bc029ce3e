"""What a lane is going to do: the instruction that it stands before, and what that reads, writes and touches.

The reference evaluator works it out from the state before; nothing of the lane changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmjit.ir.evaluate import Evaluator, Trap
from vmjit.ir.values import Register
from vmjit.lane_bytes import RecordedBytes
from vmjit.machine import Machine


@dataclass(frozen=True)
class NextInstruction:
    """`data` are its bytes, `text` its disassembly; both say so where nothing can be executed.

    reads: registers. writes: what it writes, by register. touched: (address, bytes, whether it stores) of what it loads
    and stores; of a load that is a fault, no bytes.
    """

    pc: int
    data: bytes
    text: str
    reads: frozenset[int]
    writes: dict[int, int]
    touched: tuple[tuple[int, bytes, bool], ...]


def next_instruction(machine: Machine, lane: int) -> NextInstruction:
    state, decoder = machine._state, machine._engine.decoder
    pc, memory = int(state.pc[lane]), RecordedBytes(machine, lane)
    if not memory.fetch(pc, 2):
        return NextInstruction(pc, b"", "nothing can be executed there", frozenset(), {}, ())
    instruction = decoder.decode(memory.fetch, pc)
    block = decoder.block(memory.fetch, pc, 1)
    evaluator = Evaluator([int(v) for v in state.registers[:, lane]], memory, int(state.retired[lane]))
    try:
        evaluator.run(block)
    except Trap as trap:
        memory.touched.append((trap.address, b"", trap.kind == "write"))
    ops = [op for guest in block.instructions for op in guest.ops]
    operands = [*(a for op in ops for a in op.args), *block.terminator.args]
    reads = frozenset(a.index for a in operands if isinstance(a, Register))
    written = sorted({op.dest.index for op in ops if isinstance(op.dest, Register)})
    data = memory.fetch(pc, 4)[: instruction.size]
    writes = {i: evaluator.registers[i] for i in written}
    return NextInstruction(pc, data, decoder.text(instruction), reads, writes, tuple(memory.touched))
