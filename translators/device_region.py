"""Tier 1 on devices: a region as one device function, one lane a thread.

The function takes (registers, fields, memory, machine, left, entry): the addresses of the lane's first register, first
64-bit field and first byte of memory, the machine block, the instructions left of the slice, and the entry's number.
It gives back the instructions left, with what comes next in the top bits (`kernels/device_layout.py`); the lane's pc is
in its fields then. The same body serves CUDA and AMD, and compiles for the host too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

from llvmlite import ir

from vmjit.ir.registers import RegisterFile
from vmjit.ir.values import Op, Register
from vmjit.kernels.device_layout import FORCE_INTERPRETER, GROUP, DeviceMachine, LaneField, register_offset
from vmjit.kernels.device_memory import (
    I1,
    I32,
    I64,
    DeviceWindow,
    aligned_window,
    hull_bits,
    load_field,
    load_global,
    page_bit,
    place_in_window,
    store_field,
    store_global,
    window_access,
)
from vmjit.kernels.page_bits import PAGE_BYTES
from vmjit.translators.access_groups import AccessGroup, access_groups
from vmjit.translators.guest_locations import GuestLocations
from vmjit.translators.loop_unrolling import UnrolledLoop, unrolled_loops
from vmjit.translators.lowering import Builder, Value, constant, int_type
from vmjit.translators.origins import Origin
from vmjit.translators.pointer_origins import PointerOrigins, origin_of
from vmjit.translators.region_body import PageWindows, RegionBody, RegionContext, WindowPlan
from vmjit.translators.regions import Region
from vmjit.translators.value_ranges import Range, ValueRanges, anything

REGION_TYPE = ir.FunctionType(I64, [I64, I64, I64, I64, I64, I32])


@dataclass(frozen=True)
class DeviceWindowPlan:
    """The memory windows of `WindowPlan` with where they lie in the lane's and the shared memory, in bytes."""

    plan: WindowPlan
    private_offset: int
    shared_offset: int


class DeviceRegion(RegionBody):
    """Emits a region into the function that `builder` stands in; `emit` gives what the function returns.

    `unroll`: whether small loops run several iterations behind one check.
    """

    def __init__(
        self,
        region: Region,
        registers: RegisterFile,
        windows: DeviceWindowPlan,
        builder: Builder,
        args: Any,
        *,
        unroll: bool = True,
        locations: GuestLocations | None = None,
    ) -> None:
        super().__init__(region, registers, windows.plan, builder, locations)
        self.unrolls = unroll
        self.lane_registers, self.fields, self.memory, self.machine, self.left, self.entry = args
        self.exits: dict[frozenset[int], _Exit] = {}
        self.checked: dict[int, tuple[_GroupBase, int]] = {}
        word = registers.type.bits // 8
        plan = windows.plan
        self.ranges = ValueRanges(region, registers)
        self.private = aligned_window(plan.private_lo, plan.private_size, windows.private_offset, word)
        self.shared = aligned_window(plan.shared_lo, plan.shared_size, windows.shared_offset, word)
        self.paged = plan.paged
        if plan.paged is not None:
            self._have_pages(plan.paged, windows.private_offset, word)

    def _have_pages(self, paged: PageWindows, private_offset: int, word: int) -> None:
        """The windows of lanes whose mappings change."""
        self.origins = PointerOrigins(self.region, self.registers, self.windows)
        by_page = private_offset + paged.hull_lo - self.private[0]
        self.hull = aligned_window(paged.hull_lo, paged.hull_size, by_page, word)
        on_stack = private_offset + paged.stack_lo - self.private[0]
        self.stack = aligned_window(paged.stack_lo, paged.stack_size, on_stack, word)

    def emit(self) -> Value:
        b, bits = self.builder, self.registers.storage.bits
        self.done = b.append_basic_block("done")
        with b.goto_block(self.done):
            self.result = b.phi(I64)
        self.shared_base = load_global(b, self.machine, offset=DeviceMachine.SHARED)
        if self.paged is not None:
            self.reach = load_field(b, self.fields, LaneField.REACH)
        for index in self.cells:
            offset = register_offset(index, bits)
            self.store_register(index, load_global(b, self.lane_registers, self.register_type(index), offset))
        b.store(self.left, self.remaining)
        self.dispatch(self.entry)
        self.emit_blocks()
        for exit_ in self.exits.values():
            exit_.finish()
        b.position_at_end(self.done)
        return self.result

    def context(self, pc: int, size: int) -> RegionContext:
        return _DeviceContext(self, pc, size)

    def window(self, window: tuple[int, int, int], *, shared: bool, room: Value | None = None) -> DeviceWindow | None:
        """A window of (lo, size, offset), None where it is empty; `room`, of the guest's width, stands in for its
        size."""
        lo, size, offset = window
        if not size:
            return None
        b = self.builder
        base = b.add(self.shared_base if shared else self.memory, ir.Constant(I64, offset * (1 if shared else GROUP)))
        size_ = self.size_of(window) if room is None else room
        near = self.xlen.width == 32 and size * GROUP < 1 << 32
        return DeviceWindow(base, ir.Constant(self.xlen, lo), size_, not shared, near=near)

    def size_of(self, window: tuple[int, int, int]) -> Value:
        """Bytes of a window, of the guest's width."""
        if self.paged is None or window is not self.private:
            return ir.Constant(self.xlen, window[1])
        return self.reach if self.xlen.width == 64 else self.builder.trunc(self.reach, self.xlen)

    def room_for(self, window: tuple[int, int, int], extent: int, unit: int) -> Value:
        """What the offset of accesses of `extent` bytes has to be below, a multiple of `unit`, a power of two."""
        size = self.size_of(window)
        if isinstance(size, ir.Constant):
            room = (window[1] - extent) // unit * unit + unit if window[1] >= extent else 0
            return ir.Constant(self.xlen, room)
        b = self.builder
        rest = b.and_(
            b.sub(size, ir.Constant(self.xlen, extent)), ir.Constant(self.xlen, -unit % (1 << self.xlen.width))
        )
        enough = b.icmp_unsigned(">=", size, ir.Constant(self.xlen, extent))
        return b.select(enough, b.add(rest, ir.Constant(self.xlen, unit)), ir.Constant(self.xlen, 0))

    def windows_for(self, op: Op) -> list[tuple[tuple[int, int, int], bool]]:
        """(window, whether it is the shared one) of those that an access is in, most likely."""
        shared = [(self.shared, True)] if op.name == "load" else []
        if self.paged is None:
            return [(self.private, False), *shared]
        private, stack = (self.private, False), (self.stack, False)
        ways = {Origin.STACK: [stack], Origin.DATA: [private], Origin.SHARED: shared}
        return ways.get(self.origins.of(op), [private, stack, *shared])

    def origin_of(self, ops: Iterable[Op]) -> Origin:
        """Where accesses that are decided together are, most likely."""
        return Origin.UNKNOWN if self.paged is None else origin_of(self.origins, ops)

    def allows(self, address: Value, extent: int, origin: Origin, *, stores: bool) -> Value:
        """Whether `extent` bytes from an address on are memory that the lane may access, if they are in its hull."""
        b, paged = self.builder, self.paged
        assert paged is not None
        found = []
        for window, elsewhere in ((self.private, Origin.STACK), (self.stack, Origin.DATA)):
            if origin is not elsewhere:
                offset = b.sub(address, ir.Constant(self.xlen, window[0]))
                found.append(b.icmp_unsigned("<", offset, self.room_for(window, extent, 1)))
        known = reduce(b.or_, found)
        if extent > PAGE_BYTES:
            return known
        hull, ask, decided = (b.append_basic_block(name) for name in ("hull", "ask", "decided"))
        before = b.block
        self.branch(known, decided, hull, rare=False)
        b.position_at_end(hull)
        offset = b.sub(address, ir.Constant(self.xlen, paged.hull_lo))
        self.branch(b.icmp_unsigned("<", offset, self.room_for(self.hull, extent, 1)), ask, decided, rare=False)
        b.position_at_end(ask)
        bits = hull_bits(b, self.fields, self.machine, ir.Constant(I1, int(stores)))
        wide = offset if offset.type.width == 64 else b.zext(offset, I64)
        both = b.and_(page_bit(b, bits, wide), page_bit(b, bits, b.add(wide, ir.Constant(I64, extent - 1))))
        asked = b.block
        b.branch(decided)
        b.position_at_end(decided)
        result = b.phi(I1)
        for value, block in ((ir.Constant(I1, 1), before), (ir.Constant(I1, 0), hull), (both, asked)):
            result.add_incoming(value, block)
        return result

    def by_page(self, op: Op, addresses: list[Value], size: int) -> Iterator[tuple[list[Value], Value]]:
        """(where words of an access are, whether it may be made there) where the pages of the hull decide."""
        found = None if self.paged is None else self.window(self.hull, shared=False)
        if found is None or self.paged is None:
            return
        b = self.builder
        hull, outside = b.append_basic_block("hull"), b.append_basic_block("outside")
        known = self.ranges.addresses.get(id(op)) or anything(self.registers.type)
        aligned = len(addresses) == 1 and known.divisor >= size
        places = [window_access(b, found, address, size, aligned=aligned) for address in addresses]
        self.branch(reduce(b.and_, (inside for _, inside in places)), hull, outside, rare=False)
        b.position_at_end(hull)
        bits = hull_bits(b, self.fields, self.machine, ir.Constant(I1, int(op.name != "load")))
        offsets = [b.sub(address, ir.Constant(self.xlen, self.paged.hull_lo)) for address in addresses]
        wide = [offset if offset.type.width == 64 else b.zext(offset, I64) for offset in offsets]
        yield [place for place, _ in places], reduce(b.and_, (page_bit(b, bits, offset) for offset in wide))
        b.branch(outside)
        b.position_at_end(outside)

    # -- loops: several iterations behind one check

    def emit_blocks(self) -> None:
        loops = unrolled_loops(self.region, set(self.needs)) if self.private[1] and self.unrolls else {}
        for pc in self.region.blocks:
            if pc in loops:
                self._emit_loop(loops[pc])
            else:
                self.emit_block(pc, self.starts[pc], checked=True)

    def _emit_loop(self, loop: UnrolledLoop) -> None:
        """The head's block checks what the iterations in a row need; the loop as it is runs where that fails."""
        b, starts = self.builder, self.starts
        rolled = b.append_basic_block(f"rolled_{loop.head:x}")
        b.position_at_end(starts[loop.head])
        need = (loop.copies - 1) * loop.size + self.needs[loop.head]
        remaining = b.load(self.remaining, typ=I64)
        self._require(b.icmp_signed(">=", remaining, ir.Constant(I64, need)), rolled)
        bases: dict[AccessGroup, _GroupBase] = {}
        for group in loop.groups:
            value = self.load_register(group.register)
            known = self.ranges.register(loop.head, group.register)
            whole = group is loop.stepping
            shared = group in loop.loads and self._starts_in_shared(loop, group)
            inside_loop = (op for pc in loop.body for op in self.region.blocks[pc].ops())
            ops = (op for op in inside_loop if loop.members.get((0, id(op)), (None, 0))[0] is group)
            origin = self.origin_of(ops)
            bases[group], inside = check_group(self, group, value, known, whole=whole, shared=shared, origin=origin)
            self._require(inside, rolled)
        for group, distance in loop.members.values():
            bases[group].prepare(distance)  # here, before the ways part
        copies = [{pc: b.append_basic_block(f"copy{i}_{pc:x}") for pc in loop.body} for i in range(loop.copies)]
        b.branch(copies[0][loop.head])
        for i, labels in enumerate(copies):
            behind = copies[i + 1] if i + 1 < loop.copies else starts
            self.starts = {**starts, **labels, loop.head: behind[loop.head]}
            self.checked = {key[1]: (bases[g], d) for key, (g, d) in loop.members.items() if key[0] == i}
            for pc in loop.body:
                self.emit_block(pc, labels[pc], checked=False)
        self.starts, self.checked = starts, {}
        self.emit_block(loop.head, rolled, checked=True)

    def _starts_in_shared(self, loop: UnrolledLoop, group: AccessGroup) -> bool:
        """Whether a loop reads a table of the shared memory, by where it begins."""
        lo, size, _ = self.shared
        return self.ranges.entering(loop.head, loop.body, group.register).inside(lo, size)

    def _require(self, condition: Value, otherwise: Any) -> None:
        b = self.builder
        following = b.append_basic_block("required")
        self.branch(condition, following, otherwise, rare=False)
        b.position_at_end(following)

    # -- exits: one copy of the code that stores the registers for each set of written registers

    def _leave(self, pc: Value, refund: int, flags: int) -> None:
        dirty = frozenset(self.dirty)
        if dirty not in self.exits:
            self.exits[dirty] = _Exit(self, dirty)
        self.exits[dirty].leave(pc, refund, flags)

    def leave_to(self, pc: int) -> None:
        self._leave(constant(self.registers.type, pc), 0, 0)

    def leave_to_address(self, address: Value, site: int, *, computed: bool) -> None:
        self._leave(address, 0, 0)

    def leave_to_instruction(self, pc: int, number: int, paid: int) -> None:
        instruction = self.region.blocks[pc].instructions[number]
        self._leave(constant(self.registers.type, instruction.pc), paid - number if paid else 0, FORCE_INTERPRETER)


class _Exit:
    """Leaving with one set of registers to store. What the places that leave tell is stored where they are: a block of
    its own for each, so that handing values over costs nothing on the way that does not leave."""

    def __init__(self, region: DeviceRegion, dirty: frozenset[int]) -> None:
        self.region = region
        self.dirty = dirty
        b = region.builder
        self.block = b.append_basic_block("exit")
        with b.goto_block(self.block):
            self.result = b.phi(I64)

    def leave(self, pc: Value, refund: int, flags: int) -> None:
        region, b = self.region, self.region.builder
        store_field(b, region.fields, LaneField.PC, pc if region.xlen.width == 64 else b.zext(pc, I64))
        left = b.add(b.load(region.remaining, typ=I64), ir.Constant(I64, refund))
        self.result.add_incoming(b.or_(left, ir.Constant(I64, flags)), b.block)
        b.branch(self.block)

    def finish(self) -> None:
        region, b = self.region, self.region.builder
        b.position_at_end(self.block)
        for index in sorted(self.dirty):
            offset = register_offset(index, region.registers.storage.bits)
            store_global(b, region.load_register(index), region.lane_registers, offset)
        region.result.add_incoming(self.result, b.block)
        b.branch(region.done)


class _GroupBase:
    """Where the accesses of a group that was checked take place; `alignment` is that of its lowest address."""

    def __init__(
        self,
        region: DeviceRegion,
        low: int,
        window: DeviceWindow,
        offset: Value,
        first: Value,
        alignment: int,
    ) -> None:
        self.region = region
        self.low = low
        self.window = window
        self.offset = offset
        self.word = region.registers.type.bits // 8
        self.alignment = alignment
        # By the distance of an aligned piece from the word at the lowest address.
        self.bases = {0: first}

    def prepare(self, distance: int) -> int:
        """Compute what `place` needs for a distance; it must dominate every use. Gives the aligned piece of a word."""
        b = self.region.builder
        # What lies in one aligned piece of a word stays together wherever the word is.
        piece = (distance - self.low) % self.word // self.alignment * self.alignment
        if self.window.interleaved and piece not in self.bases:
            offset = b.add(self.offset, ir.Constant(self.region.xlen, piece))
            self.bases[piece] = place_in_window(b, self.window, offset)
        return piece

    def place(self, distance: int) -> Value:
        """Where the access at a distance from the register's value takes place."""
        b, start, piece = self.region.builder, distance - self.low, self.prepare(distance)
        if not self.window.interleaved:
            return b.add(self.bases[0], ir.Constant(I64, start))
        within = start % self.word
        return b.add(self.bases[piece], ir.Constant(I64, (start - within) * GROUP + within - piece))


def check_group(
    region: DeviceRegion,
    group: AccessGroup,
    value: Value,
    known: Range,
    *,
    whole: bool = False,
    shared: bool = False,
    origin: Origin = Origin.UNKNOWN,
) -> tuple[_GroupBase, Value]:
    """Where the group's accesses take place, and whether all lie in the window, for the register's value.

    The window is the lane's own, or with `shared`, for loads, the shared one. With `whole`, the lowest address
    must also be that of a whole word.
    """
    b = region.builder
    word = region.registers.type.bits // 8
    by_page = region.paged is not None and not shared
    memory = region.shared if shared else region.hull if by_page else region.private
    # What is known of the lowest address is used only where it agrees with what the accesses ask for.
    step = min(known.step, word) if known.rest % min(known.step, group.alignment) == 0 else 1
    low = group.low - (known.rest + group.low) % step
    extent = group.hi - low
    unit = word if whole else max(group.alignment, step)
    window = region.window(memory, shared=shared, room=region.room_for(memory, extent, unit))
    assert window is not None
    address = b.add(value, ir.Constant(region.xlen, low))
    first, inside = window_access(b, window, address, unit, aligned=step >= unit)
    if by_page:
        inside = b.and_(inside, region.allows(address, extent, origin, stores=group.stores))
    return _GroupBase(region, low, window, b.sub(address, window.lo), first, unit), inside


class _DeviceContext(RegionContext):
    """Windows as constants; whatever they do not decide leaves to the interpreter."""

    body: DeviceRegion

    def __init__(self, body: DeviceRegion, pc: int, size: int) -> None:
        super().__init__(body, pc, size)
        widest = body.registers.type.bits  # what is wider lies in two words
        block, stack = body.region.blocks[pc], body.registers.stack
        self._groups = access_groups(block, stack, widest=widest) if body.private[1] else {}
        self._bases: dict[AccessGroup, _GroupBase] = {}

    def _in_group(self, op: Op) -> Value | None:
        """Where an access of a group takes place; the first one checks for all. None for an access of its own."""
        if id(op) in self.body.checked:
            base, distance = self.body.checked[id(op)]
            return base.place(distance)
        if id(op) not in self._groups:
            return None
        group, distance = self._groups[id(op)]
        if group not in self._bases:
            known = self._range(op)
            rest = (known.rest - distance) % known.step
            value = anything(self.body.registers.type, known.step, rest)
            register = self.operand(Register(group.register))
            base, inside = check_group(self.body, group, register, value, origin=self.body.origin_of([op]))
            b = self.builder
            hit, miss = b.append_basic_block("all"), b.append_basic_block("not_all")
            self.body.branch(inside, hit, miss, rare=False)
            b.position_at_end(miss)
            self.leave_here()
            b.position_at_end(hit)
            self._bases[group] = base
        return self._bases[group].place(distance)

    def limit(self) -> Value:
        return load_field(self.builder, self.body.fields, LaneField.LIMIT)

    def _range(self, op: Op) -> Range:
        """What is known of the address of an access."""
        return self.body.ranges.addresses.get(id(op)) or anything(self.body.registers.type)

    def load(self, op: Op, address: Value) -> Value:
        b, llvm_type = self.builder, int_type(op.type.bits)
        if (known := self._in_group(op)) is not None:
            return load_global(b, known, llvm_type)
        if op.type.bits > self.body.xlen.width:
            return self._load_two_words(op, address)
        done = b.append_basic_block("loaded")
        incoming = self.through_windows(self._ways(op, address), lambda place: load_global(b, place, llvm_type), done)
        self.leave_here()
        return self.joined(llvm_type, incoming, done)

    def store(self, op: Op, address: Value, value: Value) -> None:
        b = self.builder
        if (known := self._in_group(op)) is not None:
            store_global(b, value, known)
            return
        if op.type.bits > self.body.xlen.width:
            self._store_two_words(op, address, value)
            return
        done = b.append_basic_block("stored")
        self.through_windows(self._ways(op, address), lambda place: store_global(b, value, place), done)
        self.leave_here()
        b.position_at_end(done)

    def _load_two_words(self, op: Op, address: Value) -> Value:
        """A number of 64 bits where memory is interleaved by words of 32."""
        b = self.builder
        done = b.append_basic_block("loaded")

        def load(places: tuple[Value, Value]) -> Value:
            low, high = (b.zext(load_global(b, place, I32), I64) for place in places)
            return b.or_(low, b.shl(high, ir.Constant(I64, 32)))

        incoming = self.through_windows(self._two_words(op, address), load, done)
        self.leave_here()
        return self.joined(I64, incoming, done)

    def _store_two_words(self, op: Op, address: Value, value: Value) -> None:
        b = self.builder
        done = b.append_basic_block("stored")

        def store(places: tuple[Value, Value]) -> None:
            store_global(b, b.trunc(value, I32), places[0])
            store_global(b, b.trunc(b.lshr(value, ir.Constant(I64, 32)), I32), places[1])

        self.through_windows(self._two_words(op, address), store, done)
        self.leave_here()
        b.position_at_end(done)

    def _two_words(self, op: Op, address: Value) -> Iterator[tuple[tuple[Value, Value], Value]]:
        """(where both words of an access are, whether it may be made there) in each window."""
        b, body = self.builder, self.body
        following = b.add(address, ir.Constant(body.xlen, 4))
        for window, shared in body.windows_for(op):
            found = body.window(window, shared=shared)
            if found is not None:
                (low, inside), (high, also) = (window_access(b, found, at, 4) for at in (address, following))
                yield (low, high), b.and_(inside, also)
        for (low, high), inside in body.by_page(op, [address, following], 4):
            yield (low, high), inside

    def _ways(self, op: Op, address: Value) -> Iterator[tuple[Value, Value]]:
        """(where an access takes place, whether it may) in the lane's own window and, for a load, in the shared one.

        A window where it never takes place is left out; of one where it always does, LLVM need not be told more.
        """
        body, known, size = self.body, self._range(op), op.type.bits // 8
        for window, shared in body.windows_for(op):
            lo, extent, _ = window
            found = body.window(window, shared=shared)
            if found is None or known.outside(lo, extent):
                continue
            place, inside = window_access(self.builder, found, address, size, aligned=known.divisor >= size)
            sure = body.windows.sure_size if window is body.private else extent
            if known.inside(lo, min(extent, sure)) and known.divisor >= size:
                inside = ir.Constant(I1, 1)
            yield place, inside
        for (place,), inside in body.by_page(op, [address], size):
            yield place, inside


def emit_region_function(
    region: Region, registers: RegisterFile, windows: DeviceWindowPlan, module: Any, name: str
) -> Any:
    """Define the region as an LLVM function of its own in `module`, for the targets that take LLVM IR."""
    function = ir.Function(module, REGION_TYPE, name)
    function.attributes.add("nounwind")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    b.ret(DeviceRegion(region, registers, windows, b, function.args).emit())
    return function
