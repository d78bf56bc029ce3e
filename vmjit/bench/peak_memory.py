"""The most memory that a program of this computer takes.

What wait4 tells of a child holds what its parent had when it was started, and /proc tells nothing of one that has
ended. So the program is traced, and stops at its end while its memory is still there (ptrace(2), PTRACE_EVENT_EXIT).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

_TRACEME, _CONTINUE, _SET_OPTIONS = 0, 7, 0x4200
_TRACE_EXIT = 0x40
_EVENT_EXIT = 6

_LIBC = ctypes.CDLL(None, use_errno=True)


def peak_memory(command: Sequence[str], source: IO[bytes]) -> float | None:
    """Bytes that were resident at most; None where programs cannot be traced."""
    try:
        process = subprocess.Popen(
            command, stdin=source, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=_be_traced
        )
    except (OSError, subprocess.SubprocessError):
        return None
    most = None
    _, status = os.waitpid(process.pid, 0)
    if os.WIFSTOPPED(status):
        _trace(_SET_OPTIONS, process.pid, _TRACE_EXIT)
    while os.WIFSTOPPED(status):
        if status >> 16 == _EVENT_EXIT:
            most = _resident(process.pid)
        # Its own signals are its own to have; those of tracing are not.
        own = os.WSTOPSIG(status)
        _trace(_CONTINUE, process.pid, 0 if own == signal.SIGTRAP else own)
        _, status = os.waitpid(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return most


def _be_traced() -> None:
    if _trace(_TRACEME, 0, 0):
        raise OSError("cannot be traced")


def _trace(request: int, pid: int, data: int) -> int:
    """ptrace(2); 0 where it did what was asked."""
    found: int = _LIBC.ptrace(ctypes.c_long(request), ctypes.c_long(pid), ctypes.c_void_p(0), ctypes.c_void_p(data))
    return found


def _resident(pid: int) -> float | None:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) * 1024
    return None
