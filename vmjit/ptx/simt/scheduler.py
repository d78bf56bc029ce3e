"""Which lanes run next: divergence and reconvergence of one activation.

Lanes wait at the blocks they are to run. Those at the lowest block go first, so that lanes which took different ways
meet again where the ways do; blocks that begin with a warp's collective come after all others, so that as many lanes
as possible are there.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vmjit.ptx.errors import LaneFault, PtxFault
from vmjit.ptx.simt.codegen import EXIT, NO_OTHER, NOWHERE, RETURN
from vmjit.ptx.simt.warp import Incomplete

if TYPE_CHECKING:
    from vmjit.ptx.simt.activation import Activation
    from vmjit.ptx.simt.engine import CompiledBlock

Selection = NDArray[np.intp] | None
Transfer = tuple[int, Selection, int, Selection]

# Lanes may spin for what lanes at a later block would do. After so many blocks run while others wait, one of the
# others goes first for a while; a block that looks as if it polled counts for many.
_PATIENCE = 20_000
_COST_OF_POLLING = 7_000
_TURN = 256


class Scheduler:
    """Runs the lanes of one activation to their ends."""

    def __init__(self, activation: Activation) -> None:
        self._activation = activation
        activation.scheduler = self
        self._blocks: list[CompiledBlock] = activation.engine.blocks_of(activation.function)
        self._flow = activation.flow.blocks
        self._pending: dict[int, list[Selection]] = {}
        self._order: list[tuple[bool, int]] = []  # a heap of what is pending
        self._blocked: dict[int, tuple[Selection, LaneFault]] = {}  # at collectives whose members are elsewhere
        self._impatience = self._turns = self._left_of_turn = 0
        self._executed, self._executed_by_warps = activation.wave.counts.of(activation.function)
        self._warps_of = activation.pick(activation.wave.geometry.warp_of, None)
        self._counted: tuple[Selection, int] = (None, _distinct(self._warps_of))

    def run(self) -> None:
        self.push(0, None)
        while True:
            if self._order:
                self._run_from(*self._pop())
            elif not self._let_waiting_go():
                return

    def push(self, target: int, lanes: Selection) -> None:
        """Lets lanes go to a block, or out of the function."""
        if target < 0:
            self._leave(target, lanes)
            return
        if target in self._blocked:
            waiting, _ = self._blocked.pop(target)
            self._add(target, waiting)
        self._add(target, lanes)

    def _add(self, target: int, lanes: Selection) -> None:
        there = self._pending.get(target)
        if there is None:
            self._pending[target] = [lanes]
            heapq.heappush(self._order, (self._flow[target].is_meeting_point, target))
        else:
            there.append(lanes)

    def _leave(self, target: int, lanes: Selection) -> None:
        if target == EXIT or (target == RETURN and not self._activation.depth):
            self._activation.end(lanes)
            for block, (waiting, _) in self._blocked.items():  # nobody waits for a thread that has ended
                self._add(block, waiting)
            self._blocked.clear()

    def _pop(self) -> tuple[int, Selection]:
        order = self._order
        if self._impatience > _PATIENCE and len(order) > 1:
            self._impatience, self._left_of_turn = 0, _TURN
            self._turns += 1
            index = 1 + self._turns % (len(order) - 1)
            _, block = order[index]
            order[index] = order[-1]
            order.pop()
            heapq.heapify(order)
        else:
            _, block = heapq.heappop(order)
        groups = self._pending.pop(block)
        if len(groups) == 1:
            lanes = groups[0]
        else:
            lanes = np.concatenate([self._activation.numbers(group) for group in groups])
            lanes.sort()
        if lanes is not None and len(lanes) == self._activation.size:
            lanes = None
        return block, lanes

    def _run_from(self, block: int, lanes: Selection) -> None:
        """Runs lanes from a block on, until others have to go first."""
        while True:
            ran = block
            block, lanes, other, other_lanes = self._execute(block, lanes)
            if other != NO_OTHER:
                if block < 0 or 0 <= other < block:
                    block, lanes, other, other_lanes = other, other_lanes, block, lanes
                self.push(other, other_lanes)
            if block < 0 or block in self._blocked or (self._order and self._must_yield(ran, block)):
                self.push(block, lanes)
                return

    def _must_yield(self, ran: int, block: int) -> bool:
        self._impatience += _COST_OF_POLLING if self._flow[ran].may_poll else 1
        if block in self._pending:
            return True
        if self._left_of_turn:
            self._left_of_turn -= 1
            return False
        return self._impatience > _PATIENCE or self._order[0] < (self._flow[block].is_meeting_point, block)

    def _execute(self, index: int, lanes: Selection) -> Transfer:
        activation = self._activation
        block = self._blocks[index]
        try:
            transfer: Transfer = block.run(activation, lanes)
        except Incomplete as incomplete:
            return self._execute_complete(index, lanes, incomplete)
        except LaneFault as fault:
            raise self._fault(fault, index, lanes) from None
        counts = activation.wave.counts
        threads = activation.size if lanes is None else len(lanes)
        if lanes is not self._counted[0]:
            self._counted = (lanes, _distinct(self._warps_of if lanes is None else self._warps_of[lanes]))
        self._executed[index] += threads
        self._executed_by_warps[index] += self._counted[1]
        counts.thread_instructions += self._flow[index].count * threads
        counts.steps += 1
        activation.wave.check_time(activation.function, self._flow[index].instructions[0].line)
        return transfer

    def _execute_complete(self, index: int, lanes: Selection, incomplete: Incomplete) -> Transfer:
        """Runs a collective for those lanes whose members are all here; it is a block's first, nothing is done yet."""
        numbers = self._activation.numbers(lanes)
        waiting = numbers[incomplete.waiting]
        if index in self._blocked:  # by lanes that these here wait for in turn
            waiting = np.union1d(waiting, self._activation.numbers(self._blocked[index][0]))
        position = int(np.searchsorted(waiting, numbers[incomplete.fault.position]))
        self._blocked[index] = (waiting, LaneFault(incomplete.fault.message, position))
        if incomplete.waiting.all():
            return NOWHERE, None, NO_OTHER, None
        return self._execute(index, numbers[~incomplete.waiting])

    def _let_waiting_go(self) -> bool:
        """When no lane can run: opens complete barriers. False when there is nothing left. Raises `PtxFault`."""
        barriers = self._activation.barriers
        try:
            if barriers.waiting:
                for block, lanes in barriers.release():
                    self.push(block, lanes)
                return True
        except LaneFault as fault:
            if not self._blocked:
                raise self._fault(fault, barriers.first_block, None, at_end=True) from None
        for index, (waiting, missing) in self._blocked.items():
            raise self._fault(missing, index, waiting)
        return False

    def _fault(self, fault: LaneFault, index: int, lanes: Selection, *, at_end: bool = False) -> PtxFault:
        """What a helper found, with line and thread."""
        activation = self._activation
        instructions = self._flow[index].instructions
        line = instructions[-1].line if at_end else self._blocks[index].line_of(fault.__traceback__)
        lane = int(activation.in_wave(lanes)[fault.position])
        thread, block = activation.wave.geometry.thread_at(lane)
        details = {} if fault.address is None else {"address": fault.address}
        return activation.wave.launch.fault(fault.message, activation.function, line, thread, block, **details)


def _distinct(sorted_values: NDArray[Any]) -> int:
    if not len(sorted_values):
        return 0
    return 1 + int(np.count_nonzero(sorted_values[1:] != sorted_values[:-1]))
