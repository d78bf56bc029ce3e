"""The guest memory of all lanes by guest address: permissions, the shared image, and what each lane has for itself.

Where the lanes' own memory lies is said by `LaneMemory` (this computer, side by side at a fixed stride) and
`DeviceLaneMemory`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from vmjit.address_spaces import AddressSpaces
from vmjit.errors import ArgumentError, GuestAddressError
from vmjit.kernels.layout import PERMISSION_READ, PERMISSION_WRITE, Span
from vmjit.lane_state import index_of
from vmjit.memory_image import PAGE, LanePages, MemoryImage
from vmjit.memory_layout import MemoryLayout, MemorySpan

Bytes = NDArray[np.uint8]
Index = NDArray[np.integer]

# Pages of lanes that are written at once.
_PAGES_AT_ONCE = 1024


def span_table(layout: MemoryLayout) -> NDArray[np.uint64]:
    """The table of spans as kernels read it: one row a span, the fields of `Span`."""
    table = np.zeros((len(layout.spans), Span.BYTES // 8), np.uint64)
    for row, span in zip(table, layout.spans, strict=True):
        row[:] = (span.lo, span.end - 1, span.permissions, span.shared, span.offset)
    return table


class SpanMemory(ABC):
    """Access to the lanes' memory by guest address. `shared` is the image that all lanes read."""

    shared: Bytes

    def __init__(self, layout: MemoryLayout, lanes: int) -> None:
        self.layout = layout
        self.lanes = lanes
        self.program_image = MemoryImage.of_layout(layout)
        self.base = self.program_image
        """What lanes started from when their memory was last loaded."""
        self.spaces: AddressSpaces | None = None
        """What lanes may access, where that changes while they run."""

    # -- where the lanes' own memory lies

    @abstractmethod
    def _read_own(self, offset: int, size: int) -> Bytes:
        """(lanes, size): the same bytes of every lane's own memory."""

    @abstractmethod
    def _write_own(self, offset: int, data: Bytes) -> None:
        """Write (n,) or (lanes, n) to every lane's own memory."""

    @abstractmethod
    def _take(self, lanes: NDArray[np.int64], columns: NDArray[np.int64]) -> Bytes:
        """One byte of own memory for each pair of lane and offset."""

    @abstractmethod
    def _put(self, lanes: NDArray[np.int64], columns: NDArray[np.int64], data: Bytes) -> None:
        """Write one byte of own memory for each pair of lane and offset."""

    def _take_rows(self, lanes: NDArray[np.int64], offsets: NDArray[np.int64], size: int) -> Bytes:
        """(len(lanes), size): as many bytes of own memory of each lane, from its offset on."""
        columns = offsets[:, None] + np.arange(size)
        return self._take(np.repeat(lanes, size), columns.reshape(-1)).reshape(len(lanes), size)

    def _put_rows(self, lanes: NDArray[np.int64], offsets: NDArray[np.int64], rows: Bytes) -> None:
        """Write (len(lanes), size), a row for each lane, from its offset on."""
        columns = offsets[:, None] + np.arange(rows.shape[1])
        self._put(np.repeat(lanes, rows.shape[1]), columns.reshape(-1), rows.reshape(-1))

    @abstractmethod
    def own_bytes(self, span: MemorySpan, lanes: Index) -> Bytes:
        """What lanes hold in a span of their own, (len(lanes), span.size) uint8."""

    @abstractmethod
    def _shared_written(self, offset: int, size: int) -> None:
        """The shared image was changed there."""

    def shared_bytes(self, span: MemorySpan) -> Bytes:
        """What a shared span holds, (span.size,) uint8."""
        return self.shared[span.offset : span.offset + span.size]

    def fill(self) -> None:
        """Have every lane's memory and the shared image as the program has them."""
        self.shared[:] = 0
        for span in self.layout.spans:
            if span.shared:
                self.shared[span.offset : span.offset + len(span.data)] = np.frombuffer(span.data, np.uint8)
        self._shared_written(0, len(self.shared))
        self.load(self.program_image)

    # -- images: what lanes start from, and what they have changed

    @abstractmethod
    def _clear_own(self) -> None:
        """Zero into every lane's own memory."""

    def load(self, image: MemoryImage) -> None:
        """Have every lane's own memory as an image has it."""
        self._clear_own()
        for start, content in image.parts:
            self._write_own(start, content)
        self.base = image

    def changed_pages(self, lanes: NDArray[np.bool_] | None = None) -> LanePages:
        """The pages in which some lanes, or all, differ from the image."""
        wanted = np.arange(self.lanes) if lanes is None else np.flatnonzero(lanes)
        return self.base.unlike(wanted, lambda start, size: self._read_own(start, size)[wanted])

    def put_pages(self, pages: LanePages) -> None:
        """Write pages of lanes' own memory."""
        for start in range(0, len(pages.lanes), _PAGES_AT_ONCE):
            some = slice(start, start + _PAGES_AT_ONCE)
            lanes, offsets, rows = pages.lanes[some], pages.numbers[some] * PAGE, pages.contents[some]
            room = self.layout.private_bytes - offsets
            for size in np.unique(np.minimum(room, PAGE)).tolist():
                these = np.minimum(room, PAGE) == size
                self._put_rows(lanes[these], offsets[these], np.ascontiguousarray(rows[these, :size]))

    def renew(self, lanes: NDArray[np.bool_] | None) -> None:
        """Some lanes' own memory, or all, as the image has it."""
        others = LanePages.none() if lanes is None else self.changed_pages(~lanes)
        self.load(self.base)
        self.put_pages(others)

    def write_shared(self, data: Bytes) -> None:
        """The whole shared image."""
        self.shared[:] = data
        self._shared_written(0, len(self.shared))

    # -- access by the host: all lanes at one address

    def _pieces(self, address: int, size: int) -> list[tuple[MemorySpan, int, int]]:
        """(span, offset in its memory, bytes) that cover a range; GuestAddressError if some of it is not there."""
        pieces = []
        place = address
        while place < address + size:
            for span in self.layout.spans:
                if span.lo <= place < span.end:
                    count = min(span.end, address + size) - place
                    pieces.append((span, span.offset + place - span.lo, count))
                    place += count
                    break
            else:
                raise GuestAddressError(
                    f"guest address {place:#x} is outside the program's memory (wanted: {size} bytes at {address:#x})",
                    address=place,
                )
        return pieces

    def _is_far(self, address: int, size: int) -> bool:
        return self.spaces is not None and self.spaces.some_far and self.spaces.is_far(address, address + size)

    def _all_at(self, address: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64]]:
        """All lanes at one address, as `gather` takes them; GuestAddressError if some have no memory there."""
        assert self.spaces is not None
        lanes = np.arange(self.lanes)
        there = self.spaces.select(
            lanes, np.full(self.lanes, address), np.full(self.lanes, address + size), self.spaces.own_and_there
        )
        if not there.all():
            raise GuestAddressError(
                f"lane {int(np.argmin(there))} has no memory for {size} bytes at guest address {address:#x}",
                address=address,
            )
        return lanes, np.full(self.lanes, address, np.uint64), np.full(self.lanes, size, np.int64)

    def read(self, address: int, size: int) -> Bytes:
        """A copy, (lanes, size) uint8."""
        if self._is_far(address, size):
            data, _ = self.gather(*self._all_at(address, size), by_host=True)
            return data.reshape(self.lanes, size)
        pieces = self._pieces(address, size)
        result = np.empty((self.lanes, size), np.uint8)
        start = 0
        for span, offset, count in pieces:
            part = self.shared[offset : offset + count] if span.shared else self._read_own(offset, count)
            result[:, start : start + count] = part
            start += count
        return result

    def write(self, address: int, data: Bytes) -> tuple[list[MemorySpan], list[MemorySpan]]:
        """Write (n,) for all lanes or (lanes, n). Gives (spans touched, shared spans that need other bytes by lane);
        nothing is written if there are any of the latter."""
        size = data.shape[-1]
        if self._is_far(address, size):
            rows = np.broadcast_to(data, (self.lanes, size)).reshape(-1)
            self.scatter(*self._all_at(address, size), rows, by_host=True)
            return [], []
        pieces = self._pieces(address, size)
        split = [span for span, _, _ in pieces if span.shared] if data.ndim == 2 and self.lanes > 1 else []
        if split and not bool((data == data[0]).all()):
            return [], split
        start = 0
        for span, offset, count in pieces:
            part = data[..., start : start + count]
            start += count
            if span.shared:
                self.shared[offset : offset + count] = part if part.ndim == 1 else part[0]
                self._shared_written(offset, count)
            else:
                self._write_own(offset, part)
        return [span for span, _, _ in pieces], []

    # -- access by the environment: another address in each lane

    def gather(
        self, lanes: Index, addresses: NDArray[np.uint64], sizes: NDArray[np.int64], *, by_host: bool = False
    ) -> tuple[Bytes, NDArray[np.bool_]]:
        """Bytes [address, address + size) of each lane, one after the other, and which lanes had them all.

        Lanes whose range is not readable as a whole give no bytes. With `by_host`, what their mappings say does not
        count.
        """
        allowed = None if by_host else self._allowed_if_not_all(lanes, addresses, sizes, PERMISSION_READ)
        addresses = self._nearby(lanes, addresses, sizes)
        if allowed is None:
            return self._ragged(lanes, addresses, sizes, PERMISSION_READ, None)
        data, good = self._ragged(lanes, addresses, np.where(allowed, sizes, 0), PERMISSION_READ, None)
        return data, good & allowed

    def scatter(
        self,
        lanes: Index,
        addresses: NDArray[np.uint64],
        sizes: NDArray[np.int64],
        data: Bytes,
        *,
        by_host: bool = False,
    ) -> NDArray[np.bool_]:
        """Write `data`, the lanes' bytes one after the other; gives which lanes could be written as a whole.

        Lanes that could not are left as they were. With `by_host`, what their mappings say does not count.
        """
        allowed = None if by_host else self._allowed_if_not_all(lanes, addresses, sizes, PERMISSION_WRITE)
        addresses = self._nearby(lanes, addresses, sizes)
        if allowed is None:
            return self._ragged(lanes, addresses, sizes, PERMISSION_WRITE, data)[1]
        data = data[np.repeat(allowed, sizes.clip(0))]
        return self._ragged(lanes, addresses, np.where(allowed, sizes, 0), PERMISSION_WRITE, data)[1] & allowed

    def _nearby(self, lanes: Index, addresses: NDArray[np.uint64], sizes: NDArray[np.int64]) -> NDArray[np.uint64]:
        return addresses if self.spaces is None else self.spaces.nearby(lanes, addresses, sizes)

    def _allowed_if_not_all(
        self, lanes: Index, addresses: NDArray[np.uint64], sizes: NDArray[np.int64], permission: int
    ) -> NDArray[np.bool_] | None:
        """Which lanes' mappings allow an access, if there are some that do not."""
        if self.spaces is None:
            return None
        allowed = self.spaces.permitted(lanes, addresses, sizes, permission)
        return None if allowed.all() else allowed

    def _ragged(
        self, lanes: Index, addresses: NDArray[np.uint64], sizes: NDArray[np.int64], permission: int, data: Bytes | None
    ) -> tuple[Bytes, NDArray[np.bool_]]:
        some = np.flatnonzero(sizes > 0)
        if not len(some):
            return np.zeros(0, np.uint8), np.ones(len(sizes), bool)
        good, offsets, in_shared = self._inside_one_run(addresses, sizes, permission)
        if good.all() and not in_shared.any() and (sizes[some] == sizes[some[0]]).all():
            # As lanes that do the same have it; some may have come to the end of their input.
            size, having = int(sizes[some[0]]), index_of(some)
            these = np.asarray(lanes, np.int64)[having]
            if data is None:
                return self._take_rows(these, offsets[having], size).reshape(-1), good
            self._put_rows(these, offsets[having], data.reshape(len(these), size))
            return data, good
        lengths = np.where(good, sizes, 0).clip(0)
        starts = np.cumsum(lengths) - lengths
        within = np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
        column = np.repeat(offsets, lengths) + within
        row = np.repeat(np.asarray(lanes, np.int64), lengths)
        shared_byte = np.repeat(in_shared, lengths)
        if not good.all():
            # Ranges across spans that do not lie side by side on the host: few, so one after the other.
            parts = [np.stack([column, shared_byte])[:, starts[i] : starts[i] + lengths[i]] for i in range(len(lanes))]
            for i in np.flatnonzero(~good):
                piece = self._across_runs(int(lanes[i]), int(addresses[i]), int(sizes[i]), permission)
                if piece is not None:
                    parts[i], good[i] = piece, True
            lengths = np.where(good, sizes, 0).clip(0)
            starts = np.cumsum(lengths) - lengths
            within = np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
            column, shared_part = np.concatenate([*parts, np.zeros((2, 0), np.int64)], axis=1)
            shared_byte = shared_part.astype(bool)
            row = np.repeat(np.asarray(lanes, np.int64), lengths)
        if data is None:
            result = np.empty(len(column), np.uint8)
            own = ~shared_byte
            result[own] = self._take(row[own], column[own])
            result[shared_byte] = self.shared[column[shared_byte]]
            return result, good
        source_starts = np.cumsum(sizes.clip(0)) - sizes.clip(0)
        self._put(row, column, data[np.repeat(source_starts, lengths) + within])
        return data, good

    def _inside_one_run(
        self, addresses: NDArray[np.uint64], sizes: NDArray[np.int64], permission: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.bool_]]:
        """(which ranges lie in one run of memory or are empty, their offsets there, whether that is shared)."""
        if (addresses == addresses[0]).all() and (sizes == sizes[0]).all():
            return self._inside_at(int(addresses[0]), int(sizes[0]), permission, len(addresses))
        good = sizes <= 0
        offsets = np.zeros(len(addresses), np.int64)
        in_shared = np.zeros(len(addresses), bool)
        for lo, end, shared, offset in self._runs(permission):
            last = np.uint64(end - 1)  # a run may end at the top of the address space
            inside = (sizes > 0) & (addresses >= np.uint64(lo)) & (addresses <= last)
            room = last - np.where(inside, addresses, last)
            inside &= (sizes - 1).clip(0).astype(np.uint64) <= room
            offsets[inside] = (addresses[inside] - np.uint64(lo)).astype(np.int64) + offset
            in_shared[inside] = shared
            good |= inside
        return good, offsets, in_shared

    def _inside_at(
        self, address: int, size: int, permission: int, count: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.bool_]]:
        """The same for `count` times one range that is not empty."""
        for lo, end, shared, offset in self._runs(permission):
            if lo <= address and address + size <= end:
                found = np.full(count, address - lo + offset, np.int64)
                return np.ones(count, bool), found, np.full(count, shared)
        return np.zeros(count, bool), np.zeros(count, np.int64), np.zeros(count, bool)

    def _across_runs(self, lane: int, address: int, size: int, permission: int) -> NDArray[np.int64] | None:
        """(2, size): the offset of each byte of a lane's range, and 1 where it is shared; None if some of it is not
        there."""
        parts = []
        end = address + size
        runs = self._runs(permission)
        if (spaces := self.spaces) is not None:
            behind = spaces.of(lane).behind(address, end)
            runs += [(first, last, False, spaces.offset_of(place)) for first, last, place in behind]
        while address < end:
            for lo, run_end, shared, offset in runs:
                if lo <= address < run_end:
                    count = min(run_end, end) - address
                    columns = np.arange(count) + (offset + address - lo)
                    parts.append(np.stack([columns, np.full(count, int(shared))]))
                    address += count
                    break
            else:
                return None
        return np.concatenate(parts, axis=1)

    def _runs(self, permission: int) -> list[tuple[int, int, bool, int]]:
        """Stretches of guest memory with a permission whose bytes lie side by side on the host."""
        runs: list[tuple[int, int, bool, int]] = []
        for span in self.layout.spans:
            if not span.permissions & permission or (permission == 2 and span.shared):
                continue
            if runs:
                lo, end, shared, offset = runs[-1]
                if end == span.lo and shared == span.shared and offset + end - lo == span.offset:
                    runs[-1] = (lo, span.end, shared, offset)
                    continue
            runs.append((span.lo, span.end, span.shared, span.offset))
        return runs


def as_bytes(data: bytes | bytearray | memoryview | Bytes, lanes: int) -> Bytes:
    """What `machine.memory.write` accepts, as (n,) or (lanes, n) uint8; ArgumentError for anything else."""
    if isinstance(data, bytes | bytearray | memoryview):
        return np.frombuffer(bytes(data), np.uint8)
    array = np.asarray(data)
    if array.dtype != np.uint8:
        raise ArgumentError(f"memory is written as bytes or a uint8 array, got dtype {array.dtype}")
    if array.ndim == 1:
        return array
    if array.ndim != 2 or array.shape[0] != lanes:
        raise ArgumentError(f"expected an array of shape (n,) or ({lanes}, n), got {array.shape}")
    return array
