"""The loop over lane groups: runs groups whose lanes agree in SIMD registers, and lanes one by one where they do not.

A group's lanes run one by one until each stops where the group may go on together (`MODE_MEET`). If they stop at one
place, the group runs there in step, its memory interleaved. Lanes that part there wait for each other, the lowest pc
first. What that costs is measured against running them one by one, for each place where groups meet; the slower way is
left, and tried again later.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from vmjit.kernels.emit import I1, I8, I32, I64, PTR, VOID, Builder, Value, element, load_field, store_field
from vmjit.kernels.group_choice import ALL_SCALAR, SCALAR, VECTOR, GroupChoice
from vmjit.kernels.group_emitter import GroupEmitter, add_to, counted, i64, loop, variable
from vmjit.kernels.group_memory import GroupMemory
from vmjit.kernels.group_run import GroupRun
from vmjit.kernels.lanes import group_state, lane_array
from vmjit.kernels.layout import (
    ENTRY_VECTOR,
    MODE_MEET,
    RECORD_ENTRY,
    RECORD_SIZE,
    STOP_NEED_CODE,
    VECTOR_READY,
    VECTOR_SAMPLING,
    CodeSpaceBlock,
    Frame,
    GroupFrame,
    GroupState,
    MachineBlock,
    VectorEntry,
)

RUN_GROUPS_TYPE = ir.FunctionType(VOID, [PTR, PTR, PTR, PTR, I64, PTR])
SEPARATE_GROUPS_TYPE = ir.FunctionType(VOID, [PTR, PTR, PTR, I64, PTR])

# Instructions of a lane in a trial of running one by one.
_TRIAL = 20_000
# Instructions that lanes run one by one in interleaved memory before it is laid out for that.
_COLD_SLICE = 256
_COLD_LIMIT = 8_192
# Instructions that lanes run one by one past a place where they do not go on together.
_APART_FIRST = 2_000
# Instructions of a group's lanes one by one from which it is told what that costs.
_LONG = 16 * _APART_FIRST


class _Groups(GroupEmitter):
    """Emits the functions around lane groups into the interpreter's module."""

    def __init__(self, choice: GroupChoice, run_lane: Any) -> None:
        super().__init__(choice.module, choice.lanes)
        self.choice = choice
        self.run_lane = run_lane
        self.memory = GroupMemory(choice.module, choice.lanes)

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

    def emit_run_groups(self, run: GroupRun) -> None:
        self.run_vector = run.function
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
            b.store(b.call(self.choice.wish, [machine, lane, active, here, entry, interleaved]), wish)
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
            self.choice.charge_group(b, machine, state, started, i64(0))
            b.store(entry, last)
        started = self._cycles(b)
        interpret = b.call(self.run_vector, [machine, group_frame, lane, active, here, entry])
        work = load_field(b, group_frame, GroupFrame.WORK)
        self.choice.charge_group(b, machine, state, started, work)
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
        self.choice.charge_group(b, machine, state, started, i64(0))
        b.call(self.choice.judge, [machine, state])
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
        self.choice.charge_group(b, machine, state, started, ran)
        blamed = b.load(last, typ=PTR)
        with b.if_then(b.icmp_unsigned("!=", b.ptrtoint(blamed, I64), i64(0))):
            self.choice.charge(b, blamed, VECTOR, b.sub(self._cycles(b), started), ran)
        b.cbranch(need, out, turn)

        b.position_at_end(rows)
        forever, looking = b.append_basic_block("forever"), b.append_basic_block("looking")
        b.cbranch(alone_for_now, forever, looking)
        b.position_at_end(forever)
        quantum = load_field(b, machine, MachineBlock.QUANTUM)
        store_field(b, frame, Frame.MODE, i64(0))
        b.cbranch(self._lone_step(b, machine, frame, lane, active, quantum), out, turn)
        b.position_at_end(looking)
        b.call(self.choice.watch, [machine, lane, state])
        apart = load_field(b, state, GroupState.APART)
        apart = b.select(b.icmp_signed("<", apart, i64(_APART_FIRST)), i64(_APART_FIRST), apart)
        longer = self.choice.longer(b, apart)
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
            self.choice.charge(b, machine, ALL_SCALAR, took, ran)
        if tried is not None:
            with b.if_then(b.icmp_unsigned("!=", b.ptrtoint(tried, I64), i64(0))):
                self.choice.charge(b, tried, SCALAR, took, ran)
        return need


def emit_run_groups(module: Any, storage: Any, register_indices: list[int], run_lane: Any, lanes: int) -> None:
    """Define `run_groups(machine, frame, group frame, groups, count, cursor)`: as `run_lanes`, for lane groups; and
    `separate_groups`."""
    choice = GroupChoice(module, storage, register_indices, lanes)
    choice.emit()
    groups = _Groups(choice, run_lane)
    groups.emit_find_block()
    groups.emit_find()
    groups.emit_step()
    run = GroupRun(choice, groups.find)
    run.emit()
    groups.memory.emit()
    groups.emit_run_groups(run)
    groups.emit_separate_groups()
