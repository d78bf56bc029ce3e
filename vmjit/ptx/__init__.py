"""Runs PTX on the CPU, without a GPU or its driver: to try and to debug kernels.

    module = Module(ptx_text)
    module.launch("kernel", grid=4, block=128, args=[Ptr(array), 7])

One parser, two engines: "simt" runs all threads of many blocks at once on NumPy, with everything that threads do to
each other (barriers of all kinds, collectives of a warp), and counts what it executes; "thread" compiles a kernel with
LLVM and runs one thread after another, much faster, without collectives of a warp. Every access is checked against the
arrays that a kernel was given: a stray one raises `PtxFault` instead of harming the process.

Importing this package does not import LLVM; the thread engine does.
"""

from __future__ import annotations

from vmjit.ptx.arguments import Ptr
from vmjit.ptx.errors import PtxError, PtxFault, PtxUnsupported
from vmjit.ptx.launch import LaunchStatistics
from vmjit.ptx.memory import DeviceMemory
from vmjit.ptx.module import Module

__all__ = ["DeviceMemory", "LaunchStatistics", "Module", "Ptr", "PtxError", "PtxFault", "PtxUnsupported"]
