"""Clearing pages past the caches: a page that is not to be read soon is written without being fetched first."""

from __future__ import annotations

from llvmlite import ir

from vmjit.kernels.emit import I8, I32, I64, PTR, VOID, element

CLEAR_PAGES = "clear_pages"

# Bytes of a store, and stores in a row: a cache line.
_STORE = 32
_LINE = 64


def clear_pages_ir(page_size: int) -> str:
    """LLVM IR of `clear_pages(base, numbers, count)`: makes the pages with these i64 numbers, from `base`, zero."""
    module = ir.Module(CLEAR_PAGES)
    function = ir.Function(module, ir.FunctionType(VOID, [PTR, PTR, I64]), CLEAR_PAGES)
    function.attributes.add("nounwind")
    base, numbers, count = function.args
    entry, page, line, next_page, done = (
        function.append_basic_block(n) for n in ("entry", "page", "line", "next_page", "done")
    )
    zero = ir.Constant(I64, 0)
    b = ir.IRBuilder(entry)
    b.cbranch(b.icmp_unsigned("<", zero, count), page, done)
    b.position_at_end(page)
    index = b.phi(I64)
    index.add_incoming(zero, entry)
    number = b.load(element(b, numbers, index, I64), typ=I64, align=8)
    start = element(b, base, b.mul(number, ir.Constant(I64, page_size)), I8)
    b.branch(line)
    b.position_at_end(line)
    offset = b.phi(I64)
    offset.add_incoming(zero, page)
    for place in range(0, _LINE, _STORE):
        store = b.store(
            ir.Constant(ir.VectorType(I64, _STORE // 8), None),
            element(b, start, b.add(offset, ir.Constant(I64, place)), I8),
            align=_STORE,
        )
        store.set_metadata("nontemporal", module.add_metadata([ir.Constant(I32, 1)]))
    further = b.add(offset, ir.Constant(I64, _LINE))
    offset.add_incoming(further, line)
    b.cbranch(b.icmp_unsigned("<", further, ir.Constant(I64, page_size)), line, next_page)
    b.position_at_end(next_page)
    following = b.add(index, ir.Constant(I64, 1))
    index.add_incoming(following, next_page)
    b.cbranch(b.icmp_unsigned("<", following, count), page, done)
    b.position_at_end(done)
    b.fence("seq_cst")  # such stores are ordered by nothing else
    b.ret_void()
    return str(module)
