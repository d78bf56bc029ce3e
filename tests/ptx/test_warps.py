"""The collectives of a warp, for whole warps, parts of them, and groups by mask."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.ptx.running import BODY_LINE, fault, run_u64

P = ".reg .pred %p, %q; .reg .u32 %a, %b, %m; "


def run(body: str, **options: object) -> list[int]:
    return run_u64(P + body, engines=["simt"], **options)


def shuffled(mode: str, lane: int, b: int, clamp: int, segment: int) -> tuple[int, bool]:
    """Source lane and predicate as the ISA's pseudocode of shfl has them."""
    bound = (lane & segment) | (clamp & ~segment & 31)
    least = lane & segment
    if mode == "up":
        j = lane - b
        in_range = j >= bound
    elif mode == "down":
        j = lane + b
        in_range = j <= bound
    elif mode == "bfly":
        j = lane ^ b
        in_range = j <= bound
    else:
        j = least | (b & ~segment & 31)
        in_range = j <= bound
    return (j if in_range else lane), in_range


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize("segment", [0, 16, 24])
@pytest.mark.parametrize("b", [1, 2, 7, 16, 31, 33])
def test_shuffles(mode: str, segment: int, b: int) -> None:
    clamp = 0 if mode == "up" else 31
    body = f"""mul.lo.u32 %a, %thread, 3; shfl.sync.{mode}.b32 %b|%p, %a, {b}, {segment << 8 | clamp}, 0xffffffff;
    selp.u32 %m, 1000, 0, %p; add.u32 %b, %b, %m; cvt.u64.u32 %out, %b;"""
    expected = []
    for thread in range(128):
        source, in_range = shuffled(mode, thread % 32, b & 31, clamp, segment)
        expected.append(3 * (thread // 32 * 32 + source) + 1000 * in_range)
    assert run(body, grid=2, block=64) == expected


def test_shuffle_by_a_lanes_own_index() -> None:
    body = "sub.u32 %a, 31, %tidx; shfl.sync.idx.b32 %b, %thread, %a, 31, -1; cvt.u64.u32 %out, %b;"
    assert run(body, block=32) == [31 - k for k in range(32)]


def test_shuffles_without_sync() -> None:
    body = "shfl.down.b32 %b, %thread, 1, 31; cvt.u64.u32 %out, %b;"
    assert run(body, block=32) == [*range(1, 32), 31]


VOTES: dict[str, Callable[[list[bool]], int]] = {
    "any.pred %q": lambda votes: int(any(votes)),
    "all.pred %q": lambda votes: int(all(votes)),
    "uni.pred %q": lambda votes: int(all(votes) or not any(votes)),
    "ballot.b32 %a": lambda votes: sum(v << k for k, v in enumerate(votes)),
}


@pytest.mark.parametrize("form", VOTES)
@pytest.mark.parametrize("limit", [0, 5, 32, 33, 48])
@pytest.mark.parametrize("sync", ["", ".sync"])
def test_votes(form: str, limit: int, sync: str) -> None:
    """The last warp has 16 threads; those that are not there are not waited for."""
    mask = ", 0xffffffff" if sync else ""
    result = "selp.u64 %out, 1, 0, %q;" if "pred" in form else "cvt.u64.u32 %out, %a;"
    body = f"setp.lt.u32 %p, %thread, {limit}; vote{sync}.{form}, %p{mask}; {result}"
    votes = [k < limit for k in range(48)]
    expected = [VOTES[form](votes[:32])] * 32 + [VOTES[form](votes[32:])] * 16
    assert run(body, block=48) == expected


def test_votes_of_lanes_that_took_different_ways_meet() -> None:
    """The collective behind the branches is done by all lanes together."""
    body = """setp.lt.u32 %p, %thread, 9; @%p bra A; mov.u32 %a, 1; bra B; A: mov.u32 %a, 2;
    B: setp.eq.u32 %q, %a, 2; vote.sync.ballot.b32 %b, %q, 0xffffffff; cvt.u64.u32 %out, %b;"""
    assert run(body, block=32) == [0x1FF] * 32


@pytest.mark.parametrize("vote", ["vote.ballot.b32 %b, %q;", "vote.sync.ballot.b32 %b, %q, 0xffffffff;"])
def test_lanes_that_come_from_further_down_are_waited_for(vote: str) -> None:
    """The collective is at a lower block than the one that some of its lanes come from."""
    body = f"""setp.eq.u32 %q, %thread, %thread; setp.lt.u32 %p, %thread, 9; @%p bra LATER; HERE: {vote}
    cvt.u64.u32 %out, %b; bra END; LATER: mov.u32 %a, 2; bra HERE; END:"""
    assert run(body, block=32) == [0xFFFFFFFF] * 32


def test_groups_by_mask_are_apart() -> None:
    """Lanes of one warp at one instruction with different masks."""
    body = """and.b32 %a, %thread, 1; setp.eq.u32 %p, %a, 0; selp.b32 %m, 0x55555555, 0xaaaaaaaa, %p;
    setp.gt.u32 %q, %thread, 9; vote.sync.ballot.b32 %b, %q, %m; redux.sync.add.u32 %a, %thread, %m;
    mul.wide.u32 %out, %a, 1; shl.b64 %out, %out, 32; cvt.u64.u32 %own, %b; or.b64 %out, %out, %own;
    mul.wide.u32 %own, %thread, 8; add.u64 %own, %own, %results;"""
    above = sum(1 << k for k in range(10, 32))
    even, odd = above & 0x55555555, above & 0xAAAAAAAA
    assert run(body, block=32) == [sum(range(0, 32, 2)) << 32 | even, sum(range(1, 32, 2)) << 32 | odd] * 16


def test_groups_from_match_any() -> None:
    body = """rem.u32 %a, %thread, 3; match.any.sync.b32 %m, %a, 0xffffffff; redux.sync.max.u32 %b, %thread, %m;
    cvt.u64.u32 %out, %b;"""
    assert run(body, block=32) == [{0: 30, 1: 31, 2: 29}[k % 3] for k in range(32)]


@pytest.mark.parametrize("type_", ["b32", "b64"])
def test_match(type_: str) -> None:
    value = "%a" if type_ == "b32" else "%out"
    body = f"""rem.u32 %a, %thread, 5; cvt.u64.u32 %out, %a; shl.b64 %out, %out, 40; mov.b32 %b, 0;
    match.any.sync.{type_} %b, {value}, 0xffffffff; cvt.u64.u32 %out, %b;"""
    expected = [sum(1 << j for j in range(32) if j % 5 == k % 5) for k in range(32)]
    assert run(body, block=32) == expected
    body = f"""div.u32 %a, %thread, {{}}; cvt.u64.u32 %out, %a; match.all.sync.{type_} %b|%p, {value}, 0xffffffff;
    selp.u32 %m, 1, 0, %p; mad.wide.u32 %out, %b, 2, 0; cvt.u64.u32 %own, %m; add.u64 %out, %out, %own;
    mul.wide.u32 %own, %thread, 8; add.u64 %own, %own, %results;"""
    assert run(body.format(32), block=32) == [2 * 0xFFFFFFFF + 1] * 32
    assert run(body.format(31), block=32) == [0] * 32


@pytest.mark.parametrize(
    ("form", "combine"),
    [
        ("add.u32", lambda v: sum(v) & 0xFFFFFFFF),
        ("add.s32", lambda v: sum(v) & 0xFFFFFFFF),
        ("min.u32", min),
        ("max.u32", max),
        ("min.s32", lambda v: min(v, key=lambda x: x ^ 0x80000000)),
        ("max.s32", lambda v: max(v, key=lambda x: x ^ 0x80000000)),
        ("and.b32", lambda v: int(np.bitwise_and.reduce(v))),
        ("or.b32", lambda v: int(np.bitwise_or.reduce(v))),
        ("xor.b32", lambda v: int(np.bitwise_xor.reduce(v))),
    ],
)
def test_reductions(form: str, combine: Callable[[list[int]], int]) -> None:
    body = f"""mul.lo.u32 %a, %thread, 0x9E3779B9; or.b32 %a, %a, 0x1000; redux.sync.{form} %b, %a, 0xffffffff;
    cvt.u64.u32 %out, %b;"""
    values = [(k * 0x9E3779B9 | 0x1000) & 0xFFFFFFFF for k in range(64)]
    assert run(body, block=64) == [combine(values[:32])] * 32 + [combine(values[32:])] * 32


def test_election() -> None:
    body = """setp.lt.u32 %p, %thread, 3; @%p exit; elect.sync %a|%q, 0xffffffff; selp.u32 %b, 100, 0, %q;
    add.u32 %a, %a, %b; cvt.u64.u32 %out, %a;"""
    assert run(body, block=40) == [0, 0, 0, 103] + [3] * 28 + [100] + [0] * 7


def test_active_lanes() -> None:
    body = (
        "setp.lt.u32 %p, %thread, 3; mov.u64 %out, 0; @%p bra A; bra B; A: activemask.b32 %a; cvt.u64.u32 %out, %a; B:"
    )
    assert run(body, block=8) == [7] * 3 + [0] * 5


def test_threads_that_have_ended_are_not_waited_for() -> None:
    body = """setp.lt.u32 %p, %thread, 4; @%p exit; bar.warp.sync 0xffffffff; setp.ge.u32 %q, %thread, 6;
    vote.sync.ballot.b32 %a, %q, 0xffffffff; cvt.u64.u32 %out, %a;"""
    assert run(body, block=8) == [0] * 4 + [0xC0] * 4


def test_collectives_wait_for_their_members() -> None:
    """Members that first do another collective among themselves, at a later block, come back to this one."""
    body = """mov.u32 %a, 0; setp.lt.u32 %p, %thread, 16; @%p bra ALL; bra HALF;
    ALL: vote.sync.ballot.b32 %b, %q, 0xffffffff; mov.u64 %out, 1; bra END;
    HALF: setp.ne.u32 %q, %thread, 17; vote.sync.all.pred %p, %q, 0xffff0000; selp.u32 %a, 1, 0, %p; bra ALL; END:"""
    assert run("setp.eq.u32 %q, %thread, %thread; " + body, block=32) == [1] * 32


def test_lanes_that_wait_for_lanes_that_wait() -> None:
    """Lane 0 needs lane 1, which needs lane 2, which comes later: none may get lost."""
    body = """mov.u32 %m, 0x3; setp.eq.u32 %p, %thread, 1; @%p mov.u32 %m, 0x6; setp.eq.u32 %q, %thread, 2; @%q mov.u32 %m, 0x6;
    @%q bra LATER; HERE: bar.warp.sync %m; mov.u64 %out, 5; bra END;
    LATER: vote.sync.any.pred %p, %q, 0x4; bra HERE; END:"""
    assert run(body, block=3) == [5] * 3


def test_a_guard_leaves_lanes_out() -> None:
    body = """mov.u64 %out, 0; setp.lt.u32 %p, %thread, 4; @%p vote.sync.ballot.b32 %a, %p, 0xf; @%p cvt.u64.u32 %out, %a;"""
    assert run(body, block=8) == [15] * 4 + [0] * 4


def test_a_lane_that_is_not_in_its_mask() -> None:
    error = fault(
        P + "mov.u64 %out, 0;\nvote.sync.any.pred %p, %p, 0xffff00ff;",
        "simt",
        "not in the member mask 0xffff00ff",
        block=32,
    )
    assert (error.line, error.thread) == (BODY_LINE + 1, (8, 0, 0))


@pytest.mark.parametrize(
    "collective",
    ["vote.sync.any.pred %q, %p, -1;", "bar.warp.sync -1;", "shfl.sync.idx.b32 %a, %a, 0, 31, -1;"],
)
def test_lanes_that_never_come(collective: str) -> None:
    """Half of the warp waits at a barrier for the other half, which waits here for the first."""
    body = f"mov.u64 %out, 0; mov.u32 %a, 0; setp.lt.u32 %p, %thread, 16; @%p bra A;\n{collective} A: bar.sync 0;"
    error = fault(P + body, "simt", r"lanes 0xffff of the member mask 0xffffffff do not come here", block=32)
    assert error.line == BODY_LINE + 1
    assert error.thread == (16, 0, 0)


def test_spinning_for_another_warp_does_not_break_collectives() -> None:
    """Warp 0 polls for what warp 1 stores behind a collective that some of its lanes reach late."""
    body = """.reg .u64 %o; ld.param.u64 %o, [other]; mov.u64 %out, 1; setp.ge.u32 %p, %thread, 32; @%p bra ONE;
    SPIN: ld.volatile.u32 %a, [%o]; setp.eq.u32 %q, %a, 0; @%q bra SPIN; bra END;
    ONE: mov.u32 %a, %thread; DOWN: sub.u32 %a, %a, 1; setp.gt.u32 %q, %a, 20; @%q bra DOWN;
    bar.warp.sync 0xffffffff; st.volatile.u32 [%o], 1; END:"""
    assert run(body, block=64, other=np.zeros(1, np.uint32)) == [1] * 64
