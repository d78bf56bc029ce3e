"""A search through the rows of a table, as code, for whatever holds the table: the CPU's memory or a device's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

_I64 = ir.IntType(64)

Value = Any
Builder = Any


def first_row(b: Builder, count: Value, missing: Any, look: Callable[[Value], tuple[Value, Value]]) -> Value:
    """The first of `count` rows that is looked for; goes to `missing` where it is none. `look` gives a row by its
    number, and whether it is the one."""
    entry = b.block
    head, body, found, following = (b.append_basic_block(n) for n in ("head", "body", "found", "next"))
    b.branch(head)
    b.position_at_end(head)
    index = b.phi(_I64)
    index.add_incoming(ir.Constant(_I64, 0), entry)
    b.cbranch(b.icmp_unsigned("<", index, count), body, missing)
    b.position_at_end(body)
    row, is_it = look(index)
    b.cbranch(is_it, found, following)
    b.position_at_end(following)
    index.add_incoming(b.add(index, ir.Constant(_I64, 1)), following)
    b.branch(head)
    b.position_at_end(found)
    return row
