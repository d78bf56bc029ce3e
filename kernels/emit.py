"""Small helpers that every kernel emitter uses: typed fields at byte offsets, and the handlers' calling convention."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from vmjit.kernels.layout import RECORD_HANDLER, RECORD_SIZE, SLOT_BYTES, Frame
from vmjit.kernels.text_builder import Function, LocatedTextBuilder, TextBuilder

I1, I8, I16, I32, I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
PTR = ir.PointerType()
VOID = ir.VoidType()

# Handlers pass a lane's hot state in registers and leave by a tail call, so that a chain of them is a chain of jumps.
HANDLER_CONVENTION = "preserve_nonecc"

Value = Any
Builder = Any


def field_pointer(b: Builder, base: Value, offset: int) -> Value:
    if not offset:
        return base
    if isinstance(b, TextBuilder):
        return b.field(base, offset)
    return b.gep(base, [ir.Constant(I64, offset)], source_etype=I8)


def load_field(b: Builder, base: Value, offset: int, type_: Any = I64, align: int | None = None) -> Value:
    return b.load(field_pointer(b, base, offset), typ=type_, align=align or type_size(type_))


def store_field(b: Builder, base: Value, offset: int, value: Value) -> None:
    b.store(value, field_pointer(b, base, offset), align=type_size(value.type))


def add_to_counter(b: Builder, address: int, more: Value) -> None:
    """Add to a 64-bit number at a host address, which other threads add to as well."""
    place = b.inttoptr(ir.Constant(I64, address), PTR)
    b.atomic_rmw("add", place, more, "monotonic")


def type_size(type_: Any) -> int:
    return 8 if isinstance(type_, ir.PointerType) else max(type_.width // 8, 1)


def element(b: Builder, base: Value, index: Value, type_: Any) -> Value:
    """Pointer to base[index], `index` an i64."""
    return b.gep(base, [index], source_etype=type_)


def assume_rare(instruction: Value, *, taken_rare: bool) -> None:
    """Branch weights: one side is an exception."""
    weights = (1, 100_000) if taken_rare else (100_000, 1)
    instruction.set_weights(weights)


def assume(b: Builder, condition: Value) -> None:
    """Tell LLVM of a condition that holds here."""
    module = b.function.module
    function = module.globals.get("llvm.assume") or ir.Function(module, ir.FunctionType(VOID, [I1]), "llvm.assume")
    b.call(function, [condition])


class Handler:
    """A function of the handlers' convention: (frame, ip, remaining, window base, window lo, window limit).

    `located`: whether its instructions get debug locations.
    """

    def __init__(self, module: Any, name: str, xlen: Any, *, linkage: str = "internal", located: bool = False) -> None:
        self.function = Function(module, handler_type(xlen), name)
        self.function.calling_convention = HANDLER_CONVENTION
        self.function.linkage = linkage
        self.function.attributes.add("nounwind")
        entry = self.function.append_basic_block("entry")
        self.builder: Builder = LocatedTextBuilder(entry) if located else TextBuilder(entry)
        self.frame, self.ip, self.remaining, self.base, self.lo, self.limit = self.function.args

    def advance(self) -> None:
        """Go on with the next slot, in this handler."""
        self.ip = field_pointer(self.builder, self.ip, SLOT_BYTES)

    def leave(self, target: Value, *, ip: Value | None = None, remaining: Value | None = None) -> None:
        """Tail-call another handler."""
        b = self.builder
        args = [
            self.frame,
            self.ip if ip is None else ip,
            self.remaining if remaining is None else remaining,
            self.base,
            self.lo,
            self.limit,
        ]
        if isinstance(target, ir.Function):
            b.call(target, args, cconv=HANDLER_CONVENTION, tail="musttail")
        else:
            call_pointer(b, self.function.ftype, target, args)
        b.ret_void()

    def stop(self, code: int, *, pc: Value | None = None, remaining: Value | None = None) -> None:
        """Record a stop at this slot (or at `pc`) and return to the loop over lanes."""
        b = self.builder
        store_field(b, self.frame, Frame.STOP, ir.Constant(I64, int(code)))
        if pc is None:
            store_field(b, self.frame, Frame.STOP_IP, b.ptrtoint(self.ip, I64))
        else:
            store_field(b, self.frame, Frame.STOP_IP, ir.Constant(I64, 0))
            store_field(b, self.frame, Frame.STOP_PC, pc)
        store_field(b, self.frame, Frame.REMAINING, self.remaining if remaining is None else remaining)
        b.ret_void()

    def goto(self, record: Value, *, tail: Value, count: Value, remaining: Value | None = None) -> None:
        """Enter a block: pay for it, and leave for `tail` if the budget does not cover it or `count` if it counts."""
        b = self.builder
        word = load_field(b, record, RECORD_SIZE)
        size = b.and_(word, ir.Constant(I64, 0xFFFFFFFF))
        left = b.sub(self.remaining if remaining is None else remaining, size)
        short = b.append_basic_block("short")
        enough = b.append_basic_block("enough")
        counting = b.append_basic_block("counting")
        enter = b.append_basic_block("enter")
        assume_rare(b.cbranch(b.icmp_signed("<", left, ir.Constant(I64, 0)), short, enough), taken_rare=True)
        b.position_at_end(short)
        self.leave(tail, ip=record, remaining=left)
        b.position_at_end(enough)
        counted = b.icmp_unsigned("!=", b.lshr(word, ir.Constant(I64, 32)), ir.Constant(I64, 0))
        assume_rare(b.cbranch(counted, counting, enter), taken_rare=True)
        b.position_at_end(counting)
        self.leave(count, ip=record, remaining=left)
        b.position_at_end(enter)
        self.enter(record, left)

    def enter(self, record: Value, remaining: Value) -> None:
        """Run a block that has been paid for."""
        b = self.builder
        target = load_field(b, record, RECORD_HANDLER, PTR)
        self.leave(target, ip=field_pointer(b, record, SLOT_BYTES), remaining=remaining)


def handler_type(xlen: Any) -> Any:
    return ir.FunctionType(VOID, [PTR, PTR, I64, PTR, xlen, xlen])


def call_pointer(b: Builder, ftype: Any, target: Value, args: list[Value], *, tail: str | None = "musttail") -> Value:
    """Call a handler by address."""
    return b.call(Callee(target, ftype), args, cconv=HANDLER_CONVENTION, tail=tail)


class Callee:
    """An address with a function's type: what llvmlite's call needs, which otherwise wants a function."""

    def __init__(self, target: Value, ftype: Any) -> None:
        self.function_type = ftype
        self.type = PTR
        self._target = target

    def get_reference(self) -> str:
        return str(self._target.get_reference())
