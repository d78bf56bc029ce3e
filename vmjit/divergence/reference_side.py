"""The reference evaluator as a side: the ops' meaning in plain Python, some thousand instructions a second."""

from __future__ import annotations

import numpy as np

from vmjit.divergence.sides import ForeignSide
from vmjit.ir.evaluate import Evaluator, Trap
from vmjit.lane_bytes import LaneBytes
from vmjit.machine import Machine

_ALONE = ("ecall", "ebreak", "unsupported", "fence_i")


class ReferenceSide(ForeignSide):
    """`machine` has one lane."""

    def __init__(self, machine: Machine) -> None:
        super().__init__("reference", machine)
        self.registers = list(range(len(machine._engine.decoder.registers)))
        self._decoder = machine._engine.decoder
        self._memory = LaneBytes(machine)

    def execute(self, limit: int) -> int:
        state = self.machine._state
        evaluator = Evaluator([int(v) for v in state.registers[:, 0]], self._memory, int(state.retired[0]))
        pc, before = int(state.pc[0]), evaluator.retired
        while evaluator.retired - before < limit:
            if not self._memory.fetch(pc, 2):
                break
            block = self._decoder.block(self._memory.fetch, pc, 1)
            if block.terminator.name in _ALONE:
                break
            kept = list(evaluator.registers), evaluator.retired
            try:
                _, pc = evaluator.run(block)
            except Trap:
                evaluator.registers[:], evaluator.retired = kept
                break
        done = evaluator.retired - before
        state.registers[:, 0] = np.array(evaluator.registers, np.uint64).astype(state.registers.dtype)
        state.pc[0], state.retired[0] = pc, before + done
        self.changed()
        return done
