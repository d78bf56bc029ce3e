"""Rows of a large array that change places, most of whose pages were never touched and are to stay so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from llvmlite import ir

from vmjit.kernels.emit import I8, I64, PTR, VOID, Builder, Value, element
from vmjit.kernels.group_emitter import counted, i64, variable

ROTATE_ROWS = "rotate_rows"

# Rows begin and end at multiples of it.
UNIT = 64
_UNIT_TYPE = ir.VectorType(I64, UNIT // 8)
# Bytes of every row that change places before the next ones do.
_BLOCK = 4_096
_PAGE_SHIFT = 12


@contextmanager
def _units(b: Builder, count: Value) -> Iterator[Value]:
    """`with`: the body of a loop over the offsets of units."""
    with counted(b, count) as unit:
        yield b.mul(unit, i64(UNIT))


def rotate_rows_ir() -> str:
    """LLVM IR of `rotate_rows(base, stride, resident, rows, ends, cycles)`.

    `rows` are the i64 numbers of rows of `stride` bytes, a page's first being the first one's. Up to each of `ends`
    (i64, indices of `rows`), each row takes over what is in the next one, the last one what was in the first.
    `resident` has a byte for each page: whether it may hold something.
    """
    module = ir.Module(ROTATE_ROWS)
    function = ir.Function(module, ir.FunctionType(VOID, [PTR, I64, PTR, PTR, PTR, I64]), ROTATE_ROWS)
    function.attributes.add("nounwind")
    base, stride, resident, rows, ends, cycles = function.args
    any_of = ir.Function(module, ir.FunctionType(I64, [_UNIT_TYPE]), "llvm.vector.reduce.or.v8i64")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    held = b.inttoptr(b.ptrtoint(variable(b, ir.ArrayType(I8, _BLOCK)), I64), PTR)
    unit, begin = variable(b, _UNIT_TYPE), variable(b, I64)

    def there(offset: Value) -> Value:
        page = b.load(element(b, resident, b.lshr(offset, i64(_PAGE_SHIFT)), I8), typ=I8)
        return b.icmp_unsigned("!=", page, ir.Constant(I8, 0))

    def read(offset: Value) -> Value:
        b.store(ir.Constant(_UNIT_TYPE, None), unit)
        with b.if_then(there(offset)):
            b.store(b.load(element(b, base, offset, I8), typ=_UNIT_TYPE, align=8), unit)
        return b.load(unit, typ=_UNIT_TYPE)

    def write(offset: Value, value: Value) -> None:
        some = b.icmp_unsigned("!=", b.call(any_of, [value]), i64(0))
        with b.if_then(b.or_(some, there(offset))):
            b.store(value, element(b, base, offset, I8), align=8)

    def row_at(index: Value, start: Value) -> Value:
        return b.add(b.mul(b.load(element(b, rows, index, I64), typ=I64), stride), start)

    def touched(place: Value, size: Value) -> Value:
        """Whether some of a block may hold something; it lies on two pages at most."""
        return b.or_(there(place), there(b.sub(b.add(place, size), i64(1))))

    with counted(b, b.lshr(b.add(stride, i64(_BLOCK - 1)), i64(_PAGE_SHIFT))) as block:
        start = b.mul(block, i64(_BLOCK))
        rest = b.sub(stride, start)
        size = b.select(b.icmp_unsigned("<", rest, i64(_BLOCK)), rest, i64(_BLOCK))
        units = b.lshr(size, i64(6))
        b.store(i64(0), begin)
        with counted(b, cycles) as cycle:
            first = b.load(begin, typ=I64)
            last = b.sub(b.load(element(b, ends, cycle, I64), typ=I64), i64(1))
            b.store(b.add(last, i64(1)), begin)
            place = row_at(first, start)
            with _units(b, units) as offset:
                b.store(read(b.add(place, offset)), element(b, held, offset, I8), align=8)
            with counted(b, b.sub(last, first)) as step:
                index = b.add(first, step)
                goal, source = row_at(index, start), row_at(b.add(index, i64(1)), start)
                with b.if_then(b.or_(touched(goal, size), touched(source, size))), _units(b, units) as offset:
                    write(b.add(goal, offset), read(b.add(source, offset)))
            place = row_at(last, start)
            with _units(b, units) as offset:
                write(b.add(place, offset), b.load(element(b, held, offset, I8), typ=_UNIT_TYPE, align=8))
    b.ret_void()
    return str(module)
