"""Outputs that are kept on a device while lanes go on: everything is as on the CPU, and the host is asked less often."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.differential.oracles import READ, WRITE, program
from tests.linux import test_random_calls as random_calls
from tests.linux.test_programs import CASES, root
from tests.linux.test_programs import machine as linux_machine
from tests.machine.harness import A0, A2, A7, CODE, DATA, EXECUTE, S0, S1, S2, S3, S4, ZERO, Assembly
from tests.machine.test_environment import calling as calling_bare_metal
from tests.machine.test_environment import check
from vmjit import Machine, RunResult, Stop
from vmjit.decoders.riscv.isa import parse_isa
from vmjit.device_outputs import bytes_of_lane, read_records
from vmjit.engine import RunReport
from vmjit.program import Program, Segment

__all__ = ["root"]

A1 = 11
WRITE_CALL, WRITEV = 64, 66
SIZE = 0x3000  # of the memory that is written from: three pages
NOWHERE = 0x200 - DATA  # from DATA on

both = pytest.mark.parametrize("xlen", [32, 64])
everywhere = pytest.mark.parametrize("device", ["host", "ptx"])
environments = pytest.mark.parametrize("environment", ["bare-metal", "linux"])


@pytest.fixture(autouse=True)
def _ptx(request: pytest.FixtureRequest) -> None:
    if "ptx" in request.node.name:
        pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")


def liner(xlen: int) -> Assembly:
    """Writes s0 times s2 bytes from s1 on, and as many more as the lowest four bits of s0 say where s3 is 1, to output
    and error by turns; the results' sum is left in s4. Exits with 7."""
    a = Assembly(xlen)
    a.label("loop")
    a.put("sb", 0, S1, S0)
    a.put("andi", A0, S0, imm=1)
    a.put("addi", A0, A0, imm=1)
    a.put("add", A1, ZERO, S1)
    a.put("andi", A2, S0, imm=15)
    a.put("mul", A2, A2, S3)
    a.put("add", A2, A2, S2)
    a.put("addi", A7, ZERO, imm=WRITE_CALL)
    a.put("ecall")
    a.put("add", S4, S4, A0)
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.put("addi", A0, ZERO, imm=7)
    a.put("addi", A7, ZERO, imm=93)
    a.put("ecall")
    return a


def new(
    xlen: int, assembly: Assembly, lanes: int, device: str, *, tier: str = "interpreter", **options: object
) -> Machine:
    pieces = ((CODE, assembly.code, READ | EXECUTE), (DATA, b"", READ | WRITE))
    segments = tuple(Segment(a, len(d) or SIZE, d, p) for a, d, p in pieces)
    given: dict[str, object] = {"environment": "bare-metal", "memory": "64KiB", "fallback": False, **options}
    prog = Program(segments, CODE, parse_isa(f"rv{xlen}imac"))
    return Machine(prog, lanes, device, tier, **given)  # type: ignore[arg-type]


def start_liner(m: Machine, lines: object, size: object = 20, varied: object = 1) -> None:
    text = np.arange(m.lanes * 4096, dtype=np.int64).reshape(m.lanes, 4096) * 7 % 251
    m.memory.write(DATA, text.astype(np.uint8))
    for register, value in ((S0, lines), (S1, DATA), (S2, size), (S3, varied)):
        m.registers[register] = value


def report_of(m: Machine) -> RunReport:
    report = m._residence._report
    assert report is not None
    return report


def same(m: Machine, got: RunResult, want: Machine, expected: RunResult) -> None:
    assert got.stops() == expected.stops()
    assert (got.stop == expected.stop).all()
    assert (got.exit_code == expected.exit_code).all()
    assert [got.output(i) for i in range(m.lanes)] == [expected.output(i) for i in range(m.lanes)]
    assert [got.error_output(i) for i in range(m.lanes)] == [expected.error_output(i) for i in range(m.lanes)]
    assert (m.retired == want.retired).all()
    assert (m.pc == want.pc).all()
    assert (m.registers.array() == want.registers.array()).all()
    assert (m.environment.kept == want.environment.kept).all()


@both
@environments
@everywhere
@pytest.mark.parametrize("tier", ["interpreter", pytest.param("scalar", marks=pytest.mark.slow)])
def test_lanes_that_write_different_amounts(xlen: int, environment: str, device: str, tier: str) -> None:
    """To both streams, in every lane another number of lines; runs end at the same instruction, wherever that is."""
    lanes = 35
    lines = np.arange(lanes) * 3 % 31 + 1
    m = new(xlen, liner(xlen), lanes, device, tier=tier, environment=environment)
    want = new(xlen, liner(xlen), lanes, "cpu", environment=environment)
    for limits in ((None,), (9, 1, 40, 93, None)):
        for each in (m, want):
            each.reset()
            start_liner(each, lines)
        for limit in limits:
            same(m, m.run(limit), want, want.run(limit))


@everywhere
@environments
def test_the_host_is_not_asked(device: str, environment: str) -> None:
    """However many lines there are: one pass, and each lane's exit is the one call that is served."""
    lanes = 40
    m = new(64, liner(64), lanes, device, environment=environment)
    start_liner(m, 1)
    m.run()
    for lines in (3, 50):
        m.reset()
        start_liner(m, lines)
        assert m.run().stops() == {"EXIT": lanes}
        assert (report_of(m).passes, report_of(m).served) == (1, lanes)


@pytest.mark.parametrize(("size", "served"), [(124, 0), (121, 0), (125, 2), (4096, 2), (0, 0)])
def test_what_fits_into_a_buffer(size: int, served: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One write that fills a buffer of 128 bytes to the last, or is too large for it."""
    monkeypatch.setattr("vmjit.device_outputs._MOST_OF_LANE", 128)
    m, want = (new(64, liner(64), 2, device) for device in ("host", "cpu"))
    for each in (m, want):
        start_liner(each, 1, size, 0)
    same(m, m.run(), want, want.run())
    assert report_of(m).served == served + 2


@both
@everywhere
def test_a_buffer_that_is_full(xlen: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of the run, again and again, and at another line in each lane."""
    monkeypatch.setattr("vmjit.device_outputs._MOST_OF_LANE", 200)
    lanes = 33
    m, want = (new(xlen, liner(xlen), lanes, where) for where in (device, "cpu"))
    for each in (m, want):
        start_liner(each, np.arange(lanes) % 9 * 7 + 1, np.arange(lanes) % 4 * 40 + 1)
    same(m, m.run(), want, want.run())
    assert lanes < report_of(m).served < report_of(want).served / 3


def test_lanes_without_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are none where there are too many lanes, or where the device has no memory for them."""
    assert [bytes_of_lane(n) for n in (1, 16384, 16385, 1 << 19, (1 << 19) + 1)] == [4096, 4096, 4092, 128, 0]
    monkeypatch.setattr("vmjit.device_outputs._MOST", 1000)
    m, want = (new(64, liner(64), 9, device) for device in ("host", "cpu"))
    for each in (m, want):
        start_liner(each, 5)
    same(m, m.run(), want, want.run())
    assert report_of(m).served == 6 * 9


@both
@everywhere
def test_every_kind_of_write(xlen: int, device: str) -> None:
    """Ranges that cannot be read, at the borders of what can; other descriptors; closed ones; none and all bytes."""
    top, buffer, constants = (1 << xlen) - 8, DATA + 2048, 0x30000
    end = DATA + 4096 + 8192
    writes = [
        *((1, constants + i, n) for i, n in ((0, 5), (0, 0), (7, 3), (250, 6), (-1, 4), (1, 256))),
        *(
            (2, p, n)
            for p, n in (
                (DATA + NOWHERE, 0),
                (DATA + NOWHERE, 1),
                (end - 4, 4),
                (end - 4, 5),
                (top, 8),
                (top, 16),
                (-1, 1),
            )
        ),
        *((1, p, n) for p, n in ((CODE, 4), (CODE - 1, 2), (buffer, -1), (buffer, 1 << 31), (DATA + 4090, 12))),
        *((d, buffer, 3) for d in (0, 3, -1, 1 << 31, (1 << 32) + 1, 2)),
    ]
    script = [(WRITE_CALL, *w) for w in writes]
    closing = [(57, 2, 0, 0), *script[:9], (57, 1, 0, 0), *script[:9]]
    scripts = [script, closing, script[::-1], [(57, 1, 0, 0), *script[5:12]]]
    inputs = [b""] * len(scripts)
    check(calling_bare_metal(xlen, scripts, inputs, device=device), xlen, scripts, inputs)


CALLS = [
    (WRITE_CALL, 1, DATA + 0x1000 - 5, 10),
    (WRITE_CALL, 1, CODE, 8),
    (226, DATA + 0x1000, 0x1000, 0),  # mprotect: none
    (WRITE_CALL, 1, DATA + 0x1000 - 5, 10),
    (WRITE_CALL, 2, DATA + 0x1000 - 5, 5),
    (WRITE_CALL, 1, DATA + 0x2000 - 1, 2),
    (226, DATA + 0x1000, 0x1000, READ),
    (WRITE_CALL, 1, DATA + 0x1000 - 5, 10),
    (226, CODE, 0x1000, READ | EXECUTE),
    (WRITE_CALL, 1, CODE, 8),
    (23, 1, 0, 0),  # dup: 3 is the output too
    (WRITE_CALL, 3, DATA + 0x2000, 4),
    (24, 2, 1, 0),  # dup3: 1 is the error output now
    (WRITE_CALL, 1, DATA + 0x2000, 7),
    (57, 2, 0, 0),
    (WRITE_CALL, 2, DATA + 0x2000, 6),
    (WRITE_CALL, 1, DATA + 0x2000, 5),
    (24, 3, 1, 0),
    (WRITE_CALL, 1, DATA + 0x2000, 3),
    (24, 1, 2, 0),
    (WRITE_CALL, 2, DATA + 0x2000, 2),
]


def caller(xlen: int, calls: list[tuple[int, int, int, int]]) -> Assembly:
    """Makes calls and adds 3^n times the result of the nth from the last, where bit n of s0 is set."""
    a = Assembly(xlen)
    for i, (number, *arguments) in enumerate(calls):
        a.put("srli", S1, S0, imm=i)
        a.put("andi", S1, S1, imm=1)
        a.put("beq", rs1=S1, to=f"next{i}")
        for register, value in zip((A7, A0, A1, A2), (number, *arguments), strict=True):
            a.li(register, value)
        a.put("ecall")
        a.put("slli", S2, S4, imm=1)
        a.put("add", S4, S4, S2)
        a.put("add", S4, S4, A0)
        a.label(f"next{i}")
    a.put("ebreak")
    return a


@both
@everywhere
def test_what_linux_says_of_pages_and_descriptors(xlen: int, device: str) -> None:
    """Lanes that make some of the calls, one of them all: protected pages, copies of descriptors, closed ones."""
    lanes = 64
    chosen = np.random.default_rng(xlen).integers(0, 1 << len(CALLS), lanes)
    chosen[0] = -1 & ((1 << len(CALLS)) - 1)
    m, want = (new(xlen, caller(xlen, CALLS), lanes, where, environment="linux") for where in (device, "cpu"))
    for each in (m, want):
        start_liner(each, chosen)
    same(m, m.run(), want, want.run())
    assert report_of(m).served < report_of(want).served


VECTORS = [
    [(0x2000, 5), (0x2010, 7)],
    [(0x2000, 0), (0x2010, 9)],
    [(0x2003, 1), (0x2003, 2), (0x2003, 3), (0x2003, 0), (0x2003, 4)],
    [(0x2000, 4), (NOWHERE, 4)],  # the first of them is written, the second not there
    [(NOWHERE, 0), (0x2000, 4)],
    [(NOWHERE, 4), (0x2000, 4)],
    [(0x2000, 4), (0x2000, -1)],
    [(0x2000, 2000), (0x2000, 2000), (0x2000, 2000)],
    [],
]


@both
@everywhere
@environments
def test_writes_of_several_vectors(xlen: int, device: str, environment: str) -> None:
    """Linux has them; elsewhere the call is unknown. The tables are aligned, and not."""
    lanes, word = 40, xlen // 8
    table, calls = b"", []
    for vectors in VECTORS:
        calls += [(WRITEV, 1 + len(calls) % 2, DATA + len(table), len(vectors))]
        for start, size in vectors:
            table += b"".join(((v + d) % (1 << xlen)).to_bytes(word, "little") for v, d in ((start, DATA), (size, 0)))
    table += b"\0"
    calls += [(WRITEV, 1, DATA + len(table), 2), (WRITEV, 1, DATA, -1), (WRITEV, 1, DATA, 1025), (WRITEV, 2, 0x200, 1)]
    calls += [(WRITEV, 4, DATA, 1), (WRITEV, 1, DATA + SIZE - word, 1)]
    table += b"".join((v % (1 << xlen)).to_bytes(word, "little") for v in (DATA + 0x2100, 11, DATA + 0x2200, 13))
    chosen = np.random.default_rng(xlen).integers(0, 1 << len(calls), lanes)
    chosen[0] = (1 << len(calls)) - 1
    m, want = (new(xlen, caller(xlen, calls), lanes, where, environment=environment) for where in (device, "cpu"))
    for each in (m, want):
        start_liner(each, chosen)
        each.memory.write(DATA, table)
        each.memory.write(DATA + 0x2000, np.arange(lanes * 0xC00, dtype=np.int64).astype(np.uint8).reshape(lanes, -1))
    same(m, m.run(), want, want.run())
    assert (report_of(m).served < report_of(want).served) == (environment == "linux")
    assert m.environment.unknown_calls == want.environment.unknown_calls


_PLACES = [random_calls.TABLE, 0x40FFC, 0x41000, 0x41FFE, 0x42000, 0x43FF8, 0x44000, 0x10000, 0, -4]
_ADDRESSES = st.builds(lambda place, more: place + more, st.sampled_from(_PLACES), st.sampled_from([0, 0, 1, 5, 8, -3]))
_PAGES = st.tuples(st.sampled_from([0x41000, 0x42000]), st.sampled_from([0x1000, 0x2000]))
_CALLS = st.one_of(
    st.builds(
        lambda d, p, n: (WRITE_CALL, [d, p, n]), st.integers(0, 4), _ADDRESSES, st.sampled_from([0, 1, 9, 70, -1])
    ),
    st.builds(lambda d, p, n: (WRITE_CALL, [d, p, n]), st.integers(1, 2), _ADDRESSES, st.integers(0, 50)),
    # A call's own words are the table: a descriptor and an address, which as a size is mostly too large; and so on.
    st.builds(lambda d, p, n: (WRITEV, [d, p, n]), st.integers(1, 2), _ADDRESSES, st.integers(0, 3)),
    st.builds(lambda p, n: (WRITEV, [1, 0x43000 + 8 * p, n]), st.integers(0, 20), st.integers(1, 9)),
    st.builds(lambda pages, p: (226, [*pages, p]), _PAGES, st.integers(0, 3)),  # mprotect
    st.builds(lambda pages: (215, [*pages]), _PAGES),  # munmap
    st.builds(lambda pages: (222, [*pages, 3, 0x32, -1, 0]), _PAGES),  # mmap, fixed
    st.builds(lambda a, b: (24, [a, b, 0]), st.integers(0, 4), st.integers(1, 4)),  # dup3
    st.builds(lambda d: (57, [d]), st.integers(1, 4)),
)


@both
def test_random_calls_of_linux_programs(xlen: int) -> None:
    """Writes between calls that change what can be read and where descriptors lead, another dozen in each lane."""
    lanes, word = 5, xlen // 8
    prog = program(f"rv{xlen}imac", random_calls._code(xlen), CODE, data=(random_calls.TABLE, 0x4000))
    machines = [
        Machine(prog, lanes, device, "interpreter", memory="256KiB", environment="linux", fallback=False)
        for device in ("host", "cpu")
    ]
    vectors = b"".join(
        (v % (1 << xlen)).to_bytes(word, "little")
        for i in range(24)
        for v in (0x40FF0 + 0x800 * (i % 7), (0, 1, 30, 7)[i % 4])
    )
    script = st.lists(_CALLS, min_size=random_calls.CALLS, max_size=random_calls.CALLS)

    @settings(max_examples=60)
    @given(st.lists(script, min_size=lanes, max_size=lanes))
    def test(made: list[list[tuple[int, list[int]]]]) -> None:
        table = [[a % (1 << xlen) for n, given in lane for a in (*given, *[0] * (7 - len(given)), n)] for lane in made]
        results = []
        for m in machines:
            m.reset()
            m.memory.write(random_calls.TABLE, (np.arange(lanes * 0x4000) % 253).astype(np.uint8).reshape(lanes, -1))
            m.memory.write(random_calls.TABLE, np.array(table, np.uint32 if xlen == 32 else np.uint64).view(np.uint8))
            m.memory.write(0x43000, vectors)
            results.append(m.run(10_000))
        same(machines[0], results[0], machines[1], results[1])

    test()


@pytest.mark.parametrize("limit", [20_000, 200_000])
@pytest.mark.parametrize("size", [0, 1, 4, 5, 24])
def test_outputs_without_end(size: int, limit: int) -> None:
    """Lanes stop at the very write at which they stop elsewhere; the others go on."""
    m, want = (new(64, liner(64), 5, device, memory_limit=limit) for device in ("host", "cpu"))
    for each in (m, want):
        start_liner(each, [1 << 30, 5, 1 << 30, 6, 1 << 30], size, 0)
    got = m.run()
    same(m, got, want, want.run())
    assert (got.stop == np.where(np.arange(5) % 2, Stop.EXIT, Stop.MEMORY)).all()
    assert report_of(m).passes < report_of(want).passes / 3


def test_outputs_are_whole_at_the_end_of_each_pass() -> None:
    """For hooks, for a run that ends at a budget, for snapshots and for lanes that are told to stop somewhere."""
    m = new(64, liner(64), 3, "host")
    start_liner(m, 9, 1, 0)
    seen = []
    hook = m.hook(CODE, lambda lanes: seen.append(m.environment.output(2)), host=True)
    m.run(12 * 5 + 3)
    assert [len(s) for s in seen] == [0, 0, 1, 1, 2, 2]
    m.unhook(hook)
    snapshot = m.snapshot()
    m.run(12)
    assert m.run_until(CODE + 4).output(1) == bytes([8, 6, 4])
    m.restore(snapshot)
    assert m.run(0).output(1) == bytes([8, 6])
    assert m.run().output(1) == bytes([8, 6, 4, 2])


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@both
def test_linux_programs(case: object, xlen: int, root: Path) -> None:
    """As recorded and as on the CPU: programs of musl, which writes with `writev`."""
    outcome = []
    for device in ("cpu", "host"):
        m = linux_machine(case, xlen, 3, root, tier="interpreter", device=device)  # type: ignore[arg-type]
        result = m.run(20_000_000)
        outcome.append((m, result))
    (want, expected), (m, got) = outcome
    same(m, got, want, expected)
    assert report_of(m).served <= report_of(want).served


def test_records_of_many_lanes() -> None:
    """What is in buffers, by stream: against a plain loop."""
    random = np.random.default_rng(2)
    rows = random.integers(0, 256, (50, 400), np.uint8)
    used, wanted = np.zeros(50, np.int64), {1: {}, 2: {}}
    for lane in range(0, 50, 1 + 2):
        place = 0
        while place < 330:
            stream, size, writes = int(random.integers(1, 3)), int(random.integers(0, 30)), int(random.integers(1, 4))
            rows[lane, place : place + 4] = list((size | writes << 16 | stream << 28).to_bytes(4, "little"))
            start = place + 4 * writes
            text, count = wanted[stream].get(lane, (b"", 0))
            wanted[stream][lane] = text + rows[lane, start : start + size].tobytes(), count + writes
            place = start + (size + 3) // 4 * 4
        used[lane] = place
    found = {w.stream: w for w in read_records(rows, used, 100)}
    assert found.keys() == {1, 2}
    for stream, (_, lanes, sizes, writes, data) in found.items():
        ends = np.cumsum(sizes)
        texts = [data[e - s : e].tobytes() for e, s in zip(ends, sizes, strict=True)]
        got = {lane - 100: (t, w) for lane, t, w in zip(lanes.tolist(), texts, writes.tolist(), strict=True)}
        assert got == wanted[stream]
