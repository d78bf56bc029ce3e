"""Pages of memory that become copies of others."""

from __future__ import annotations

from llvmlite import ir

from vmjit.kernels.emit import I1, I8, I64, PTR, VOID, element
from vmjit.kernels.group_emitter import counted, i64

COPY_PAGES = "copy_pages"


def copy_pages_ir(page_size: int) -> str:
    """LLVM IR of `copy_pages(to, goals, source, origins, count)`: the page with number goals[i], counted from `to`,
    becomes the one with number origins[i], counted from `source`; both are arrays of i64."""
    module = ir.Module(COPY_PAGES)
    function = ir.Function(module, ir.FunctionType(VOID, [PTR, PTR, PTR, PTR, I64]), COPY_PAGES)
    function.attributes.add("nounwind")
    copy = ir.Function(module, ir.FunctionType(VOID, [PTR, PTR, I64, I1]), "llvm.memcpy.p0.p0.i64")
    to, goals, source, origins, count = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    with counted(b, count) as index:
        goal, origin = (b.load(element(b, numbers, index, I64), typ=I64, align=8) for numbers in (goals, origins))
        places = (element(b, base, b.mul(n, i64(page_size)), I8) for base, n in ((to, goal), (source, origin)))
        b.call(copy, [*places, i64(page_size), ir.Constant(I1, 0)])
    b.ret_void()
    return str(module)
