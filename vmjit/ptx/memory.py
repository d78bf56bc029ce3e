"""Device memory: the host arrays that kernels may reach, at their host addresses; every access is checked.

Generic, global, shared and local addresses are all host addresses (PTX ISA, "Generic Addressing").
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.errors import ArgumentError
from vmjit.ptx.errors import LaneFault

Addresses = NDArray[np.uint64]

_SHIFT = {1: 0, 2: 1, 4: 2, 8: 3}
_UNSIGNED: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_SEARCHED_FIRST = 4  # a segment found behind this many others moves to the front


class Segment:
    """Some bytes at consecutive addresses, readable and perhaps writable.

    With a `period` (a power of two), only the first `used` bytes of every period are there: private pieces of many
    threads or blocks with gaps between, so that running over the end of one's own piece is noticed.
    """

    __slots__ = ("_views", "base", "bytes", "end", "name", "owner", "period", "space", "used", "writable")

    def __init__(
        self,
        content: NDArray[np.uint8],
        name: str,
        *,
        space: str = "global",
        writable: bool = True,
        owner: object = None,
        period: int = 0,
        used: int = 0,
    ) -> None:
        self.bytes, self.name, self.space, self.writable = content, name, space, writable
        self.owner = owner  # kept alive as long as the segment
        self.base = int(content.ctypes.data)
        self.end = self.base + content.nbytes
        self.period, self.used = period, used
        self._views: dict[int, tuple[NDArray[Any], int]] = {}

    def view(self, size: int) -> tuple[NDArray[Any], int]:
        """The naturally aligned values of `size` bytes in it, and the address of the first."""
        found = self._views.get(size)
        if found is None:
            skip = -self.base % size  # an oddly placed array: the aligned part of it
            aligned = self.bytes[skip:]
            values = aligned[: aligned.nbytes // size * size].view(_UNSIGNED[size])
            found = self._views[size] = (values, self.base + skip)
        return found

    def holds(self, addresses: Addresses, size: int) -> NDArray[np.bool_]:
        """Which accesses lie inside."""
        if self.end - self.base < size:
            return np.zeros(len(addresses), np.bool_)
        inside: NDArray[np.bool_] = (addresses >= np.uint64(self.base)) & (addresses <= np.uint64(self.end - size))
        if self.period:
            inside &= ((addresses - np.uint64(self.base)) & np.uint64(self.period - 1)) <= np.uint64(self.used - size)
        return inside

    def __repr__(self) -> str:
        return f"{self.name} [{self.base:#x}, {self.end:#x})"


class DeviceMemory:
    """The arrays registered for kernels. One may serve several modules; not for several threads at once."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []

    def add(self, array: NDArray[Any], name: str = "", writable: bool | None = None) -> Segment:
        """Lets kernels reach all bytes between the first and the last of an array, which is kept alive.

        Whether they may write is the array's own flag unless said otherwise. Raises `ArgumentError` for an array of
        Python objects, and for one that is to be written but is read-only.
        """
        if array.dtype.hasobject:
            raise ArgumentError(f"an array of {array.dtype} holds Python objects, not memory for a kernel")
        if writable is None:
            writable = bool(array.flags.writeable)
        elif writable and not array.flags.writeable:
            raise ArgumentError("kernels cannot write to a read-only array")
        name = name or f"array {array.dtype}{list(array.shape)}"
        return self.insert(Segment(_bytes_of(array), name, writable=writable, owner=array))

    def remove(self, what: Segment | NDArray[Any]) -> None:
        """Takes away what `add` gave, by its segment or its array. Raises `ArgumentError` where it is not there."""
        for index, segment in enumerate(self.segments):
            if segment is what or segment.owner is what:
                del self.segments[index]
                return
        raise ArgumentError("no such array is registered")

    def insert(self, segment: Segment) -> Segment:
        self.segments.insert(0, segment)
        return segment

    @contextlib.contextmanager
    def temporary(self) -> Iterator[None]:
        """What is added inside is gone afterwards."""
        before = set(map(id, self.segments))
        try:
            yield
        finally:
            self.segments = [segment for segment in self.segments if id(segment) in before]

    def load(self, addresses: Addresses, size: int) -> NDArray[Any]:
        """The unsigned values of `size` bytes at the addresses (one or more). Raises `LaneFault`."""
        segment = self._common_segment(addresses, size, store=False)
        if segment is not None:
            values, first = segment.view(size)
            result: NDArray[Any] = values.take(_index(addresses, first, size))
            return result
        result = np.empty(len(addresses), _UNSIGNED[size])
        for segment, lanes in self._by_segment(addresses, size, store=False):
            values, first = segment.view(size)
            result[lanes] = values[_index(addresses[lanes], first, size)]
        return result

    def store(self, addresses: Addresses, data: Any, size: int) -> None:
        """Stores unsigned values; of several lanes at one address the last wins. Raises `LaneFault`."""
        segment = self._common_segment(addresses, size, store=True)
        if segment is not None:
            values, first = segment.view(size)
            values[_index(addresses, first, size)] = data
            return
        data = np.broadcast_to(data, addresses.shape)
        for segment, lanes in list(self._by_segment(addresses, size, store=True)):
            values, first = segment.view(size)
            values[_index(addresses[lanes], first, size)] = data[lanes]

    def check(self, addresses: Addresses, size: int, *, store: bool) -> None:
        """Raises `LaneFault` if one of the accesses is not allowed."""
        if self._common_segment(addresses, size, store=store) is None:
            for _ in self._by_segment(addresses, size, store=store):
                pass

    def read_text(self, address: int) -> bytes:
        """The bytes from an address to the zero that ends them. Raises `LaneFault` where there is none."""
        for segment in self.segments:
            if segment.base <= address < segment.end:
                text, zero, _ = segment.bytes[address - segment.base :].tobytes().partition(b"\0")
                if zero:
                    return text
        raise LaneFault(f"no text ended by a zero at {address:#x}", address=address)

    def _common_segment(self, addresses: Addresses, size: int, *, store: bool) -> Segment | None:
        """The one segment that holds all the accesses, if there is one and it allows them."""
        low, high = int(addresses.min()), int(addresses.max()) + size
        if size > 1 and (addresses & np.uint64(size - 1)).any():
            self._misaligned(addresses, size, store=store)
        for index, segment in enumerate(self.segments):
            if segment.base <= low and high <= segment.end and (segment.writable or not store):
                if segment.period and not segment.holds(addresses, size).all():
                    return None
                if index >= _SEARCHED_FIRST:
                    self.segments.insert(0, self.segments.pop(index))
                return segment
        return None

    def _by_segment(
        self, addresses: Addresses, size: int, *, store: bool
    ) -> Iterator[tuple[Segment, NDArray[np.intp]]]:
        """Segments with the lanes that access them; each lane once."""
        left = np.arange(len(addresses))
        for segment in list(self.segments):
            if store and not segment.writable:
                continue
            hit = segment.holds(addresses[left], size)
            if hit.any():
                yield segment, left[hit]
                left = left[~hit]
                if not len(left):
                    return
        self._outside(addresses, left, size, store=store)

    @staticmethod
    def _misaligned(addresses: Addresses, size: int, *, store: bool) -> None:
        lane = int(np.flatnonzero(addresses & np.uint64(size - 1))[0])
        address = int(addresses[lane])
        raise LaneFault(f"{_kind(store)} of {size} bytes is misaligned at {address:#x}", lane, address)

    def _outside(self, addresses: Addresses, lanes: NDArray[np.intp], size: int, *, store: bool) -> None:
        lane = int(lanes[0])
        address = int(addresses[lane])
        for segment in self.segments:
            if (
                segment.base <= address
                and address + size <= segment.end
                and segment.holds(addresses[lanes[:1]], size)[0]
            ):
                raise LaneFault(f"store to read-only {segment.name} at {address:#x}", lane, address)
        nearest = min(self.segments, key=lambda s: min(abs(s.base - address), abs(s.end - address)), default="nothing")
        raise LaneFault(
            f"{_kind(store)} of {size} bytes at {address:#x} is outside every buffer"
            f" ({len(lanes)} of {len(addresses)} lanes); nearest: {nearest}",
            lane,
            address,
        )

    def explain(self, address: int, size: int, *, store: bool) -> str:
        """Why an access is not allowed, as it was found not to be by other means."""
        try:
            self.check(np.array([address], np.uint64), size, store=store)
        except LaneFault as fault:
            return fault.message
        return f"{_kind(store)} of {size} bytes at {address:#x} is not allowed"


def _kind(store: bool) -> str:
    return "store" if store else "load"


def _index(addresses: Addresses, first: int, size: int) -> NDArray[np.int64]:
    index: NDArray[np.int64] = (addresses - np.uint64(first)).view(np.int64) >> _SHIFT[size]
    return index


def _bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    """All bytes between the first and the last of an array, whatever its strides."""
    if array.flags.c_contiguous:
        return array.reshape(-1).view(np.uint8)
    low = high = int(array.ctypes.data)
    for length, stride in zip(array.shape, array.strides, strict=True):
        if length == 0:
            return np.zeros(0, np.uint8)
        low += min((length - 1) * stride, 0)
        high += max((length - 1) * stride, 0)
    size = high + array.itemsize - low
    return np.frombuffer(memoryview((ctypes.c_uint8 * size).from_address(low)), np.uint8)


# Linux on x86-64 alone has this flag; Python names it from 3.13 on.
_LOW_ADDRESSES = getattr(mmap, "MAP_32BIT", 0x40 if sys.platform == "linux" else 0)


def low_memory(size: int, fill: int = 0) -> NDArray[np.uint8]:
    """Fresh memory of `size` bytes, all `fill`, aligned to 256 bytes and below 4 GiB where the host can do that.

    Kernels may hold addresses of shared and local memory in 32 bits (PTX ISA, "cvta"): see `window_of`.
    """
    flags = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0) | _LOW_ADDRESSES
    try:
        array: NDArray[np.uint8] = np.frombuffer(mmap.mmap(-1, max(size, 1), flags=flags), np.uint8)[:size]
    except (OSError, ValueError, TypeError):
        array = _above(size)
    if fill:
        array[:] = fill
    return array


def _above(size: int) -> NDArray[np.uint8]:
    """Memory anywhere, but not across a multiple of 4 GiB."""
    whole = np.zeros(2 * size + 512, np.uint8)
    start = -int(whole.ctypes.data) % 256
    first = int(whole.ctypes.data) + start
    if first >> 32 != (first + size) >> 32:
        start += -first % (1 << 32)
    return whole[start : start + size]


def window_of(address: int) -> int:
    """The upper half of an address: what a 32-bit address of the same space lacks."""
    return address & ~0xFFFFFFFF
