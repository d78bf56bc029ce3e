"""Rows of memory that change places, with a kernel that is compiled when first asked for."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from vmjit.host_kernels import host_kernel
from vmjit.kernels.rotate_rows import ROTATE_ROWS, rotate_rows_ir

_POINTER, _I64 = ctypes.c_void_p, ctypes.c_int64
_ROTATE_ROWS = ctypes.CFUNCTYPE(None, _POINTER, _I64, _POINTER, _POINTER, _POINTER, _I64)


def cycles_of(order: NDArray[np.intp]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cycles of a permutation that move something, one after the other, and where each ends: in a cycle, the next
    number is what the permutation has at a number."""
    numbers: list[int] = []
    ends: list[int] = []
    goes_to = order.tolist()
    for start in (order != np.arange(len(order))).nonzero()[0].tolist():
        place = start
        while goes_to[place] != place:
            numbers.append(place)
            following, goes_to[place] = goes_to[place], place
            place = following
        if len(numbers) > (ends[-1] if ends else 0):
            ends.append(len(numbers))
    return np.array(numbers, np.int64), np.array(ends, np.int64)


def rotate_rows(address: int, stride: int, resident: NDArray[np.bool_], order: NDArray[np.intp]) -> None:
    """Have row order[i] at i, of rows of `stride` bytes, a multiple of 64, from an address on, a page's first.

    resident: for each page whether it may hold something; the others are zero, and stay untouched where they can.
    """
    numbers, ends = cycles_of(order)
    kernel = host_kernel(ROTATE_ROWS, rotate_rows_ir, _ROTATE_ROWS, "moving rows")
    kernel(address, stride, resident.ctypes.data, numbers.ctypes.data, ends.ctypes.data, len(ends))
