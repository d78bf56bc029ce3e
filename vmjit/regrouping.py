"""Regrouping: lanes that work in the same place are given to the same lane groups, for the rest of a pass.

Kernels know a lane by its *seat*, and so many neighbouring seats are a group. Regrouping moves lanes to other seats,
with their state and private memory. When the pass ends all are put back: outside of it, a lane's seat is its number.

Where lanes stand does not tell where they work: groups run one after the other, so most may not have begun. So when a
pass has mostly run lanes one by one, some groups run a few short slices first, and each time it is noted in which loop
each lane is. Only if an order by the earlier slices makes lanes agree in the last one, which it does not know, do the
others follow.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vmjit.code_space import CodeSpace
from vmjit.kernels.layout import STOP_NEED_CODE, STOP_RUNNING, GroupState
from vmjit.lane_memory import LaneMemory
from vmjit.lane_state import LaneState
from vmjit.translators.regions import is_call

Lanes = NDArray[np.intp]
Keys = NDArray[np.int64]

# Seconds that a pass runs before it is looked at, twice as many after each look that was in vain: with thousands of
# lanes a look takes some 20 to 40 ms.
_FIRST_LOOK = 0.4
# The least instructions that tell how a pass runs, and the part of them in SIMD registers with which all is well.
_TELLING = 1_000_000
_MOSTLY = 0.5
# Slices of a probe, in quarters of what a lane ran so far over _SLICES; different, so that no period of a loop hides.
_LENGTHS = (3, 5, 4)
_SLICES = 64
_SHORTEST, _LONGEST = 2_000, 1 << 18
# Groups that are looked at first.
_PROBED = 32
# Lanes of a group that have to agree afterwards, and how many times as many as before.
_AGREEING = 0.75
_GAIN = 1.5
# Moving lanes there and back may take this part of the time that the pass has taken, or of what it will by what the
# lanes took that have stopped.
_OF_SPENT, _OF_EXPECTED = 1 / 20, 1 / 8
# What it takes before it was measured, in seconds for a resident byte.
_FIRST_COST = 4e-9
# Seconds until lanes that were moved are looked at again: code for their groups may have to be compiled first.
_SETTLING = 0.25


def agreement(keys: Keys, lanes: int) -> float:
    """The mean part of a group's lanes that have the most frequent key, over samples; lanes with negative keys do not
    count.

    keys: (samples, n) with n a multiple of `lanes`, a group's; negative ones are all different.
    """
    found = np.sort(keys.reshape(len(keys), -1, lanes), axis=-1)
    running = (found >= 0).sum(axis=-1)
    most = (running > 0).astype(np.int64)
    for distance in range(1, lanes):
        most += (found[..., distance:] == found[..., :-distance]).any(axis=-1)
    return float(most.sum() / max(running.sum(), 1))


def order_by(keys: Keys) -> Lanes:
    """Lanes with equal keys one after the other, those that do not run last: at each place the lane to be there.

    keys: (samples, lanes), the first sample counts most.
    """
    stopped = (keys < 0).any(axis=0)
    return np.lexsort((*np.where(stopped, 0, keys)[::-1], stopped))


def promises(keys: Keys, lanes: int) -> bool:
    """Whether an order by all samples but the last would make groups of so many lanes agree in the last."""
    last = keys[-1:]
    after = agreement(last[:, order_by(keys[:-1])], lanes)
    return after >= _AGREEING and after >= _GAIN * agreement(last, lanes)


def hot_loops(space: CodeSpace) -> list[tuple[int, int]]:
    """(first address, end) of the loops in compiled code, each loop before those inside it."""
    ends: dict[int, int] = {}
    for pc in list(space.covered):
        block = space.block(pc)
        for target in block.successors():
            if target <= pc and not is_call(block):
                ends[target] = max(ends.get(target, 0), block.end)
    return sorted(ends.items())


class Runner(Protocol):
    """What an engine does for its regrouping."""

    spaces: list[CodeSpace]

    def serve_code(self) -> None:
        """Have the code that lanes stopped for."""

    def separate(self, groups: Lanes) -> None:
        """Lay out the memory of these groups' lanes apart."""

    def vectored(self) -> int:
        """Instructions so far in SIMD registers."""

    def undisturbed(self, job: Callable[[], None]) -> None:
        """Do something that no interrupt may leave half done."""


class Regrouping:
    """The regrouping of one machine's lanes. `count`: how often they were regrouped."""

    def __init__(self, state: LaneState, memory: LaneMemory, runner: Runner) -> None:
        self.count = 0
        self._state = state
        self._memory = memory
        self._runner = runner
        # Half of the flag is for calling the workers back, half for what ends the pass: neither clears the other.
        self._recall = state.attention.view(np.int16)[1:]
        self._look_at = float("inf")
        self._patience = _FIRST_LOOK
        self._byte_cost = _FIRST_COST
        self._lane_at = np.arange(state.lanes)
        self.displaced = False
        self._began = 0.0
        self._since = self._moved = (0.0, 0, 0)
        self._pace_before = 0.0
        self._spent = 0.0

    def run_pass(self, lanes: Lanes, run: Callable[[Lanes, int], None]) -> None:
        """Let lanes run until all have stopped, one needs code, or something ends the run.

        `run` does that for lanes by their seats, but comes back when `poll` finds that they should be thought over.
        Given a number that is not 0, it runs them one by one, each for so many instructions.
        """
        self._run = run
        self._began = time.perf_counter()
        self._retired = self._state.retired.copy()
        self._look_at = self._began + self._patience
        self._mark()
        try:
            while len(lanes):
                self._run(lanes, 0)
                if self._recall[0]:
                    self._recall[0] = 0
                    if self._attention:
                        break
                    self._reconsider()
                elif self.displaced and not self._attention and (self._state.stop == STOP_NEED_CODE).any():
                    self._runner.serve_code()
                else:
                    break
                lanes = (self._state.stop == STOP_RUNNING).nonzero()[0]
            self._conclude()
        finally:
            self._look_at = float("inf")
            self._recall[0] = 0
            del self._run
            self._put_back()

    def poll(self) -> None:
        """While lanes run: call the workers back if the groups should be thought over."""
        now = time.perf_counter()
        if now < self._look_at:
            return
        work, vectored = self._progress()
        if work < _TELLING:
            return
        if vectored > _MOSTLY * work or not self._memory.movable or not self._affordable():
            self._look_at = now + max(_FIRST_LOOK, (now - self._began) / 4)
            self._mark()
        else:
            self._look_at = float("inf")
            self._recall[0] = 1

    # -- what is known of the pass

    @property
    def _attention(self) -> bool:
        return bool(self._state.attention[0])

    def _mark(self) -> None:
        """Count from here on."""
        self._since = (time.perf_counter(), int(self._state.retired.sum()), self._runner.vectored())

    def _progress(self) -> tuple[int, int]:
        """(instructions, those of them in SIMD registers) since the last mark."""
        _, retired, vectored = self._since
        return int(self._state.retired.sum()) - retired, self._runner.vectored() - vectored

    def _pace(self, since: tuple[float, int, int]) -> float:
        """Instructions a second since a mark."""
        return (int(self._state.retired.sum()) - since[1]) / max(time.perf_counter() - since[0], 1e-9)

    def _ran(self) -> NDArray[np.int64]:
        """Instructions of each lane in this pass, by seats."""
        ran: NDArray[np.int64] = (self._state.retired - self._retired[self._lane_at]).astype(np.int64)
        return ran

    def _affordable(self) -> bool:
        """Whether moving lanes there and back may be paid now."""
        running = self._state.stop == STOP_RUNNING
        ran = self._ran()
        stopped = ~running & (ran > 0)
        whole = float(ran[stopped].mean()) if stopped.any() else 0.0
        spent = time.perf_counter() - self._began
        expected = (whole * running.sum() - ran[running].sum()) * spent / max(ran.sum(), 1)
        return self._byte_cost * self._memory.resident_bytes() <= max(_OF_SPENT * spent, float(_OF_EXPECTED * expected))

    # -- thinking it over; no lane runs

    def _reconsider(self) -> None:
        self._look_at = float("inf")
        if not self.displaced:
            self._pace_before = self._pace(self._since)
        elif self._pace(self._moved) < self._pace_before:
            self._patience *= 2
            self._put_back()
            return
        order = self._better_order()
        if order is None:
            self._patience *= 2
        else:
            self._move(order)
            self.count += 1
        self._mark()
        if order is not None:
            self._moved = self._since
        self._look_at = self._since[0] + max(self._patience, _SETTLING if self.displaced else 0)

    def _better_order(self) -> Lanes | None:
        """The lane (its seat) for each seat, if another order pays."""
        size = self._memory.group
        whole = self._state.lanes // size
        groups = (self._state.stop[: whole * size].reshape(whole, size) == STOP_RUNNING).any(axis=1).nonzero()[0]
        if len(groups) < 2:
            return None
        loops = {int(i): hot_loops(self._runner.spaces[i]) for i in np.unique(self._state.code_index)}
        length = int(np.clip(self._ran().max() // _SLICES, _SHORTEST, _LONGEST))
        step = -(-len(groups) // _PROBED)
        parts: list[tuple[Lanes, Keys]] = []
        for part in (groups[::step], np.delete(groups, slice(None, None, step))):
            keys = self._sample(part, length, loops)
            if keys is None or (not parts and not promises(keys, size)):
                return None
            parts.append((self._seats_of(part), keys))
        seats, keys = (np.concatenate(found, axis=-1) for found in zip(*parts, strict=True))
        forward = np.argsort(seats)
        seats, keys = seats[forward], keys[:, forward]
        if not promises(keys, size):
            return None
        order = np.arange(self._state.lanes)
        order[seats] = seats[order_by(keys)]
        return order

    def _sample(self, groups: Lanes, length: int, loops: dict[int, list[tuple[int, int]]]) -> Keys | None:
        """In which loop the lanes of groups are after each of some short slices, (slices, lanes); None if something
        ended them."""
        lanes = self._seats_of(groups)
        if self._memory.groups[groups, GroupState.INTERLEAVED // 8].any():
            self._runner.undisturbed(lambda: self._runner.separate(groups))
        rows = []
        for quarters in _LENGTHS:
            self._run_slice(lanes, length * quarters // 4)
            if self._attention:
                return None
            rows.append(self._keys(lanes, loops))
        return np.array(rows)

    def _run_slice(self, lanes: Lanes, length: int) -> None:
        """Run each lane for so many instructions, fewer where code was missing."""
        state = self._state
        before = state.retired[lanes]
        while len(rest := lanes[(state.stop[lanes] == STOP_RUNNING) & (state.retired[lanes] == before)]):
            self._run(rest, length)
            if self._attention:
                return
            if (state.stop[lanes] == STOP_NEED_CODE).any():
                self._runner.serve_code()

    def _seats_of(self, groups: Lanes) -> Lanes:
        size = self._memory.group
        return (groups[:, None] * size + np.arange(size)).reshape(-1)

    def _keys(self, lanes: Lanes, loops: dict[int, list[tuple[int, int]]]) -> Keys:
        """Equal for lanes in the same loop of the same code; negative for those that do not run."""
        state = self._state
        pcs, codes = state.pc[lanes], state.code_index[lanes]
        keys = codes.astype(np.int64) << 32
        for code, inside in loops.items():
            for number, (first, end) in enumerate(inside, 1):
                # Loops inside come later.
                keys[(codes == code) & (pcs >= np.uint64(first)) & (pcs < np.uint64(end))] = code << 32 | number
        return np.where(state.stop[lanes] == STOP_RUNNING, keys, -1 - lanes)

    # -- moving

    def _move(self, order: Lanes) -> None:
        """Have the lane at seat order[i] at seat i."""
        size = self._memory.group
        touched = np.unique((order != np.arange(len(order))).nonzero()[0] // size)
        began = time.perf_counter()

        def move() -> None:
            self._runner.separate(touched)
            self._memory.groups[touched] = 0
            self._state.rearrange(order)
            self._memory.rearrange(order)
            self._lane_at = self._lane_at[order]
            self.displaced = bool((self._lane_at != np.arange(len(order))).any())

        self._runner.undisturbed(move)
        self._spent = time.perf_counter() - began

    def _put_back(self) -> None:
        if self.displaced:
            there = self._spent
            self._move(np.argsort(self._lane_at))
            self._byte_cost = (there + self._spent) / max(self._memory.resident_bytes(), 1)

    def _conclude(self) -> None:
        """How long to wait in the next pass, by how this one went."""
        if self.displaced:
            pays = self._pace(self._moved) > self._pace_before
            self._patience = _FIRST_LOOK if pays else 2 * self._patience
