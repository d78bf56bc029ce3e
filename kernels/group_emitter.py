"""What emits code around lane groups: loops, variables, and the group's rows of the lane state arrays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from vmjit.kernels.emit import I1, I32, I64, PTR, Builder, Value, load_field, store_field
from vmjit.kernels.interleaved import LaneVectors
from vmjit.kernels.lanes import lane_array
from vmjit.kernels.layout import STOP_RUNNING, MachineBlock


def i64(value: int) -> Value:
    return ir.Constant(I64, value)


@contextmanager
def loop(b: Builder) -> Iterator[tuple[Any, Any]]:
    """`with`: the body of a loop; gives (its head, what is behind it) to branch to."""
    head, after = b.append_basic_block("head"), b.append_basic_block("after")
    b.branch(head)
    b.position_at_end(head)
    yield head, after
    if not b.block.is_terminated:
        b.branch(head)
    b.position_at_end(after)


@contextmanager
def counted(b: Builder, count: Value) -> Iterator[Value]:
    """`with`: the body of a loop over i64 numbers from 0 to count - 1, which it gives."""
    before = b.block
    head, body, after = (b.append_basic_block(n) for n in ("head", "body", "after"))
    b.branch(head)
    b.position_at_end(head)
    index = b.phi(I64)
    index.add_incoming(i64(0), before)
    b.cbranch(b.icmp_unsigned("<", index, count), body, after)
    b.position_at_end(body)
    yield index
    index.add_incoming(b.add(index, i64(1)), b.block)
    b.branch(head)
    b.position_at_end(after)


def add_to(b: Builder, base: Value, field: int, value: Value) -> Value:
    total = b.add(load_field(b, base, field), value)
    store_field(b, base, field, total)
    return total


def variable(b: Builder, type_: Any) -> Value:
    with b.goto_entry_block():
        return b.alloca(type_)


class GroupEmitter:
    """Emits functions for groups of `lanes` lanes into `module`."""

    def __init__(self, module: Any, lanes: int) -> None:
        self.module = module
        self.lanes = lanes
        self.all = (1 << lanes) - 1
        self.wide = ir.VectorType(I64, lanes)

    def _function(self, name: str, type_: Any, *, internal: bool = True) -> tuple[Any, Builder]:
        function = ir.Function(self.module, type_, name)
        function.attributes.add("nounwind")
        if internal:
            function.linkage = "internal"
            function.attributes.add("noinline")
        return function, ir.IRBuilder(function.append_basic_block("entry"))

    def _intrinsic(self, b: Builder, name: str, type_: Any, args: list[Value]) -> Value:
        known = self.module.globals.get(name) or ir.Function(
            self.module, ir.FunctionType(type_, [a.type for a in args]), name
        )
        return b.call(known, args)

    def _cycles(self, b: Builder) -> Value:
        return self._intrinsic(b, "llvm.readcyclecounter", I64, [])

    def _population(self, b: Builder, bits: Value) -> Value:
        return self._intrinsic(b, "llvm.ctpop.i64", I64, [bits])

    def _first(self, b: Builder, bits: Value) -> Value:
        return self._intrinsic(b, "llvm.cttz.i64", I64, [bits, ir.Constant(I1, 0)])

    def _lowest(self, b: Builder, vector: Value, *, signed: bool = False) -> Value:
        name = f"llvm.vector.reduce.{'smin' if signed else 'umin'}.v{self.lanes}i64"
        return self._intrinsic(b, name, I64, [vector])

    def _bits(self, b: Builder, condition: Value) -> Value:
        return b.zext(b.bitcast(condition, ir.IntType(self.lanes)), I64)

    def _vector_of_bits(self, b: Builder, bits: Value) -> Value:
        return b.bitcast(b.trunc(bits, ir.IntType(self.lanes)), ir.VectorType(I1, self.lanes))

    def _splat(self, b: Builder, value: Value) -> Value:
        return LaneVectors(b, self.lanes).splat(value)

    def _number(self, value: int) -> Value:
        return ir.Constant(self.wide, [value] * self.lanes)

    def _row(self, b: Builder, machine: Value, field: MachineBlock, lane: Value, type_: Any) -> Value:
        """The group's elements of a lane state array."""
        return b.load(
            lane_array(b, machine, field, lane, type_), typ=ir.VectorType(type_, self.lanes), align=type_.width // 8
        )

    def _attention(self, b: Builder, machine: Value) -> Value:
        flag = b.load_atomic(load_field(b, machine, MachineBlock.ATTENTION, PTR), "monotonic", 4, typ=I32)
        return b.icmp_unsigned("!=", flag, ir.Constant(I32, 0))

    def _lowest_of(self, b: Builder, pcs: Value, active: Value) -> tuple[Value, Value, Value]:
        """(lowest pc of the lanes of `active`, the lanes there, the lowest pc of the others)."""
        none = self._number(-1)
        pc = self._lowest(b, b.select(self._vector_of_bits(b, active), pcs, none))
        here = b.and_(self._bits(b, b.icmp_unsigned("==", pcs, self._splat(b, pc))), active)
        others = b.and_(active, b.not_(here))
        return pc, here, self._lowest(b, b.select(self._vector_of_bits(b, others), pcs, none))

    def _running(self, b: Builder, machine: Value, lane: Value) -> Value:
        """The group's lanes that can run, a bit each."""
        stops = self._row(b, machine, MachineBlock.STOP, lane, I32)
        return self._bits(b, b.icmp_unsigned("==", stops, ir.Constant(stops.type, [STOP_RUNNING] * self.lanes)))
