"""The float operations of a region for lane groups.

As for one lane (`float_ops.py`), but all lanes of a group share one limit: the host's way is taken as long as every
lane that takes part has the inexact flag and rounds to nearest. Lanes whose result is unusual have the operation done
exactly, one after the other, by a function that reads operands from rows of the group's frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir

from vmjit.ir.ops import OPS
from vmjit.ir.types import I1, Type
from vmjit.ir.values import Op, Register
from vmjit.kernels.emit import I8, I32, I64, PTR, Callee, Value, assume_rare, element, load_field
from vmjit.kernels.layout import MAX_GROUP_LANES, GroupFrame
from vmjit.translators.exact_floats import EXACT_FLOATS_TYPE, exact_kind
from vmjit.translators.float_ops import as_bits, emit_fast_way, is_illegal, is_static, is_usual, limit_if, result_type
from vmjit.translators.lane_forms import Form, float_form
from vmjit.translators.lowering import int_type
from vmjit.translators.region_body import limits_asked

if TYPE_CHECKING:
    from vmjit.translators.simd_region import Held, SimdRegion

_STATUS, _RESULT = 3, 4  # rows behind those of the operands


class SimdFloats:
    """Emits float operations where the region's builder stands; at first, behind the loading of registers."""

    def __init__(self, region: SimdRegion) -> None:
        self.region = region
        self.builder, self.lanes = region.builder, region.lanes
        self.limits: dict[int, Any] = {}
        self.accrued: Held | None = None
        widths = limits_asked(region.region)
        if not widths:
            return
        with self.builder.goto_entry_block():
            self.limits = {bits: self.builder.alloca(int_type(bits), name="limit") for bits in widths}
        assert region.registers.float_status is not None
        region.form, region.values = dict(region.forms.at[region.entries[0]]), {}
        self.set_limits(region.operand(Register(region.registers.float_status)))

    def status_behind(self) -> Held:
        """The status register after the last operation."""
        assert self.accrued is not None
        return self.accrued

    def set_limits(self, status: Held) -> None:
        """Have the limits that the lanes' status registers say."""
        b, region, lanes = self.builder, self.region, self.lanes
        usual = is_usual(b, status.value)
        if not status.uniform:
            bits = b.bitcast(usual, lanes.bits_type)
            all_bits = ir.Constant(lanes.bits_type, -1)
            if region.active is not None:  # also inside of a branch that only some of them take
                all_bits = b.bitcast(region.active, lanes.bits_type)
            usual = b.icmp_unsigned("==", b.and_(bits, all_bits), all_bits)
        for width, cell in self.limits.items():
            b.store(limit_if(b, usual, int_type(width)), cell)

    def compute(self, op: Op, args: list[Held]) -> Held:
        """The result; `accrued` is the status behind it."""
        b, lanes = self.builder, self.lanes
        *given, mode, status = args
        form = float_form(op, [a.known for a in args])
        type_ = I1 if OPS[op.name].result == "i1" else op.type
        if form.uniform:
            operands, before = [a.value for a in given], status.value
        else:
            operands = [self.region.vector(a, a.known.type.bits) for a in given]
            before = self.region.vector(status)

        def limit(bits: int) -> Value:
            found = b.load(self.limits[bits], typ=int_type(bits))
            return found if form.uniform else lanes.splat(found)

        way = emit_fast_way(b, op, operands, mode.value, limit)
        if way is not None and way.unusual is None:
            return self._done(as_bits(b, way.result), before, type_, form, status)
        if way is None:
            taking_part = ir.Constant(int_type(1), 1) if form.uniform else lanes.number(1, 1)
            result, after = self._exactly(op, operands, mode.value, before, taking_part, None)
            found = self._done(result, after, type_, form, status)
            self.set_limits(self._status(after, form, status))
            return found
        condition = way.unusual if form.uniform else lanes.any(way.unusual)
        exact, done = b.append_basic_block("exact"), b.append_basic_block("computed")
        assume_rare(b.cbranch(condition, exact, done), taken_rare=True)
        usual_block = b.block
        b.position_at_end(exact)
        which = way.unusual
        excused_block = None
        if way.excused is not None:
            which = b.and_(which, b.not_(way.excused()))
            inexact = b.append_basic_block("inexact")
            condition = which if form.uniform else lanes.any(which)
            assume_rare(b.cbranch(condition, inexact, done), taken_rare=True)
            excused_block = b.block
            b.position_at_end(inexact)
        result, after = self._exactly(op, operands, mode.value, before, which, as_bits(b, way.result))
        result = b.bitcast(result, way.result.type)
        self.set_limits(self._status(after, form, status))
        exact_block = b.block
        b.branch(done)
        b.position_at_end(done)
        phis = [b.phi(result.type), b.phi(before.type)]
        for phi, usual, unusual in zip(phis, (way.result, before), (result, after), strict=True):
            phi.add_incoming(usual, usual_block)
            if excused_block is not None:
                phi.add_incoming(usual, excused_block)
            phi.add_incoming(unusual, exact_block)
        return self._done(as_bits(b, phis[0]), phis[1], type_, form, status)

    def _status(self, value: Value, form: Form, status: Held) -> Held:
        return self.region.held(value, status.known.type, Form(form.uniform, narrow=True))

    def _done(self, result: Value, after: Value, type_: Type, form: Form, status: Held) -> Held:
        if not form.uniform:  # held in as many bits as its form says
            after = self.region.resized(after, min(status.known.type.bits, 32))
        self.accrued = self._status(after, form, status)
        return self.region.held(result, type_, form)

    def _exactly(
        self, op: Op, operands: list[Value], mode: Value, status: Value, which: Value, usual: Value | None
    ) -> tuple[Value, Value]:
        """Result and status, in the lanes of `which` by the exact way, in the others as they were."""
        b, lanes = self.builder, self.lanes
        uniform = not isinstance(status.type, ir.VectorType)
        bits = b.zext(which if uniform else lanes.bits(which), I64)
        if not is_static(mode):
            illegal = is_illegal(b, mode, status)
            self.region.leave_if(illegal if uniform else lanes.any(b.and_(illegal, which)))
        for row, value in enumerate(operands):
            self._store(row, value)
        self._store(_STATUS, status)
        source_bits = (operands[0].type if uniform else operands[0].type.element).width
        kind = ir.Constant(I32, exact_kind(op.name, op.type.bits, source_bits))
        number = ir.Constant(I32, mode.constant)
        function = Callee(load_field(b, self.region.frame, GroupFrame.EXACT_FLOATS, PTR), EXACT_FLOATS_TYPE)
        b.call(function, [self.region.frame, kind, number, bits])
        result = self._load(_RESULT, result_type(op).width, uniform)
        if usual is not None and not uniform:
            result = b.select(which, result, usual)
        return result, self._load(_STATUS, (status.type if uniform else status.type.element).width, uniform)

    def _row(self, row: int) -> Value:
        offset = GroupFrame.FLOATS + row * 8 * MAX_GROUP_LANES
        return element(self.builder, self.region.frame, ir.Constant(I64, offset), I8)

    def _store(self, row: int, value: Value) -> None:
        """A value into a row, or a vector; of one, the first element is read."""
        b = self.builder
        if isinstance(value.type, ir.VectorType):
            value = value if value.type.element.width == 64 else b.zext(value, self.lanes.type(64))
        else:
            value = value if value.type.width == 64 else b.zext(value, I64)
        b.store(value, self._row(row), align=8)

    def _load(self, row: int, bits: int, uniform: bool) -> Value:
        b = self.builder
        wide = I64 if uniform else self.lanes.type(64)
        value = b.load(self._row(row), typ=wide, align=8)
        if bits == 64:
            return value
        return b.trunc(value, int_type(bits) if uniform else self.lanes.type(bits))
