"""Environments: who serves a guest's environment calls, and what a lane finds when it starts."""

from vmjit.environment.bare_metal import BareMetal

__all__ = ["BareMetal"]
