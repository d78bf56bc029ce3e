"""Where two executions of a program first differ (`vmjit diff`)."""

from vmjit.divergence.search import Difference, find_difference
from vmjit.divergence.sides import Side, TierSide

__all__ = ["Difference", "Side", "TierSide", "find_difference"]
