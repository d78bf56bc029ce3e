"""Ways of control that come together again, each taken under a condition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from vmjit.kernels.emit import Value, assume_rare
from vmjit.translators.lowering import Builder


class Join:
    """Ways that come together: each is taken under a condition, and gives a value (or none, for type None)."""

    def __init__(self, builder: Builder, type_: Any) -> None:
        self.builder = builder
        self.type = type_
        self.done = builder.append_basic_block("done")
        self.incoming: list[tuple[Value, Any]] = []

    def way(self, condition: Value, *, rare: bool | None = False) -> Way:
        return Way(self, condition, rare)

    def add(self, value: Value) -> None:
        """The way that is being emitted ends here with a value."""
        self.incoming.append((value, self.builder.block))
        self.builder.branch(self.done)

    def finish(self, otherwise: Callable[[], None]) -> Value:
        """What happens where no way was taken; gives the value."""
        otherwise()
        b = self.builder
        b.position_at_end(self.done)
        if not self.incoming:
            b.unreachable()
            b.position_at_end(b.append_basic_block("never"))
            return None if self.type is None else ir.Constant(self.type, ir.Undefined)
        if self.type is None:
            return None
        value = b.phi(self.type)
        for result, block in self.incoming:
            value.add_incoming(result, block)
        return value


class Way:
    """`with`: what is emitted inside happens under the condition, what is emitted behind it otherwise."""

    def __init__(self, join: Join, condition: Value, rare: bool | None) -> None:
        self.join = join
        self.condition = condition
        self.rare = rare

    def __enter__(self) -> None:
        b = self.join.builder
        hit, self.miss = b.append_basic_block("hit"), b.append_basic_block("miss")
        branch = b.cbranch(self.condition, hit, self.miss)
        if self.rare is not None:
            assume_rare(branch, taken_rare=self.rare)
        b.position_at_end(hit)

    def __exit__(self, *exception: object) -> None:
        b = self.join.builder
        if not b.block.is_terminated:
            b.branch(self.miss)
        b.position_at_end(self.miss)
