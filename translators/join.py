"""A block that several others go to, each with values of its own: what is a phi in LLVM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vmjit.translators.lowering import Builder, Value


class Join:
    """Appended to the builder's function; `types` are those of the values that each way there brings."""

    def __init__(self, builder: Builder, name: str, *types: Any) -> None:
        self.builder = builder
        self.block = builder.append_basic_block(name)
        with builder.goto_block(self.block):
            self.values = [builder.phi(type_) for type_ in types]

    def come(self, *values: Value) -> None:
        """Go there from the current block."""
        for phi, value in zip(self.values, values, strict=True):
            phi.add_incoming(value, self.builder.block)
        self.builder.branch(self.block)

    def begin(self) -> Sequence[Value]:
        """Emit what comes now in the block; gives the values."""
        self.builder.position_at_end(self.block)
        return self.values


__all__ = ["Join"]
