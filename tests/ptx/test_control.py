"""Divergence and reconvergence, calls, the ends of threads."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ptx.running import ENGINES, launch, run_u64, text_of
from vmjit.ptx import Module

ALL_ENGINES = pytest.mark.parametrize("engine", ENGINES)
P = ".reg .pred %p, %q; "


def test_both_sides_of_a_branch() -> None:
    body = (
        P
        + "setp.lt.u32 %p, %thread, 3; @%p bra A; mov.u64 %out, 20; bra B; A: mov.u64 %out, 10; B: add.u64 %out, %out, 1;"
    )
    assert run_u64(body, block=6) == [11, 11, 11, 21, 21, 21]


def test_loops_of_different_length() -> None:
    """Lanes that leave early wait behind the loop: the code there runs once for all of them."""
    body = (
        P
        + """mov.u64 %out, 0; .reg .u32 %k; mov.u32 %k, %thread;
    L: setp.eq.u32 %p, %k, 0; @%p bra D; cvt.u64.u32 %own, %k; add.u64 %out, %out, %own; sub.u32 %k, %k, 1; bra L;
    D: mul.wide.u32 %own, %thread, 8; add.u64 %own, %own, %results; add.u64 %out, %out, 100;"""
    )
    assert run_u64(body, block=40, grid=2) == [100 + k * (k + 1) // 2 for k in range(80)]


def test_lanes_meet_again_behind_a_loop() -> None:
    body = (
        P
        + """.reg .u32 %k; mov.u32 %k, %thread; L: setp.eq.u32 %p, %k, 0; @%p bra D; sub.u32 %k, %k, 1; bra L;
    D: activemask.b32 %k; cvt.u64.u32 %out, %k;"""
    )
    assert run_u64(body, block=20, engines=["simt"]) == [(1 << 20) - 1] * 20


def test_nested_divergence() -> None:
    body = (
        P
        + """.reg .u32 %a, %b; and.b32 %a, %thread, 1; and.b32 %b, %thread, 2;
    setp.eq.u32 %p, %a, 0; setp.eq.u32 %q, %b, 0;
    @%p bra EVEN; @%q bra ONE; mov.u64 %out, 3; bra END; ONE: mov.u64 %out, 1; bra END;
    EVEN: @%q bra ZERO; mov.u64 %out, 2; bra END; ZERO: mov.u64 %out, 0;
    END: add.u64 %out, %out, 10;"""
    )
    assert run_u64(body, block=8) == [10, 11, 12, 13] * 2


def test_branch_tables() -> None:
    body = """T: .branchtargets A, B, C, B; .reg .u32 %k; and.b32 %k, %thread, 3; brx.idx %k, T;
    A: mov.u64 %out, 1; bra END; B: mov.u64 %out, 2; bra END; C: mov.u64 %out, 3; END:"""
    assert run_u64(body, block=8) == [1, 2, 3, 2] * 2


def test_guarded_branch_tables() -> None:
    body = (
        P
        + """T: .branchtargets A, B; mov.u64 %out, 7; setp.lt.u32 %p, %thread, 2; @%p brx.idx %thread, T; bra END;
    A: mov.u64 %out, 1; bra END; B: mov.u64 %out, 2; END:"""
    )
    assert run_u64(body, block=4) == [1, 2, 7, 7]


def test_special_registers_keep_their_values() -> None:
    """What lanes do to a copy of %tid.x is not seen by others that read it later."""
    body = (
        P
        + """.reg .u32 %copy; mov.u32 %copy, %tid.x; setp.lt.u32 %p, %thread, 2; @%p bra A; bra B;
    A: add.u32 %copy, %copy, 100; B: mov.u32 %tidx, %tid.x; mad.wide.u32 %out, %copy, 1000, 0; cvt.u64.u32 %own, %tidx;
    add.u64 %out, %out, %own; mul.wide.u32 %own, %thread, 8; add.u64 %own, %own, %results;"""
    )
    for _ in range(2):  # the second launch shares the first one's geometry
        assert run_u64(body, block=4) == [100000, 101001, 2002, 3003]


def test_special_registers() -> None:
    names = ["%ntid.x", "%nctaid.x", "%ctaid.x", "%tid.x", "%laneid", "%warpid", "%nwarpid", "%lanemask_lt", "%tid.w",
             "%ntid.w", "%nsmid", "%lanemask_eq", "%lanemask_le", "%lanemask_ge", "%lanemask_gt", "%dynamic_smem_size"]  # fmt: skip
    for name in names:
        expected = {
            "%ntid.x": lambda k: 40,
            "%nctaid.x": lambda k: 2,
            "%ctaid.x": lambda k: k // 40,
            "%tid.x": lambda k: k % 40,
            "%laneid": lambda k: k % 40 % 32,
            "%warpid": lambda k: k % 40 // 32,
            "%nwarpid": lambda k: 2,
            "%lanemask_lt": lambda k: (1 << k % 40 % 32) - 1,
            "%tid.w": lambda k: 0,
            "%ntid.w": lambda k: 1,
            "%nsmid": lambda k: 1,
            "%lanemask_eq": lambda k: 1 << k % 40 % 32,
            "%lanemask_le": lambda k: (2 << k % 40 % 32) - 1,
            "%lanemask_ge": lambda k: (1 << 32) - (1 << k % 40 % 32),
            "%lanemask_gt": lambda k: (1 << 32) - (2 << k % 40 % 32),
            "%dynamic_smem_size": lambda k: 48,
        }[name]
        body = f".reg .u32 %v; mov.u32 %v, {name}; cvt.u64.u32 %out, %v;"
        assert run_u64(body, block=40, grid=2, shared=48) == [expected(k) for k in range(80)], name


FIBONACCI = """.func (.param .u64 r) fib(.param .u64 n) { .reg .u64 %n, %a, %b; .reg .pred %p; ld.param.u64 %n, [n];
setp.lt.u64 %p, %n, 2; @%p st.param.u64 [r], %n; @%p ret;
{ .param .u64 x; .param .u64 y; sub.u64 %a, %n, 1; st.param.u64 [x], %a; call (y), fib, (x); ld.param.u64 %a, [y]; }
{ .param .u64 x; .param .u64 y; sub.u64 %b, %n, 2; st.param.u64 [x], %b; call (y), fib, (x); ld.param.u64 %b, [y]; }
add.u64 %a, %a, %b; st.param.u64 [r], %a; ret; }"""


def test_recursion() -> None:
    body = """cvt.u64.u32 %out, %thread; { .param .u64 x; .param .u64 y; st.param.u64 [x], %out; call (y), fib, (x);
    ld.param.u64 %out, [y]; }"""
    assert run_u64(body, before=FIBONACCI, block=12) == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89]


def test_guarded_calls() -> None:
    body = (
        P
        + """mov.u64 %out, 50; setp.gt.u32 %p, %thread, 1; { .param .u64 x; .param .u64 y; cvt.u64.u32 %own, %thread;
    st.param.u64 [x], %own; st.param.u64 [y], 0; @%p call (y), fib, (x); @%p ld.param.u64 %out, [y]; }
    mul.wide.u32 %own, %thread, 8; add.u64 %own, %own, %results;"""
    )
    assert run_u64(body, before=FIBONACCI, block=6) == [50, 50, 1, 2, 3, 5]


def test_guarded_parameters() -> None:
    before = (
        ".func (.param .u64 r) id(.param .u64 x) { .reg .u64 %x; ld.param.u64 %x, [x]; st.param.u64 [r], %x; ret; }"
    )
    body = (
        P
        + """setp.gt.u32 %p, %thread, 1; { .param .u64 x; .param .u64 y; st.param.u64 [x], 5; @%p st.param.u64 [x], 6;
    call (y), id, (x); ld.param.u64 %out, [y]; }"""
    )
    assert run_u64(body, before=before, block=4) == [5, 5, 6, 6]


def test_parameters_used_in_several_blocks() -> None:
    before = (
        ".func (.param .u64 r) id(.param .u64 x) { .reg .u64 %x; ld.param.u64 %x, [x]; st.param.u64 [r], %x; ret; }"
    )
    body = (
        P
        + """.param .u64 x; .param .u64 y; st.param.u64 [x], 5; setp.gt.u32 %p, %thread, 1; @%p bra A;
    st.param.u64 [x], 6; A: call (y), id, (x); setp.gt.u32 %p, %thread, 2; @%p bra B; mov.u64 %out, 0; B:
    ld.param.u64 %out, [y]; add.u64 %out, %out, 1;"""
    )
    assert run_u64(body, before=before, block=4) == [7, 7, 6, 6]


def test_a_parameter_keeps_its_value_whatever_happens_to_a_register() -> None:
    before = """.func (.param .u64 r) f(.param .u64 x) { .reg .u64 %x, %y; .reg .pred %p; ld.param.u64 %x, [x]; bra A;
    A: setp.gt.u64 %p, %x, 1; @%p bra B; add.u64 %x, %x, 100; B: ld.param.u64 %y, [x]; add.u64 %x, %x, %y;
    st.param.u64 [r], %x; ret; }"""
    body = """cvt.u64.u32 %out, %thread; { .param .u64 x; .param .u64 y; st.param.u64 [x], %out; call (y), f, (x);
    ld.param.u64 %out, [y]; }"""
    assert run_u64(body, before=before, block=4) == [100, 102, 4, 6]


def test_calls_by_address() -> None:
    before = "".join(
        f".func (.param .u32 r) f{k}(.param .u32 x) {{ .reg .u32 %x; ld.param.u32 %x, [x]; {op}.u32 %x, %x, 3;"
        " st.param.u32 [r], %x; ret; }"
        for k, op in enumerate(("add", "mul.lo", "sub"))
    )
    before += ".global .u64 table[3] = {f0, f1, f2};"
    body = """.reg .u64 %f; .reg .u32 %k, %v; rem.u32 %k, %thread, 3; mad.wide.u32 %f, %k, 8, 0; add.u64 %f, %f, table;
    ld.u64 %f, [%f]; { .param .u32 x; .param .u32 y; st.param.u32 [x], %thread;
    P: .callprototype (.param .u32 _) _ (.param .u32 _); call (y), %f, (x), P; ld.param.u32 %v, [y]; } cvt.u64.u32 %out, %v;"""
    body = body.replace("add.u64 %f, %f, table;", ".reg .u64 %t; mov.u64 %t, table; add.u64 %f, %f, %t;")
    expected = [(k + 3, k * 3, (k - 3) & 0xFFFFFFFF)[k % 3] for k in range(12)]
    assert run_u64(body, before=before, block=6, grid=2) == expected


def test_structures_pass_by_value() -> None:
    before = """.func (.param .align 8 .b8 r[16]) swap(.param .align 8 .b8 x[16]) { .reg .u64 %a, %b;
    ld.param.v2.u64 {%a, %b}, [x]; st.param.u64 [r+8], %a; st.param.u64 [r], %b; ret; }"""
    body = """.reg .u64 %a, %b; { .param .align 8 .b8 x[16]; .param .align 8 .b8 y[16]; st.param.v2.u64 [x], {3, 5};
    call (y), swap, (x); ld.param.u64 %a, [y]; ld.param.u64 %b, [y+8]; } mad.lo.u64 %out, %a, 10, %b;"""
    assert run_u64(body, before=before) == [53]


def test_exit_ends_some_threads() -> None:
    body = P + "mov.u64 %out, 4; setp.lt.u32 %p, %thread, 2; @%p exit; mov.u64 %out, 5;"
    assert run_u64(body, block=4) == [0, 0, 5, 5]


@pytest.mark.parametrize("calls", [1, 2])
def test_exit_in_a_function_ends_the_thread(calls: int) -> None:
    before = """.func inner(.param .u32 x) { .reg .u32 %x; .reg .pred %p; ld.param.u32 %x, [x]; setp.lt.u32 %p, %x, 2;
    @%p exit; ret; }
    .func outer(.param .u32 x) { .reg .u32 %x; ld.param.u32 %x, [x]; { .param .u32 y; st.param.u32 [y], %x;
    call inner, (y); } ret; }"""
    function = ("inner", "outer")[calls - 1]
    body = f"""mov.u64 %out, 4; {{ .param .u32 x; st.param.u32 [x], %thread; call {function}, (x); }}
    bar.sync 0; add.u64 %out, %out, 1;"""
    assert run_u64(body, before=before, block=5) == [0, 0, 5, 5, 5]
    assert run_u64(body, before=before, block=2) == [0, 0]


@ALL_ENGINES
def test_locals_of_nested_calls_are_apart(engine: str) -> None:
    before = """.func (.param .u32 r) f(.param .u32 n) { .local .align 4 .b8 own[4]; .reg .u32 %n, %m; .reg .pred %p;
    ld.param.u32 %n, [n]; st.local.u32 [own], %n; setp.eq.u32 %p, %n, 0; @%p bra E;
    sub.u32 %m, %n, 1; { .param .u32 a; .param .u32 b; st.param.u32 [a], %m; call (b), f, (a); ld.param.u32 %m, [b]; }
    ld.local.u32 %n, [own]; mad.lo.u32 %n, %m, 10, %n; E: st.param.u32 [r], %n; ret; }"""
    body = """.reg .u32 %v; { .param .u32 a; .param .u32 b; st.param.u32 [a], 4; call (b), f, (a); ld.param.u32 %v, [b]; }
    cvt.u64.u32 %out, %v;"""
    assert run_u64(body, before=before, block=3, engines=[engine]) == [1234] * 3


def test_spinning_lanes_let_others_go_on() -> None:
    """A lane that waits for what another one, at a later block, is about to write: forward progress (sm_70)."""
    body = (
        P
        + """.reg .u64 %o; .reg .u32 %v; ld.param.u64 %o, [other]; setp.eq.u32 %p, %thread, 3; @%p bra WRITE;
    SPIN: ld.volatile.u32 %v, [%o]; setp.eq.u32 %q, %v, 0; @%q bra SPIN; bra END;
    WRITE: st.volatile.u32 [%o], 9; mov.u32 %v, 1; END: cvt.u64.u32 %out, %v;"""
    )
    text = text_of(body)
    other = np.zeros(1, np.uint32)
    results, _ = launch(text, "simt", block=4, other=other)
    assert results.tolist() == [9, 9, 9, 1]


def test_a_lock_is_given_up_to_lanes_of_the_same_warp() -> None:
    body = (
        P
        + """.reg .u64 %o; .reg .u32 %v; ld.param.u64 %o, [other]; mov.u64 %out, 0;
    TRY: atom.cas.b32 %v, [%o], 0, 1; setp.ne.u32 %p, %v, 0; @%p bra TRY;
    ld.volatile.u32 %v, [%o+4]; add.u32 %v, %v, 1; st.volatile.u32 [%o+4], %v; atom.exch.b32 %v, [%o], 0;"""
    )
    other = np.zeros(2, np.uint32)
    launch(text_of(body), "simt", block=8, other=other)
    assert other.tolist() == [0, 8]


@ALL_ENGINES
def test_many_blocks_in_waves(engine: str) -> None:
    module = Module(text_of("cvt.u64.u32 %out, %thread;"))
    results, _ = launch("", engine, module=module, grid=50, block=32, max_lanes=100)
    assert results.tolist() == list(range(1600))
