"""The lane's memory as Unicorn has it: the very bytes where whole pages allow it, else a copy that is kept alike."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np

from vmjit.address_space import AddressSpace
from vmjit.divergence.foreign import Bytes, held_by_lane, pieces_unlike, runs_of_pages
from vmjit.errors import ArgumentError
from vmjit.kernels.layout import PERMISSION_EXECUTE, PERMISSION_READ, PERMISSION_WRITE
from vmjit.machine import Machine
from vmjit.memory_image import PAGE
from vmjit.memory_layout import MemorySpan


@dataclass(frozen=True)
class _Copied:
    """A span, and the part of Unicorn's pages that stands for it."""

    span: MemorySpan
    copy: Bytes


class UnicornMemory:
    """The memory of the one lane of `machine`, which runs on the CPU and is never interleaved, mapped into `uc`."""

    def __init__(self, machine: Machine, uc: Any) -> None:
        self._machine, self._uc = machine, uc
        self._space: AddressSpace | None = None
        spans = machine._layout.spans
        self._code_changes = any(s.executable and not s.shared for s in spans)
        self._copied: list[_Copied] = []
        self._mapped: list[tuple[int, int]] = []
        self._kept: list[mmap.mmap] = []
        runs = runs_of_pages(spans)
        if all(self._is_in_place(run) for _, _, run in runs):
            for lo, end, run in runs:
                self._map(lo, end, self._held(run[0]).ctypes.data)
        else:
            for lo, end, run in runs:
                self._map_copy(lo, end, run)
        if machine.environment.spaces is None:
            for lo, end, permissions in _permissions_of(spans):
                uc.mem_protect(lo, end - lo, _unicorn_bits(permissions))

    def _is_in_place(self, run: list[MemorySpan]) -> bool:
        """Whether spans that follow each other are whole pages here and there."""
        start = self._held(run[0]).ctypes.data
        return not (run[0].lo | run[-1].end | start) % PAGE and all(
            self._held(span).ctypes.data - start == span.lo - run[0].lo for span in run
        )

    def _held(self, span: MemorySpan) -> Bytes:
        """What the lane has."""
        return held_by_lane(self._machine, span)

    def _map(self, lo: int, end: int, address: int) -> None:
        self._uc.mem_map_ptr(lo, end - lo, 7, address)
        self._mapped.append((lo, end))

    def _map_copy(self, lo: int, end: int, run: list[MemorySpan]) -> None:
        own = mmap.mmap(-1, end - lo)
        self._kept.append(own)
        content = np.frombuffer(own, np.uint8)
        self._map(lo, end, content.ctypes.data)
        self._copied += [_Copied(span, content[span.lo - lo :][: span.size]) for span in run]

    def hand_over(self) -> None:
        """Have in Unicorn what the lane has."""
        changed = self._code_changes
        for copied in self._copied:
            changed |= _make_alike(copied.copy, self._held(copied.span)) and copied.span.executable
        spaces = self._machine.environment.spaces
        if spaces is not None and spaces.of(0) is not self._space:
            self._space = spaces.of(0)
            self._protect(self._space)
            changed = True
        if changed or (spaces is not None and spaces.own_code):
            self._uc.ctl_flush_tb()

    def take_back(self) -> None:
        """Have with the lane what Unicorn has."""
        for copied in self._copied:
            if not copied.span.shared:
                _make_alike(self._held(copied.span), copied.copy)

    def _protect(self, space: AddressSpace) -> None:
        if space.backing:
            raise ArgumentError("a program that maps memory far from itself cannot be compared with Unicorn")
        for lo, end in self._mapped:
            self._uc.mem_protect(lo, end - lo, 0)
            for first, last, permissions in space.inside(lo, end):
                self._uc.mem_protect(first, last - first, _unicorn_bits(permissions))


def _permissions_of(spans: tuple[MemorySpan, ...]) -> list[tuple[int, int, int]]:
    """(start, end, permissions) of pages; a page of several spans has what all of them have."""
    found: list[tuple[int, int, int]] = []
    for span in spans:
        lo, end = span.lo & -PAGE, -(-span.end // PAGE) * PAGE
        if found and lo < found[-1][1]:
            first, last, before = found.pop()
            found += [
                part for part in ((first, lo, before), (lo, last, before | span.permissions)) if part[0] < part[1]
            ]
            lo = last
        if lo < end:
            found.append((lo, end, span.permissions))
    return found


def _unicorn_bits(permissions: int) -> int:
    kinds = ((PERMISSION_READ, 1), (PERMISSION_WRITE, 2), (PERMISSION_EXECUTE, 4))
    return sum(bit for kind, bit in kinds if permissions & kind)


def _make_alike(left: Bytes, right: Bytes) -> bool:
    """Write to the left where the right differs; whether it did."""
    pieces = pieces_unlike(left, right)
    for piece in pieces:
        left[piece] = right[piece]
    return bool(pieces)
