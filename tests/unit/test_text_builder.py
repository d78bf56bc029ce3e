"""What is written as text is what llvmlite's builder makes: the same machine code comes of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from llvmlite import ir

from tests.unit.test_ir_lowering import CASES, emit
from vmjit.kernels.text_builder import Function, TextBuilder
from vmjit.translators.cpu import cpu_target

I8, I32, I64 = (ir.IntType(n) for n in (8, 32, 64))
PTR = ir.PointerType()


def both(build: Callable[[Any, Any, Any], None]) -> tuple[str, str]:
    """Assembly of a module that is built with llvmlite's classes, and with the text builder."""
    found = []
    for make_function, make_builder in ((ir.Function, ir.IRBuilder), (Function, TextBuilder)):
        module = ir.Module("both")
        build(module, make_function, make_builder)
        found.append(cpu_target().assembly(str(module)))
    return found[0], found[1]


def test_every_lowering() -> None:
    def build(module: Any, make_function: Any, make_builder: Any) -> None:
        for case in CASES:
            emit(module, case, make_function, make_builder)

    llvmlites, ours = both(build)
    assert all(case.symbol in ours for case in CASES)
    assert llvmlites == ours


def sum_of_table(module: Any, make_function: Any, make_builder: Any) -> None:
    """A loop with a phi and a weighted branch around a switch; an alloca added to an entry that is finished."""
    function = make_function(module, ir.FunctionType(I64, [PTR, I64]), "sum_of_table")
    table, size = function.args
    b = make_builder(function.append_basic_block("entry"))
    head, body, odd, even, last = (b.append_basic_block(name) for name in ("head", "body", "odd", "", "body"))
    entry = b.block
    b.branch(head)
    b.position_at_end(head)
    index = b.phi(I64)
    index.add_incoming(ir.Constant(I64, 0), entry)
    b.cbranch(b.icmp_unsigned("<", index, size), body, last).set_weights((100_000, 1))
    with b.goto_entry_block():
        sum_ = b.alloca(I64, name="sum")
        b.store(ir.Constant(I64, -7), sum_)
    assert b.block is head
    b.position_at_end(body)
    value = b.load(b.gep(table, [index], source_etype=I32), typ=I32, align=1)
    wide = b.sext(value, I64)
    assert b.zext(wide, I64) is wide
    switch = b.switch(b.and_(wide, ir.Constant(I64, 3)), even)
    switch.add_case(ir.Constant(I64, 1), odd)
    switch.add_case(ir.Constant(I64, 3), odd)
    b.position_at_end(odd)
    b.store(b.add(b.load(sum_, typ=I64), wide), sum_)
    b.branch(even)
    b.position_at_end(even)
    following = b.add(index, ir.Constant(I64, 1), flags=("nuw", "nsw"))
    index.add_incoming(following, even)
    b.branch(head)
    b.position_at_end(last)
    b.ret(b.select(b.icmp_signed(">=", b.load(sum_, typ=I64), index), b.neg(index), b.not_(index)))


def calls_and_atomics(module: Any, make_function: Any, make_builder: Any) -> None:
    """Calls of functions with conventions, inline assembly, and memory that threads share."""
    ftype = ir.FunctionType(ir.VoidType(), [PTR, I64])
    target = ir.Function(module, ftype, "target")
    target.calling_convention = "preserve_nonecc"
    function = make_function(module, ftype, "calls_and_atomics")
    function.calling_convention = "preserve_nonecc"
    place, number = function.args
    b = make_builder(function.append_basic_block("entry"))
    before = b.atomic_rmw("add", place, ir.Constant(I64, 5), "monotonic")
    flag = b.load_atomic(b.gep(place, [ir.Constant(I64, 9)], source_etype=I8), "monotonic", 4, typ=I32)
    callee = make_function(module, ir.FunctionType(I64, [I64, I32]), "callee")
    result = b.call(callee, [before, flag])
    never, fine = b.append_basic_block("never"), b.append_basic_block("fine")
    b.cbranch(b.icmp_unsigned("==", result, number), never, fine)
    b.position_at_end(never)
    b.unreachable()
    b.position_at_end(fine)
    address = b.inttoptr(b.add(b.ptrtoint(place, I64), result), PTR)
    hidden = b.asm(ir.FunctionType(I64, [I64]), "", "=r,0", [number], False)
    b.store(hidden, address, align=8)
    b.call(target, [address, result], cconv="preserve_nonecc", tail="musttail")
    b.ret_void()


@pytest.mark.parametrize("build", [sum_of_table, calls_and_atomics])
def test_control_and_memory(build: Callable[[Any, Any, Any], None]) -> None:
    llvmlites, ours = both(build)
    assert f"{build.__name__}:" in ours
    assert llvmlites == ours
