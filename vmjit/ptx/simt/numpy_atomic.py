"""Atomic operations of many lanes at once, as if the lanes came one after another in their order (PTX ISA, "atom")."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.ptx.memory import Addresses, DeviceMemory
from vmjit.ptx.simt.numpy_float import canonical_nan

Lanes = NDArray[Any]
Combine = Callable[[Lanes, Lanes, Lanes], Lanes]  # old value, operand, second operand (of cas) to new value


def _add(old: Lanes, operand: Lanes, _: Lanes) -> Lanes:
    total = old + operand
    result: Lanes = canonical_nan(total) if total.dtype == np.float32 else total
    return result


def _increment(old: Lanes, limit: Lanes, _: Lanes) -> Lanes:
    result: Lanes = np.where(old >= limit, old.dtype.type(0), old + old.dtype.type(1))
    return result


def _decrement(old: Lanes, limit: Lanes, _: Lanes) -> Lanes:
    return np.where((old == 0) | (old > limit), limit, old - old.dtype.type(1))


OPERATIONS: dict[str, Combine] = {
    "add": _add,
    "and": lambda old, operand, _: np.bitwise_and(old, operand),
    "or": lambda old, operand, _: np.bitwise_or(old, operand),
    "xor": lambda old, operand, _: np.bitwise_xor(old, operand),
    "min": lambda old, operand, _: np.minimum(old, operand),
    "max": lambda old, operand, _: np.maximum(old, operand),
    "exch": lambda old, operand, _: operand,
    "cas": lambda old, expected, new: np.where(old == expected, new, old),
    "inc": _increment,
    "dec": _decrement,
}

# Those that many lanes at one address can do in one pass.
ACCUMULATIONS: dict[str, np.ufunc] = {
    "add": np.add,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "min": np.minimum,
    "max": np.maximum,
}


class _Site:
    """One atomic instruction as executed by some lanes."""

    def __init__(self, memory: DeviceMemory, addresses: Addresses, result: Any, operation: str) -> None:
        self.memory, self.addresses, self.type, self.operation = memory, addresses, result, operation
        self.size = np.dtype(result).itemsize

    def load(self, lanes: Any) -> Lanes:
        return self.memory.load(self.addresses[lanes], self.size).view(self.type)

    def store(self, lanes: Any, values: Lanes) -> None:
        self.memory.store(self.addresses[lanes], np.asarray(values, self.type).view(f"u{self.size}"), self.size)


def apply(memory: DeviceMemory, addresses: Addresses, result: Any, operation: str, a: Lanes, b: Lanes | None) -> Lanes:
    """Performs an atomic operation in every lane and returns the old values, of dtype `result`.

    `a` is the first operand, `b` the second one of a compare-and-swap. Raises `LaneFault`.
    """
    lanes = len(addresses)
    site = _Site(memory, addresses, result, operation)
    memory.check(addresses, site.size, store=True)
    a = np.broadcast_to(a, (lanes,)).astype(result, copy=False)
    b = a if b is None else np.broadcast_to(b, (lanes,))
    order = np.argsort(addresses, kind="stable")
    sorted_addresses = addresses[order]
    is_first = np.ones(lanes, np.bool_)
    is_first[1:] = sorted_addresses[1:] != sorted_addresses[:-1]
    starts = np.flatnonzero(is_first)
    if len(starts) == lanes:
        old = site.load(slice(None))
        site.store(slice(None), OPERATIONS[operation](old, a, b))
        return old
    lengths = np.diff(np.append(starts, lanes))
    by_address = _BY_ADDRESS.get(operation)
    worthwhile = operation == "exch" or len(starts) <= lengths.max()
    if operation == "cas":
        worthwhile = worthwhile and bool((a == a[0]).all() and (b == b[0]).all())
    if by_address is not None and worthwhile:
        old = np.empty(lanes, result)
        for start, length in zip(starts, lengths, strict=True):
            by_address(site, order[start : start + length], a, b, old)
        return old
    return _in_rounds(site, order, np.arange(lanes) - np.repeat(starts, lengths), a, b)


def _in_rounds(site: _Site, order: NDArray[np.intp], rank: NDArray[np.intp], a: Lanes, b: Lanes) -> Lanes:
    """First the first lane of every address, then the second, and so on."""
    old = np.empty(len(order), site.type)
    for turn in range(int(rank.max()) + 1):
        lanes = order[rank == turn]
        before = site.load(lanes)
        site.store(lanes, OPERATIONS[site.operation](before, a[lanes], b[lanes]))
        old[lanes] = before
    return old


def _accumulate(site: _Site, lanes: NDArray[np.intp], a: Lanes, b: Lanes, old: Lanes) -> None:
    sums = ACCUMULATIONS[site.operation].accumulate(np.concatenate([site.load(lanes[:1]), a[lanes]]))
    if sums.dtype == np.float32:
        sums = canonical_nan(sums)
    old[lanes] = sums[:-1]
    site.store(lanes[:1], sums[-1:])


def _exchange(site: _Site, lanes: NDArray[np.intp], a: Lanes, b: Lanes, old: Lanes) -> None:
    old[lanes] = np.concatenate([site.load(lanes[:1]), a[lanes[:-1]]])
    site.store(lanes[:1], a[lanes[-1:]])


def _compare_and_swap(site: _Site, lanes: NDArray[np.intp], a: Lanes, b: Lanes, old: Lanes) -> None:
    """All lanes with the same operands: the first may swap, the others see what it left."""
    before = site.load(lanes[:1])
    after = OPERATIONS["cas"](before, a[:1], b[:1])
    old[lanes] = after[0]
    old[lanes[0]] = before[0]
    site.store(lanes[:1], after)


_BY_ADDRESS: dict[str, Callable[[_Site, NDArray[np.intp], Lanes, Lanes, Lanes], None]] = {
    **dict.fromkeys(ACCUMULATIONS, _accumulate),
    "exch": _exchange,
    "cas": _compare_and_swap,
}
