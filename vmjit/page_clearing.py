"""Clearing pages of memory past the caches, with a kernel that is compiled when first asked for."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from mmap import PAGESIZE
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.cache import cache_key, process_cache
from vmjit.kernels.clear_pages import CLEAR_PAGES, clear_pages_ir
from vmjit.translators.cpu import cpu_target

_CLEAR_PAGES = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


@lru_cache(maxsize=1)
def _kernel() -> tuple[Any, Any]:
    """(the function, the code it is in)."""
    target, text = cpu_target(), clear_pages_ir(PAGESIZE)
    key = cache_key(CLEAR_PAGES, (text, *target.identity))
    code = target.load(process_cache().image(key, "clearing pages", lambda: target.compile(text)), (CLEAR_PAGES,))
    return _CLEAR_PAGES(code.addresses[CLEAR_PAGES]), code


def clear_pages(address: int, pages: NDArray[np.int64]) -> None:
    """Make the pages with these numbers zero, counted from `address`, a page's first. Releases the GIL."""
    numbers = np.ascontiguousarray(pages)
    _kernel()[0](address, numbers.ctypes.data, len(numbers))
