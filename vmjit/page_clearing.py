"""Clearing pages of memory past the caches, with a kernel that is compiled when first asked for."""

from __future__ import annotations

import ctypes
from mmap import PAGESIZE

import numpy as np
from numpy.typing import NDArray

from vmjit.host_kernels import host_kernel
from vmjit.kernels.clear_pages import CLEAR_PAGES, clear_pages_ir

_CLEAR_PAGES = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


def _ir() -> str:
    return clear_pages_ir(PAGESIZE)


def clear_pages(address: int, pages: NDArray[np.int64]) -> None:
    """Make the pages with these numbers zero, counted from `address`, a page's first. Releases the GIL."""
    numbers = np.ascontiguousarray(pages)
    host_kernel(CLEAR_PAGES, _ir, _CLEAR_PAGES, "clearing pages")(address, numbers.ctypes.data, len(numbers))
