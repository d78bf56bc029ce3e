"""The loop over lane groups: runs groups whose lanes agree in SIMD registers, and lanes one by one where they do not.

A group's lanes run one by one until each stops where the group may go on together (`MODE_MEET`). If they stop at one
place, the group runs there in step, its memory interleaved. Lanes that part there wait for each other, the lowest pc
first. What that costs is measured against running them one by one, for each place where groups meet; the slower way is
left, and tried again later.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from vmjit.kernels.emit import I1, I8, I32, I64, PTR, VOID, Builder, Callee, Value, element, load_field, store_field
from vmjit.kernels.group_emitter import GroupEmitter, add_to, counted, i64, loop, variable
from vmjit.kernels.group_memory import GroupMemory
from vmjit.kernels.interleaved import LaneVectors
from vmjit.kernels.lanes import group_state, lane_array
from vmjit.kernels.layout import (
    ENTRY_VECTOR,
    GROUP_INTERPRET,
    GROUP_UNFIT,
    HOT_MASKED,
    HOT_WHOLE,
    MODE_MEET,
    RECORD_ENTRY,
    RECORD_SIZE,
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
SEPARATE_GROUPS_TYPE = ir.FunctionType(VOID, [PTR, PTR, PTR, I64, PTR])
REGION_TYPE = ir.FunctionType(I64, [PTR, I64, I64])

# Instructions of a lane in a trial of running one by one.
_TRIAL = 20_000
# Instructions that lanes run one by one in interleaved memory before it is laid out for that.
_COLD_SLICE = 256
_COLD_LIMIT = 8_192
# Instructions that lanes run one by one past a place where they do not go on together.
_APART_FIRST = 2_000
_APART_LAST = 1 << 22
# Instructions of a group's lanes one by one from which it is told what that costs.
_LONG = 16 * _APART_FIRST
# Times in a row that going on together did not pay, until groups do not begin at a place any more.
_LOSSES = 2
# Calls of SIMD code after which it is judged whether going on so pays.
_MANY_CALLS = 1_024
# Instructions that lanes stay together for where code for some of them is worth compiling.
_TOGETHER = 64
# Instructions in SIMD registers, faster than one by one, from which whole groups that meet inside a region have code
# that begins there.
_WORTH = 100_000
# A measurement of so many cycles, and so many for an instruction, was interrupted by other work.
_INTERRUPTED = 1 << 22
_INTERRUPTED_EACH = 64
# Groups whose registers were not as assumed, from which it is learned what to assume; and how many make new code.
_UNFIT_NOTED = 64
_UNFIT_ASKED = 8


_VECTOR = (VectorEntry.VECTOR_CYCLES, VectorEntry.VECTOR_WORK)
_GROUP = (GroupState.CYCLES, GroupState.WORK)
_SCALAR = (VectorEntry.SCALAR_CYCLES, VectorEntry.SCALAR_WORK)
_ALL_SCALAR = (MachineBlock.SCALAR_CYCLES, MachineBlock.SCALAR_WORK)
_ALL_GROUPS = (MachineBlock.GROUP_CYCLES, MachineBlock.GROUP_WORK)


class _Groups(GroupEmitter):
    """Emits the functions around lane groups into the interpreter's module."""

    def __init__(self, module: Any, xlen: Any, register_indices: list[int], run_lane: Any, lanes: int) -> None:
        super().__init__(module, lanes)
        self.xlen = xlen
        self.registers = register_indices
        self.run_lane = run_lane
        self.memory = GroupMemory(module, lanes)

    def _charge(self, b: Builder, entry: Value, fields: tuple[int, int], cycles: Value, work: Value) -> None:
        """Add to an entry's cycles and work, unless something else ran meanwhile."""
        long = b.icmp_unsigned(">", cycles, i64(_INTERRUPTED))
        each = b.icmp_unsigned(">", cycles, b.mul(work, i64(_INTERRUPTED_EACH)))
        with b.if_then(b.not_(b.and_(long, each))):
            add_to(b, entry, fields[0], cycles)
            add_to(b, entry, fields[1], work)

    def _charge_group(self, b: Builder, machine: Value, state: Value, started: Value, work: Value) -> None:
        """Charge what was begun at a time to the group's going on together, and to that of all groups."""
        cycles = b.sub(self._cycles(b), started)
        self._charge(b, state, _GROUP, cycles, work)
        self._charge(b, machine, _ALL_GROUPS, cycles, work)

    # -- functions

    def emit_find_block(self) -> None:
        """`find_block(machine, lane, pc)`: the record of a block in the lane's code, or null."""
        function, b = self._function("find_block", ir.FunctionType(PTR, [PTR, I64, I64]))
        self.find_block = function
        machine, lane, pc = function.args
        index = b.zext(b.load(lane_array(b, machine, MachineBlock.CODE_INDEX, lane, I32), typ=I32), I64)
        space = b.load(lane_array(b, machine, MachineBlock.CODE_SPACES, index, PTR), typ=PTR)
        null = ir.Constant(PTR, None)
        # A code space begins with its first span's fields; the rows of the others have the same.
        span = variable(b, PTR)
        b.store(space, span)

        def offset_in(place: Value) -> tuple[Value, Value]:
            offset = b.sub(pc, load_field(b, place, CodeSpaceBlock.LO))
            return offset, b.icmp_unsigned("<", offset, load_field(b, place, CodeSpaceBlock.SIZE))

        with b.if_then(b.not_(offset_in(space)[1])):
            more = load_field(b, space, CodeSpaceBlock.MORE, PTR)
            with counted(b, load_field(b, space, CodeSpaceBlock.MORE_COUNT)) as i:
                row = element(b, more, b.mul(i, i64(CodeSpaceBlock.MORE)), I8)
                with b.if_then(offset_in(row)[1]):
                    b.store(row, span)
        offset, inside = offset_in(b.load(span, typ=PTR))
        with b.if_then(b.not_(inside)):
            b.ret(null)
        table = load_field(b, b.load(span, typ=PTR), CodeSpaceBlock.TABLE, PTR)
        b.ret(b.load(element(b, table, b.lshr(offset, i64(1)), PTR), typ=PTR))

    def emit_find(self) -> None:
        """`find_vector(machine, lane, pc)`: the VectorEntry of a block in the lane's code, or null."""
        function, b = self._function("find_vector", ir.FunctionType(PTR, [PTR, I64, I64]))
        self.find = function
        null = ir.Constant(PTR, None)
        record = b.call(self.find_block, list(function.args))
        with b.if_then(b.icmp_unsigned("==", b.ptrtoint(record, I64), i64(0))):
            b.ret(null)
        entry = load_field(b, record, RECORD_ENTRY, PTR)
        with b.if_then(b.icmp_unsigned("==", b.ptrtoint(entry, I64), i64(0))):
            b.ret(null)
        b.ret(load_field(b, entry, ENTRY_VECTOR, PTR))

    def emit_step(self) -> None:
        """`step_lanes(machine, frame, first lane, lanes' bits, quantum)`: run lanes one by one; whether one of them
        needs code."""
        function, b = self._function("step_lanes", ir.FunctionType(I1, [PTR, PTR, I64, I64, I64]))
        self.step = function
        machine, frame, first, lanes, quantum = function.args
        rest, needs = variable(b, I64), variable(b, I1)
        b.store(lanes, rest)
        b.store(ir.Constant(I1, 0), needs)
        with loop(b) as (_, after):
            bits = b.load(rest, typ=I64)
            body = b.append_basic_block("body")
            done = b.or_(b.icmp_unsigned("==", bits, i64(0)), self._attention(b, machine))
            b.cbranch(done, after, body)
            b.position_at_end(body)
            b.store(b.and_(bits, b.sub(bits, i64(1))), rest)
            stop = b.call(self.run_lane, [machine, frame, b.add(first, self._first(b, bits)), quantum])
            need = b.icmp_unsigned("==", stop, i64(STOP_NEED_CODE))
            b.store(b.or_(b.load(needs, typ=I1), need), needs)
        b.ret(b.load(needs, typ=I1))

    def emit_note(self) -> None:
        """`note(registers, stride, entry)`: note what the lanes of a whole group have in common; its registers are rows
        `stride` lanes apart."""
        function, b = self._function("note", ir.FunctionType(VOID, [PTR, I64, PTR]))
        self.note = function
        rows, stride, entry = function.args
        vector = ir.VectorType(self.xlen, self.lanes)
        uniform, narrow = i64(0), i64(0)
        vectors = LaneVectors(b, self.lanes)
        for index in self.registers:
            place = element(b, rows, b.mul(stride, i64(index)), self.xlen)
            values = b.load(place, typ=vector, align=self.xlen.width // 8)
            same, _ = vectors.all_same(values)
            uniform = b.or_(uniform, b.shl(b.zext(same, I64), i64(index)))
            if self.xlen.width == 64:
                low = b.sext(b.trunc(values, ir.VectorType(I32, self.lanes)), vector)
                fits = vectors.all(b.icmp_unsigned("==", low, values))
                narrow = b.or_(narrow, b.shl(b.zext(fits, I64), i64(index)))
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
        b.call(self.note, [rows, load_field(b, machine, MachineBlock.REGISTER_STRIDE), entry])
        meetings = add_to(b, entry, VectorEntry.MEETINGS, i64(1))
        # Lanes that come here in SIMD registers need no further proof that they agree.
        enough = b.icmp_unsigned(">=", meetings, load_field(b, machine, MachineBlock.MEETINGS))
        with b.if_then(b.and_(enough, b.or_(interleaved, self._forced(b, machine)))):
            b.call(self.ask, [machine, entry])
        b.ret_void()

    def emit_ask(self) -> None:
        """`ask(machine, entry)`: have the engine compile for whole groups there, if it has not been asked yet;
        `ask_masked`: for some of a group's lanes, once they were there often enough."""

        def ask(name: str, field: VectorEntry, bits: int) -> Any:
            function, b = self._function(name, ir.FunctionType(VOID, [PTR, PTR]))
            machine, entry = function.args
            if field == VectorEntry.MASKED_ASKED:
                times = add_to(b, entry, VectorEntry.BROKEN, i64(1))
                with b.if_then(b.icmp_unsigned("<", times, load_field(b, machine, MachineBlock.MEETINGS))):
                    b.ret_void()
            with b.if_then(b.icmp_unsigned("==", load_field(b, entry, field), i64(0))):
                store_field(b, entry, field, i64(1))
                ring = load_field(b, machine, MachineBlock.HOT, PTR)
                position = b.atomic_rmw("add", ring, i64(1), "monotonic")
                place = b.and_(position, load_field(b, ring, Hot.MASK))
                asked = b.or_(b.ptrtoint(entry, I64), i64(bits))
                store_field(b, element(b, ring, place, I64), Hot.ENTRIES, asked)
            b.ret_void()
            return function

        self.ask = ask("ask", VectorEntry.ASKED, HOT_WHOLE)
        self.ask_masked = ask("ask_masked", VectorEntry.MASKED_ASKED, HOT_MASKED)

    def emit_watch(self) -> None:
        """`watch(machine, first lane, group's row)`: lanes that were together at a place have run on one by one and
        stopped where they may meet: note whether they do, and ask for code once they mostly did."""
        function, b = self._function("watch", ir.FunctionType(VOID, [PTR, I64, PTR]))
        self.watch = function
        machine, lane, state = function.args
        watched = load_field(b, state, GroupState.WATCHED)
        with b.if_then(b.icmp_unsigned("==", watched, i64(0))):
            b.ret_void()
        store_field(b, state, GroupState.WATCHED, i64(0))
        entry = b.inttoptr(watched, PTR)
        active = self._running(b, machine, lane)
        with b.if_then(b.icmp_unsigned("!=", active, i64(self.all))):
            b.ret_void()
        _, here, _ = self._lowest_of(b, self._row(b, machine, MachineBlock.PC, lane, I64), active)
        together = b.icmp_unsigned("==", here, i64(self.all))
        # To look often for lanes that do not stay together costs more than is missed by looking less often.
        apart = load_field(b, state, GroupState.APART)
        store_field(b, state, GroupState.APART, b.select(together, apart, self._longer(b, apart)))
        kept = add_to(b, entry, VectorEntry.KEPT, b.zext(together, I64))
        parted = add_to(b, entry, VectorEntry.PARTED, b.zext(b.not_(together), I64))
        enough = b.icmp_unsigned(">=", kept, load_field(b, machine, MachineBlock.MEETINGS))
        with b.if_then(b.and_(enough, b.icmp_unsigned(">", kept, b.shl(parted, i64(1))))):
            b.call(self.ask, [machine, entry])
        b.ret_void()

    def _forced(self, b: Builder, machine: Value) -> Value:
        """Whether groups run in SIMD registers whatever it costs."""
        return b.icmp_unsigned("==", load_field(b, machine, MachineBlock.TRIAL_WORK), i64(0))

    def _longer(self, b: Builder, apart: Value) -> Value:
        """Twice as many instructions one by one, up to a bound."""
        longer = b.shl(apart, i64(1))
        return b.select(b.icmp_signed("<", longer, i64(_APART_LAST)), longer, i64(_APART_LAST))

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
                b.call(self.ask_masked, [machine, there])
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
            self._charge(b, there, _VECTOR, b.sub(time, b.load(began, typ=I64)), work)
            b.store(time, began)
            status = load_field(b, frame, GroupFrame.STATUS)
            misfit, fits = b.append_basic_block("misfit"), b.append_basic_block("fits")
            b.cbranch(b.icmp_unsigned("==", status, i64(GROUP_UNFIT)), misfit, fits)
            b.position_at_end(misfit)
            times = add_to(b, there, VectorEntry.UNFIT, i64(1))
            with b.if_then(b.icmp_unsigned("<=", times, i64(_UNFIT_NOTED))):
                b.call(self.note, [element(b, frame, i64(GroupFrame.REGISTERS), I8), i64(self.lanes), there])
                with b.if_then(b.icmp_unsigned("==", b.and_(times, i64(_UNFIT_ASKED - 1)), i64(0))):
                    store_field(b, there, VectorEntry.ASKED, i64(0))
                    b.call(self.ask, [machine, there])
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
            with b.if_then(b.and_(parted, self._lacks_masked(b, there))):
                # Lanes that mostly part soon are not worth the longer compilation.
                long = b.icmp_unsigned(">=", work, i64(_TOGETHER * self.lanes))
                with b.if_else(b.or_(long, self._forced(b, machine))) as (worth, not_worth):
                    with worth:
                        b.call(self.ask_masked, [machine, there])
                    with not_worth:
                        fewer = b.lshr(load_field(b, there, VectorEntry.BROKEN), i64(1))
                        store_field(b, there, VectorEntry.BROKEN, fewer)
            following = b.call(self.find, [machine, b.add(lane, self._first(b, at)), pc])
            with b.if_then(b.icmp_unsigned("==", b.ptrtoint(following, I64), i64(0))):
                b.branch(after)
            b.store(following, current)
            ready = b.icmp_unsigned("==", load_field(b, following, VectorEntry.STATE), i64(VECTOR_READY))
            unknown = self._wants_sample(b, machine, following, at)
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
        self._charge(b, b.load(ran_last, typ=PTR), _VECTOR, b.sub(now, b.load(began, typ=I64)), i64(0))
        b.ret(b.load(interpret, typ=I64))

    def _load_row(self, b: Builder, frame: Value, field: GroupFrame) -> Value:
        return b.load(element(b, frame, i64(field), I8), typ=self.wide, align=8)

    def _frame_row(self, b: Builder, frame: Value, field: GroupFrame, vector: Value) -> None:
        b.store(vector, element(b, frame, i64(field), I8), align=8)

    def _store_row(self, b: Builder, machine: Value, field: MachineBlock, lane: Value, vector: Value) -> None:
        b.store(vector, lane_array(b, machine, field, lane, I64), align=8)

    def _move_registers(self, b: Builder, machine: Value, frame: Value, lane: Value, *, into_frame: bool) -> None:
        vector, align = ir.VectorType(self.xlen, self.lanes), self.xlen.width // 8
        rows = load_field(b, machine, MachineBlock.REGISTERS, PTR)
        stride = load_field(b, machine, MachineBlock.REGISTER_STRIDE)
        for index in self.registers:
            place = element(b, rows, b.add(b.mul(stride, i64(index)), lane), self.xlen)
            held = element(b, frame, i64(GroupFrame.REGISTERS + index * self.lanes * align), I8)
            source, to = (place, held) if into_frame else (held, place)
            b.store(b.load(source, typ=vector, align=align), to, align=align)

    def _lacks_masked(self, b: Builder, entry: Value) -> Value:
        """Whether there is no code for some of a group's lanes."""
        return b.icmp_unsigned("==", load_field(b, entry, VectorEntry.MASKED), i64(0))

    def _wants_sample(self, b: Builder, machine: Value, entry: Value, here: Value) -> Value:
        """Whether a whole group stands where more has to be known before code for it is made."""
        whole = b.icmp_unsigned("==", here, i64(self.all))
        few = b.icmp_unsigned(
            "<", load_field(b, entry, VectorEntry.MEETINGS), load_field(b, machine, MachineBlock.MEETINGS)
        )
        none = b.icmp_unsigned("==", load_field(b, entry, VectorEntry.CONVERGENT), i64(0))
        # Inside a region that has code for some of a group's lanes there are many such places.
        per_vector, vector = self._rate(b, entry, _VECTOR)
        per_scalar, _ = self._scalar_rate(b, machine, entry)
        pays = b.and_(b.icmp_unsigned(">", vector, i64(_WORTH)), b.fcmp_ordered("<", per_vector, per_scalar))
        worth = b.or_(b.or_(self._lacks_masked(b, entry), pays), self._forced(b, machine))
        return b.and_(b.and_(whole, few), b.and_(none, worth))

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
        known = b.icmp_unsigned(">", tried, i64(0))
        return b.select(known, here, everywhere), b.select(known, tried, work)

    def emit_judge(self) -> None:
        """`judge(machine, group's row)`: the group has given up going on together: whether that had paid, from laying
        out its memory to laying it out again; if not twice in a row, groups do not begin there again."""
        function, b = self._function("judge", ir.FunctionType(VOID, [PTR, PTR]))
        self.judge = function
        machine, state = function.args
        began = load_field(b, state, GroupState.STARTED_AT)
        with b.if_then(b.icmp_unsigned("==", began, i64(0))):
            b.ret_void()
        entry = b.inttoptr(began, PTR)
        scalar, known = self._scalar_rate(b, machine, entry)
        vector, _ = self._rate(b, state, _GROUP)
        bad = b.and_(b.fcmp_ordered(">", vector, scalar), b.icmp_unsigned(">", known, i64(0)))
        bad = b.and_(bad, b.not_(self._forced(b, machine)))
        times = b.select(bad, b.add(load_field(b, entry, VectorEntry.LOST), i64(1)), i64(0))
        store_field(b, entry, VectorEntry.LOST, times)
        with b.if_then(b.icmp_unsigned(">=", times, i64(_LOSSES))):
            store_field(b, entry, VectorEntry.LOST, i64(0))
            store_field(b, entry, VectorEntry.STATE, i64(VECTOR_OFF))
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
        with b.if_then(b.icmp_unsigned("==", state, i64(VECTOR_SAMPLING))):
            b.ret(i64(0))
        with b.if_then(b.icmp_unsigned("==", state, i64(VECTOR_OFF))):
            b.ret(i64(0))
        some = b.icmp_unsigned("!=", here, i64(self.all))
        with b.if_then(b.and_(some, self._lacks_masked(b, entry))):
            agree = b.or_(b.icmp_unsigned("==", here, active), self._forced(b, machine))
            with b.if_then(agree):
                b.call(self.ask_masked, [machine, entry])
            b.ret(i64(0))
        # A few lanes that are together, of many that are not, go on alone.
        two = b.shl(self._population(b, here), i64(1))
        with b.if_then(b.icmp_unsigned("<", two, self._population(b, active))):
            b.ret(i64(0))
        scalar = load_field(b, entry, VectorEntry.SCALAR_WORK)
        with b.if_then(b.icmp_unsigned("<", scalar, load_field(b, machine, MachineBlock.TRIAL_WORK))):
            b.ret(b.select(interleaved, i64(1), i64(2)))
        enough = load_field(b, machine, MachineBlock.JUDGED_WORK)
        per_vector, vector = self._rate(b, entry, _VECTOR)
        per_scalar, scalar = self._scalar_rate(b, machine, entry)
        long = b.icmp_unsigned(">", load_field(b, entry, VectorEntry.VECTOR_CYCLES), enough)
        judged = b.and_(b.icmp_unsigned(">", vector, i64(0)), b.or_(b.icmp_unsigned(">", vector, enough), long))
        with b.if_then(b.and_(judged, b.icmp_unsigned(">", scalar, i64(0)))):
            with b.if_then(b.fcmp_ordered(">", per_vector, per_scalar)):
                store_field(b, entry, VectorEntry.STATE, i64(VECTOR_OFF))
                b.ret(i64(0))
            # What was long ago counts less.
            for field in (VectorEntry.VECTOR_CYCLES, VectorEntry.VECTOR_WORK):
                store_field(b, entry, field, b.lshr(load_field(b, entry, field), i64(1)))
        b.ret(i64(1))

    def emit_run_groups(self) -> None:
        function, b = self._function("run_groups", RUN_GROUPS_TYPE, internal=False)
        machine, frame, group_frame, groups, count, cursor = function.args
        # The VectorEntry whose code ran last, and whether none of the group's lanes has run one by one since.
        last, fresh = variable(b, PTR), variable(b, I1)
        out = b.append_basic_block("out")
        with loop(b) as (next_group, _):
            take = b.append_basic_block("take")
            b.cbranch(self._attention(b, machine), out, take)
            b.position_at_end(take)
            position = b.atomic_rmw("add", cursor, i64(1), "monotonic")
            start = b.append_basic_block("start")
            b.cbranch(b.icmp_unsigned("<", position, count), start, out)
            b.position_at_end(start)
            group = b.zext(b.load(element(b, groups, position, I32), typ=I32), I64)
            lane = b.shl(group, load_field(b, machine, MachineBlock.GROUP_SHIFT))
            state = group_state(b, machine, group)
            b.store(ir.Constant(PTR, None), last)
            b.store(ir.Constant(I1, 1), fresh)
            with loop(b) as (turn, _):
                self._emit_turn(b, machine, frame, group_frame, group, lane, state, last, fresh, turn, next_group, out)
        b.unreachable()
        b.position_at_end(out)
        b.ret_void()

    def emit_separate_groups(self) -> None:
        """`separate_groups(machine, group frame, groups, count, cursor)`: lay the memory of these groups out apart."""
        function, b = self._function("separate_groups", SEPARATE_GROUPS_TYPE, internal=False)
        machine, group_frame, groups, count, cursor = function.args
        with loop(b) as (_, after):
            position = b.atomic_rmw("add", cursor, i64(1), "monotonic")
            body = b.append_basic_block("body")
            b.cbranch(b.icmp_unsigned("<", position, count), body, after)
            b.position_at_end(body)
            group = b.zext(b.load(element(b, groups, position, I32), typ=I32), I64)
            interleaved = load_field(b, group_state(b, machine, group), GroupState.INTERLEAVED)
            with b.if_then(b.icmp_unsigned("!=", interleaved, i64(0))):
                b.call(self.memory.separate, [machine, group_frame, group])
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
        fresh: Value,
        turn: Any,
        next_group: Any,
        out: Any,
    ) -> None:
        """One step of a group: together if it can, else its lanes one by one."""
        active = self._running(b, machine, lane)
        some = b.append_basic_block("some")
        b.cbranch(b.icmp_unsigned("==", active, i64(0)), next_group, some)
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
        meet = b.select(one_code, i64(MODE_MEET), i64(0))
        alone_for_now = b.icmp_unsigned("!=", load_field(b, machine, MachineBlock.ALONE), i64(0))
        standing = b.icmp_unsigned("!=", b.ptrtoint(entry, I64), i64(0))
        interleaved = b.icmp_unsigned("!=", load_field(b, state, GroupState.INTERLEAVED), i64(0))
        wish = variable(b, I64)
        b.store(i64(0), wish)
        with b.if_then(b.and_(standing, b.not_(alone_for_now))):
            b.store(b.call(self.wish, [machine, lane, active, here, entry, interleaved]), wish)
        together, alone, one_by_one = (b.append_basic_block(n) for n in ("together", "alone", "one_by_one"))
        wanted = b.load(wish, typ=I64)
        b.cbranch(b.icmp_unsigned("==", wanted, i64(1)), together, alone)

        b.position_at_end(together)
        with b.if_then(b.not_(interleaved)):
            for field, value in (
                (GroupState.STARTED_AT, b.ptrtoint(entry, I64)),
                (GroupState.CYCLES, i64(0)),
                (GroupState.WORK, i64(0)),
            ):
                store_field(b, state, field, value)
            started = self._cycles(b)
            b.call(self.memory.interleave, [machine, group_frame, group])
            self._charge_group(b, machine, state, started, i64(0))
            b.store(entry, last)
        started = self._cycles(b)
        interpret = b.call(self.run_vector, [machine, group_frame, lane, active, here, entry])
        work = load_field(b, group_frame, GroupFrame.WORK)
        self._charge_group(b, machine, state, started, work)
        b.store(load_field(b, group_frame, GroupFrame.LAST, PTR), last)
        b.store(ir.Constant(I1, 1), fresh)
        # What ran together pays off what lanes ran one by one.
        paid = b.sub(load_field(b, state, GroupState.COLD), b.lshr(load_field(b, group_frame, GroupFrame.WORK), i64(4)))
        store_field(b, state, GroupState.COLD, b.select(b.icmp_signed("<", paid, i64(0)), i64(0), paid))
        with b.if_then(b.icmp_signed("<", paid, i64(-_COLD_LIMIT))):
            store_field(b, state, GroupState.APART, i64(_APART_FIRST))
        stuck = b.append_basic_block("stuck")
        b.cbranch(b.icmp_unsigned("==", interpret, i64(0)), turn, stuck)
        b.position_at_end(stuck)
        store_field(b, frame, Frame.MODE, i64(0))
        b.cbranch(b.call(self.step, [machine, frame, lane, interpret, i64(1)]), out, turn)

        # One by one in interleaved memory: until a place where the group goes on together, but not for long.
        b.position_at_end(alone)
        cold, rows = b.append_basic_block("cold"), b.append_basic_block("rows")
        b.cbranch(interleaved, cold, rows)
        b.position_at_end(cold)
        limit = b.or_(b.icmp_signed(">", load_field(b, state, GroupState.COLD), i64(_COLD_LIMIT)), alone_for_now)
        relay, step = b.append_basic_block("relay"), b.append_basic_block("step")
        b.cbranch(limit, relay, step)
        b.position_at_end(relay)
        started = self._cycles(b)
        b.call(self.memory.separate, [machine, group_frame, group])
        self._charge_group(b, machine, state, started, i64(0))
        b.call(self.judge, [machine, state])
        store_field(b, state, GroupState.REST, i64(1))
        b.branch(turn)
        b.position_at_end(step)
        started = self._cycles(b)
        store_field(b, frame, Frame.MODE, b.select(standing, i64(0), meet))
        slice_ = variable(b, I64)
        b.store(i64(_COLD_SLICE), slice_)
        with b.if_then(standing):
            # A group that was together may be so again behind the block; one that parted takes longer.
            size = load_field(b, b.call(self.find_block, [machine, first, pc]), RECORD_SIZE, I32)
            once = b.and_(b.load(fresh, typ=I1), b.icmp_unsigned("==", here, active))
            b.store(b.select(once, b.zext(size, I64), i64(_COLD_SLICE >> 3)), slice_)
            b.store(ir.Constant(I1, 0), fresh)
        slice_ = b.load(slice_, typ=I64)
        need, ran = self._counted_step(b, machine, frame, lane, here, slice_)
        add_to(b, state, GroupState.COLD, ran)
        self._charge_group(b, machine, state, started, ran)
        blamed = b.load(last, typ=PTR)
        with b.if_then(b.icmp_unsigned("!=", b.ptrtoint(blamed, I64), i64(0))):
            self._charge(b, blamed, _VECTOR, b.sub(self._cycles(b), started), ran)
        b.cbranch(need, out, turn)

        b.position_at_end(rows)
        forever, looking = b.append_basic_block("forever"), b.append_basic_block("looking")
        b.cbranch(alone_for_now, forever, looking)
        b.position_at_end(forever)
        quantum = load_field(b, machine, MachineBlock.QUANTUM)
        store_field(b, frame, Frame.MODE, i64(0))
        b.cbranch(self._lone_step(b, machine, frame, lane, active, quantum), out, turn)
        b.position_at_end(looking)
        b.call(self.watch, [machine, lane, state])
        apart = load_field(b, state, GroupState.APART)
        apart = b.select(b.icmp_signed("<", apart, i64(_APART_FIRST)), i64(_APART_FIRST), apart)
        longer = self._longer(b, apart)
        resting, awake = b.append_basic_block("resting"), b.append_basic_block("awake")
        b.cbranch(b.icmp_unsigned("!=", load_field(b, state, GroupState.REST), i64(0)), resting, awake)
        b.position_at_end(resting)
        store_field(b, state, GroupState.REST, i64(0))
        store_field(b, state, GroupState.APART, longer)
        store_field(b, frame, Frame.MODE, i64(0))
        b.cbranch(self._lone_step(b, machine, frame, lane, active, apart), out, turn)
        b.position_at_end(awake)
        b.cbranch(standing, one_by_one, meeting := b.append_basic_block("meeting"))
        b.position_at_end(meeting)
        store_field(b, frame, Frame.MODE, meet)
        need = self._lone_step(b, machine, frame, lane, active, load_field(b, machine, MachineBlock.QUANTUM))
        b.cbranch(need, out, turn)

        # Past a place where the group could go on together, but does not.
        b.position_at_end(one_by_one)
        trial = b.icmp_unsigned("==", wanted, i64(2))
        ready = b.icmp_unsigned("==", load_field(b, entry, VectorEntry.STATE), i64(VECTOR_READY))
        whole = b.icmp_unsigned("==", here, i64(self.all))
        sampling = b.icmp_unsigned("==", load_field(b, entry, VectorEntry.STATE), i64(VECTOR_SAMPLING))
        seen = b.and_(sampling, whole)
        keeps = b.or_(trial, b.or_(seen, b.not_(b.or_(ready, sampling))))
        store_field(b, state, GroupState.APART, b.select(keeps, apart, longer))
        watched = b.select(seen, b.ptrtoint(entry, I64), i64(0))
        store_field(b, state, GroupState.WATCHED, watched)
        slice_ = b.select(trial, i64(_TRIAL), apart)
        store_field(b, frame, Frame.MODE, i64(0))
        need = self._lone_step(b, machine, frame, lane, here, slice_, b.select(trial, entry, ir.Constant(PTR, None)))
        b.cbranch(need, out, turn)

    def _counted_step(
        self, b: Builder, machine: Value, frame: Value, lane: Value, lanes: Value, quantum: Value
    ) -> tuple[Value, Value]:
        """Run lanes one by one; gives whether one of them needs code, and the instructions that they ran."""
        before = self._row(b, machine, MachineBlock.RETIRED, lane, I64)
        need = b.call(self.step, [machine, frame, lane, lanes, quantum])
        after = self._row(b, machine, MachineBlock.RETIRED, lane, I64)
        total = f"llvm.vector.reduce.add.v{self.lanes}i64"
        return need, self._intrinsic(b, total, I64, [b.sub(after, before)])

    def _lone_step(
        self,
        b: Builder,
        machine: Value,
        frame: Value,
        lane: Value,
        lanes: Value,
        quantum: Value,
        tried: Value | None = None,
    ) -> Value:
        """Run lanes one by one in memory that is laid out for that, and charge for it; gives whether one needs code.

        `tried` is the VectorEntry, or null, for which this tells what running lanes one by one costs there.
        """
        started = self._cycles(b)
        need, ran = self._counted_step(b, machine, frame, lane, lanes, quantum)
        took = b.sub(self._cycles(b), started)
        with b.if_then(b.icmp_unsigned(">=", ran, i64(_LONG))):
            self._charge(b, machine, _ALL_SCALAR, took, ran)
        if tried is not None:
            with b.if_then(b.icmp_unsigned("!=", b.ptrtoint(tried, I64), i64(0))):
                self._charge(b, tried, _SCALAR, took, ran)
        return need


def emit_run_groups(module: Any, xlen: Any, register_indices: list[int], run_lane: Any, lanes: int) -> None:
    """Define `run_groups(machine, frame, group frame, groups, count, cursor)`: as `run_lanes`, for lane groups; and
    `separate_groups`."""
    groups = _Groups(module, xlen, register_indices, run_lane, lanes)
    groups.emit_find_block()
    groups.emit_find()
    groups.memory.emit()
    groups.emit_step()
    groups.emit_ask()
    groups.emit_note()
    groups.emit_sample()
    groups.emit_watch()
    groups.emit_run_vector()
    groups.emit_judge()
    groups.emit_wish()
    groups.emit_run_groups()
    groups.emit_separate_groups()
