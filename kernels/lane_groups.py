"""The loop over lane groups: runs groups whose lanes agree in SIMD registers, and lanes one by one where they do not.

A group's lanes run one by one until each stops where the group may go on together (`MODE_MEET`). If they stop at one
place, the group runs there in step, its memory interleaved. Lanes that part there wait for each other, the lowest pc
first. What that costs is measured against running them one by one, for each place where groups meet; the slower way is
left, and tried again later.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from vmjit.kernels.emit import I1, I8, I32, I64, PTR, VOID, Builder, Callee, Value, element, load_field, store_field
from vmjit.kernels.interleaved import LaneVectors
from vmjit.kernels.lanes import group_state, lane_array
from vmjit.kernels.layout import (
    ENTRY_VECTOR,
    GROUP_INTERPRET,
    GROUP_UNFIT,
    MODE_MEET,
    RECORD_ENTRY,
    STOP_NEED_CODE,
    STOP_RUNNING,
    VECTOR_OFF,
    VECTOR_READY,
    VECTOR_SAMPLING,
    CodeSpaceBlock,
    Frame,
    GroupFrame,
    GroupState,
    Hot,
    MachineBlock,
    VectorEntry,
)

RUN_GROUPS_TYPE = ir.FunctionType(VOID, [PTR, PTR, PTR, PTR, I64, PTR])
REGION_TYPE = ir.FunctionType(I64, [PTR, I64, I64])
_MINCORE_TYPE = ir.FunctionType(I32, [PTR, I64, PTR])

# Instructions of a lane in a trial of running one by one.
_TRIAL = 20_000
# Instructions that lanes run one by one in interleaved memory before it is laid out for that.
_COLD_SLICE = 256
_COLD_LIMIT = 8_192
# Instructions that lanes run one by one past a place where they do not go on together.
_APART_FIRST = 2_000
_APART_LAST = 1 << 22
# Times in a row that going on together did not pay, until groups do not begin at a place any more.
_LOSSES = 2
# Calls of SIMD code after which it is judged whether going on so pays.
_MANY_CALLS = 1_024
# A measurement of so many cycles, and so many for an instruction, was interrupted by other work.
_INTERRUPTED = 1 << 22
_INTERRUPTED_EACH = 64
# Groups whose registers were not as assumed, from which it is learned what to assume; and how many make new code.
_UNFIT_NOTED = 64
_UNFIT_ASKED = 8
_PAGE = 4_096


_VECTOR = (VectorEntry.VECTOR_CYCLES, VectorEntry.VECTOR_WORK)
_GROUP = (GroupState.CYCLES, GroupState.WORK)
_SCALAR = (VectorEntry.SCALAR_CYCLES, VectorEntry.SCALAR_WORK)


def _i64(value: int) -> Value:
    return ir.Constant(I64, value)


@contextmanager
def _loop(b: Builder) -> Iterator[tuple[Any, Any]]:
    """`with`: the body of a loop; gives (its head, what is behind it) to branch to."""
    head, after = b.append_basic_block("head"), b.append_basic_block("after")
    b.branch(head)
    b.position_at_end(head)
    yield head, after
    if not b.block.is_terminated:
        b.branch(head)
    b.position_at_end(after)


@contextmanager
def _counted(b: Builder, count: Value) -> Iterator[Value]:
    """`with`: the body of a loop over i64 numbers from 0 to count - 1, which it gives."""
    before = b.block
    head, body, after = (b.append_basic_block(n) for n in ("head", "body", "after"))
    b.branch(head)
    b.position_at_end(head)
    index = b.phi(I64)
    index.add_incoming(_i64(0), before)
    b.cbranch(b.icmp_unsigned("<", index, count), body, after)
    b.position_at_end(body)
    yield index
    index.add_incoming(b.add(index, _i64(1)), b.block)
    b.branch(head)
    b.position_at_end(after)


def _add_to(b: Builder, base: Value, field: int, value: Value) -> Value:
    total = b.add(load_field(b, base, field), value)
    store_field(b, base, field, total)
    return total


def _variable(b: Builder, type_: Any) -> Value:
    with b.goto_entry_block():
        return b.alloca(type_)


class _Groups:
    """Emits the functions around groups of `unit.lanes` lanes into the interpreter's module."""

    def __init__(self, module: Any, xlen: Any, register_indices: list[int], run_lane: Any, lanes: int) -> None:
        self.module = module
        self.xlen = xlen
        self.registers = register_indices
        self.run_lane = run_lane
        self.lanes = lanes
        self.all = (1 << lanes) - 1
        self.wide = ir.VectorType(I64, lanes)

    # -- small parts

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

    def _charge(self, b: Builder, entry: Value, fields: tuple[int, int], cycles: Value, work: Value) -> None:
        """Add to an entry's cycles and work, unless something else ran meanwhile."""
        long = b.icmp_unsigned(">", cycles, _i64(_INTERRUPTED))
        each = b.icmp_unsigned(">", cycles, b.mul(work, _i64(_INTERRUPTED_EACH)))
        with b.if_then(b.not_(b.and_(long, each))):
            _add_to(b, entry, fields[0], cycles)
            _add_to(b, entry, fields[1], work)

    def _population(self, b: Builder, bits: Value) -> Value:
        return self._intrinsic(b, "llvm.ctpop.i64", I64, [bits])

    def _first(self, b: Builder, bits: Value) -> Value:
        return self._intrinsic(b, "llvm.cttz.i64", I64, [bits, ir.Constant(I1, 0)])

    def _lowest(self, b: Builder, vector: Value, *, signed: bool = False) -> Value:
        name = f"llvm.vector.reduce.{'smin' if signed else 'umin'}.v{self.lanes}i64"
        return self._intrinsic(b, name, I64, [vector])

    def _bits(self, b: Builder, condition: Value) -> Value:
        bits = b.bitcast(condition, ir.IntType(self.lanes))
        return bits if self.lanes == 64 else b.zext(bits, I64)

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

    # -- functions

    def emit_find(self) -> None:
        """`find_vector(machine, lane, pc)`: the VectorEntry of a block in the lane's code, or null."""
        function, b = self._function("find_vector", ir.FunctionType(PTR, [PTR, I64, I64]))
        self.find = function
        machine, lane, pc = function.args
        index = b.zext(b.load(lane_array(b, machine, MachineBlock.CODE_INDEX, lane, I32), typ=I32), I64)
        space = b.load(lane_array(b, machine, MachineBlock.CODE_SPACES, index, PTR), typ=PTR)
        null = ir.Constant(PTR, None)
        # A code space begins with its first span's fields; the rows of the others have the same.
        span = _variable(b, PTR)
        b.store(space, span)

        def offset_in(place: Value) -> tuple[Value, Value]:
            offset = b.sub(pc, load_field(b, place, CodeSpaceBlock.LO))
            return offset, b.icmp_unsigned("<", offset, load_field(b, place, CodeSpaceBlock.SIZE))

        with b.if_then(b.not_(offset_in(space)[1])):
            more = load_field(b, space, CodeSpaceBlock.MORE, PTR)
            with _counted(b, load_field(b, space, CodeSpaceBlock.MORE_COUNT)) as i:
                row = element(b, more, b.mul(i, _i64(CodeSpaceBlock.MORE)), I8)
                with b.if_then(offset_in(row)[1]):
                    b.store(row, span)
        offset, inside = offset_in(b.load(span, typ=PTR))
        with b.if_then(b.not_(inside)):
            b.ret(null)
        table = load_field(b, b.load(span, typ=PTR), CodeSpaceBlock.TABLE, PTR)
        record = b.load(element(b, table, b.lshr(offset, _i64(1)), PTR), typ=PTR)
        with b.if_then(b.icmp_unsigned("==", b.ptrtoint(record, I64), _i64(0))):
            b.ret(null)
        entry = load_field(b, record, RECORD_ENTRY, PTR)
        with b.if_then(b.icmp_unsigned("==", b.ptrtoint(entry, I64), _i64(0))):
            b.ret(null)
        b.ret(load_field(b, entry, ENTRY_VECTOR, PTR))

    def emit_relay(self) -> None:
        """`interleave(machine, group frame, group)` and `separate`: lay the group's memory out anew.

        Chunks of 4 KiB a lane that hold something are copied, cleared where they were, and written where they belong.
        What the operating system has given no pages for is zero and not looked at.
        """
        self.interleave = self._emit_relay("interleave", interleave=True)
        self.separate = self._emit_relay("separate", interleave=False)

    def _emit_relay(self, name: str, *, interleave: bool) -> Any:
        function, b = self._function(name, ir.FunctionType(VOID, [PTR, PTR, I64]))
        machine, frame, group = function.args
        stride = load_field(b, machine, MachineBlock.PRIVATE_STRIDE)
        bytes_ = b.mul(stride, _i64(self.lanes))
        base = element(b, load_field(b, machine, MachineBlock.PRIVATE, PTR), b.mul(group, bytes_), I8)
        copy = load_field(b, frame, GroupFrame.COPY, PTR)
        resident = load_field(b, frame, GroupFrame.RESIDENT, PTR)
        # Pages are numbered from the one that the group's memory starts in.
        address = b.ptrtoint(base, I64)
        before = b.and_(address, _i64(_PAGE - 1))
        pages = b.lshr(b.add(b.add(bytes_, before), _i64(_PAGE - 1)), _i64(12))
        self._ask_resident(b, machine, b.inttoptr(b.sub(address, before), PTR), pages, resident)
        chunks = b.lshr(b.add(stride, _i64(_PAGE - 1)), _i64(12))
        marks = element(b, resident, pages, I8)  # a byte a chunk, behind those of the pages
        found = _variable(b, I64)

        def chunk_size(chunk: Value) -> Value:
            rest = b.sub(stride, b.shl(chunk, _i64(12)))
            return b.select(b.icmp_unsigned("<", rest, _i64(_PAGE)), rest, _i64(_PAGE))

        def pieces(start: Value, size: Value, *, together: bool) -> Iterator[tuple[Value, Value]]:
            """(offset, size) of where a chunk lies: in one piece, or in one a lane."""
            if together:
                yield b.mul(start, _i64(self.lanes)), b.mul(size, _i64(self.lanes))
            else:
                for lane in range(self.lanes):
                    yield b.add(b.mul(stride, _i64(lane)), start), size

        with _counted(b, chunks) as chunk:
            start, size = b.shl(chunk, _i64(12)), chunk_size(chunk)
            b.store(_i64(0), found)
            for offset, length in pieces(start, size, together=not interleave):
                with b.if_then(b.icmp_unsigned("==", b.load(found, typ=I64), _i64(0))):
                    b.store(b.call(self.holds, [base, offset, length, before, resident]), found)
            some = b.icmp_unsigned("!=", b.load(found, typ=I64), _i64(0))
            b.store(b.zext(some, I8), element(b, marks, chunk, I8))
            with b.if_then(some):
                self._transpose(b, base, copy, start, size, stride, interleave=interleave)
        for act in ("clear", "write"):
            with _counted(b, chunks) as chunk:
                mark = b.load(element(b, marks, chunk, I8), typ=I8)
                with b.if_then(b.icmp_unsigned("!=", mark, ir.Constant(I8, 0))):
                    start, size = b.shl(chunk, _i64(12)), chunk_size(chunk)
                    if act == "clear":
                        for offset, length in pieces(start, size, together=not interleave):
                            self._clear(b, element(b, base, offset, I8), length)
                    else:
                        for offset, length in pieces(start, size, together=interleave):
                            self._copy(b, element(b, base, offset, I8), element(b, copy, offset, I8), length)
        state = group_state(b, machine, group)
        store_field(b, state, GroupState.INTERLEAVED, _i64(int(interleave)))
        store_field(b, state, GroupState.COLD, _i64(0))
        b.ret_void()
        return function

    def emit_holds(self) -> None:
        """`holds(base, offset, size, bytes before base in its page, pages)`: whether memory is other than zero."""
        function, b = self._function("holds", ir.FunctionType(I64, [PTR, I64, I64, I64, PTR]))
        self.holds = function
        base, offset, size, before, pages = function.args
        vector = ir.VectorType(I64, 8)  # 64 bytes, of which all sizes are multiples
        # From page to page: what is not resident is skipped.
        at = _variable(b, I64)
        b.store(offset, at)
        end = b.add(offset, size)
        with _loop(b) as (head, after):
            place = b.load(at, typ=I64)
            body = b.append_basic_block("body")
            b.cbranch(b.icmp_unsigned("<", place, end), body, after)
            b.position_at_end(body)
            page = b.lshr(b.add(place, before), _i64(12))
            page_end = b.sub(b.shl(b.add(page, _i64(1)), _i64(12)), before)
            stop = b.select(b.icmp_unsigned("<", page_end, end), page_end, end)
            # The first and last 64 bytes of a page may lie across its border: then both are read.
            count = b.lshr(b.add(b.sub(stop, place), _i64(63)), _i64(6))
            b.store(b.add(place, b.shl(count, _i64(6))), at)
            there = b.and_(b.load(element(b, pages, page, I8), typ=I8), ir.Constant(I8, 1))
            scan = b.append_basic_block("scan")
            b.cbranch(b.icmp_unsigned("!=", there, ir.Constant(I8, 0)), scan, head)
            b.position_at_end(scan)
            total = _variable(b, vector)
            b.store(ir.Constant(vector, None), total)
            with _counted(b, count) as i:
                some = b.load(element(b, base, b.add(place, b.shl(i, _i64(6))), I8), typ=vector, align=4)
                b.store(b.or_(b.load(total, typ=vector), some), total)
            any_ = self._intrinsic(b, "llvm.vector.reduce.or.v8i64", I64, [b.load(total, typ=vector)])
            with b.if_then(b.icmp_unsigned("!=", any_, _i64(0))):
                b.ret(_i64(1))
        b.ret(_i64(0))

    def _ask_resident(self, b: Builder, machine: Value, base: Value, pages: Value, resident: Value) -> None:
        mincore = load_field(b, machine, MachineBlock.MINCORE)
        known = _variable(b, I32)
        b.store(ir.Constant(I32, -1), known)
        with b.if_then(b.icmp_unsigned("!=", mincore, _i64(0))):
            callee = Callee(b.inttoptr(mincore, PTR), _MINCORE_TYPE)
            b.store(b.call(callee, [base, b.shl(pages, _i64(12)), resident]), known)
        unknown = b.icmp_unsigned("!=", b.load(known, typ=I32), ir.Constant(I32, 0))
        with b.if_then(unknown), _counted(b, pages) as page:
            b.store(ir.Constant(I8, 1), element(b, resident, page, I8))

    def _transpose(
        self, b: Builder, base: Value, copy: Value, start: Value, size: Value, stride: Value, *, interleave: bool
    ) -> None:
        """Copy `size` bytes from `start` on of each lane to the other order: squares of as many words as lanes."""
        vector = ir.VectorType(I32, self.lanes)
        square = 4 * self.lanes
        # Sizes are multiples of 64: the last of larger squares ends where the memory does, over the one before it.
        last = b.sub(size, _i64(square))
        with _counted(b, b.udiv(b.add(size, _i64(square - 1)), _i64(square))) as i:
            place = b.mul(i, _i64(square))
            offset = b.add(start, b.select(b.icmp_signed("<", place, last), place, last))
            apart = [b.add(b.mul(stride, _i64(lane)), offset) for lane in range(self.lanes)]
            together = [b.add(b.mul(offset, _i64(self.lanes)), _i64(square * word)) for word in range(self.lanes)]
            source, goal = (apart, together) if interleave else (together, apart)
            rows = [b.load(element(b, base, place, I8), typ=vector, align=4) for place in source]
            for place, row in zip(goal, self._transposed(b, rows), strict=True):
                b.store(row, element(b, copy, place, I8), align=4)

    def _transposed(self, b: Builder, rows: list[Value]) -> list[Value]:
        """A square of words, by exchanging halves of ever larger blocks."""
        count = len(rows)
        rows = list(rows)
        step = 1
        while step < count:
            low = [j if not j & step else count + j - step for j in range(count)]
            high = [j + step if not j & step else count + j for j in range(count)]
            masks = [ir.Constant(ir.VectorType(I32, count), numbers) for numbers in (low, high)]
            for i in range(count):
                if not i & step:
                    pair = rows[i], rows[i + step]
                    rows[i], rows[i + step] = (b.shuffle_vector(*pair, mask) for mask in masks)
            step *= 2
        return rows

    def _clear(self, b: Builder, place: Value, size: Value) -> None:
        self._intrinsic(b, "llvm.memset.p0.i64", VOID, [place, ir.Constant(I8, 0), size, ir.Constant(I1, 0)])

    def _copy(self, b: Builder, to: Value, source: Value, size: Value) -> None:
        self._intrinsic(b, "llvm.memcpy.p0.p0.i64", VOID, [to, source, size, ir.Constant(I1, 0)])

    def emit_step(self) -> None:
        """`step_lanes(machine, frame, first lane, lanes' bits, quantum)`: run lanes one by one; whether one of them
        needs code."""
        function, b = self._function("step_lanes", ir.FunctionType(I1, [PTR, PTR, I64, I64, I64]))
        self.step = function
        machine, frame, first, lanes, quantum = function.args
        rest, needs = _variable(b, I64), _variable(b, I1)
        b.store(lanes, rest)
        b.store(ir.Constant(I1, 0), needs)
        with _loop(b) as (_, after):
            bits = b.load(rest, typ=I64)
            body = b.append_basic_block("body")
            done = b.or_(b.icmp_unsigned("==", bits, _i64(0)), self._attention(b, machine))
            b.cbranch(done, after, body)
            b.position_at_end(body)
            b.store(b.and_(bits, b.sub(bits, _i64(1))), rest)
            stop = b.call(self.run_lane, [machine, frame, b.add(first, self._first(b, bits)), quantum])
            need = b.icmp_unsigned("==", stop, _i64(STOP_NEED_CODE))
            b.store(b.or_(b.load(needs, typ=I1), need), needs)
        b.ret(b.load(needs, typ=I1))

    def emit_note(self) -> None:
        """`note(registers, stride, entry)`: note what the lanes of a whole group have in common; its registers are rows
        `stride` lanes apart."""
        function, b = self._function("note", ir.FunctionType(VOID, [PTR, I64, PTR]))
        self.note = function
        rows, stride, entry = function.args
        vector = ir.VectorType(self.xlen, self.lanes)
        uniform, narrow = _i64(0), _i64(0)
        vectors = LaneVectors(b, self.lanes)
        for index in self.registers:
            place = element(b, rows, b.mul(stride, _i64(index)), self.xlen)
            values = b.load(place, typ=vector, align=self.xlen.width // 8)
            same, _ = vectors.all_same(values)
            uniform = b.or_(uniform, b.shl(b.zext(same, I64), _i64(index)))
            if self.xlen.width == 64:
                low = b.sext(b.trunc(values, ir.VectorType(I32, self.lanes)), vector)
                fits = vectors.all(b.icmp_unsigned("==", low, values))
                narrow = b.or_(narrow, b.shl(b.zext(fits, I64), _i64(index)))
        for field, bits in ((VectorEntry.UNIFORM, uniform), (VectorEntry.NARROW, narrow)):
            store_field(b, entry, field, b.and_(load_field(b, entry, field), bits))
        b.ret_void()

    def emit_sample(self) -> None:
        """`sample(machine, first lane, entry, interleaved)`: note what a whole group that met has in common, and ask
        for code."""
        function, b = self._function("sample", ir.FunctionType(VOID, [PTR, I64, PTR, I1]))
        self.sample = function
        machine, lane, entry, interleaved = function.args
        rows = element(b, load_field(b, machine, MachineBlock.REGISTERS, PTR), lane, self.xlen)
        b.call(self.note, [rows, load_field(b, machine, MachineBlock.LANES), entry])
        meetings = _add_to(b, entry, VectorEntry.MEETINGS, _i64(1))
        # Lanes that come here in SIMD registers need no further proof that they agree.
        enough = b.icmp_unsigned(">=", meetings, load_field(b, machine, MachineBlock.MEETINGS))
        sure = b.icmp_unsigned("==", load_field(b, machine, MachineBlock.TRIAL_WORK), _i64(0))
        with b.if_then(b.and_(enough, b.or_(interleaved, sure))):
            b.call(self.ask, [machine, entry])
        b.ret_void()

    def emit_ask(self) -> None:
        """`ask(machine, entry)`: have the engine compile for groups there, if it has not been asked yet."""
        function, b = self._function("ask", ir.FunctionType(VOID, [PTR, PTR]))
        self.ask = function
        machine, entry = function.args
        with b.if_then(b.icmp_unsigned("==", load_field(b, entry, VectorEntry.ASKED), _i64(0))):
            store_field(b, entry, VectorEntry.ASKED, _i64(1))
            ring = load_field(b, machine, MachineBlock.HOT, PTR)
            position = b.atomic_rmw("add", ring, _i64(1), "monotonic")
            place = b.and_(position, load_field(b, ring, Hot.MASK))
            # A record's address is even: the lowest bit says that a vector entry is meant.
            asked = b.or_(b.ptrtoint(entry, I64), _i64(1))
            store_field(b, element(b, ring, place, I64), Hot.ENTRIES, asked)
        b.ret_void()

    def emit_watch(self) -> None:
        """`watch(machine, first lane, group's row)`: lanes that were together at a place have run on one by one and
        stopped where they may meet: note whether they do, and ask for code once they mostly did."""
        function, b = self._function("watch", ir.FunctionType(VOID, [PTR, I64, PTR]))
        self.watch = function
        machine, lane, state = function.args
        watched = load_field(b, state, GroupState.WATCHED)
        with b.if_then(b.icmp_unsigned("==", watched, _i64(0))):
            b.ret_void()
        store_field(b, state, GroupState.WATCHED, _i64(0))
        entry = b.inttoptr(watched, PTR)
        active = self._running(b, machine, lane)
        with b.if_then(b.icmp_unsigned("!=", active, _i64(self.all))):
            b.ret_void()
        _, here, _ = self._lowest_of(b, self._row(b, machine, MachineBlock.PC, lane, I64), active)
        together = b.icmp_unsigned("==", here, _i64(self.all))
        kept = _add_to(b, entry, VectorEntry.KEPT, b.zext(together, I64))
        parted = _add_to(b, entry, VectorEntry.PARTED, b.zext(b.not_(together), I64))
        enough = b.icmp_unsigned(">=", kept, load_field(b, machine, MachineBlock.MEETINGS))
        with b.if_then(b.and_(enough, b.icmp_unsigned(">", kept, b.shl(parted, _i64(1))))):
            b.call(self.ask, [machine, entry])
        b.ret_void()

    def _running(self, b: Builder, machine: Value, lane: Value) -> Value:
        """The group's lanes that can run, a bit each."""
        stops = self._row(b, machine, MachineBlock.STOP, lane, I32)
        return self._bits(b, b.icmp_unsigned("==", stops, ir.Constant(stops.type, [STOP_RUNNING] * self.lanes)))

    def emit_run_vector(self) -> None:
        """`run_vector(machine, group frame, first lane, active lanes, lanes at the entry, entry)`: go on in SIMD
        registers as far as can be; gives the lanes that have to interpret their next instruction."""
        function, b = self._function("run_vector", ir.FunctionType(I64, [PTR, PTR, I64, I64, I64, PTR]))
        self.run_vector = function
        machine, frame, lane, active, first_here, entry = function.args
        here, wait, current, interpret, unfit = (_variable(b, t) for t in (I64, I64, PTR, I64, I1))
        pcs = self._row(b, machine, MachineBlock.PC, lane, I64)
        self._frame_row(b, frame, GroupFrame.PCS, pcs)
        self._frame_row(b, frame, GroupFrame.USED, self._number(0))
        self._move_registers(b, machine, frame, lane, into_frame=True)
        stride = load_field(b, machine, MachineBlock.PRIVATE_STRIDE)
        word = b.and_(b.add(load_field(b, machine, MachineBlock.WINDOW0_OFFSET), _i64(3)), _i64(-4))
        private = b.add(b.mul(stride, lane), b.mul(word, _i64(self.lanes)))
        store_field(
            b, frame, GroupFrame.MEMORY, element(b, load_field(b, machine, MachineBlock.PRIVATE, PTR), private, I8)
        )
        budgets = self._row(b, machine, MachineBlock.BUDGET, lane, I64)
        b.store(first_here, here)
        others = b.and_(active, b.not_(first_here))
        b.store(self._lowest(b, b.select(self._vector_of_bits(b, others), pcs, self._number(-1))), wait)
        b.store(entry, current)
        b.store(_i64(0), interpret)
        b.store(ir.Constant(I1, 0), unfit)
        began, calls, ran_last = _variable(b, I64), _variable(b, I64), _variable(b, PTR)
        b.store(_i64(0), calls)
        b.store(entry, ran_last)
        b.store(self._cycles(b), began)
        store_field(b, frame, GroupFrame.WORK, _i64(0))
        with _loop(b) as (head, after):
            now = b.load(here, typ=I64)
            lanes = self._vector_of_bits(b, now)
            used = self._load_row(b, frame, GroupFrame.USED)
            left = b.select(lanes, b.sub(budgets, used), self._number((1 << 63) - 1))
            allowed = self._lowest(b, left, signed=True)
            quantum = load_field(b, machine, MachineBlock.QUANTUM)
            allowed = b.select(b.icmp_signed("<", allowed, quantum), allowed, quantum)
            there = b.load(current, typ=PTR)
            whole = b.and_(b.icmp_unsigned("==", now, _i64(self.all)), b.not_(b.load(unfit, typ=I1)))
            convergent = load_field(b, there, VectorEntry.CONVERGENT)
            whole = b.and_(whole, b.icmp_unsigned("!=", convergent, _i64(0)))
            code = b.select(whole, convergent, load_field(b, there, VectorEntry.MASKED))
            number = b.select(
                whole,
                load_field(b, there, VectorEntry.CONVERGENT_NUMBER),
                load_field(b, there, VectorEntry.MASKED_NUMBER),
            )
            run, none = b.append_basic_block("run"), b.append_basic_block("none")
            b.cbranch(b.icmp_unsigned("!=", code, _i64(0)), run, none)
            b.position_at_end(none)
            b.store(now, interpret)
            b.branch(after)
            b.position_at_end(run)
            b.store(there, ran_last)
            store_field(b, frame, GroupFrame.MASK, now)
            store_field(b, frame, GroupFrame.WAIT_PC, b.load(wait, typ=I64))
            rest = b.call(Callee(b.inttoptr(code, PTR), REGION_TYPE), [frame, number, allowed])
            ran = b.sub(allowed, rest)
            lag = b.load(element(b, frame, _i64(GroupFrame.LAG), I8), typ=ir.VectorType(I32, self.lanes), align=4)
            each = b.sub(self._splat(b, ran), b.sext(lag, self.wide))
            added = b.select(lanes, each, self._number(0))
            self._frame_row(b, frame, GroupFrame.USED, b.add(used, added))
            work = self._intrinsic(b, f"llvm.vector.reduce.add.v{self.lanes}i64", I64, [added])
            _add_to(b, frame, GroupFrame.COMPILED, work)
            _add_to(b, frame, GroupFrame.WORK, work)
            time = self._cycles(b)
            self._charge(b, there, _VECTOR, b.sub(time, b.load(began, typ=I64)), work)
            _add_to(b, there, VectorEntry.CALLS, _i64(1))
            b.store(time, began)
            status = load_field(b, frame, GroupFrame.STATUS)
            misfit, fits = b.append_basic_block("misfit"), b.append_basic_block("fits")
            b.cbranch(b.icmp_unsigned("==", status, _i64(GROUP_UNFIT)), misfit, fits)
            b.position_at_end(misfit)
            times = _add_to(b, there, VectorEntry.UNFIT, _i64(1))
            with b.if_then(b.icmp_unsigned("<=", times, _i64(_UNFIT_NOTED))):
                b.call(self.note, [element(b, frame, _i64(GroupFrame.REGISTERS), I8), _i64(self.lanes), there])
                with b.if_then(b.icmp_unsigned("==", b.and_(times, _i64(_UNFIT_ASKED - 1)), _i64(0))):
                    store_field(b, there, VectorEntry.ASKED, _i64(0))
                    b.call(self.ask, [machine, there])
            b.store(ir.Constant(I1, 1), unfit)
            b.branch(head)
            b.position_at_end(fits)
            b.store(ir.Constant(I1, 0), unfit)
            plain, stuck = b.append_basic_block("plain"), b.append_basic_block("stuck")
            b.cbranch(b.icmp_unsigned("==", status, _i64(GROUP_INTERPRET)), stuck, plain)
            b.position_at_end(stuck)
            b.store(now, interpret)
            b.branch(after)
            b.position_at_end(plain)
            pc, at, others = self._lowest_of(b, self._load_row(b, frame, GroupFrame.PCS), active)
            b.store(at, here)
            b.store(others, wait)
            following = b.call(self.find, [machine, b.add(lane, self._first(b, at)), pc])
            with b.if_then(b.icmp_unsigned("==", b.ptrtoint(following, I64), _i64(0))):
                b.branch(after)
            b.store(following, current)
            ready = b.icmp_unsigned("==", load_field(b, following, VectorEntry.STATE), _i64(VECTOR_READY))
            unknown = self._wants_sample(b, machine, following, at)
            count = b.add(b.load(calls, typ=I64), _i64(1))
            b.store(count, calls)
            enough = b.icmp_unsigned(">=", count, _i64(_MANY_CALLS))
            away = b.or_(b.or_(unknown, enough), self._attention(b, machine))
            b.cbranch(b.and_(ready, b.not_(away)), head, after)
        used = self._load_row(b, frame, GroupFrame.USED)
        self._store_row(b, machine, MachineBlock.PC, lane, self._load_row(b, frame, GroupFrame.PCS))
        self._store_row(b, machine, MachineBlock.BUDGET, lane, b.sub(budgets, used))
        retired = self._row(b, machine, MachineBlock.RETIRED, lane, I64)
        self._store_row(b, machine, MachineBlock.RETIRED, lane, b.add(retired, used))
        self._move_registers(b, machine, frame, lane, into_frame=False)
        now = self._cycles(b)
        store_field(b, frame, GroupFrame.LAST, b.ptrtoint(b.load(ran_last, typ=PTR), I64))
        self._charge(b, b.load(ran_last, typ=PTR), _VECTOR, b.sub(now, b.load(began, typ=I64)), _i64(0))
        b.ret(b.load(interpret, typ=I64))

    def _load_row(self, b: Builder, frame: Value, field: GroupFrame) -> Value:
        return b.load(element(b, frame, _i64(field), I8), typ=self.wide, align=8)

    def _frame_row(self, b: Builder, frame: Value, field: GroupFrame, vector: Value) -> None:
        b.store(vector, element(b, frame, _i64(field), I8), align=8)

    def _store_row(self, b: Builder, machine: Value, field: MachineBlock, lane: Value, vector: Value) -> None:
        b.store(vector, lane_array(b, machine, field, lane, I64), align=8)

    def _move_registers(self, b: Builder, machine: Value, frame: Value, lane: Value, *, into_frame: bool) -> None:
        vector, align = ir.VectorType(self.xlen, self.lanes), self.xlen.width // 8
        rows = load_field(b, machine, MachineBlock.REGISTERS, PTR)
        lanes = load_field(b, machine, MachineBlock.LANES)
        for index in self.registers:
            place = element(b, rows, b.add(b.mul(lanes, _i64(index)), lane), self.xlen)
            held = element(b, frame, _i64(GroupFrame.REGISTERS + index * self.lanes * align), I8)
            source, to = (place, held) if into_frame else (held, place)
            b.store(b.load(source, typ=vector, align=align), to, align=align)

    def _wants_sample(self, b: Builder, machine: Value, entry: Value, here: Value) -> Value:
        """Whether a whole group stands where more has to be known before code for it is made."""
        whole = b.icmp_unsigned("==", here, _i64(self.all))
        few = b.icmp_unsigned(
            "<", load_field(b, entry, VectorEntry.MEETINGS), load_field(b, machine, MachineBlock.MEETINGS)
        )
        return b.and_(b.and_(whole, few), b.icmp_unsigned("==", load_field(b, entry, VectorEntry.CONVERGENT), _i64(0)))

    def _rate(self, b: Builder, base: Value, fields: tuple[int, int]) -> tuple[Value, Value]:
        """(cycles for an instruction, instructions that this is known from)."""
        double = ir.DoubleType()
        cycles, work = (load_field(b, base, field) for field in fields)
        return b.fdiv(b.uitofp(cycles, double), b.uitofp(work, double)), work

    def _scalar_rate(self, b: Builder, machine: Value, entry: Value) -> tuple[Value, Value]:
        """What running lanes one by one takes. Where lanes that parted meet, nothing was tried: what the program takes
        on the whole must do."""
        here, tried = self._rate(b, entry, _SCALAR)
        everywhere, work = self._rate(b, machine, (MachineBlock.SCALAR_CYCLES, MachineBlock.SCALAR_WORK))
        known = b.icmp_unsigned(">", tried, _i64(0))
        return b.select(known, here, everywhere), b.select(known, tried, work)

    def emit_judge(self) -> None:
        """`judge(machine, group's row)`: the group has given up going on together: whether that had paid, from laying
        out its memory to laying it out again; if not twice in a row, groups do not begin there again."""
        function, b = self._function("judge", ir.FunctionType(VOID, [PTR, PTR]))
        self.judge = function
        machine, state = function.args
        began = load_field(b, state, GroupState.STARTED_AT)
        with b.if_then(b.icmp_unsigned("==", began, _i64(0))):
            b.ret_void()
        entry = b.inttoptr(began, PTR)
        scalar, known = self._scalar_rate(b, machine, entry)
        vector, _ = self._rate(b, state, _GROUP)
        forced = b.icmp_unsigned("==", load_field(b, machine, MachineBlock.TRIAL_WORK), _i64(0))
        bad = b.and_(b.fcmp_ordered(">", vector, scalar), b.icmp_unsigned(">", known, _i64(0)))
        bad = b.and_(bad, b.not_(forced))
        times = b.select(bad, b.add(load_field(b, entry, VectorEntry.LOST), _i64(1)), _i64(0))
        store_field(b, entry, VectorEntry.LOST, times)
        with b.if_then(b.icmp_unsigned(">=", times, _i64(_LOSSES))):
            store_field(b, entry, VectorEntry.LOST, _i64(0))
            store_field(b, entry, VectorEntry.STATE, _i64(VECTOR_OFF))
        b.ret_void()

    def emit_wish(self) -> None:
        """`wish(machine, first lane, active, here, entry, interleaved)`: how lanes that stand at an entry go on: 0 one
        by one, 1 together, 2 one by one to see what that costs."""
        function, b = self._function("wish", ir.FunctionType(I64, [PTR, I64, I64, I64, PTR, I1]))
        self.wish = function
        machine, lane, active, here, entry, interleaved = function.args
        state = load_field(b, entry, VectorEntry.STATE)
        with b.if_then(self._wants_sample(b, machine, entry, here)):
            b.call(self.sample, [machine, lane, entry, interleaved])
        with b.if_then(b.icmp_unsigned("==", state, _i64(VECTOR_SAMPLING))):
            b.ret(_i64(0))
        with b.if_then(b.icmp_unsigned("==", state, _i64(VECTOR_OFF))):
            b.ret(_i64(0))
        # A few lanes that are together, of many that are not, go on alone.
        two = b.shl(self._population(b, here), _i64(1))
        with b.if_then(b.icmp_unsigned("<", two, self._population(b, active))):
            b.ret(_i64(0))
        scalar = load_field(b, entry, VectorEntry.SCALAR_WORK)
        with b.if_then(b.icmp_unsigned("<", scalar, load_field(b, machine, MachineBlock.TRIAL_WORK))):
            b.ret(b.select(interleaved, _i64(1), _i64(2)))
        enough = load_field(b, machine, MachineBlock.JUDGED_WORK)
        per_vector, vector = self._rate(b, entry, _VECTOR)
        per_scalar, scalar = self._scalar_rate(b, machine, entry)
        long = b.icmp_unsigned(">", load_field(b, entry, VectorEntry.VECTOR_CYCLES), enough)
        judged = b.and_(b.icmp_unsigned(">", vector, _i64(0)), b.or_(b.icmp_unsigned(">", vector, enough), long))
        with b.if_then(b.and_(judged, b.icmp_unsigned(">", scalar, _i64(0)))):
            with b.if_then(b.fcmp_ordered(">", per_vector, per_scalar)):
                store_field(b, entry, VectorEntry.STATE, _i64(VECTOR_OFF))
                b.ret(_i64(0))
            # What was long ago counts less.
            for field in (VectorEntry.VECTOR_CYCLES, VectorEntry.VECTOR_WORK):
                store_field(b, entry, field, b.lshr(load_field(b, entry, field), _i64(1)))
        b.ret(_i64(1))

    def emit_run_groups(self) -> None:
        function, b = self._function("run_groups", RUN_GROUPS_TYPE, internal=False)
        machine, frame, group_frame, groups, count, cursor = function.args
        last = _variable(b, PTR)
        out = b.append_basic_block("out")
        with _loop(b) as (next_group, _):
            take = b.append_basic_block("take")
            b.cbranch(self._attention(b, machine), out, take)
            b.position_at_end(take)
            position = b.atomic_rmw("add", cursor, _i64(1), "monotonic")
            start = b.append_basic_block("start")
            b.cbranch(b.icmp_unsigned("<", position, count), start, out)
            b.position_at_end(start)
            group = b.zext(b.load(element(b, groups, position, I32), typ=I32), I64)
            lane = b.shl(group, load_field(b, machine, MachineBlock.GROUP_SHIFT))
            state = group_state(b, machine, group)
            b.store(ir.Constant(PTR, None), last)
            with _loop(b) as (turn, _):
                self._emit_turn(b, machine, frame, group_frame, group, lane, state, last, turn, next_group, out)
        b.unreachable()
        b.position_at_end(out)
        b.ret_void()

    def _emit_turn(
        self,
        b: Builder,
        machine: Value,
        frame: Value,
        group_frame: Value,
        group: Value,
        lane: Value,
        state: Value,
        last: Value,
        turn: Any,
        next_group: Any,
        out: Any,
    ) -> None:
        """One step of a group: together if it can, else its lanes one by one."""
        active = self._running(b, machine, lane)
        some = b.append_basic_block("some")
        b.cbranch(b.icmp_unsigned("==", active, _i64(0)), next_group, some)
        b.position_at_end(some)
        on = b.append_basic_block("on")
        b.cbranch(self._attention(b, machine), out, on)
        b.position_at_end(on)
        pc, here, _ = self._lowest_of(b, self._row(b, machine, MachineBlock.PC, lane, I64), active)
        first = b.add(lane, self._first(b, here))
        codes = self._row(b, machine, MachineBlock.CODE_INDEX, lane, I32)
        code = b.load(lane_array(b, machine, MachineBlock.CODE_INDEX, first, I32), typ=I32)
        alike = self._bits(b, b.icmp_unsigned("==", codes, self._splat(b, code)))
        one_code = b.icmp_unsigned("==", b.and_(alike, active), active)
        found = b.call(self.find, [machine, first, pc])
        entry = b.select(one_code, found, ir.Constant(PTR, None))
        # Lanes whose code differs have nowhere to meet: each would stop for the others at a place of its own.
        meet = b.select(one_code, _i64(MODE_MEET), _i64(0))
        standing = b.icmp_unsigned("!=", b.ptrtoint(entry, I64), _i64(0))
        interleaved = b.icmp_unsigned("!=", load_field(b, state, GroupState.INTERLEAVED), _i64(0))
        wish = _variable(b, I64)
        b.store(_i64(0), wish)
        with b.if_then(standing):
            b.store(b.call(self.wish, [machine, lane, active, here, entry, interleaved]), wish)
        together, alone, one_by_one = (b.append_basic_block(n) for n in ("together", "alone", "one_by_one"))
        wanted = b.load(wish, typ=I64)
        b.cbranch(b.icmp_unsigned("==", wanted, _i64(1)), together, alone)

        b.position_at_end(together)
        with b.if_then(b.not_(interleaved)):
            for field, value in (
                (GroupState.STARTED_AT, b.ptrtoint(entry, I64)),
                (GroupState.CYCLES, _i64(0)),
                (GroupState.WORK, _i64(0)),
            ):
                store_field(b, state, field, value)
            started = self._cycles(b)
            b.call(self.interleave, [machine, group_frame, group])
            self._charge(b, state, _GROUP, b.sub(self._cycles(b), started), _i64(0))
            b.store(entry, last)
        started = self._cycles(b)
        interpret = b.call(self.run_vector, [machine, group_frame, lane, active, here, entry])
        work = load_field(b, group_frame, GroupFrame.WORK)
        self._charge(b, state, _GROUP, b.sub(self._cycles(b), started), work)
        b.store(load_field(b, group_frame, GroupFrame.LAST, PTR), last)
        # What ran together pays off what lanes ran one by one.
        paid = b.sub(
            load_field(b, state, GroupState.COLD), b.lshr(load_field(b, group_frame, GroupFrame.WORK), _i64(4))
        )
        store_field(b, state, GroupState.COLD, b.select(b.icmp_signed("<", paid, _i64(0)), _i64(0), paid))
        with b.if_then(b.icmp_signed("<", paid, _i64(-_COLD_LIMIT))):
            store_field(b, state, GroupState.APART, _i64(_APART_FIRST))
        stuck = b.append_basic_block("stuck")
        b.cbranch(b.icmp_unsigned("==", interpret, _i64(0)), turn, stuck)
        b.position_at_end(stuck)
        store_field(b, frame, Frame.MODE, _i64(0))
        self._step(b, machine, frame, lane, interpret, _i64(1), turn, out)

        # One by one in interleaved memory: until a place where the group goes on together, but not for long.
        b.position_at_end(alone)
        cold, rows = b.append_basic_block("cold"), b.append_basic_block("rows")
        b.cbranch(interleaved, cold, rows)
        b.position_at_end(cold)
        limit = b.icmp_signed(">", load_field(b, state, GroupState.COLD), _i64(_COLD_LIMIT))
        relay, step = b.append_basic_block("relay"), b.append_basic_block("step")
        b.cbranch(limit, relay, step)
        b.position_at_end(relay)
        started = self._cycles(b)
        b.call(self.separate, [machine, group_frame, group])
        self._charge(b, state, _GROUP, b.sub(self._cycles(b), started), _i64(0))
        b.call(self.judge, [machine, state])
        store_field(b, state, GroupState.REST, _i64(1))
        b.branch(turn)
        b.position_at_end(step)
        before = self._row(b, machine, MachineBlock.RETIRED, lane, I64)
        started = self._cycles(b)
        store_field(b, frame, Frame.MODE, b.select(standing, _i64(0), meet))
        slice_ = b.select(standing, _i64(_COLD_SLICE >> 3), _i64(_COLD_SLICE))
        need = b.call(self.step, [machine, frame, lane, here, slice_])
        ran = self._intrinsic(
            b,
            f"llvm.vector.reduce.add.v{self.lanes}i64",
            I64,
            [b.sub(self._row(b, machine, MachineBlock.RETIRED, lane, I64), before)],
        )
        _add_to(b, state, GroupState.COLD, ran)
        self._charge(b, state, _GROUP, b.sub(self._cycles(b), started), ran)
        blamed = b.load(last, typ=PTR)
        with b.if_then(b.icmp_unsigned("!=", b.ptrtoint(blamed, I64), _i64(0))):
            self._charge(b, blamed, _VECTOR, b.sub(self._cycles(b), started), ran)
        b.cbranch(need, out, turn)

        b.position_at_end(rows)
        apart = load_field(b, state, GroupState.APART)
        apart = b.select(b.icmp_signed("<", apart, _i64(_APART_FIRST)), _i64(_APART_FIRST), apart)
        longer = b.shl(apart, _i64(1))
        longer = b.select(b.icmp_signed("<", longer, _i64(_APART_LAST)), longer, _i64(_APART_LAST))
        resting, awake = b.append_basic_block("resting"), b.append_basic_block("awake")
        b.cbranch(b.icmp_unsigned("!=", load_field(b, state, GroupState.REST), _i64(0)), resting, awake)
        b.position_at_end(resting)
        store_field(b, state, GroupState.REST, _i64(0))
        store_field(b, state, GroupState.APART, longer)
        store_field(b, frame, Frame.MODE, _i64(0))
        self._step(b, machine, frame, lane, active, apart, turn, out)
        b.position_at_end(awake)
        b.cbranch(standing, one_by_one, meeting := b.append_basic_block("meeting"))
        b.position_at_end(meeting)
        store_field(b, frame, Frame.MODE, meet)
        need = b.call(self.step, [machine, frame, lane, active, load_field(b, machine, MachineBlock.QUANTUM)])
        b.call(self.watch, [machine, lane, state])
        b.cbranch(need, out, turn)

        # Past a place where the group could go on together, but does not.
        b.position_at_end(one_by_one)
        trial = b.icmp_unsigned("==", wanted, _i64(2))
        ready = b.icmp_unsigned("==", load_field(b, entry, VectorEntry.STATE), _i64(VECTOR_READY))
        store_field(b, state, GroupState.APART, b.select(b.or_(trial, b.not_(ready)), apart, longer))
        whole = b.icmp_unsigned("==", here, _i64(self.all))
        sampling = b.icmp_unsigned("==", load_field(b, entry, VectorEntry.STATE), _i64(VECTOR_SAMPLING))
        watched = b.select(b.and_(sampling, whole), b.ptrtoint(entry, I64), _i64(0))
        store_field(b, state, GroupState.WATCHED, watched)
        slice_ = b.select(trial, _i64(_TRIAL), apart)
        before = self._row(b, machine, MachineBlock.RETIRED, lane, I64)
        started = self._cycles(b)
        store_field(b, frame, Frame.MODE, _i64(0))
        need = b.call(self.step, [machine, frame, lane, here, slice_])
        with b.if_then(trial):
            ran = self._intrinsic(
                b,
                f"llvm.vector.reduce.add.v{self.lanes}i64",
                I64,
                [b.sub(self._row(b, machine, MachineBlock.RETIRED, lane, I64), before)],
            )
            took = b.sub(self._cycles(b), started)
            self._charge(b, entry, _SCALAR, took, ran)
            self._charge(b, machine, (MachineBlock.SCALAR_CYCLES, MachineBlock.SCALAR_WORK), took, ran)
        b.cbranch(need, out, turn)

    def _step(
        self, b: Builder, machine: Value, frame: Value, lane: Value, lanes: Value, quantum: Value, turn: Any, out: Any
    ) -> None:
        need = b.call(self.step, [machine, frame, lane, lanes, quantum])
        b.cbranch(need, out, turn)


def emit_run_groups(module: Any, xlen: Any, register_indices: list[int], run_lane: Any, lanes: int) -> None:
    """Define `run_groups(machine, frame, group frame, groups, count, cursor)`: as `run_lanes`, for lane groups."""
    groups = _Groups(module, xlen, register_indices, run_lane, lanes)
    groups.emit_find()
    groups.emit_holds()
    groups.emit_relay()
    groups.emit_step()
    groups.emit_ask()
    groups.emit_note()
    groups.emit_sample()
    groups.emit_watch()
    groups.emit_run_vector()
    groups.emit_judge()
    groups.emit_wish()
    groups.emit_run_groups()
