"""Which pages of this process's memory hold anything, or anything of their own, as Linux knows it.

It is asked with PAGEMAP_SCAN, which it has since 6.7; before that, its table of pages is read.
"""

from __future__ import annotations

import sys
from mmap import PAGESIZE

import numpy as np
from numpy.typing import NDArray

# linux/fs.h: _IOWR('f', 16, struct pm_scan_arg), and what a page can be. A page that was swapped out holds its bytes
# as much as one that is there; mincore does not tell of those.
_PAGEMAP_SCAN = 0xC0606610
_FILE = 1 << 2
_PRESENT_OR_SWAPPED = 1 << 3 | 1 << 4
_START, _WALK_END = 2, 4  # words of pm_scan_arg

# Ranges asked for at once.
_MOST_RANGES = 1 << 12


# Bits of an entry of the table of pages: of a file or shared; swapped or present. So many entries are read at once.
_TABLE_FILE, _TABLE_PRESENT_OR_SWAPPED = np.uint64(1 << 61), np.uint64(3 << 62)
_MOST_ENTRIES = 1 << 20


def resident_pages(address: int, size: int) -> NDArray[np.int64] | None:
    """The numbers of the pages from `address`, a page's first, that are there, ascending; None where nobody knows.

    A page that is not among them was never touched and is zero.
    """
    return _scan(address, size, 0)


def owned_pages(address: int, size: int) -> NDArray[np.int64] | None:
    """The same for a private mapping of files: the pages that were written, and are not the file's any more."""
    found = _scan(address, size, _FILE)
    return found if found is not None else _read_table(address, size)


def _scan(address: int, size: int, without: int) -> NDArray[np.int64] | None:
    """Pages that are there and have none of the kinds `without`."""
    if sys.platform != "linux":
        return None
    import fcntl

    end = address + size
    ranges = np.empty((min(_MOST_RANGES, size // PAGESIZE + 1), 3), np.uint64)  # first byte, end, what it is
    request = np.array(
        # size, flags, start, end, walk_end, vec, vec_len, max_pages, inverted, all of, any of, to return
        [96, 0, address, end, 0, ranges.ctypes.data, len(ranges), 0, without, without, *2 * (_PRESENT_OR_SWAPPED,)],
        np.uint64,
    )
    found = []
    try:
        # Opened each time: after a fork, an open file would tell of the parent's memory.
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            while request[_START] < end:
                count = fcntl.ioctl(pagemap, _PAGEMAP_SCAN, request.view(np.uint8).data)
                found.append(ranges[:count, :2].astype(np.int64))
                # Over several mappings, Linux has said that it ended before what it had told of (seen with 6.18).
                request[_START] = max(request[_WALK_END], ranges[count - 1, 1] if count else 0)
    except OSError:
        return None
    firsts, ends = ((np.concatenate(found) - address) // PAGESIZE).T
    counts = ends - firsts
    return np.repeat(firsts - (np.cumsum(counts) - counts), counts) + np.arange(int(counts.sum()))


def _read_table(address: int, size: int) -> NDArray[np.int64] | None:
    """Written pages of a private mapping, by reading the entry of each page."""
    if sys.platform != "linux":
        return None
    found = []
    pages = -(-size // PAGESIZE)
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            for first in range(0, pages, _MOST_ENTRIES):
                pagemap.seek((address // PAGESIZE + first) * 8)
                entries = np.frombuffer(pagemap.read(8 * min(_MOST_ENTRIES, pages - first)), np.uint64)
                own = ((entries & _TABLE_PRESENT_OR_SWAPPED) != 0) & ((entries & _TABLE_FILE) == 0)
                found.append(np.flatnonzero(own) + first)
    except OSError:
        return None
    return np.concatenate(found) if found else np.zeros(0, np.int64)
