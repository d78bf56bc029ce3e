"""Barriers of a block: what threads see behind them, reductions, numbers of threads, deadlocks."""

from __future__ import annotations

import pytest

from tests.ptx.running import BODY_LINE, ENGINES, fault, launch, run_u64, text_of

ALL_ENGINES = pytest.mark.parametrize("engine", ENGINES)
P = ".reg .pred %p, %q; .reg .u32 %a, %b; .reg .u64 %s; "


def test_exchange_through_shared_memory() -> None:
    body = (
        P
        + """.shared .align 4 .b8 x[256]; mov.u64 %s, x; mad.wide.u32 %own, %tidx, 4, %s; st.shared.u32 [%own], %thread;
    bar.sync 0; xor.b32 %a, %tidx, 63; mad.wide.u32 %own, %a, 4, %s; ld.shared.u32 %b, [%own]; cvt.u64.u32 %out, %b;
    mul.wide.u32 %own, %thread, 8; add.u64 %own, %own, %results;"""
    )
    assert run_u64(body, grid=3, block=64) == [64 * (k // 64) + (k % 64 ^ 63) for k in range(192)]


def test_tree_reduction_in_dynamic_shared_memory() -> None:
    """A barrier in a loop, behind a condition that only some threads meet."""
    before = ".extern .shared .align 4 .b8 dynamic[];"
    body = (
        P
        + """mov.u64 %s, dynamic; mad.wide.u32 %own, %tidx, 4, %s; st.shared.u32 [%own], %tidx; mov.u32 %a, 32;
    L: bar.sync 0; setp.ge.u32 %p, %tidx, %a; @%p bra N; mad.wide.u32 %out, %a, 4, %own; ld.shared.u32 %b, [%out];
    ld.shared.u32 %width, [%own]; add.u32 %b, %b, %width; st.shared.u32 [%own], %b;
    N: shr.u32 %a, %a, 1; setp.ne.u32 %p, %a, 0; @%p bra L; bar.sync 0; ld.shared.u32 %b, [dynamic]; cvt.u64.u32 %out, %b;
    mul.wide.u32 %own, %thread, 8; add.u64 %own, %own, %results;"""
    )
    assert run_u64(body, before=before, grid=2, block=64, shared=256) == [64 * 63 // 2] * 128


def test_barriers_wait_for_threads_that_have_not_ended() -> None:
    body = P + "mov.u64 %out, 1; setp.lt.u32 %p, %tidx, 10; @%p exit; bar.sync 0; add.u64 %out, %out, 1;"
    assert run_u64(body, block=48) == [0] * 10 + [2] * 38


REDUCTIONS = {
    "popc": ("bar.red.popc.u32 %a, 0, %p; cvt.u64.u32 %out, %a;", lambda true, threads: true),
    "and": ("bar.red.and.pred %q, 0, %p; selp.u64 %out, 1, 0, %q;", lambda true, threads: int(true == threads)),
    "or": ("bar.red.or.pred %q, 0, %p; selp.u64 %out, 1, 0, %q;", lambda true, threads: int(true > 0)),
    "or of the opposite": ("bar.red.or.pred %q, 0, !%p; selp.u64 %out, 1, 0, %q;", lambda true, n: int(true < n)),
}


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("limit", [0, 7, 40])
def test_reductions(name: str, limit: int) -> None:
    code, expected = REDUCTIONS[name]
    body = f"{P} setp.lt.u32 %p, %tidx, {limit}; {code}"
    assert run_u64(body, grid=2, block=40) == [expected(limit, 40)] * 80


def test_reduction_twice() -> None:
    body = (
        P
        + """setp.lt.u32 %p, %tidx, 5; bar.red.popc.u32 %a, 0, %p; bar.red.popc.u32 %b, 0, !%p;
    mad.lo.u32 %a, %a, 1000, %b; cvt.u64.u32 %out, %a;"""
    )
    assert run_u64(body, block=40) == [5035] * 40


@ALL_ENGINES
def test_different_barriers_are_a_deadlock(engine: str) -> None:
    body = P + "mov.u64 %out, 0; setp.lt.u32 %p, %tidx, 8; @%p bra A;\nbar.sync 1; bra B; A:\nbar.sync 2; B:"
    error = fault(body, engine, "wait at different barriers for ever: deadlock", block=16)
    assert error.line in (BODY_LINE + 1, BODY_LINE + 2)


@ALL_ENGINES
def test_barriers_with_the_same_number_are_the_same(engine: str) -> None:
    body = P + "mov.u64 %out, 3; setp.lt.u32 %p, %tidx, 8; @%p bra A; bar.sync 1; bra B; A: bar.sync 1; B:"
    assert run_u64(body, engines=[engine], block=16) == [3] * 16


def test_part_of_a_block_in_a_called_function() -> None:
    before = ".func f() { bar.sync 0;\nret; }"
    body = P + "mov.u64 %out, 3; setp.lt.u32 %p, %tidx, 8; @%p call f, ();"
    fault(body, "simt", "deadlock: 8 of a block's 16 running threads wait", before=before, block=16)
    assert run_u64("mov.u64 %out, 3; call f, ();", before=before, block=16, engines=["simt"]) == [3] * 16


def test_barriers_with_a_number_of_threads() -> None:
    """Each warp synchronises alone, with its own barrier."""
    body = (
        P
        + """.shared .align 4 .b8 x[256]; mov.u64 %s, x; mad.wide.u32 %own, %tidx, 4, %s; st.shared.u32 [%own], %tidx;
    shr.u32 %a, %tidx, 5; add.u32 %a, %a, 1; setp.lt.u32 %p, %tidx, 32; @%p bra A; bar.sync %a, 32; bra B;
    A: barrier.sync %a, 32; B: xor.b32 %a, %tidx, 31; mad.wide.u32 %own, %a, 4, %s; ld.shared.u32 %b, [%own];
    cvt.u64.u32 %out, %b; mul.wide.u32 %own, %thread, 8; add.u64 %own, %own, %results;"""
    )
    assert run_u64(body, block=64, engines=["simt"]) == [k ^ 31 for k in range(64)]


def test_producers_arrive_and_consumers_wait() -> None:
    body = (
        P
        + """.shared .align 4 .b8 x[128]; mov.u64 %s, x; and.b32 %a, %tidx, 31; mad.wide.u32 %own, %a, 4, %s;
    mov.u64 %out, 7; setp.lt.u32 %p, %tidx, 32; @%p bra CONSUME;
    st.shared.u32 [%own], %tidx; bar.arrive 3, 64; bra END;
    CONSUME: bar.sync 3, 64; ld.shared.u32 %b, [%own]; cvt.u64.u32 %out, %b;
    END: mul.wide.u32 %own, %thread, 8; add.u64 %own, %own, %results;"""
    )
    assert run_u64(body, block=64, engines=["simt"]) == [k + 32 for k in range(32)] + [7] * 32


def test_arrivals_count_for_one_round() -> None:
    """The second round's consumers would go too early if the first round's arrivals still counted."""
    body = (
        P
        + """.shared .align 4 .b8 x[128]; mov.u64 %s, x; and.b32 %a, %tidx, 31; mad.wide.u32 %own, %a, 4, %s;
    mov.u64 %out, 0; setp.lt.u32 %p, %tidx, 32; @%p bra CONSUME;
    st.shared.u32 [%own], 5; bar.arrive 3, 64; bar.sync 4, 64; bar.sync 5, 32;
    bar.sync 5, 32; st.shared.u32 [%own], 6; bar.arrive 3, 64; bra END;
    CONSUME: bar.sync 3, 64; ld.shared.u32 %b, [%own]; cvt.u64.u32 %out, %b; bar.sync 4, 64; bar.sync 3, 64;
    ld.shared.u32 %b, [%own]; mad.wide.u32 %out, %b, 10, %out;
    END: mul.wide.u32 %own, %thread, 8; add.u64 %own, %own, %results;"""
    )
    assert run_u64(body, block=64, engines=["simt"]) == [65] * 32 + [0] * 32


def test_too_few_arrive() -> None:
    body = P + "mov.u64 %out, 0; setp.lt.u32 %p, %tidx, 10; @%p bra A;\nbar.sync 1, 32; A:"
    error = fault(body, "simt", "deadlock: 22 of a block's 22 running threads wait", block=32)
    assert error.line == BODY_LINE + 1


def test_barrier_numbers_end_at_fifteen() -> None:
    fault("mov.u64 %out, 0; bar.sync 16;", "simt", "barrier 16 of 16")


def test_auto_takes_the_engine_that_can() -> None:
    assert launch(text_of("bar.sync 0; mov.u64 %out, 1;"), "auto", block=4)[1].engine == "thread"
    assert launch(text_of("bar.sync 0, 32; mov.u64 %out, 1;"), "auto", block=32)[1].engine == "simt"
