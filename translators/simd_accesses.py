"""The memory accesses of a region for lane groups.

Whether all lanes access the same address is asked first: that is one vector access. Otherwise the lanes' addresses are
checked together and gathered or scattered. What is in neither window leaves to the interpreter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llvmlite import ir

from vmjit.ir.values import Op
from vmjit.kernels.emit import I32, I64, PTR, Value, assume, element, load_field
from vmjit.kernels.interleaved import WORD_BYTES, GroupPages, PrivateWords, UniformPlace, VaryingPlaces
from vmjit.kernels.layout import GroupFrame
from vmjit.translators.lane_forms import NARROW_BITS, Form
from vmjit.translators.lowering import int_type
from vmjit.translators.origins import Origin
from vmjit.translators.pointer_origins import PointerOrigins
from vmjit.translators.region_body import PageWindows
from vmjit.translators.value_ranges import Range, anything
from vmjit.translators.ways import Join

if TYPE_CHECKING:
    from vmjit.translators.simd_region import Held, SimdRegion


class SimdAccesses:
    """Emits the loads and stores of a region, where its builder stands."""

    def __init__(self, region: SimdRegion) -> None:
        self.region = region
        self.builder, self.lanes, self.forms = region.builder, region.lanes, region.forms
        self.ranges, self.windows, self.xlen = region.ranges, region.windows, region.xlen
        self.frame = region.frame
        private = load_field(self.builder, self.frame, GroupFrame.MEMORY, PTR)
        self.shared_base = load_field(self.builder, self.frame, GroupFrame.SHARED, PTR)
        self.memory = PrivateWords(self.lanes, private, self.windows.private_lo, self.windows.private_size)
        self.pages: GroupPages | None = None
        if self.windows.paged is not None:
            self._have_pages(self.windows.paged, private)

    def _have_pages(self, paged: PageWindows, private: Value) -> None:
        """The windows of lanes whose mappings change."""
        b, lanes, frame, plan = self.builder, self.lanes, self.frame, self.windows
        self.origins = PointerOrigins(self.region.region, self.region.registers, plan)

        def words(lo: int) -> Value:
            return element(b, private, ir.Constant(I64, (lo - plan.private_lo) // WORD_BYTES), lanes.type(32))

        self.memory = PrivateWords(lanes, words(paged.hull_lo), paged.hull_lo, paged.hull_size)
        reach = load_field(b, frame, GroupFrame.REACH)
        assume(b, b.icmp_unsigned(">=", reach, ir.Constant(I64, paged.data_size)))
        self.private = PrivateWords(lanes, private, plan.private_lo, plan.private_size, reach)
        self.stack = PrivateWords(lanes, words(paged.stack_lo), paged.stack_lo, paged.stack_size)
        rows = b.load(
            element(b, frame, ir.Constant(I64, GroupFrame.SPACE_WORDS), ir.IntType(8)), typ=lanes.type(32), align=4
        )
        spaces = load_field(b, frame, GroupFrame.SPACES, PTR)
        writable = b.trunc(load_field(b, frame, GroupFrame.BITMAP_WORDS), I32)
        self.pages = GroupPages(lanes, paged.hull_lo, spaces, rows, writable)

    def _origin(self, op: Op) -> Origin:
        return Origin.UNKNOWN if self.pages is None else self.origins.of(op)

    def _privates(self, op: Op) -> list[PrivateWords]:
        """The private windows that an access may be in, the likeliest first."""
        if not self._may_be_private(op):
            return []
        if self.pages is None:
            return [self.memory]
        windows = {Origin.STACK: [self.stack], Origin.DATA: [self.private], Origin.SHARED: []}
        return windows.get(self._origin(op), [self.private, self.stack])

    def _known_range(self, op: Op) -> Range:
        return self.ranges.addresses.get(id(op), anything(self.xlen))

    def _may_be_private(self, op: Op) -> bool:
        known = self._known_range(op)
        return self.memory.size > 0 and not known.outside(self.memory.lo, self.memory.size)

    def _may_be_shared(self, op: Op) -> bool:
        lo, size = self.windows.shared_lo, self.windows.shared_size
        if self._origin(op) in (Origin.STACK, Origin.DATA):
            return False
        return size >= op.type.bits // 8 and not self._known_range(op).outside(lo, size)

    def load(self, op: Op, address: Held) -> Held:
        form = self.forms.loaded(op, address.known.form)
        if address.uniform and form.uniform and id(op) not in self.forms.reloads:
            return self.region.held(self._load_shared_once(op, address.value), op.type, form)
        join = Join(self.builder, self.lanes.type(op.type.bits))
        if address.uniform:
            self._load_uniform(op, address.value, join)
        else:
            self._load_varying(op, address, join)
        value = join.finish(self.region.leave_here)
        if form.uniform:
            return self.region.held(self._checked_uniform(value, form), op.type, form)
        return self.region.held(value, op.type, form)

    def _load_shared_once(self, op: Op, address: Value) -> Value:
        """All lanes read the same bytes of the shared image."""
        b, type_ = self.builder, int_type(op.type.bits)
        inside, offset = self._shared_offset(op, address)
        self.region.leave_if(b.not_(inside))
        return b.load(element(b, self.shared_base, offset, ir.IntType(8)), typ=type_, align=1)

    def _shared_offset(self, op: Op, address: Value) -> tuple[Value, Value]:
        """(whether an address, one or a vector, is in the shared window, the offset there)."""
        b = self.builder
        offset = b.sub(address, self.lanes.like(address, self.windows.shared_lo))
        limit = self.windows.shared_size - op.type.bits // 8 + 1
        if self._known_range(op).inside(self.windows.shared_lo, limit):
            inside = self.lanes.always(address)
        else:
            inside = b.icmp_unsigned("<", offset, self.lanes.like(address, limit))
        if not isinstance(address.type, ir.VectorType) and address.type.width < 64:
            offset = b.zext(offset, I64)
        return inside, offset

    def _load_uniform(self, op: Op, address: Value, join: Join) -> None:
        b = self.builder
        for window in self._privates(op):
            inside, place = window.uniform(address, op.type.bits)
            with join.way(inside):
                join.add(place.load())
        if self._may_be_shared(op):
            inside, offset = self._shared_offset(op, address)
            with join.way(inside):
                pointer = element(b, self.shared_base, offset, ir.IntType(8))
                join.add(self.lanes.splat(b.load(pointer, typ=int_type(op.type.bits), align=1)))
        if self._may_be_private(op) and self.pages is not None:
            inside, place = self._uniform_by_page(self.pages, op, address, stores=False)
            with join.way(inside):
                join.add(place.load())

    def _addresses(self, address: Held) -> Value:
        """A vector of addresses, in 32 bits where all that can be accessed lies below 2^31."""
        top = max(
            self.windows.private_lo + self.windows.private_size, self.windows.shared_lo + self.windows.shared_size
        )
        narrow = address.known.form.narrow and top <= 1 << 31
        return self.region.vector(address, min(NARROW_BITS, self.xlen.bits) if narrow else self.xlen.bits)

    def _load_varying(self, op: Op, address: Held, join: Join) -> None:
        addresses = self._addresses(address)
        privates = self._privates(op)
        if privates:
            same, first = self.lanes.all_same(addresses)
            with join.way(same, rare=None):
                for window in privates:
                    inner, place = window.uniform(self._extended(first), op.type.bits)
                    with join.way(inner):
                        join.add(place.load())
        for window in privates:
            inside, places = window.varying(addresses, op.type.bits)
            with join.way(self.lanes.all(inside)):
                join.add(places.load())
        if self._may_be_shared(op):
            inside, offsets = self._shared_offset(op, addresses)
            with join.way(self.lanes.all(inside)):
                join.add(self.lanes.gather(self.shared_base, self._narrowed(offsets), op.type.bits))
        if self._may_be_private(op) and self.pages is not None:
            inside, places = self._varying_by_page(self.pages, op, addresses, stores=False)
            with join.way(self.lanes.all(inside)):
                join.add(places.load())

    def _uniform_by_page(
        self, pages: GroupPages, op: Op, address: Value, *, stores: bool
    ) -> tuple[Value, UniformPlace]:
        """(whether all lanes may access an address by what they may do with its page, where it is)."""
        lanes = self.lanes
        inside, place = self.memory.uniform(address, op.type.bits)
        permit = pages.permit(lanes.splat(address), lanes.splat(inside), op.type.bits, stores=stores)
        return lanes.all(permit), place

    def _varying_by_page(
        self, pages: GroupPages, op: Op, addresses: Value, *, stores: bool
    ) -> tuple[Value, VaryingPlaces]:
        """(which lanes may access their address by what they may do with its page, where it is)."""
        inside, places = self.memory.varying(addresses, op.type.bits)
        return pages.permit(addresses, inside, op.type.bits, stores=stores), places

    def _narrowed(self, offsets: Value) -> Value:
        """Offsets into the shared window, of the lanes that take part, in 32 bits where they fit."""
        offsets = self.lanes.selected(offsets)
        fit = self.windows.shared_size <= 1 << 31
        return self.region.resized(offsets, NARROW_BITS) if fit else offsets

    def _extended(self, value: Value) -> Value:
        return value if value.type.width == self.xlen.bits else self.builder.sext(value, int_type(self.xlen.bits))

    def _checked_uniform(self, value: Value, form: Form) -> Value:
        """A reloaded register is the same in all lanes, or the group leaves."""
        b = self.builder
        same, first = self.lanes.all_same(value)
        if form.narrow and first.type.width > NARROW_BITS:
            low = b.sext(b.trunc(first, I32), first.type)
            same = b.and_(same, b.icmp_unsigned("==", low, first))
        self.region.leave_if(b.not_(same))
        return first

    def store(self, op: Op, address: Held, value: Held) -> None:
        b = self.builder
        if not self._may_be_private(op):
            self.region.leave_here()
            b.position_at_end(b.append_basic_block("never"))
            return
        vector = self.region.vector(value, op.type.bits)
        join = Join(b, None)
        if address.uniform:
            for window in self._privates(op):
                inside, place = window.uniform(address.value, op.type.bits)
                with join.way(inside):
                    place.store(vector)
                    join.add(None)
            if self.pages is not None:
                inside, place = self._uniform_by_page(self.pages, op, address.value, stores=True)
                with join.way(inside):
                    place.store(vector)
                    join.add(None)
        else:
            addresses = self._addresses(address)
            same, first = self.lanes.all_same(addresses)
            with join.way(same, rare=None):
                for window in self._privates(op):
                    inner, place = window.uniform(self._extended(first), op.type.bits)
                    with join.way(inner):
                        place.store(vector)
                        join.add(None)
            for window in self._privates(op):
                inside, places = window.varying(addresses, op.type.bits)
                with join.way(self.lanes.all(inside)):
                    places.store(vector, self._scratch())
                    join.add(None)
            if self.pages is not None:
                inside, places = self._varying_by_page(self.pages, op, addresses, stores=True)
                with join.way(self.lanes.all(inside)):
                    places.store(vector, self._scratch())
                    join.add(None)
        join.finish(self.region.leave_here)

    def _scratch(self) -> Value:
        return element(self.builder, self.frame, ir.Constant(I64, GroupFrame.SCRATCH), ir.IntType(8))

    def store_if(self, op: Op, args: list[Held]) -> None:
        """A store that all lanes make or none; a group that disagrees leaves."""
        b = self.builder
        condition = args[0]
        store, after = b.append_basic_block("store"), b.append_basic_block("after")
        if condition.uniform:
            b.cbranch(condition.value, store, after)
        else:
            some = b.append_basic_block("some")
            b.cbranch(self.lanes.any(condition.value), some, after)
            b.position_at_end(some)
            self.region.leave_if(b.not_(self.lanes.all(condition.value)))
            b.branch(store)
        b.position_at_end(store)
        self.store(op, args[1], args[2])
        b.branch(after)
        b.position_at_end(after)
