"""What launches count: executed instructions, the same with both engines and on every machine."""

from __future__ import annotations

import pytest

from tests.ptx.running import ENGINES, launch, text_of

# What text_of adds around a body.
AROUND = {"mov": 3, "mad": 1, "ld.param": 1, "mul": 1, "add": 1, "st.global": 1, "ret": 1}
PER_THREAD = sum(AROUND.values())


def counted(body: str, before: str = "", **options: int) -> dict[str, int]:
    """Thread instructions by stem without what is around the body."""
    threads = options.get("grid", 1) * options.get("block", 1)
    statistics = launch(text_of(body, before), "simt", **options)[1]
    assert statistics.by_opcode is not None
    found = dict(statistics.by_opcode)
    assert sum(found.values()) == statistics.thread_instructions
    other = launch(text_of(body, before), "thread", **options)[1]
    assert other.thread_instructions == statistics.thread_instructions
    for stem, count in AROUND.items():
        found[stem] -= count * threads
    return {stem: count for stem, count in found.items() if count}


def test_stems() -> None:
    body = """.shared .b8 s[8]; .reg .u32 %v; .reg .pred %p; mov.u64 %out, s; st.shared.u32 [s], 1; ld.u32 %v, [%out];
    ld.volatile.shared.u32 %v, [s]; atom.shared.add.u32 %v, [s], 1; red.global.add.u32 [%own], 1; setp.lt.u32 %p, %v, 3;
    mul.wide.u32 %out, %v, 4; mul.lo.u32 %v, %v, 4; bar.sync 0; cvt.u64.u32 %out, %v; @%p bra A; A:"""
    expected = dict.fromkeys(
        "mov st.shared ld ld.shared atom.shared red.global setp bar cvt bra".split(), 64
    ) | {"mul": 128}  # fmt: skip
    assert counted(body, block=32, grid=2) == expected


def test_every_time_through_a_loop() -> None:
    body = """.reg .pred %p; mov.u64 %out, 0; .reg .u32 %k; mov.u32 %k, %thread; L: add.u64 %out, %out, 1;
    setp.lt.u64 %p, %out, %own; setp.eq.u32 %p, %k, 0; sub.u32 %k, %k, 1; @!%p bra L;"""
    rounds = sum(k + 1 for k in range(40))
    assert counted(body, block=40) == {"mov": 80, "add": rounds, "setp": 2 * rounds, "sub": rounds, "bra": rounds}


def test_guards_do_not_matter() -> None:
    """An instruction counts for every thread that comes to it; a guarded call as one instruction of each."""
    before = ".func f() { ret; }"
    body = """.reg .pred %p; mov.u64 %out, 0; setp.lt.u32 %p, %thread, 3; @%p add.u64 %out, %out, 1; @%p call f, ();
    @%p bar.sync 0; @!%p bar.sync 0;"""
    expected = {"mov": 8, "setp": 8, "add": 8, "call": 8, "ret": 3, "bar": 16}
    assert counted(body, before, block=8) == expected


def test_a_return_that_the_text_lacks_is_not_counted() -> None:
    before = ".func f() { .reg .u32 %a; mov.u32 %a, 1; }"
    assert counted("mov.u64 %out, 0; call f, ();", before, block=4) == {"mov": 8, "call": 4}


def test_warp_instructions() -> None:
    def of(body: str, **options: int) -> int:
        statistics = launch(text_of(body), "simt", **options)[1]
        assert statistics.warp_instructions is not None
        return statistics.warp_instructions

    plain = PER_THREAD + 1
    assert of("mov.u64 %out, 0;", block=32) == plain
    assert of("mov.u64 %out, 0;", block=1) == plain
    assert of("mov.u64 %out, 0;", block=33) == 2 * plain
    assert of("mov.u64 %out, 0;", block=48, grid=3) == 6 * plain
    assert of("mov.u64 %out, 0;", block=48, grid=3, max_lanes=48) == 6 * plain
    diverging = ".reg .pred %p; setp.lt.u32 %p, %thread, {}; @%p bra A; mov.u64 %out, 0; bra B; A: mov.u64 %out, 1; B:"
    assert of(diverging.format(16), block=32) == PER_THREAD + 2 + 2 + 1  # both sides
    assert of(diverging.format(32), block=64) == 2 * (PER_THREAD + 2) + 2 + 1  # one side for each warp
    assert of(diverging.format(40), block=64) == 2 * (PER_THREAD + 2) + 2 + 2 * 1


@pytest.mark.parametrize("engine", [*ENGINES, "auto"])
def test_statistics_of_a_launch(engine: str) -> None:
    _, statistics = launch(text_of("mov.u64 %out, 0;"), engine, block=10, grid=3)
    assert statistics.thread_instructions == 30 * (PER_THREAD + 1)
    assert 0 < statistics.seconds < 10
    if engine == "simt":
        assert statistics.engine == "simt"
        assert statistics.by_opcode is not None
        assert next(iter(statistics.by_opcode)) == "mov"  # the most frequent first
    else:
        assert statistics.engine == "thread"
        assert statistics.by_opcode is None
        assert statistics.warp_instructions is None
