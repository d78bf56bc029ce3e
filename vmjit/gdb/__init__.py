"""Lanes as a debugger's threads: GDB's remote protocol (`vmjit run --gdb`)."""

from vmjit.gdb.server import GdbServer

__all__ = ["GdbServer"]
