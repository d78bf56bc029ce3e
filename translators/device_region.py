"""Tier 1 on devices: a region as one device function, one lane a thread.

The function takes (registers, fields, memory, machine, left, entry): the addresses of the lane's first register, first
64-bit field and first byte of memory, the machine block, the instructions left of the slice, and the entry's number.
It gives back the instructions left, with what comes next in the top bits (`kernels/device_layout.py`); the lane's pc is
in its fields then. The same body serves CUDA and AMD, and compiles for the host too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
    load_field,
    load_global,
    place_in_window,
    store_field,
    store_global,
    window_access,
)
from vmjit.translators.access_groups import AccessGroup, access_groups
from vmjit.translators.loop_unrolling import UnrolledLoop, unrolled_loops
from vmjit.translators.lowering import Builder, Value, constant, int_type
from vmjit.translators.region_body import RegionBody, RegionContext, WindowPlan
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
    ) -> None:
        super().__init__(region, registers, windows.plan, builder)
        self.unrolls = unroll
        self.lane_registers, self.fields, self.memory, self.machine, self.left, self.entry = args
        self.exits: dict[frozenset[int], _Exit] = {}
        self.checked: dict[int, tuple[_GroupBase, int]] = {}
        word = registers.type.bits // 8
        plan = windows.plan
        self.ranges = ValueRanges(region, registers)
        self.private = aligned_window(plan.private_lo, plan.private_size, windows.private_offset, word)
        self.shared = aligned_window(plan.shared_lo, plan.shared_size, windows.shared_offset, word)

    def emit(self) -> Value:
        b, bits = self.builder, self.registers.storage.bits
        self.done = b.append_basic_block("done")
        with b.goto_block(self.done):
            self.result = b.phi(I64)
        self.shared_base = load_global(b, self.machine, offset=DeviceMachine.SHARED)
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

    def window(self, window: tuple[int, int, int], *, shared: bool, room: int | None = None) -> DeviceWindow | None:
        """A window of (lo, size, offset), None where it is empty; `room` stands in for its size."""
        lo, size, offset = window
        if not size:
            return None
        b = self.builder
        base = b.add(self.shared_base if shared else self.memory, ir.Constant(I64, offset * (1 if shared else GROUP)))
        size_ = ir.Constant(self.xlen, size if room is None else room)
        near = self.xlen.width == 32 and size * GROUP < 1 << 32
        return DeviceWindow(base, ir.Constant(self.xlen, lo), size_, not shared, near=near)

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
            bases[group], inside = check_group(self, group, value, known, whole=whole, shared=shared)
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
    region: DeviceRegion, group: AccessGroup, value: Value, known: Range, *, whole: bool = False, shared: bool = False
) -> tuple[_GroupBase, Value]:
    """Where the group's accesses take place, and whether all lie in the window, for the register's value.

    The window is the lane's own, or with `shared`, for loads, the shared one. With `whole`, the lowest address
    must also be that of a whole word.
    """
    b = region.builder
    word = region.registers.type.bits // 8
    memory = region.shared if shared else region.private
    _, size, _ = memory
    # What is known of the lowest address is used only where it agrees with what the accesses ask for.
    step = min(known.step, word) if known.rest % min(known.step, group.alignment) == 0 else 1
    low = group.low - (known.rest + group.low) % step
    extent = group.hi - low
    unit = word if whole else max(group.alignment, step)
    room = (size - extent) // unit * unit + unit if size >= extent else 0
    window = region.window(memory, shared=shared, room=room)
    assert window is not None
    address = b.add(value, ir.Constant(region.xlen, low))
    first, inside = window_access(b, window, address, unit, aligned=step >= unit)
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
            base, inside = check_group(self.body, group, self.operand(Register(group.register)), value)
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
        windows = [(body.private, False), (body.shared, True)] if op.name == "load" else [(body.private, False)]
        following = b.add(address, ir.Constant(body.xlen, 4))
        for window, shared in windows:
            found = body.window(window, shared=shared)
            if found is not None:
                (low, inside), (high, also) = (window_access(b, found, at, 4) for at in (address, following))
                yield (low, high), b.and_(inside, also)

    def _ways(self, op: Op, address: Value) -> Iterator[tuple[Value, Value]]:
        """(where an access takes place, whether it may) in the lane's own window and, for a load, in the shared one.

        A window where it never takes place is left out; of one where it always does, LLVM need not be told more.
        """
        body, known, size = self.body, self._range(op), op.type.bits // 8
        windows = [(body.private, False), (body.shared, True)] if op.name == "load" else [(body.private, False)]
        for window, shared in windows:
            lo, extent, _ = window
            found = body.window(window, shared=shared)
            if found is None or known.outside(lo, extent):
                continue
            place, inside = window_access(self.builder, found, address, size, aligned=known.divisor >= size)
            if known.inside(lo, extent) and known.divisor >= size:
                inside = ir.Constant(I1, 1)
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
