"""Whether a group's lanes go on together: what is noted of the places where groups meet, and what follows from it.

What going on together costs there is measured against running lanes one by one; the slower way is left, and tried again
later. Code is asked for where lanes that were together met again after running one by one.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from vmjit.kernels.emit import I1, I32, I64, PTR, VOID, Builder, Value, element, load_field, store_field
from vmjit.kernels.group_emitter import GroupEmitter, add_to, i64
from vmjit.kernels.interleaved import LaneVectors
from vmjit.kernels.layout import (
    HOT_MASKED,
    HOT_WHOLE,
    VECTOR_OFF,
    VECTOR_SAMPLING,
    GroupState,
    Hot,
    MachineBlock,
    VectorEntry,
)

# Instructions that a group's lanes run one by one, at most, before they look for each other again.
_APART_LAST = 1 << 22
# Times in a row that going on together did not pay, until groups do not begin at a place any more.
_LOSSES = 2
# Instructions in SIMD registers, faster than one by one, from which whole groups that meet inside a region have code
# that begins there.
_WORTH = 100_000
# A measurement of so many cycles, and so many for an instruction, was interrupted by other work.
_INTERRUPTED = 1 << 22
_INTERRUPTED_EACH = 64

# Where cycles and instructions are counted: of an entry and of a machine, in SIMD registers or together and one by one;
# and of a group since it began to go on together.
VECTOR = (VectorEntry.VECTOR_CYCLES, VectorEntry.VECTOR_WORK)
SCALAR = (VectorEntry.SCALAR_CYCLES, VectorEntry.SCALAR_WORK)
ALL_GROUPS = (MachineBlock.GROUP_CYCLES, MachineBlock.GROUP_WORK)
ALL_SCALAR = (MachineBlock.SCALAR_CYCLES, MachineBlock.SCALAR_WORK)
_GROUP = (GroupState.CYCLES, GroupState.WORK)


class GroupChoice(GroupEmitter):
    """Emits the functions that note what lanes do at places where groups meet, and choose by it."""

    def __init__(self, module: Any, storage: Any, register_indices: list[int], lanes: int) -> None:
        super().__init__(module, lanes)
        self.storage = storage
        self.registers = register_indices

    def emit(self) -> None:
        self._emit_ask()
        self._emit_note()
        self._emit_sample()
        self._emit_watch()
        self._emit_judge()
        self._emit_wish()

    def charge(self, b: Builder, entry: Value, fields: tuple[int, int], cycles: Value, work: Value) -> None:
        """Add to an entry's cycles and work, unless something else ran meanwhile."""
        long = b.icmp_unsigned(">", cycles, i64(_INTERRUPTED))
        each = b.icmp_unsigned(">", cycles, b.mul(work, i64(_INTERRUPTED_EACH)))
        with b.if_then(b.not_(b.and_(long, each))):
            add_to(b, entry, fields[0], cycles)
            add_to(b, entry, fields[1], work)

    def charge_group(self, b: Builder, machine: Value, state: Value, started: Value, work: Value) -> None:
        """Charge what was begun at a time to the group's going on together, and to that of all groups."""
        cycles = b.sub(self._cycles(b), started)
        self.charge(b, state, _GROUP, cycles, work)
        self.charge(b, machine, ALL_GROUPS, cycles, work)

    def forced(self, b: Builder, machine: Value) -> Value:
        """Whether groups run in SIMD registers whatever it costs."""
        return b.icmp_unsigned("==", load_field(b, machine, MachineBlock.TRIAL_WORK), i64(0))

    def longer(self, b: Builder, apart: Value) -> Value:
        """Twice as many instructions one by one, up to a bound."""
        longer = b.shl(apart, i64(1))
        return b.select(b.icmp_signed("<", longer, i64(_APART_LAST)), longer, i64(_APART_LAST))

    def lacks_masked(self, b: Builder, entry: Value) -> Value:
        """Whether there is no code for some of a group's lanes."""
        return b.icmp_unsigned("==", load_field(b, entry, VectorEntry.MASKED), i64(0))

    def wants_sample(self, b: Builder, machine: Value, entry: Value, here: Value) -> Value:
        """Whether a whole group stands where more has to be known before code for it is made."""
        whole = b.icmp_unsigned("==", here, i64(self.all))
        few = b.icmp_unsigned(
            "<", load_field(b, entry, VectorEntry.MEETINGS), load_field(b, machine, MachineBlock.MEETINGS)
        )
        none = b.icmp_unsigned("==", load_field(b, entry, VectorEntry.CONVERGENT), i64(0))
        # Inside a region that has code for some of a group's lanes there are many such places.
        per_vector, vector = self._rate(b, entry, VECTOR)
        per_scalar, _ = self._scalar_rate(b, machine, entry)
        pays = b.and_(b.icmp_unsigned(">", vector, i64(_WORTH)), b.fcmp_ordered("<", per_vector, per_scalar))
        worth = b.or_(b.or_(self.lacks_masked(b, entry), pays), self.forced(b, machine))
        return b.and_(b.and_(whole, few), b.and_(none, worth))

    def _rate(self, b: Builder, base: Value, fields: tuple[int, int]) -> tuple[Value, Value]:
        """(cycles for an instruction, instructions that this is known from)."""
        double = ir.DoubleType()
        cycles, work = (load_field(b, base, field) for field in fields)
        return b.fdiv(b.uitofp(cycles, double), b.uitofp(work, double)), work

    def _scalar_rate(self, b: Builder, machine: Value, entry: Value) -> tuple[Value, Value]:
        """What running lanes one by one takes. Where lanes that parted meet, nothing was tried: what the program takes
        on the whole must do."""
        here, tried = self._rate(b, entry, SCALAR)
        everywhere, work = self._rate(b, machine, ALL_SCALAR)
        known = b.icmp_unsigned(">", tried, i64(0))
        return b.select(known, here, everywhere), b.select(known, tried, work)

    def _emit_ask(self) -> None:
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

    def _emit_note(self) -> None:
        """`note(registers, stride, entry)`: note what the lanes of a whole group have in common; its registers are rows
        `stride` lanes apart."""
        function, b = self._function("note", ir.FunctionType(VOID, [PTR, I64, PTR]))
        self.note = function
        rows, stride, entry = function.args
        vector = ir.VectorType(self.storage, self.lanes)
        uniform, narrow = i64(0), i64(0)
        vectors = LaneVectors(b, self.lanes)
        for index in (i for i in self.registers if i < 64):
            place = element(b, rows, b.mul(stride, i64(index)), self.storage)
            values = b.load(place, typ=vector, align=self.storage.width // 8)
            same, _ = vectors.all_same(values)
            uniform = b.or_(uniform, b.shl(b.zext(same, I64), i64(index)))
            if self.storage.width == 64:
                low = b.sext(b.trunc(values, ir.VectorType(I32, self.lanes)), vector)
                fits = vectors.all(b.icmp_unsigned("==", low, values))
                narrow = b.or_(narrow, b.shl(b.zext(fits, I64), i64(index)))
        for field, bits in ((VectorEntry.UNIFORM, uniform), (VectorEntry.NARROW, narrow)):
            store_field(b, entry, field, b.and_(load_field(b, entry, field), bits))
        b.ret_void()

    def _emit_sample(self) -> None:
        """`sample(machine, first lane, entry, interleaved)`: note what a whole group that met has in common, and ask
        for code."""
        function, b = self._function("sample", ir.FunctionType(VOID, [PTR, I64, PTR, I1]))
        self.sample = function
        machine, lane, entry, interleaved = function.args
        rows = element(b, load_field(b, machine, MachineBlock.REGISTERS, PTR), lane, self.storage)
        b.call(self.note, [rows, load_field(b, machine, MachineBlock.REGISTER_STRIDE), entry])
        meetings = add_to(b, entry, VectorEntry.MEETINGS, i64(1))
        # Lanes that come here in SIMD registers need no further proof that they agree.
        enough = b.icmp_unsigned(">=", meetings, load_field(b, machine, MachineBlock.MEETINGS))
        forced = self.forced(b, machine)
        with b.if_then(b.and_(enough, b.or_(interleaved, forced))):
            b.call(self.ask, [machine, entry])
            with b.if_then(forced):
                b.call(self.ask_masked, [machine, entry])
        b.ret_void()

    def _emit_watch(self) -> None:
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
        store_field(b, state, GroupState.APART, b.select(together, apart, self.longer(b, apart)))
        kept = add_to(b, entry, VectorEntry.KEPT, b.zext(together, I64))
        parted = add_to(b, entry, VectorEntry.PARTED, b.zext(b.not_(together), I64))
        enough = b.icmp_unsigned(">=", kept, load_field(b, machine, MachineBlock.MEETINGS))
        with b.if_then(b.and_(enough, b.icmp_unsigned(">", kept, b.shl(parted, i64(1))))):
            b.call(self.ask, [machine, entry])
        b.ret_void()

    def _emit_judge(self) -> None:
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
        bad = b.and_(bad, b.not_(self.forced(b, machine)))
        times = b.select(bad, b.add(load_field(b, entry, VectorEntry.LOST), i64(1)), i64(0))
        store_field(b, entry, VectorEntry.LOST, times)
        with b.if_then(b.icmp_unsigned(">=", times, i64(_LOSSES))):
            store_field(b, entry, VectorEntry.LOST, i64(0))
            store_field(b, entry, VectorEntry.STATE, i64(VECTOR_OFF))
        b.ret_void()

    def _emit_wish(self) -> None:
        """`wish(machine, first lane, active, here, entry, interleaved)`: how lanes that stand at an entry go on: 0 one
        by one, 1 together, 2 one by one to see what that costs."""
        function, b = self._function("wish", ir.FunctionType(I64, [PTR, I64, I64, I64, PTR, I1]))
        self.wish = function
        machine, lane, active, here, entry, interleaved = function.args
        state = load_field(b, entry, VectorEntry.STATE)
        with b.if_then(self.wants_sample(b, machine, entry, here)):
            b.call(self.sample, [machine, lane, entry, interleaved])
        with b.if_then(b.icmp_unsigned("==", state, i64(VECTOR_SAMPLING))):
            b.ret(i64(0))
        with b.if_then(b.icmp_unsigned("==", state, i64(VECTOR_OFF))):
            b.ret(i64(0))
        some = b.icmp_unsigned("!=", here, i64(self.all))
        with b.if_then(b.and_(some, self.lacks_masked(b, entry))):
            agree = b.or_(b.icmp_unsigned("==", here, active), self.forced(b, machine))
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
        per_vector, vector = self._rate(b, entry, VECTOR)
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
