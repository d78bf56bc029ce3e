"""The rows of memory that lanes have on this computer, which all start from one image.

Where many lanes start from much, rows are private mappings of a file in memory that holds the image. What no lane has
written is there once, and the operating system copies a page for a lane at its first write: code that accesses memory
knows nothing of it and takes no longer. Systems bound the number of mappings (65,530 on Linux), so one mapping covers
several rows, and the file has the image as many times.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.errors import MemoryLimitError
from vmjit.host_memory import FAULT_COST, HostMemory, sample_of
from vmjit.memory_image import PAGE, Bytes, LanePages, MemoryImage, Numbers
from vmjit.resident_pages import owned_pages, resident_pages

Mask = NDArray[np.bool_]

# So many mappings at most for one machine.
_MOST_MAPPINGS = 4096

# From so many bytes on that all lanes together would have of an image, it is mapped. Below, copies are quicker: the
# first write to a page that is a copy already takes no fault.
_MAPPED_FROM = 128 << 20

# Pages that are compared or copied at once.
_AT_ONCE = 4096

_MAP_FIXED = 0x10


class LaneRows:
    """`array` is (lanes, stride) uint8, zero until `load`."""

    def __init__(self, lanes: int, stride: int) -> None:
        self.lanes = lanes
        self.stride = stride
        self._memory = HostMemory(lanes * stride, sparse_unit=stride)
        self.address = self._memory.address
        self.array: Bytes = self._memory.array[: lanes * stride].reshape(lanes, stride)
        self.image = MemoryImage(stride, np.zeros(0, np.int64), np.zeros((0, PAGE), np.uint8))
        self.mapped = False
        """Whether what no lane has written is shared. Then rows start at pages, and a page that is not a row's own is
        the image's; else it is zero."""
        self._in_vain = 0.0
        self._one_row: HostMemory | None = None

    @property
    def pages_per_row(self) -> int:
        return -(-self.stride // PAGE)

    # -- all rows from an image

    def load(self, image: MemoryImage) -> None:
        """Every row as the image has it. Raises `MemoryLimitError`."""
        if image is self.image:
            self.renew(None)
            return
        if image.used_bytes * self.lanes > _MAPPED_FROM and self._map(image):
            self.mapped = True
        else:
            if self.mapped:
                self._unmap()
            self._memory.clear()
            self._write_image(image, slice(None))
        self.image = image
        self._one_row = None

    def _write_image(self, image: MemoryImage, lanes: slice | Mask) -> None:
        """Over rows that are zero."""
        for start, content in image.parts:
            self.array[lanes, start : start + len(content)] = content

    def _map(self, image: MemoryImage) -> bool:
        """Make the rows private mappings of the image; False where the system cannot."""
        if self.stride % PAGE or not hasattr(os, "memfd_create") or mmap.PAGESIZE != PAGE:
            return False
        rows = max(-(-self.lanes // _MOST_MAPPINGS), 1)
        try:
            file = os.memfd_create("vmjit image")
        except OSError:
            return False
        try:
            os.ftruncate(file, rows * self.stride)
            for start, content in image.parts:
                for row in range(rows):
                    os.pwrite(file, content.data, row * self.stride + start)
            for first in range(0, self.lanes, rows):
                size = min(rows, self.lanes - first) * self.stride
                if not _map_fixed(self.address + first * self.stride, size, file):
                    self._unmap()
                    return False
        except OSError as error:
            raise MemoryLimitError(
                f"the host cannot give {rows} times {image.used_bytes} bytes for a memory image: {error.strerror}",
                bytes=rows * image.used_bytes,
            ) from error
        finally:
            os.close(file)
        return True

    def _unmap(self) -> None:
        """Zero memory everywhere."""
        if not _map_fixed(self.address, self.lanes * self.stride, None):
            raise MemoryLimitError("the host cannot give memory for the lanes", bytes=self.array.size)
        self._memory.advise_sparse()
        self.mapped = False

    # -- what lanes have changed

    def in_use(self, lanes: Mask | None = None) -> Numbers | None:
        """The pages of the rows that may differ from the image in a mapping, or may hold something: numbers over all
        rows, which start at pages. None where nobody knows."""
        ask = owned_pages if self.mapped else resident_pages
        pages = ask(self.address, self.lanes * self.stride)
        if pages is not None and lanes is not None:
            pages = pages[lanes[pages // self.pages_per_row]]
        return pages

    def own_bytes(self) -> int:
        """Bytes that rows have for themselves, as far as somebody knows."""
        pages = self.in_use()
        return self.array.size if pages is None else len(pages) * PAGE

    @property
    def _contents(self) -> NDArray[Any]:
        """The pages of all rows, one element a page."""
        return self.array.reshape(-1).view(np.dtype((np.void, PAGE)))

    def _differ(self, pages: Numbers) -> Mask:
        """Which pages are not the image's."""
        now = self._contents[pages].view(np.uint64).reshape(len(pages), -1)
        unlike: Mask = (now != self.image.pages(pages % self.pages_per_row).view(np.uint64)).any(axis=1)
        return unlike

    def renew(self, lanes: Mask | None) -> None:
        """Some rows, or all, as the image has them. Takes what was touched, not what could be."""
        if self.mapped or lanes is not None:
            self._renew_pages(lanes)
            return
        self._memory.clear()
        self._write_image(self.image, slice(None))

    def _renew_pages(self, lanes: Mask | None) -> None:
        """By the pages in use, as far as somebody knows them. All rows only where they are mapped."""
        pages = None if self.stride % PAGE else self.in_use(lanes)
        if pages is None:
            if self.mapped or lanes is None:
                self.give_back(lanes)
                return
            self.array[lanes] = 0
            self._write_image(self.image, lanes)
            return
        if not len(pages):
            return
        written = float(self._differ(sample_of(pages)).mean())
        self._in_vain += 1 - written
        if self._in_vain > FAULT_COST * written and self.mapped:
            self._in_vain = 0.0
            self.give_back(lanes)
            return
        from vmjit.page_copies import copy_pages  # imports LLVM

        copy_pages(self.address, pages, self._image_row().address, pages % self.pages_per_row)

    def _image_row(self) -> HostMemory:
        """The image as one row."""
        if self._one_row is None:
            self._one_row = HostMemory(self.stride, sparse_unit=self.stride)
            for start, content in self.image.parts:
                self._one_row.array[start : start + len(content)] = content
        return self._one_row

    def give_back(self, lanes: Mask | None) -> None:
        """As `renew`, and give what rows had for themselves back to the operating system where that can be."""
        if self.stride % PAGE or sys.platform != "linux":
            self.renew(lanes)
            return
        for first, last in [(0, self.lanes)] if lanes is None else _runs(lanes):
            self._memory.discard_range(first * self.stride, (last - first) * self.stride)
            if not self.mapped:
                self._write_image(self.image, slice(first, last))

    def changed(self, lanes: Mask | None = None) -> LanePages:
        """The pages in which rows differ from the image."""
        pages = None if self.stride % PAGE else self.in_use(lanes)
        if pages is None:
            rows = np.arange(self.lanes) if lanes is None else np.flatnonzero(lanes)
            return self.image.unlike(rows, lambda start, size: self.array[rows, start : start + size])
        found = []
        for start in range(0, len(pages), _AT_ONCE):
            some = pages[start : start + _AT_ONCE]
            some = some[self._differ(some)]
            contents = self._contents[some].view(np.uint8).reshape(len(some), PAGE)
            found.append(LanePages(*np.divmod(some, self.pages_per_row), contents))
        return LanePages.joined(found)


def _runs(lanes: Mask) -> list[tuple[int, int]]:
    """(first, last + 1) of neighbours that are chosen."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], lanes, [False]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


@cache
def _c_mmap() -> Any:
    function = ctypes.CDLL(None, use_errno=True).mmap
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *3 * (ctypes.c_int,), ctypes.c_int64]
    return function


def _map_fixed(address: int, size: int, file: int | None) -> bool:
    """Have a file's first `size` bytes, or zero, at an address, in place of what is mapped there."""
    if sys.platform != "linux":
        return False
    flags = mmap.MAP_PRIVATE | _MAP_FIXED | HostMemory.NO_RESERVE | (mmap.MAP_ANONYMOUS if file is None else 0)
    with contextlib.suppress(AttributeError):
        found = _c_mmap()(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1 if file is None else file, 0)
        return bool(found == address)
    return False
