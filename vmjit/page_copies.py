"""Clearing and copying pages of memory, with kernels that are compiled when first asked for."""

from __future__ import annotations

import ctypes
from mmap import PAGESIZE

import numpy as np
from numpy.typing import NDArray

from vmjit.host_kernels import host_kernel
from vmjit.kernels.clear_pages import CLEAR_PAGES, clear_pages_ir
from vmjit.kernels.copy_pages import COPY_PAGES, copy_pages_ir

_POINTER, _I64 = ctypes.c_void_p, ctypes.c_int64
_CLEAR_PAGES = ctypes.CFUNCTYPE(None, _POINTER, _POINTER, _I64)
_COPY_PAGES = ctypes.CFUNCTYPE(None, _POINTER, _POINTER, _POINTER, _POINTER, _I64)


def _clear_ir() -> str:
    return clear_pages_ir(PAGESIZE)


def _copy_ir() -> str:
    return copy_pages_ir(PAGESIZE)


def clear_pages(address: int, pages: NDArray[np.int64]) -> None:
    """Make the pages with these numbers zero, counted from `address`, a page's first. Releases the GIL."""
    numbers = np.ascontiguousarray(pages)
    host_kernel(CLEAR_PAGES, _clear_ir, _CLEAR_PAGES, "clearing pages")(address, numbers.ctypes.data, len(numbers))


def copy_pages(address: int, pages: NDArray[np.int64], source: int, origins: NDArray[np.int64]) -> None:
    """Make each of these pages, counted from `address`, a copy of one counted from `source`. Releases the GIL."""
    goals, origins = np.ascontiguousarray(pages), np.ascontiguousarray(origins)
    kernel = host_kernel(COPY_PAGES, _copy_ir, _COPY_PAGES, "copying pages")
    kernel(address, goals.ctypes.data, source, origins.ctypes.data, len(goals))
