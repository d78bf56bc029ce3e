"""A group's lanes in SIMD registers: from one compiled region to the next, as far as they have code.

Lanes that part wait for each other, the lowest pc first.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from vmjit.kernels.emit import I1, I8, I32, I64, PTR, Builder, Callee, Value, element, load_field, store_field
from vmjit.kernels.group_choice import VECTOR, GroupChoice
from vmjit.kernels.group_emitter import GroupEmitter, add_to, counted, i64, loop, variable
from vmjit.kernels.lanes import lane_array
from vmjit.kernels.layout import (
    GROUP_INTERPRET,
    GROUP_UNFIT,
    VECTOR_READY,
    AddressSpaceRow,
    GroupFrame,
    MachineBlock,
    VectorEntry,
)

REGION_TYPE = ir.FunctionType(I64, [PTR, I64, I64])

# Calls of SIMD code after which it is judged whether going on so pays.
_MANY_CALLS = 1_024
# Instructions that lanes stay together for where code for some of them is worth compiling.
_TOGETHER = 64
# Groups whose registers were not as assumed, from which it is learned what to assume; and how many make new code.
_UNFIT_NOTED = 64
_UNFIT_ASKED = 8


class GroupRun(GroupEmitter):
    """Emits `run_vector`. `find` is the function that finds a block's VectorEntry."""

    def __init__(self, choice: GroupChoice, find: Any) -> None:
        super().__init__(choice.module, choice.lanes)
        self.storage = choice.storage
        self.registers = choice.registers
        self.choice = choice
        self.find = find

    def emit(self) -> None:
        """`run_vector(machine, group frame, first lane, active lanes, lanes at the entry, entry)`: go on in SIMD
        registers as far as can be; gives the lanes that have to interpret their next instruction."""
        function, b = self._function("run_vector", ir.FunctionType(I64, [PTR, PTR, I64, I64, I64, PTR]))
        self.function = function
        machine, frame, lane, active, first_here, entry = function.args
        here, wait, current, interpret, unfit = (variable(b, t) for t in (I64, I64, PTR, I64, I1))
        pcs = self._row(b, machine, MachineBlock.PC, lane, I64)
        self._frame_row(b, frame, GroupFrame.PCS, pcs)
        self._frame_row(b, frame, GroupFrame.USED, self._number(0))
        self._move_registers(b, machine, frame, lane, into_frame=True)
        stride = load_field(b, machine, MachineBlock.PRIVATE_STRIDE)
        word = b.and_(b.add(load_field(b, machine, MachineBlock.WINDOW0_OFFSET), i64(3)), i64(-4))
        private = b.add(b.mul(stride, lane), b.mul(word, i64(self.lanes)))
        store_field(
            b, frame, GroupFrame.MEMORY, element(b, load_field(b, machine, MachineBlock.PRIVATE, PTR), private, I8)
        )
        with b.if_then(b.icmp_unsigned("!=", load_field(b, machine, MachineBlock.SPACES), i64(0))):
            self._load_spaces(b, machine, frame, lane)
        budgets = self._row(b, machine, MachineBlock.BUDGET, lane, I64)
        b.store(first_here, here)
        others = b.and_(active, b.not_(first_here))
        b.store(self._lowest(b, b.select(self._vector_of_bits(b, others), pcs, self._number(-1))), wait)
        b.store(entry, current)
        b.store(i64(0), interpret)
        b.store(ir.Constant(I1, 0), unfit)
        began, calls, ran_last = variable(b, I64), variable(b, I64), variable(b, PTR)
        b.store(i64(0), calls)
        b.store(entry, ran_last)
        b.store(self._cycles(b), began)
        store_field(b, frame, GroupFrame.WORK, i64(0))
        with loop(b) as (head, after):
            now = b.load(here, typ=I64)
            lanes = self._vector_of_bits(b, now)
            used = self._load_row(b, frame, GroupFrame.USED)
            left = b.select(lanes, b.sub(budgets, used), self._number((1 << 63) - 1))
            allowed = self._lowest(b, left, signed=True)
            quantum = load_field(b, machine, MachineBlock.QUANTUM)
            allowed = b.select(b.icmp_signed("<", allowed, quantum), allowed, quantum)
            there = b.load(current, typ=PTR)
            whole = b.and_(b.icmp_unsigned("==", now, i64(self.all)), b.not_(b.load(unfit, typ=I1)))
            convergent = load_field(b, there, VectorEntry.CONVERGENT)
            whole = b.and_(whole, b.icmp_unsigned("!=", convergent, i64(0)))
            code = b.select(whole, convergent, load_field(b, there, VectorEntry.MASKED))
            number = b.select(
                whole,
                load_field(b, there, VectorEntry.CONVERGENT_NUMBER),
                load_field(b, there, VectorEntry.MASKED_NUMBER),
            )
            run, none = b.append_basic_block("run"), b.append_basic_block("none")
            b.cbranch(b.icmp_unsigned("!=", code, i64(0)), run, none)
            b.position_at_end(none)
            # Whole groups whose registers do not fit wait for code that does.
            times = load_field(b, there, VectorEntry.UNFIT)
            with b.if_then(
                b.or_(b.icmp_unsigned("!=", now, i64(self.all)), b.icmp_unsigned(">", times, i64(_UNFIT_NOTED)))
            ):
                b.call(self.choice.ask_masked, [machine, there])
            b.store(now, interpret)
            b.branch(after)
            b.position_at_end(run)
            b.store(there, ran_last)
            store_field(b, frame, GroupFrame.MASK, now)
            store_field(b, frame, GroupFrame.WAIT_PC, b.load(wait, typ=I64))
            rest = b.call(Callee(b.inttoptr(code, PTR), REGION_TYPE), [frame, number, allowed])
            ran = b.sub(allowed, rest)
            lag = b.load(element(b, frame, i64(GroupFrame.LAG), I8), typ=ir.VectorType(I32, self.lanes), align=4)
            each = b.sub(self._splat(b, ran), b.sext(lag, self.wide))
            added = b.select(lanes, each, self._number(0))
            self._frame_row(b, frame, GroupFrame.USED, b.add(used, added))
            work = self._intrinsic(b, f"llvm.vector.reduce.add.v{self.lanes}i64", I64, [added])
            add_to(b, frame, GroupFrame.COMPILED, work)
            add_to(b, frame, GroupFrame.WORK, work)
            time = self._cycles(b)
            self.choice.charge(b, there, VECTOR, b.sub(time, b.load(began, typ=I64)), work)
            b.store(time, began)
            status = load_field(b, frame, GroupFrame.STATUS)
            misfit, fits = b.append_basic_block("misfit"), b.append_basic_block("fits")
            b.cbranch(b.icmp_unsigned("==", status, i64(GROUP_UNFIT)), misfit, fits)
            b.position_at_end(misfit)
            times = add_to(b, there, VectorEntry.UNFIT, i64(1))
            with b.if_then(b.icmp_unsigned("<=", times, i64(_UNFIT_NOTED))):
                b.call(self.choice.note, [element(b, frame, i64(GroupFrame.REGISTERS), I8), i64(self.lanes), there])
                with b.if_then(b.icmp_unsigned("==", b.and_(times, i64(_UNFIT_ASKED - 1)), i64(0))):
                    store_field(b, there, VectorEntry.ASKED, i64(0))
                    b.call(self.choice.ask, [machine, there])
            b.store(ir.Constant(I1, 1), unfit)
            b.branch(head)
            b.position_at_end(fits)
            b.store(ir.Constant(I1, 0), unfit)
            plain, stuck = b.append_basic_block("plain"), b.append_basic_block("stuck")
            b.cbranch(b.icmp_unsigned("==", status, i64(GROUP_INTERPRET)), stuck, plain)
            b.position_at_end(stuck)
            b.store(now, interpret)
            b.branch(after)
            b.position_at_end(plain)
            pc, at, others = self._lowest_of(b, self._load_row(b, frame, GroupFrame.PCS), active)
            b.store(at, here)
            b.store(others, wait)
            parted = b.and_(whole, b.icmp_unsigned("!=", at, active))
            with b.if_then(b.and_(parted, self.choice.lacks_masked(b, there))):
                # Lanes that mostly part soon are not worth the longer compilation.
                long = b.icmp_unsigned(">=", work, i64(_TOGETHER * self.lanes))
                with b.if_else(b.or_(long, self.choice.forced(b, machine))) as (worth, not_worth):
                    with worth:
                        b.call(self.choice.ask_masked, [machine, there])
                    with not_worth:
                        fewer = b.lshr(load_field(b, there, VectorEntry.BROKEN), i64(1))
                        store_field(b, there, VectorEntry.BROKEN, fewer)
            following = b.call(self.find, [machine, b.add(lane, self._first(b, at)), pc])
            with b.if_then(b.icmp_unsigned("==", b.ptrtoint(following, I64), i64(0))):
                b.branch(after)
            b.store(following, current)
            ready = b.icmp_unsigned("==", load_field(b, following, VectorEntry.STATE), i64(VECTOR_READY))
            unknown = self.choice.wants_sample(b, machine, following, at)
            count = b.add(b.load(calls, typ=I64), i64(1))
            b.store(count, calls)
            enough = b.icmp_unsigned(">=", count, i64(_MANY_CALLS))
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
        self.choice.charge(b, b.load(ran_last, typ=PTR), VECTOR, b.sub(now, b.load(began, typ=I64)), i64(0))
        b.ret(b.load(interpret, typ=I64))

    def _load_row(self, b: Builder, frame: Value, field: GroupFrame) -> Value:
        return b.load(element(b, frame, i64(field), I8), typ=self.wide, align=8)

    def _frame_row(self, b: Builder, frame: Value, field: GroupFrame, vector: Value) -> None:
        b.store(vector, element(b, frame, i64(field), I8), align=8)

    def _store_row(self, b: Builder, machine: Value, field: MachineBlock, lane: Value, vector: Value) -> None:
        b.store(vector, lane_array(b, machine, field, lane, I64), align=8)

    def _move_registers(self, b: Builder, machine: Value, frame: Value, lane: Value, *, into_frame: bool) -> None:
        vector, align = ir.VectorType(self.storage, self.lanes), self.storage.width // 8
        rows = load_field(b, machine, MachineBlock.REGISTERS, PTR)
        stride = load_field(b, machine, MachineBlock.REGISTER_STRIDE)
        for index in self.registers:
            place = element(b, rows, b.add(b.mul(stride, i64(index)), lane), self.storage)
            held = element(b, frame, i64(GroupFrame.REGISTERS + index * self.lanes * align), I8)
            source, to = (place, held) if into_frame else (held, place)
            b.store(b.load(source, typ=vector, align=align), to, align=align)

    def _load_spaces(self, b: Builder, machine: Value, frame: Value, lane: Value) -> None:
        """What the group's lanes may access: what all of them may of their data, and where their pages' bits are."""
        least = variable(b, I64)
        b.store(i64(-1), least)
        size = load_field(b, machine, MachineBlock.SPACE_BYTES)
        rows = load_field(b, machine, MachineBlock.SPACES, PTR)
        numbers = lane_array(b, machine, MachineBlock.SPACE_INDEX, lane, I32)
        with counted(b, i64(self.lanes)) as index:
            place = b.mul(b.zext(b.load(element(b, numbers, index, I32), typ=I32), I64), size)
            row = element(b, rows, place, I8)
            # Lanes of which nothing is compiled take no part, whatever they may access.
            regular = b.icmp_unsigned("!=", load_field(b, row, AddressSpaceRow.REGULAR), i64(0))
            reach = b.select(regular, load_field(b, row, AddressSpaceRow.REACH), i64(-1))
            before = b.load(least, typ=I64)
            b.store(b.select(b.icmp_unsigned("<", reach, before), reach, before), least)
            words = element(b, frame, b.add(i64(GroupFrame.SPACE_WORDS), b.shl(index, i64(2))), I8)
            bits = b.add(b.add(place, i64(AddressSpaceRow.PAGES)), load_field(b, machine, MachineBlock.HULL_BITS))
            b.store(b.trunc(b.lshr(bits, i64(2)), I32), words)
        store_field(b, frame, GroupFrame.REACH, b.load(least, typ=I64))
        store_field(b, frame, GroupFrame.SPACES, rows)
        store_field(
            b, frame, GroupFrame.BITMAP_WORDS, b.lshr(load_field(b, machine, MachineBlock.BITMAP_BYTES), i64(2))
        )
