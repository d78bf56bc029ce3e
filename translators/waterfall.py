"""AMD: a switch whose cases lanes enter one number after the other, so that its branches are scalar.

LLVM puts branches that lanes of a wavefront may take differently into nested execution masks, one after the other. Of
a switch with a hundred cases that makes code in which every value that a case gives lives through all others: more
registers than there are, and seconds to compile. Here one lane's number decides for all lanes that have the same, and
the others wait for their turn. Lanes in step take one turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from vmjit.kernels.device_memory import I1, I32, I64, Builder, Value


def take_turns(b: Builder, number: Value, body: Callable[[Value], Sequence[Value]]) -> Sequence[Value]:
    """Emit `body(number)` so that all lanes that execute it at a time have the same number; gives what it gives.

    Every lane stays in the loop until the last one is done: the condition is a ballot, which no pass takes apart. A
    loop that lanes left one by one would be changed to one that has the body outside, where lanes are mixed again.
    """
    before = b.block
    turn, mine, over, done = (b.append_basic_block(n) for n in ("turn", "mine", "turn_over", "done"))
    b.branch(turn)
    b.position_at_end(turn)
    waiting = b.phi(I1)
    waiting.add_incoming(ir.Constant(I1, 1), before)
    first = b.trunc(b.cttz(_ballot(b, waiting), ir.Constant(I1, 0)), I32)
    chosen = _call(b, "llvm.amdgcn.readlane.i32", I32, number, first)
    entered = b.and_(waiting, b.icmp_unsigned("==", number, chosen))
    b.cbranch(entered, mine, over)

    b.position_at_end(mine)
    values = body(_call(b, "llvm.amdgcn.readfirstlane.i32", I32, number))
    # No instruction, but it keeps the body a region of its own in the control flow, with scalar branches only.
    _call(b, "llvm.amdgcn.wave.barrier", ir.VoidType())
    after = b.block
    b.branch(over)

    b.position_at_end(over)
    results = []
    for value in values:
        with b.goto_block(turn):
            b.position_at_start(turn)
            kept = b.phi(value.type)
        result = b.phi(value.type)
        result.add_incoming(value, after)
        result.add_incoming(kept, turn)
        kept.add_incoming(ir.Constant(value.type, 0), before)
        kept.add_incoming(result, over)
        results.append(result)
    still = b.phi(I1)
    still.add_incoming(ir.Constant(I1, 0), after)
    still.add_incoming(waiting, turn)
    waiting.add_incoming(still, over)
    b.cbranch(b.icmp_unsigned("!=", _ballot(b, still), ir.Constant(I64, 0)), turn, done)
    b.position_at_end(done)
    return results


def _ballot(b: Builder, value: Value) -> Value:
    return _call(b, "llvm.amdgcn.ballot.i64", I64, value)


def _call(b: Builder, name: str, type_: Any, *args: Value) -> Value:
    function = b.module.globals.get(name)
    if function is None:
        function = ir.Function(b.module, ir.FunctionType(type_, [a.type for a in args]), name)
        function.attributes.add("convergent")
    return b.call(function, args)
