"""Regions as AMD gets them, on this computer: registers in the lane's frame, loads only of what is not known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import llvmlite.binding as llvm
import pytest
from llvmlite import ir

from tests.cli.conftest import ISAS
from tests.devices.same_as_cpu import check_guest
from vmjit.devices import registry
from vmjit.devices.host import HostDevice
from vmjit.ir.registers import RegisterFile
from vmjit.translators import hip
from vmjit.translators.control_flow import go_through_one_head, has_loops_of_several_heads
from vmjit.translators.device_region import DeviceWindowPlan
from vmjit.translators.host_device import HostDeviceTarget, _compiled
from vmjit.translators.regions import Region
from vmjit.translators.registers_in_memory import keep_registers_in_memory


class AmdRegions(HostDeviceTarget):
    """The host's interpreter and kernel, with AMD's regions."""

    one_head = False

    def __init__(self) -> None:
        super().__init__()
        self.identity = (f"AMD's regions {self.one_head}", *self.identity)

    def compile_region(self, region: Region, registers: RegisterFile, windows: DeviceWindowPlan, name: str) -> bytes:
        return _compiled(lambda module: hip.emit_region(module, region, registers, windows, name))


class AmdLike(HostDevice):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.target = AmdRegions()


@pytest.fixture
def amd_like(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setitem(registry.BACK_ENDS, "amd-like", registry.BackEnd(__name__, "AmdLike", "for this test"))
    yield "amd-like"
    registry.open_device.cache_clear()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("name", "one_head"), [("crc32", True), ("crc32", False), ("json", True), ("sort", False)])
def test_guests_give_the_same_bits_as_on_the_cpu(
    amd_like: str, monkeypatch: pytest.MonkeyPatch, name: str, isa: str, one_head: bool
) -> None:
    # Which it is depends on LLVM; both are executed whatever is installed.
    monkeypatch.setattr(hip, "_LLVM_WITH_ANY_LOOPS", 1000 if one_head else 0)
    monkeypatch.setattr(AmdRegions, "one_head", one_head)
    check_guest(amd_like, name, isa, "scalar", 3)


def _function() -> tuple[Any, Any, Any, Any]:
    i64 = ir.IntType(64)
    function = ir.Function(ir.Module(), ir.FunctionType(i64, [i64, i64]), "f")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    cell = b.alloca(i64, name="a0")
    row = b.inttoptr(function.args[0], ir.PointerType(i64, 1), name="row")
    return function, b, cell, row


def _count(function: Any, kind: type[Any]) -> int:
    return sum(isinstance(i, kind) for block in function.blocks for i in block.instructions)


def test_what_is_known_is_not_loaded() -> None:
    function, b, cell, row = _function()
    b.store(function.args[1], cell)
    b.store(b.add(b.load(cell, typ=ir.IntType(64)), function.args[1]), cell)
    b.ret(b.load(cell, typ=ir.IntType(64)))
    keep_registers_in_memory(function, {cell: row})
    assert _count(function, ir.LoadInstr) == 0
    assert _count(function, ir.StoreInstr) == 1
    assert "alloca" not in str(function)


@pytest.mark.parametrize(("writes", "loads"), [((), 0), (("left",), 1), (("left", "right"), 1)])
def test_where_ways_meet(writes: tuple[str, ...], loads: int) -> None:
    """A value is taken from one way only if all have it."""
    function, b, cell, row = _function()
    blocks = {name: function.append_basic_block(name) for name in ("left", "right", "end")}
    b.store(function.args[1], cell)
    b.cbranch(b.trunc(function.args[1], ir.IntType(1)), blocks["left"], blocks["right"])
    for name in ("left", "right"):
        b.position_at_end(blocks[name])
        if name in writes:
            b.store(b.add(function.args[1], function.args[1]), cell)
        b.branch(blocks["end"])
    b.position_at_end(blocks["end"])
    b.ret(b.load(cell, typ=ir.IntType(64)))
    keep_registers_in_memory(function, {cell: row})
    assert _count(function, ir.LoadInstr) == loads


def test_loops_load_what_they_change() -> None:
    function, b, cell, row = _function()
    loop, end = function.append_basic_block("loop"), function.append_basic_block("end")
    b.store(function.args[1], cell)
    switch = b.switch(function.args[1], loop)
    switch.add_case(ir.Constant(ir.IntType(64), 0), end)
    b.position_at_end(loop)
    value = b.sub(b.load(cell, typ=ir.IntType(64)), ir.Constant(ir.IntType(64), 1))
    b.store(value, cell)
    b.cbranch(b.icmp_unsigned("==", value, ir.Constant(ir.IntType(64), 0)), end, loop)
    b.position_at_end(end)
    b.ret(b.load(cell, typ=ir.IntType(64)))
    keep_registers_in_memory(function, {cell: row})
    assert _count(function, ir.LoadInstr) == 2


def _two_heads() -> tuple[Any, list[Any]]:
    """A loop of two blocks that is entered at either of them."""
    i64 = ir.IntType(64)
    function = ir.Function(ir.Module(), ir.FunctionType(i64, [i64]), "f")
    entry, one, other, end = (function.append_basic_block(n) for n in ("entry", "one", "other", "end"))
    b = ir.IRBuilder(entry)
    b.switch(function.args[0], one).add_case(ir.Constant(i64, 7), other)
    for block, following in ((one, other), (other, one)):
        b.position_at_end(block)
        b.cbranch(b.trunc(function.args[0], ir.IntType(1)), following, end)
    b.position_at_end(end)
    b.ret(function.args[0])
    return function, [one, other]


def test_loops_get_one_head() -> None:
    function, heads = _two_heads()
    assert has_loops_of_several_heads(function)
    go_through_one_head(function, heads)
    assert not has_loops_of_several_heads(function)
    llvm.parse_assembly(str(function.module)).verify()
