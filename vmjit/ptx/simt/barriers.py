"""Barriers of thread blocks (PTX ISA, "bar, barrier"): sixteen in each block, with or without a number of threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vmjit.ptx.errors import LaneFault
from vmjit.ptx.simt.wave import BARRIERS

if TYPE_CHECKING:
    from vmjit.ptx.simt.activation import Activation

Lanes = NDArray[Any]
Reduction = tuple[str, int, Lanes]  # popc, and, or; the register for the result; the predicates


@dataclass(slots=True, eq=False)
class _Arrived:
    """Lanes of an activation that came to one barrier instruction together."""

    following: int  # the block after the instruction
    lanes: Lanes
    numbers: Lanes  # which barrier
    threads: Lanes  # how many it waits for, 0 for all that have not ended
    reduction: Reduction | None


class Barriers:
    """The lanes of one activation that wait at barriers."""

    def __init__(self, activation: Activation) -> None:
        self._activation = activation
        self._arrived: list[_Arrived] = []

    @property
    def waiting(self) -> bool:
        return bool(self._arrived)

    @property
    def first_block(self) -> int:
        """The block that the lanes waiting longest have finished."""
        return self._arrived[0].following - 1

    def wait(
        self, following: int, lanes: Lanes | None, numbers: Lanes, threads: Lanes, reduction: Reduction | None
    ) -> None:
        """Lets lanes wait. Raises `LaneFault` for a barrier that is not there."""
        _check(numbers)
        self._arrived.append(_Arrived(following, self._activation.numbers(lanes), numbers, threads, reduction))

    def arrive(self, lanes: Lanes | None, numbers: Lanes, guard: Lanes | None) -> None:
        """bar.arrive: counts lanes that do not wait."""
        _check(numbers)
        keys = self._keys(self._activation.numbers(lanes), numbers)
        arrivals = self._activation.wave.arrivals
        arrivals += np.bincount(keys if guard is None else keys[guard], minlength=len(arrivals))

    def _keys(self, lanes: Lanes, numbers: Lanes) -> Lanes:
        """One number for each barrier of each block."""
        block = self._activation.pick(self._activation.wave.geometry.block_of, lanes)
        keys: Lanes = block * BARRIERS + numbers
        return keys

    def release(self) -> list[tuple[int, Lanes]]:
        """Lets go the lanes at every barrier that is complete: (block, lanes) to go on.

        To be called when no lane can run. Raises `LaneFault`, its position the number of a waiting lane, when no
        barrier is complete: the threads wait for ever.
        """
        lanes = np.concatenate([a.lanes for a in self._arrived])
        keys = self._keys(lanes, np.concatenate([a.numbers for a in self._arrived]).astype(np.int64))
        waiting = np.bincount(keys, minlength=self._activation.wave.geometry.blocks * BARRIERS)
        leaving = self._leaving(keys, waiting)
        go = (leaving == waiting)[keys]
        for key in np.flatnonzero((leaving > 0) & (leaving < waiting)):  # those that come first
            here = np.flatnonzero(keys == key)
            go[here[np.argsort(lanes[here], kind="stable")][: leaving[key]]] = True
        if not go.any():
            self._deadlock(lanes, keys)
        self._reduce(keys, go)
        return self._take(go)

    def _leaving(self, keys: Lanes, waiting: Lanes) -> Lanes:
        """How many of the lanes waiting at each barrier of each block can go; takes the arrivals that this needs."""
        wave = self._activation.wave
        running = np.bincount(wave.geometry.block_of[~wave.exited], minlength=wave.geometry.blocks)
        expected = np.repeat(running, BARRIERS)
        threads = np.concatenate([a.threads for a in self._arrived])
        if threads.any():
            expected[keys] = np.where(threads, threads, expected[keys])
            disagree = keys[threads != np.where(threads, expected[keys], 0)]
            waiting = waiting.copy()
            waiting[disagree] = 0  # threads that wait for different numbers of others wait for ever
        rounds = np.where(waiting > 0, (waiting + wave.arrivals) // np.maximum(expected, 1), 0)
        arrived = np.minimum(wave.arrivals, rounds * expected)
        wave.arrivals -= arrived
        leaving: Lanes = rounds * expected - arrived
        return leaving

    def _reduce(self, keys: Lanes, go: Lanes) -> None:
        """bar.red: the predicates of all lanes that leave a barrier together, combined for each of them."""
        if not any(a.reduction for a in self._arrived):
            return
        predicates = np.concatenate(
            [np.zeros(len(a.lanes), np.bool_) if a.reduction is None else a.reduction[2] for a in self._arrived]
        )
        true = np.bincount(keys[go], weights=predicates[go]).astype(np.int64)
        of = np.bincount(keys[go])
        start = 0
        for arrived in self._arrived:
            end = start + len(arrived.lanes)
            released = go[start:end]
            if arrived.reduction is not None and released.any():
                kind, destination, _ = arrived.reduction
                key = keys[start:end][released]
                result = true[key] if kind == "popc" else true[key] == of[key] if kind == "and" else true[key] > 0
                register = self._activation.registers[destination]
                register[arrived.lanes[released]] = result.astype(register.dtype)
            start = end

    def _take(self, go: Lanes) -> list[tuple[int, Lanes]]:
        left: list[_Arrived] = []
        released: list[tuple[int, Lanes]] = []
        start = 0
        for a in self._arrived:
            mine = go[start : start + len(a.lanes)]
            start += len(a.lanes)
            if mine.any():
                released.append((a.following, a.lanes[mine]))
            if not mine.all():
                stay = ~mine
                reduction = None if a.reduction is None else (*a.reduction[:2], a.reduction[2][stay])
                left.append(_Arrived(a.following, a.lanes[stay], a.numbers[stay], a.threads[stay], reduction))
        self._arrived = left
        return released

    def _deadlock(self, lanes: Lanes, keys: Lanes) -> None:
        """Raises the fault of threads that wait for ever."""
        first = self._arrived[0].lanes[0]
        block = int(keys[0]) // BARRIERS
        of_block = keys[keys // BARRIERS == block]
        if (of_block != of_block[0]).any():
            raise LaneFault("threads of a block wait at different barriers for ever: deadlock", int(first))
        wave = self._activation.wave
        alive = int(np.count_nonzero(~wave.exited[wave.geometry.block_of == block]))
        raise LaneFault(
            f"deadlock: {len(of_block)} of a block's {alive} running threads wait at a barrier that the others do not"
            " reach, in this activation of the function",
            int(first),
        )


def _check(numbers: Lanes) -> None:
    if (numbers >= BARRIERS).any():
        position = int(np.flatnonzero(numbers >= BARRIERS)[0])
        raise LaneFault(f"barrier {int(numbers[position])} of {BARRIERS}", position)
