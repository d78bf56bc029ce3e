"""Our own standard streams: rich consoles without surprises, raw bytes, and text with odd characters."""

from __future__ import annotations

import os
import sys
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# The width of tables that go to a file or a pipe.
_WIDTH = 100


def stdout_console() -> Console:
    """For tables. Names of files and symbols are printed as they are, never read as markup."""
    from rich.console import Console

    console = Console(file=sys.stdout, markup=False, emoji=False, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDTH
    return console


def stderr_is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def write_bytes(stream: IO[str] | None, data: bytes) -> None:
    """Raw bytes to sys.stdout or sys.stderr, behind what was printed to it before."""
    if stream is not None and data:
        stream.flush()
        stream.buffer.write(data)  # type: ignore[attr-defined]
        stream.flush()


def remark(message: str) -> None:
    """One line on standard error, if there is one: `print` to a closed one would go to standard output."""
    if sys.stderr is not None:
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        print(f"vmjit: {line}", file=sys.stderr, flush=True)


def printable(name: str) -> str:
    """A file's name that any UTF-8 stream takes: bytes that are no text appear as \\x…"""
    return os.fsencode(name).decode(errors="backslashreplace")
