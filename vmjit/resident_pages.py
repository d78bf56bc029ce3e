"""Which pages of this process's memory hold anything, as Linux knows it (PAGEMAP_SCAN, since 6.7)."""

from __future__ import annotations

import sys
from mmap import PAGESIZE

import numpy as np
from numpy.typing import NDArray

# linux/fs.h: _IOWR('f', 16, struct pm_scan_arg), and what a page can be. A page that was swapped out holds its bytes
# as much as one that is there; mincore does not tell of those.
_PAGEMAP_SCAN = 0xC0606610
_PRESENT_OR_SWAPPED = 1 << 3 | 1 << 4
_START, _WALK_END = 2, 4  # words of pm_scan_arg

# Ranges asked for at once.
_MOST_RANGES = 1 << 12


def resident_pages(address: int, size: int) -> NDArray[np.int64] | None:
    """The numbers of the pages from `address`, a page's first, that are there, ascending; None where nobody knows.

    A page that is not among them was never touched and is zero.
    """
    if sys.platform != "linux":
        return None
    import fcntl

    end = address + size
    ranges = np.empty((min(_MOST_RANGES, size // PAGESIZE + 1), 3), np.uint64)  # first byte, end, what it is
    request = np.array(
        # size, flags, start, end, walk_end, vec, vec_len, max_pages, inverted, all of, any of, to return
        [96, 0, address, end, 0, ranges.ctypes.data, len(ranges), 0, 0, 0, _PRESENT_OR_SWAPPED, _PRESENT_OR_SWAPPED],
        np.uint64,
    )
    found = []
    try:
        # Opened each time: after a fork, an open file would tell of the parent's memory.
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            while request[_START] < end:
                count = fcntl.ioctl(pagemap, _PAGEMAP_SCAN, request.view(np.uint8).data)
                found.append(ranges[:count, :2].astype(np.int64))
                request[_START] = request[_WALK_END]
    except OSError:
        return None
    firsts, ends = ((np.concatenate(found) - address) // PAGESIZE).T
    counts = ends - firsts
    return np.repeat(firsts - (np.cumsum(counts) - counts), counts) + np.arange(int(counts.sum()))
