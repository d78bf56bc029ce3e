"""The lanes' memory on this computer: rows side by side at a fixed stride, or interleaved within lane groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vmjit.host_memory import HostMemory, host_bytes
from vmjit.kernels.layout import Frame, GroupFrame, GroupState, MachineBlock
from vmjit.lane_rows import LaneRows
from vmjit.lane_state import index_of
from vmjit.memory_image import PAGE, LanePages, MemoryImage
from vmjit.memory_layout import MemoryLayout, MemorySpan
from vmjit.span_memory import Bytes, Index, SpanMemory, span_table

# A window takes accesses of up to 8 bytes whose offset is below its size minus 7.
_WIDEST = 8

# Lanes change their places where all of them have so many pages at most: each has a byte then.
_MOST_MOVABLE_PAGES = 1 << 24

# Groups are formed where what all lanes start from takes this part of the host's memory at most: interleaved, they
# share nothing of it.
_OF_HOST_MEMORY = 4

# Words of a group's interleaved memory are numbered in 32 bits.
_MOST_INTERLEAVED = 1 << 31


class LaneMemory(SpanMemory):
    """`rows` is (lanes, stride) uint8 on this computer.

    `external` is memory that somebody else owns, (lanes, n) uint8 and contiguous, for a layout whose private memory is
    one span without data.

    After `form_groups`, kernels may interleave the rows of `group` lanes by words where they lie
    (`kernels/interleaved.py`); `groups` says by group whether they are now, one row of `GroupState` each.
    """

    def __init__(self, layout: MemoryLayout, lanes: int, *, external: Bytes | None = None) -> None:
        super().__init__(layout, lanes)
        self.external = external is not None
        if external is None:
            self._own = LaneRows(lanes, layout.private_bytes)
            self.rows: Bytes = self._own.array
        else:
            self.rows = external
        self.group = 1
        self.groups = np.zeros((1, GroupState.BYTES // 8), np.int64)
        self._shared = HostMemory(layout.shared_bytes + _WIDEST)
        self.shared = self._shared.array[: layout.shared_bytes]
        self._spans = span_table(layout)
        self.fill()

    def reset(self) -> None:
        """Back to the loaded program. Costs what was touched, not what could be."""
        self.fill()

    def _clear_own(self) -> None:
        self.rows[:] = 0

    def load(self, image: MemoryImage) -> None:
        if self.external:
            if image.used_bytes:
                super().load(image)
            return
        # Where memory was interleaved, what pages hold is replaced all the same.
        self.groups[:, GroupState.INTERLEAVED // 8] = 0
        self._own.load(image)
        self.base = image

    def changed_pages(self, lanes: NDArray[np.bool_] | None = None) -> LanePages:
        """No lane that is asked for may lie interleaved."""
        return super().changed_pages(lanes) if self.external else self._own.changed(lanes)

    def renew(self, lanes: NDArray[np.bool_] | None) -> None:
        """All lanes of a group that lies interleaved have to be among them."""
        if self.external:
            super().renew(lanes)
            return
        if self._interleaved() is not None:
            groups = slice(None) if lanes is None else np.unique(np.flatnonzero(lanes) // self.group)
            self.groups[groups, GroupState.INTERLEAVED // 8] = 0
        self._own.renew(lanes)

    def give_back(self, lanes: NDArray[np.bool_]) -> None:
        """Have some lanes' own memory as the image has it, and what they had for themselves free. None of them may lie
        interleaved."""
        if not self.external:
            self._own.give_back(lanes)

    def in_groups_of(self, lanes: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """These lanes, and those that lie interleaved with some of them."""
        interleaved = self._interleaved()
        if interleaved is None:
            return lanes
        touched = np.zeros(len(self.groups), bool)
        touched[np.flatnonzero(lanes) // self.group] = True
        return lanes | (touched[np.arange(self.lanes) // self.group] & interleaved)

    def interleaved_groups(self) -> NDArray[np.intp]:
        """The groups whose memory is interleaved."""
        found: NDArray[np.intp] = np.flatnonzero(self.groups[:, GroupState.INTERLEAVED // 8])
        return found

    @property
    def groups_fit(self) -> bool:
        """Whether the host's memory would hold what all lanes start from, once for each."""
        return self.base.used_bytes * self.lanes <= host_bytes() // _OF_HOST_MEMORY

    def own_bytes_of_lanes(self) -> NDArray[np.int64]:
        """(lanes,): bytes that lanes have for themselves, as far as somebody knows."""
        pages = None if self.external else self._own.in_use()
        if pages is None or self.rows.shape[1] % PAGE:
            return np.full(self.lanes, self.rows.shape[1])
        return np.bincount(pages // self._own.pages_per_row, minlength=self.lanes) * PAGE

    def fill_frame(self, frame: NDArray[np.uint64]) -> None:
        """Write what accesses need to know to a worker's frame."""
        (lo0, size0, _), (lo1, size1, offset1) = self.layout.private_window, self.layout.shared_window
        for place, value in (
            (Frame.SHARED, self._shared.address),
            (Frame.SPANS, self._spans.ctypes.data),
            (Frame.SPAN_COUNT, len(self._spans)),
            (Frame.WINDOW0_LO, lo0),
            (Frame.WINDOW0_LIMIT, max(size0 - _WIDEST + 1, 0)),
            (Frame.WINDOW1_BASE, self._shared.address + offset1),
            (Frame.WINDOW1_LO, lo1),
            (Frame.WINDOW1_LIMIT, max(size1 - _WIDEST + 1, 0)),
        ):
            frame[place // 8] = value
        if (plan := self.layout.paged) is not None:
            frame[Frame.PAGES_LO // 8], frame[Frame.PAGES_SIZE // 8] = plan.lo, plan.size
            frame[Frame.HULL_LO // 8] = plan.hull_lo

    def fill_group_frame(self, frame: NDArray[np.uint64]) -> None:
        """Write what lane groups need to know to a worker's group frame."""
        frame[GroupFrame.SHARED // 8] = self._shared.address + self.layout.shared_window[2]

    def fill_block(self, block: NDArray[np.uint64]) -> None:
        block[MachineBlock.PRIVATE // 8] = self.rows.ctypes.data
        block[MachineBlock.PRIVATE_STRIDE // 8] = self.rows.strides[0] if self.lanes > 1 else self.rows.shape[1]
        block[MachineBlock.WINDOW0_OFFSET // 8] = self.layout.private_window[2]
        block[MachineBlock.GROUPS // 8] = self.groups.ctypes.data
        # Without groups, every lane is in the first.
        block[MachineBlock.GROUP_SHIFT // 8] = self.group.bit_length() - 1 if self.group > 1 else 63

        if (plan := self.layout.paged) is not None:
            end = self.layout.private_window[0] + self.layout.private_window[1]
            block[MachineBlock.HULL_OFFSET // 8] = plan.hull_offset
            block[MachineBlock.HULL_LIMIT // 8] = end - plan.hull_lo - _WIDEST + 1
            block[MachineBlock.HULL_BITS // 8] = (plan.hull_lo - plan.bits_lo) // PAGE // 8
            block[MachineBlock.SHARED_LIMIT // 8] = max(self.layout.shared_window[1] - _WIDEST + 1, 0)

    def fill_spaces(self, block: NDArray[np.uint64]) -> None:
        """Write where the lanes' address spaces are now, if they have any."""
        spaces = self.spaces
        if spaces is not None:
            block[MachineBlock.SPACES // 8] = spaces.rows.ctypes.data
            block[MachineBlock.SPACE_BYTES // 8] = spaces.rows.strides[0]
            block[MachineBlock.SPACE_INDEX // 8] = spaces.numbers.ctypes.data
            block[MachineBlock.BITMAP_BYTES // 8] = spaces.bitmap_bytes

    # -- lanes in groups

    def form_groups(self, lanes: int) -> bool:
        """Allow kernels to interleave the memory of so many lanes, a power of two; False where that cannot be."""
        whole = self.lanes // lanes
        if self.external or not whole or lanes * self.layout.private_bytes > _MOST_INTERLEAVED:
            return False
        self.group = lanes
        # Lanes behind the last whole group have a row too, which stays zero.
        self.groups = np.zeros((whole + 1, GroupState.BYTES // 8), np.int64)
        return True

    def _resident(self) -> NDArray[np.bool_]:
        """Which pages may differ from lane to lane, counted from the first of `rows`; not for external memory."""
        found = np.zeros(-(-self.rows.size // PAGE) + 1, bool)
        pages = self._own.in_use()
        if pages is None:
            found[:] = True
        elif self._own.mapped:
            # A page that one lane has for itself is the image's in others, where that may be other than zero.
            per_row = self._own.pages_per_row
            found[:-1].reshape(self.lanes, per_row)[:, np.unique(pages % per_row)] = True
        else:
            found[pages] = True
        return found

    def resident_bytes(self) -> int:
        """Bytes of private memory that may differ from lane to lane."""
        return self._own.own_bytes()

    @property
    def movable(self) -> bool:
        """Whether lanes' memory can be moved: a byte a page has room."""
        return not self.external and self.rows.size // PAGE <= _MOST_MOVABLE_PAGES

    def rearrange(self, order: NDArray[np.intp]) -> None:
        """Have the private memory of lane order[i] at i. No lane that changes its place may lie interleaved."""
        from vmjit.row_rotation import rotate_rows  # imports LLVM

        rotate_rows(self._own.address, self.rows.shape[1], self._resident(), order)

    def _interleaved(self) -> NDArray[np.bool_] | None:
        """Which lanes' memory is interleaved, (lanes,); None if no lane's."""
        groups = self.groups[:, GroupState.INTERLEAVED // 8] != 0
        if not groups.any():
            return None
        lanes: NDArray[np.bool_] = groups[np.arange(self.lanes) // self.group]
        return lanes

    def _places(self, lanes: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where bytes of lanes are, counted from the first of all, for lanes and columns that broadcast."""
        return self._word_places(lanes, columns >> 2, columns & 3)

    def _word_places(
        self, lanes: NDArray[np.int64], words: NDArray[np.int64], bytes_: NDArray[np.int64] | int = 0
    ) -> NDArray[np.int64]:
        """The same for bytes of words of 4 bytes."""
        stride = self.rows.shape[1]
        interleaved = self._interleaved()
        if interleaved is None:
            apart: NDArray[np.int64] = lanes * stride + (words * 4 + bytes_)
            return apart
        these = interleaved[lanes]
        # A group's first lane, what is between a lane's words, and where the first of them is.
        first = np.where(these, lanes & -self.group, lanes) * stride
        step = np.where(these, 4 * self.group, 4)
        start = np.where(these, lanes % self.group * 4, 0)
        places: NDArray[np.int64] = (first + start) + words * step + bytes_
        return places

    @property
    def _bytes(self) -> Bytes:
        flat: Bytes = self.rows.reshape(-1)
        return flat

    def _words(self, first: int, count: int) -> Bytes:
        """Words of whole groups as they lie, (groups, count, lanes of a group, 4), as if all were interleaved."""
        whole = self.lanes // self.group
        words = self._bytes[: whole * self.group * self.rows.shape[1]].reshape(whole, -1, self.group, 4)
        return words[:, first : first + count]

    # -- SpanMemory

    def _read_own(self, offset: int, size: int) -> Bytes:
        apart = self.rows[:, offset : offset + size]
        interleaved = self._interleaved()
        if interleaved is None:
            return apart
        first, last = offset >> 2, (offset + size + 3) >> 2
        words = self._words(first, last - first).transpose(0, 2, 1, 3)
        whole = words.shape[0] * self.group
        together = words.reshape(whole, -1)[:, offset - 4 * first :][:, :size]
        found: Bytes = apart.copy()
        found[:whole][interleaved[:whole]] = together[interleaved[:whole]]
        return found

    def _write_own(self, offset: int, data: Bytes) -> None:
        size = data.shape[-1]
        interleaved = self._interleaved()
        if interleaved is None:
            self.rows[:, offset : offset + size] = data
            return
        self.rows[~interleaved, offset : offset + size] = data if data.ndim == 1 else data[~interleaved]
        # Whole words group by group; what is left at both ends byte by byte.
        first, last = (offset + 3) >> 2, (offset + size) >> 2
        lanes = interleaved.nonzero()[0]
        if first < last:
            values = np.ascontiguousarray(data[..., 4 * first - offset : 4 * last - offset]).view(np.uint32)
            words = self._words(first, last - first).view(np.uint32)[..., 0]
            groups = self.groups[: len(words), GroupState.INTERLEAVED // 8] != 0
            if data.ndim == 1:
                words[groups] = values[:, None]
            else:
                by_group = values[: len(words) * self.group].reshape(len(words), self.group, -1)
                words[groups] = by_group[groups].transpose(0, 2, 1)
        columns = np.arange(offset, offset + size)
        ends = columns[(columns < 4 * first) | (columns >= 4 * last)] if first < last else columns
        if len(ends):
            part = data[..., ends - offset]
            self._bytes[self._places(lanes[:, None], ends[None, :])] = part if data.ndim == 1 else part[lanes]

    def _take(self, lanes: NDArray[np.int64], columns: NDArray[np.int64]) -> Bytes:
        found: Bytes = self._bytes[self._places(lanes, columns)]
        return found

    def _put(self, lanes: NDArray[np.int64], columns: NDArray[np.int64], data: Bytes) -> None:
        self._bytes[self._places(lanes, columns)] = data

    def _whole_words(self, offsets: NDArray[np.int64], size: int) -> bool:
        """Whether ranges of own memory are whole words everywhere."""
        return not (size | self.rows.shape[1]) % 4 and not (offsets & 3).any()

    def _row_words(self, lanes: NDArray[np.int64], offsets: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        """(len(lanes), words): where the words of ranges are, counted in words."""
        return self._word_places(lanes[:, None], (offsets >> 2)[:, None] + np.arange(size >> 2)) >> 2

    def _block(self, lanes: NDArray[np.int64], offsets: NDArray[np.int64], size: int) -> NDArray[np.uint32] | None:
        """A view of the words of ranges, (groups, lanes of a group, words), where consecutive lanes have them at one
        offset and in one order; else None."""
        these = index_of(lanes)
        if not isinstance(these, slice) or (offsets != offsets[0]).any():
            return None
        wanted = slice(int(offsets[0]) >> 2, (int(offsets[0]) + size) >> 2)
        rows = self._bytes.view(np.uint32).reshape(self.lanes, -1)[these]
        groups = self.groups[these.start // self.group : -(-these.stop // self.group), GroupState.INTERLEAVED // 8] != 0
        if groups.any():
            if not groups.all() or (these.start | these.stop) % self.group:
                return None
            words: NDArray[np.uint32] = rows.reshape(len(groups), -1, self.group).transpose(0, 2, 1)
        else:
            words = rows[None]
        return words[..., wanted]

    def _take_rows(self, lanes: NDArray[np.int64], offsets: NDArray[np.int64], size: int) -> Bytes:
        if not self._whole_words(offsets, size):
            return super()._take_rows(lanes, offsets, size)
        block = self._block(lanes, offsets, size)
        if block is not None:
            copied: Bytes = block.copy().view(np.uint8).reshape(len(lanes), size)
            return copied
        found: Bytes = self._bytes.view(np.uint32)[self._row_words(lanes, offsets, size)].view(np.uint8)
        return found

    def _put_rows(self, lanes: NDArray[np.int64], offsets: NDArray[np.int64], rows: Bytes) -> None:
        size = rows.shape[1]
        if not self._whole_words(offsets, size):
            return super()._put_rows(lanes, offsets, rows)
        words = np.ascontiguousarray(rows).view(np.uint32)
        block = self._block(lanes, offsets, size)
        if block is not None:
            block[...] = words.reshape(block.shape)
            return None
        self._bytes.view(np.uint32)[self._row_words(lanes, offsets, size)] = words
        return None

    def _shared_written(self, offset: int, size: int) -> None:
        """Kernels read this very array."""

    def own_bytes(self, span: MemorySpan, lanes: Index) -> Bytes:
        rows: Bytes = self._bytes[
            self._places(np.asarray(lanes, np.int64)[:, None], np.arange(span.offset, span.offset + span.size)[None, :])
        ]
        return rows
