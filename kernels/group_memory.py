"""The memory of a lane group laid out anew: interleaved by words where the group runs together, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llvmlite import ir

from vmjit.kernels.emit import I1, I8, I32, I64, PTR, VOID, Builder, Callee, Value, element, load_field, store_field
from vmjit.kernels.group_emitter import GroupEmitter, counted, i64, loop, variable
from vmjit.kernels.lanes import group_state
from vmjit.kernels.layout import GroupFrame, GroupState, MachineBlock

_MINCORE_TYPE = ir.FunctionType(I32, [PTR, I64, PTR])
_PAGE = 4_096


class GroupMemory(GroupEmitter):
    """Defines `interleave` and `separate`, both (machine, group frame, group).

    Chunks of 4 KiB a lane that hold something are copied, cleared where they were, and written where they belong. What
    the operating system has given no pages for is zero and not looked at.
    """

    def emit(self) -> None:
        self._emit_holds()
        self.interleave = self._emit_relay("interleave", interleave=True)
        self.separate = self._emit_relay("separate", interleave=False)

    def _emit_relay(self, name: str, *, interleave: bool) -> Any:
        function, b = self._function(name, ir.FunctionType(VOID, [PTR, PTR, I64]))
        machine, frame, group = function.args
        stride = load_field(b, machine, MachineBlock.PRIVATE_STRIDE)
        bytes_ = b.mul(stride, i64(self.lanes))
        base = element(b, load_field(b, machine, MachineBlock.PRIVATE, PTR), b.mul(group, bytes_), I8)
        copy = load_field(b, frame, GroupFrame.COPY, PTR)
        resident = load_field(b, frame, GroupFrame.RESIDENT, PTR)
        # Pages are numbered from the one that the group's memory starts in.
        address = b.ptrtoint(base, I64)
        before = b.and_(address, i64(_PAGE - 1))
        pages = b.lshr(b.add(b.add(bytes_, before), i64(_PAGE - 1)), i64(12))
        self._ask_resident(b, machine, b.inttoptr(b.sub(address, before), PTR), pages, resident)
        chunks = b.lshr(b.add(stride, i64(_PAGE - 1)), i64(12))
        marks = element(b, resident, pages, I8)  # a byte a chunk, behind those of the pages
        found = variable(b, I64)

        def chunk_size(chunk: Value) -> Value:
            rest = b.sub(stride, b.shl(chunk, i64(12)))
            return b.select(b.icmp_unsigned("<", rest, i64(_PAGE)), rest, i64(_PAGE))

        def pieces(start: Value, size: Value, *, together: bool) -> Iterator[tuple[Value, Value]]:
            """(offset, size) of where a chunk lies: in one piece, or in one a lane."""
            if together:
                yield b.mul(start, i64(self.lanes)), b.mul(size, i64(self.lanes))
            else:
                for lane in range(self.lanes):
                    yield b.add(b.mul(stride, i64(lane)), start), size

        with counted(b, chunks) as chunk:
            start, size = b.shl(chunk, i64(12)), chunk_size(chunk)
            b.store(i64(0), found)
            for offset, length in pieces(start, size, together=not interleave):
                with b.if_then(b.icmp_unsigned("==", b.load(found, typ=I64), i64(0))):
                    b.store(b.call(self._holds, [base, offset, length, before, resident]), found)
            some = b.icmp_unsigned("!=", b.load(found, typ=I64), i64(0))
            b.store(b.zext(some, I8), element(b, marks, chunk, I8))
            with b.if_then(some):
                self._transpose(b, base, copy, start, size, stride, interleave=interleave)
        for act in ("clear", "write"):
            with counted(b, chunks) as chunk:
                mark = b.load(element(b, marks, chunk, I8), typ=I8)
                with b.if_then(b.icmp_unsigned("!=", mark, ir.Constant(I8, 0))):
                    start, size = b.shl(chunk, i64(12)), chunk_size(chunk)
                    if act == "clear":
                        for offset, length in pieces(start, size, together=not interleave):
                            self._clear(b, element(b, base, offset, I8), length)
                    else:
                        for offset, length in pieces(start, size, together=interleave):
                            self._copy(b, element(b, base, offset, I8), element(b, copy, offset, I8), length)
        state = group_state(b, machine, group)
        store_field(b, state, GroupState.INTERLEAVED, i64(int(interleave)))
        store_field(b, state, GroupState.COLD, i64(0))
        b.ret_void()
        return function

    def _emit_holds(self) -> None:
        """`holds(base, offset, size, bytes before base in its page, pages)`: whether memory is other than zero."""
        function, b = self._function("holds", ir.FunctionType(I64, [PTR, I64, I64, I64, PTR]))
        self._holds = function
        base, offset, size, before, pages = function.args
        vector = ir.VectorType(I64, 8)  # 64 bytes, of which all sizes are multiples
        # From page to page: what is not resident is skipped.
        at = variable(b, I64)
        b.store(offset, at)
        end = b.add(offset, size)
        with loop(b) as (head, after):
            place = b.load(at, typ=I64)
            body = b.append_basic_block("body")
            b.cbranch(b.icmp_unsigned("<", place, end), body, after)
            b.position_at_end(body)
            page = b.lshr(b.add(place, before), i64(12))
            page_end = b.sub(b.shl(b.add(page, i64(1)), i64(12)), before)
            stop = b.select(b.icmp_unsigned("<", page_end, end), page_end, end)
            # The first and last 64 bytes of a page may lie across its border: then both are read.
            count = b.lshr(b.add(b.sub(stop, place), i64(63)), i64(6))
            b.store(b.add(place, b.shl(count, i64(6))), at)
            there = b.and_(b.load(element(b, pages, page, I8), typ=I8), ir.Constant(I8, 1))
            scan = b.append_basic_block("scan")
            b.cbranch(b.icmp_unsigned("!=", there, ir.Constant(I8, 0)), scan, head)
            b.position_at_end(scan)
            total = variable(b, vector)
            b.store(ir.Constant(vector, None), total)
            with counted(b, count) as i:
                some = b.load(element(b, base, b.add(place, b.shl(i, i64(6))), I8), typ=vector, align=4)
                b.store(b.or_(b.load(total, typ=vector), some), total)
            any_ = self._intrinsic(b, "llvm.vector.reduce.or.v8i64", I64, [b.load(total, typ=vector)])
            with b.if_then(b.icmp_unsigned("!=", any_, i64(0))):
                b.ret(i64(1))
        b.ret(i64(0))

    def _ask_resident(self, b: Builder, machine: Value, base: Value, pages: Value, resident: Value) -> None:
        mincore = load_field(b, machine, MachineBlock.MINCORE)
        known = variable(b, I32)
        b.store(ir.Constant(I32, -1), known)
        with b.if_then(b.icmp_unsigned("!=", mincore, i64(0))):
            callee = Callee(b.inttoptr(mincore, PTR), _MINCORE_TYPE)
            b.store(b.call(callee, [base, b.shl(pages, i64(12)), resident]), known)
        unknown = b.icmp_unsigned("!=", b.load(known, typ=I32), ir.Constant(I32, 0))
        with b.if_then(unknown), counted(b, pages) as page:
            b.store(ir.Constant(I8, 1), element(b, resident, page, I8))

    def _transpose(
        self, b: Builder, base: Value, copy: Value, start: Value, size: Value, stride: Value, *, interleave: bool
    ) -> None:
        """Copy `size` bytes from `start` on of each lane to the other order: squares of as many words as lanes."""
        vector = ir.VectorType(I32, self.lanes)
        square = 4 * self.lanes
        # Sizes are multiples of 64: the last of larger squares ends where the memory does, over the one before it.
        last = b.sub(size, i64(square))
        with counted(b, b.udiv(b.add(size, i64(square - 1)), i64(square))) as i:
            place = b.mul(i, i64(square))
            offset = b.add(start, b.select(b.icmp_signed("<", place, last), place, last))
            apart = [b.add(b.mul(stride, i64(lane)), offset) for lane in range(self.lanes)]
            together = [b.add(b.mul(offset, i64(self.lanes)), i64(square * word)) for word in range(self.lanes)]
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
