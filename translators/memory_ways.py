"""Where a memory access of scalar compiled code may be: the windows to try, one after the other.

A lane whose mappings never change has its private window and the shared one, both constants. Where they change, the
private window is as long as the lane's heap, the stack is a window of its own, and what is in neither asks for its
pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llvmlite import ir

from vmjit.kernels.emit import I1, I8, I64, PTR, Builder, Callee, Value, assume, assume_rare, element, load_field
from vmjit.kernels.layout import Frame
from vmjit.kernels.memory import PAGES_PERMIT_TYPE, Window, window_offset
from vmjit.kernels.page_bits import PAGE_BYTES, limit_for, one_page_permits, pages_permit
from vmjit.translators.origins import Origin
from vmjit.translators.region_body import PageWindows, WindowPlan

Place = tuple[Value, Value]  # host address, and the offset from it

_SIZES = (1, 2, 4, 8)


class MemoryWays:
    """The ways of a function that `builder` stands at the entry of. `base` and `shared_base` are host addresses of the
    windows' first bytes."""

    def __init__(
        self, builder: Builder, xlen: Any, frame: Value, base: Value, shared_base: Value, windows: WindowPlan
    ) -> None:
        self.builder, self.xlen = builder, xlen
        self.frame, self.base, self.shared_base = frame, base, shared_base
        self.windows = windows
        if windows.paged is not None:
            self.reach = load_field(builder, frame, Frame.REACH)
            assume(builder, builder.icmp_unsigned(">=", self.reach, ir.Constant(I64, windows.paged.data_size)))
            self._limits = {size: self._limit(size) for size in _SIZES}

    def _limit(self, size: int) -> Value:
        """The same as `_reach_for`, of the guest's width."""
        limit = self._reach_for(size)
        return limit if self.xlen.width == 64 else self.builder.trunc(limit, self.xlen)

    def _const(self, value: int) -> Value:
        return ir.Constant(self.xlen, value)

    def _within(self, base: Value, lo: int, address: Value, size: int, room: int) -> tuple[Place, Value]:
        """The way of a window whose bytes are known."""
        window = Window(None, self._const(lo), None)
        offset, inside = window_offset(self.builder, window, address, size, exact=room)
        return (base, offset if base is self.shared_base else self._from_base(offset, lo)), inside

    def _in_private(self, address: Value, size: int) -> tuple[Place, Value]:
        plan = self.windows
        if plan.paged is None:
            return self._within(self.base, plan.private_lo, address, size, plan.private_size)
        window = Window(None, self._const(plan.private_lo), self._limits.get(size) or self._limit(size))
        offset, inside = window_offset(self.builder, window, address, size)
        return (self.base, offset), inside

    def ways(
        self, address: Value, size: int, *, origin: Origin, shared: bool, stores: bool
    ) -> Iterator[tuple[Place, Value]]:
        """(place, whether the access lies inside) of each window, the likeliest first; `shared` whether it may be in
        the shared one."""
        plan, paged = self.windows, self.windows.paged
        if paged is None:
            if plan.private_size:
                yield self._in_private(address, size)
            if shared and plan.shared_size:
                yield self._within(self.shared_base, plan.shared_lo, address, size, plan.shared_size)
            return
        if origin in (Origin.DATA, Origin.UNKNOWN):
            yield self._in_private(address, size)
        if origin in (Origin.STACK, Origin.UNKNOWN):
            yield self._within(self.base, paged.stack_lo, address, size, paged.stack_size)
        if shared and plan.shared_size and origin in (Origin.SHARED, Origin.UNKNOWN):
            yield self._within(self.shared_base, plan.shared_lo, address, size, plan.shared_size)
        if size <= PAGE_BYTES:
            yield from self._by_page(paged, address, size, stores=stores)

    def _from_base(self, offset: Value, lo: int) -> Value:
        distance = lo - self.windows.private_lo
        return self.builder.add(offset, ir.Constant(I64, distance)) if distance else offset

    def _by_page(self, paged: PageWindows, address: Value, size: int, *, stores: bool) -> Iterator[tuple[Place, Value]]:
        b = self.builder
        hull, outside = b.append_basic_block("hull"), b.append_basic_block("outside")
        window = Window(None, self._const(paged.hull_lo), None)
        offset, inside = window_offset(b, window, address, size, exact=paged.hull_size)
        assume_rare(b.cbranch(inside, hull, outside), taken_rare=False)
        b.position_at_end(hull)
        permit = one_page_permits if size in _SIZES else pages_permit
        yield (self.base, self._from_base(offset, paged.hull_lo)), permit(b, self._bits(stores=stores), offset, size)
        b.branch(outside)
        b.position_at_end(outside)

    def _bits(self, *, stores: bool) -> Value:
        return load_field(self.builder, self.frame, Frame.WRITABLE if stores else Frame.READABLE, PTR)

    def loop_start(
        self, first: Value, moved: Value | None, extent: int, *, origin: Origin, shared: bool, stores: bool
    ) -> tuple[Value, Value] | None:
        """(host address, whether all may be made) of accesses to `extent` bytes from `first` on, and from there to
        `moved`, an i64, further on."""
        b, plan = self.builder, self.windows
        if plan.paged is not None:
            return self._paged_loop_start(plan.paged, first, moved, extent, origin, shared=shared, stores=stores)
        windows = [(self.base, plan.private_lo, plan.private_size)]
        windows += [(self.shared_base, plan.shared_lo, plan.shared_size)] if shared else []
        found = []
        for base, lo, size in windows:
            if size:
                offset = self._offset(first, lo)
                found.append((element(b, base, offset, I8), self._all_below(offset, moved, _room(size, extent))))
        if not found:
            return None
        (place, inside), *others = found
        for other, also in others:
            place = b.select(inside, place, other)
            inside = b.or_(inside, also)
        return place, inside

    def _offset(self, address: Value, lo: int) -> Value:
        offset = self.builder.sub(address, self._const(lo))
        return offset if self.xlen.width == 64 else self.builder.zext(offset, I64)

    def _all_below(self, offset: Value, moved: Value | None, room: Value) -> Value:
        b = self.builder
        inside = b.icmp_unsigned("<", offset, room)
        return inside if moved is None else b.and_(inside, b.icmp_unsigned("<", b.add(offset, moved), room))

    def _paged_loop_start(
        self,
        paged: PageWindows,
        first: Value,
        moved: Value | None,
        extent: int,
        origin: Origin,
        *,
        shared: bool,
        stores: bool,
    ) -> tuple[Value, Value]:
        """The likeliest window is asked first, the others only if it has not all of them, and pages last. Private
        memory is at one place, whichever of them it is in."""
        b, plan = self.builder, self.windows
        wide = first if self.xlen.width == 64 else b.zext(first, I64)
        here = element(b, self.base, b.sub(wide, ir.Constant(I64, plan.private_lo)), I8)
        windows: list[tuple[Value, int, Value]] = []
        if origin in (Origin.DATA, Origin.UNKNOWN):
            windows.append((here, plan.private_lo, self._reach_for(extent)))
        if origin in (Origin.STACK, Origin.UNKNOWN):
            windows.append((here, paged.stack_lo, _room(paged.stack_size, extent)))
        if shared and plan.shared_size and origin in (Origin.SHARED, Origin.UNKNOWN):
            there = element(b, self.shared_base, self._offset(first, plan.shared_lo), I8)
            windows.append((there, plan.shared_lo, _room(plan.shared_size, extent)))
        decided = b.append_basic_block("decided")
        incoming = []
        for place, lo, room in windows:
            inside, other = self._all_below(self._offset(first, lo), moved, room), b.append_basic_block("other")
            incoming.append((place, ir.Constant(I1, 1), b.block))
            assume_rare(b.cbranch(inside, decided, other), taken_rare=False)
            b.position_at_end(other)
        offset = self._offset(first, paged.hull_lo)
        ask = b.append_basic_block("ask")
        incoming.append((here, ir.Constant(I1, 0), b.block))
        b.cbranch(self._all_below(offset, moved, _room(paged.hull_size, extent)), ask, decided)
        b.position_at_end(ask)
        incoming.append((here, self._pages_permit(offset, moved, extent, stores=stores), b.block))
        b.branch(decided)
        b.position_at_end(decided)
        place, inside = b.phi(PTR), b.phi(I1)
        for where, known, block in incoming:
            place.add_incoming(where, block)
            inside.add_incoming(known, block)
        return (place if any(other[0] is not here for other in windows) else here), inside

    def _reach_for(self, extent: int) -> Value:
        """What offsets of `extent` bytes in the private window have to be below, an i64."""
        paged = self.windows.paged
        assert paged is not None
        if extent <= paged.data_size:
            return self.builder.sub(self.reach, ir.Constant(I64, extent - 1))
        return limit_for(self.builder, self.reach, ir.Constant(I64, extent))

    def _pages_permit(self, offset: Value, moved: Value | None, extent: int, *, stores: bool) -> Value:
        """Whether all pages of the hull may be accessed that accesses from an offset on touch."""
        b = self.builder
        low, high = offset, offset
        if moved is not None:
            end = b.add(offset, moved)
            ascends = b.icmp_unsigned("<=", offset, end)
            low, high = b.select(ascends, offset, end), b.select(ascends, end, offset)
        last = b.add(high, ir.Constant(I64, extent - 1))
        function = Callee(load_field(b, self.frame, Frame.PERMITTED, PTR), PAGES_PERMIT_TYPE)
        return b.call(function, [self._bits(stores=stores), low, last])


def _room(size: int, extent: int) -> Value:
    """What offsets of `extent` bytes have to be below."""
    return ir.Constant(I64, max(size - extent + 1, 0))
