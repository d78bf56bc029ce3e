"""What a lane did between the state that two executions shared and the one in which they differ."""

from __future__ import annotations

from dataclasses import dataclass

from vmjit.divergence.sides import Side
from vmjit.ir.evaluate import Evaluator, Trap
from vmjit.ir.values import Register
from vmjit.lane_bytes import RecordedBytes
from vmjit.snapshot import Snapshot


@dataclass(frozen=True)
class Step:
    """An instruction: its bytes and disassembly, the registers that it reads and writes, and what memory it touches,
    (address, size, whether it stores)."""

    pc: int
    data: bytes
    text: str
    reads: frozenset[int]
    writes: frozenset[int]
    touched: tuple[tuple[int, int, bool], ...]


def steps_from(side: Side, start: Snapshot, count: int, lane: int) -> list[Step]:
    """A lane's next `count` instructions behind a state."""
    side.restore(start)
    found = []
    for number in range(count):
        found.append(_step(side, lane))
        if number + 1 < count:
            side.advance(1)
    return found


def _step(side: Side, lane: int) -> Step:
    state, decoder = side.machine._state, side.machine._engine.decoder
    pc, memory = int(state.pc[lane]), RecordedBytes(side.machine, lane)
    if not memory.fetch(pc, 2):
        return Step(pc, b"", "nothing can be executed there", frozenset(), frozenset(), ())
    instruction = decoder.decode(memory.fetch, pc)
    block = decoder.block(memory.fetch, pc, 1)
    evaluator = Evaluator([int(v) for v in state.registers[:, lane]], memory, int(state.retired[lane]))
    try:
        evaluator.run(block)
    except Trap as trap:
        memory.touched.append((trap.address, b"\0", False))
    ops = [op for guest in block.instructions for op in guest.ops]
    operands = [a for op in ops for a in op.args] + [a for a in block.terminator.args if a is not None]
    reads = frozenset(a.index for a in operands if isinstance(a, Register))
    writes = frozenset(op.dest.index for op in ops if isinstance(op.dest, Register))
    data = memory.fetch(pc, 4)[: block.instructions[0].size]
    return Step(
        pc,
        data,
        decoder.text(instruction),
        reads,
        writes,
        tuple((a, len(data), stores) for a, data, stores in memory.touched),
    )
