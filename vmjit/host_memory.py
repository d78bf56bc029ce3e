"""Large arrays straight from the operating system: zero until touched, and again after `clear` or `discard`."""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vmjit.errors import MemoryLimitError
from vmjit.resident_pages import resident_pages

# Promise memory that may never be touched. Python's mmap has the name since 3.13; the number is Linux's.
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)

# Above this many bytes per lane, a huge page would be filled for the sake of the few small ones a lane touches.
_SPARSE = 64 << 10

# What it takes to touch a page that was given back, in what it takes to clear one: 2.4 us to 0.3 us, measured on a
# virtual machine, where faults are dear.
FAULT_COST = 8

# In less memory than this, finding out which pages are in use takes longer than the faults it would save.
_FEW_BYTES = 4 << 20

# From so many bytes on, caches do not hold what was cleared until it is used again: cleared and written again, 8 MiB
# take 0.23 us a page through the caches and 0.47 past them, 32 MiB 0.59 and 0.45.
_PAST_CACHES = 16 << 20

# Of which pages it is looked whether they were written; the factor scatters them.
_SAMPLE = np.arange(64) * 0x9E3779B1


@cache
def host_bytes() -> int:
    """This computer's memory."""
    if not hasattr(os, "sysconf"):
        return 1 << 34
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def sample_of(pages: NDArray[np.int64]) -> NDArray[np.int64]:
    """Some of these pages, of which there is one at least."""
    found: NDArray[np.int64] = pages[_SAMPLE[: len(pages)] % len(pages)]
    return found


class HostMemory:
    """`size` zero bytes at a fixed address, a page's first."""

    NO_RESERVE = _NO_RESERVE

    def __init__(self, size: int, *, sparse_unit: int = 0) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
        try:
            self._map = mmap.mmap(-1, -(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE, flags=flags)
        except (OSError, ValueError, OverflowError) as error:
            raise MemoryLimitError(f"the host cannot give {size} bytes of memory: {error}", bytes=size) from error
        self.array: NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8, count=max(size, 1))
        self.view = memoryview(self._map)[: max(size, 1)]
        """The same bytes: quicker than the array to write a few of."""
        self.address = int(self.array.ctypes.data)
        self._sparse = sparse_unit > _SPARSE
        self.advise_sparse()
        # What `clear` spent on pages that had not been written since, in times that all pages were cleared.
        self._in_vain = 0.0

    def advise_sparse(self) -> None:
        """Tell the operating system if few of many pages will be touched."""
        if self._sparse and hasattr(mmap, "MADV_NOHUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without huge pages
                self._map.madvise(mmap.MADV_NOHUGEPAGE)

    def discard_range(self, start: int, size: int) -> None:
        """Give whole pages of a private mapping back: they are then what is mapped there. Linux only."""
        self._map.madvise(mmap.MADV_DONTNEED, start, size)

    def clear(self) -> None:
        """Make every byte zero again. Pages in use stay, unless what is spent on clearing those that are not could
        have paid for faults."""
        pages = resident_pages(self.address, len(self._map)) if len(self._map) >= _FEW_BYTES else None
        if pages is None:
            self.discard()
        elif len(pages):
            contents = np.frombuffer(self._map, np.dtype((np.void, mmap.PAGESIZE)))
            sample = contents[sample_of(pages)]
            written = float(sample.view(np.uint64).reshape(len(sample), -1).any(axis=1).mean())
            self._in_vain += 1 - written
            if self._in_vain > FAULT_COST * written:
                self.discard()
            elif len(pages) * mmap.PAGESIZE < _PAST_CACHES:
                contents[pages] = np.zeros((), contents.dtype)
            else:
                from vmjit.page_copies import clear_pages  # imports LLVM

                clear_pages(self.address, pages)

    def discard(self) -> None:
        """Make every byte zero again, giving the memory back to the operating system where it can be."""
        self._in_vain = 0.0
        if sys.platform == "linux":  # elsewhere MADV_DONTNEED may leave the bytes as they are
            self._map.madvise(mmap.MADV_DONTNEED)
        else:
            self.array[:] = 0
