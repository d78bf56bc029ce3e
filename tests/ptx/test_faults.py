"""What a device would not survive raises `PtxFault`, with line, thread and block; and limits hold."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ptx.running import BODY_LINE, ENGINES, fault, launch, run_u64, text_of
from vmjit.ptx import DeviceMemory, Module, Ptr, PtxError, PtxFault

ALL_ENGINES = pytest.mark.parametrize("engine", ENGINES)


@ALL_ENGINES
@pytest.mark.parametrize("offset", [64, -8, 1 << 40, -(1 << 62), 1 << 63])
@pytest.mark.parametrize("access", ["ld.global.u64 %out, [%own+{}];", "st.global.u64 [%own+{}], %own;"])
def test_out_of_bounds(engine: str, offset: int, access: str) -> None:
    """64 bytes are there, of which the thread's own are the first."""
    error = fault(access.format(offset), engine, "of 8 bytes at 0x[0-9a-f]+ is outside every buffer", block=8)
    assert error.line == BODY_LINE


@ALL_ENGINES
def test_partly_out_of_bounds(engine: str) -> None:
    given = np.zeros(3, np.uint32)
    body = ".reg .u64 %o; ld.param.u64 %o, [other]; ld.u64 %out, [%o+{}];"
    assert run_u64(body.format(0), engines=[engine], other=given) == [0]
    fault(body.format(8), engine, "outside every buffer", other=given)


@ALL_ENGINES
def test_the_message_says_which_thread(engine: str) -> None:
    body = "mov.u64 %out, 0;\n.reg .pred %p; setp.eq.u32 %p, %thread, 37;\n@%p st.global.u32 [%own+4096], %thread;"
    error = fault(body, engine, r"store of 4 bytes at 0x[0-9a-f]+ is outside every buffer", grid=4, block=16)
    assert (error.line, error.thread, error.block, error.kernel) == (BODY_LINE + 2, (5, 0, 0), (2, 0, 0), "k")
    assert f"(k, line {BODY_LINE + 2}, thread (5, 0, 0) of block (2, 0, 0))" in str(error)
    assert "; nearest: " in str(error)  # of what lies nearest by chance


@ALL_ENGINES
def test_coordinates_of_three_dimensions(engine: str) -> None:
    text = text_of(
        ".reg .u32 %z; .reg .pred %p; mov.u32 %z, %tid.z; setp.eq.u32 %p, %z, 1;\n@%p trap;\nmov.u64 %out, 0;"
    )
    module, results = Module(text), np.zeros(64, np.uint64)
    with pytest.raises(PtxFault, match="trap") as caught:
        module.launch("k", (1, 2, 1), (2, 2, 2), [Ptr(results), 0], engine=engine)
    assert (caught.value.thread, caught.value.block) == ((0, 0, 1), (0, 0, 0))


@ALL_ENGINES
@pytest.mark.parametrize(
    ("access", "bytes_"),
    [
        ("ld.global.u64 %out, [%own+4];", 8),
        ("ld.global.u32 %out, [%own+2];", 4),
        ("ld.global.u16 %out, [%own+1];", 2),
        ("st.global.u64 [%own+4], %own;", 8),
        ("atom.global.add.u64 %out, [%own+4], 1;", 8),
        ("red.global.add.u32 [%own+2], 1;", 4),
    ],
)
def test_misaligned(engine: str, access: str, bytes_: int) -> None:
    error = fault(f"mov.u64 %out, 0;\n{access}", engine, f"of {bytes_} bytes is misaligned at 0x", block=4)
    assert error.line == BODY_LINE + 1
    assert error.thread == (0, 0, 0)
    assert error.address % bytes_


@ALL_ENGINES
def test_vectors_are_aligned_to_their_whole_size(engine: str) -> None:
    body = "ld.global.v2.u32 {{%out, _}}, [%own+{}];"
    fault(body.format(4), engine, "of 8 bytes is misaligned", block=2)
    assert run_u64(body.format(0).replace("%out", "%thread") + "mov.u64 %out, 5;", block=2) == [5, 5]


@ALL_ENGINES
def test_guarded_off_accesses_do_nothing(engine: str) -> None:
    """Wherever they would go, aligned or not."""
    body = """.reg .pred %p; setp.ne.u32 %p, %thread, %thread; mov.u64 %out, 3;
    @%p ld.global.v2.u64 {%out, %own}, [1];
    @%p st.global.u64 [3], %own;
    @%p atom.global.add.u64 %out, [5], 1;
    @%p trap;"""
    assert run_u64(body, engines=[engine], block=3) == [3, 3, 3]


@ALL_ENGINES
@pytest.mark.parametrize("access", ["st.global.u32 [%o], 1;", "red.global.add.u32 [%o], 1;"])
def test_read_only_arrays(engine: str, access: str) -> None:
    given = np.arange(4, dtype=np.uint32)
    given.flags.writeable = False
    load = ".reg .u64 %o; ld.param.u64 %o, [other]; ld.global.u32 %out, [%o+8];"
    assert run_u64(load, engines=[engine], other=given) == [2]
    error = fault(f"{load}\n{access}", engine, r"store to read-only array uint32\[4\]", other=given)
    assert error.line == BODY_LINE + 1
    assert given.tolist() == [0, 1, 2, 3]


@ALL_ENGINES
def test_constants_and_parameters_are_read_only(engine: str) -> None:
    before = ".const .u32 c = 5;"
    fault(".reg .u64 %c; mov.u64 %c, c; st.u32 [%c], 1;", engine, "store to read-only const c", before=before)
    body = ".reg .u64 %c; mov.b64 %c, results; st.u32 [%c], 1;"
    fault(body, engine, "store to read-only kernel parameters")


@ALL_ENGINES
def test_writable_wins_where_arrays_overlap(engine: str) -> None:
    """An array registered for reading does not take away what another registration allows."""
    given = np.zeros(4, np.uint32)
    read_only = given.view()
    read_only.flags.writeable = False
    module = Module(text_of(".reg .u64 %o; ld.param.u64 %o, [other]; st.u32 [%o+4], 7; mov.u64 %out, 0;"))
    launch("", engine, module=module, other=given, mem=[read_only])
    assert given.tolist() == [0, 7, 0, 0]


@ALL_ENGINES
@pytest.mark.parametrize(
    ("declaration", "size"), [(".global .align 8 .b8 x[12];", 12), (".shared .align 8 .b8 x[12];", 12)]
)
def test_variables_end_where_they_end(engine: str, declaration: str, size: int) -> None:
    body = ".reg .u64 %x; .reg .u32 %v; mov.u64 %x, x;\nld.u32 %v, [%x+{}]; mov.u64 %out, 1;"
    assert run_u64(body.format(size - 4), before=declaration, engines=[engine]) == [1]
    error = fault(body.format(size), engine, "outside every buffer", before=declaration)
    assert error.line == BODY_LINE + 1


def test_running_over_ones_own_shared_and_local_memory_is_noticed() -> None:
    """Into what another block or thread has: the SIMT engine keeps the pieces apart."""
    shared = ".shared .align 4 .b8 x[64]; .reg .u64 %x; mov.u64 %x, x;\nst.u32 [%x+64], 1;"
    fault(shared, "simt", "outside every buffer", grid=4, block=4)
    local = ".local .align 4 .b8 x[64]; .reg .u64 %x; mov.u64 %x, x; st.local.u32 [%x+60], 1;\nst.local.u32 [%x+64], 1;"
    assert fault(local, "simt", "outside every buffer", block=4).line == BODY_LINE + 1


@ALL_ENGINES
def test_fresh_memory_is_poisoned(engine: str) -> None:
    body = ".{} .align 4 .b8 x[64]; .reg .u64 %x; mov.u64 %x, x; ld.u32 %out, [%x+8]; st.u32 [%x+8], 0;"
    assert run_u64(body.format("shared"), grid=3, engines=[engine]) == [0xCBCBCBCB] * 3
    assert run_u64(body.format("local"), grid=3, engines=[engine]) == [0xCBCBCBCB] * 3
    module = Module(text_of(body.format("local")), poison=0x11)
    assert launch("", engine, module=module)[0].tolist() == [0x11111111]


@ALL_ENGINES
def test_trap(engine: str) -> None:
    error = fault("mov.u64 %out, 0;\ntrap;", engine, "trap", block=3)
    assert (error.line, error.thread) == (BODY_LINE + 1, (0, 0, 0))


@ALL_ENGINES
def test_branch_tables_end(engine: str) -> None:
    body = "mov.u64 %out, 0;\nT: .branchtargets A, B;\nbrx.idx %thread, T;\nA: B:"
    assert run_u64(body, engines=[engine], block=2) == [0, 0]
    error = fault(body, engine, "brx.idx index 2 outside its", block=3)
    assert (error.line, error.thread) == (BODY_LINE + 2, (2, 0, 0))


@ALL_ENGINES
@pytest.mark.parametrize("address", ["0", "results", "0x0F00000000000008", "k"])
def test_calls_of_what_is_no_function(engine: str, address: str) -> None:
    body = f".reg .u64 %f; mov.u64 %f, {address};\nP: .callprototype _ (); call %f, (), P;"
    error = fault(body, engine, "call of ")
    assert error.line == BODY_LINE + 1


@ALL_ENGINES
def test_calls_by_address_need_the_right_parameters(engine: str) -> None:
    before = ".func f(.param .b64 x) { ret; }"
    body = ".reg .u64 %f; mov.u64 %f, f; { .param .b32 a; st.param.b32 [a], 1; P: .callprototype _ (.param .b32 _);\n"
    fault(body + "call %f, (a), P; }", engine, "call of ", before=before)


@ALL_ENGINES
def test_failed_assertions(engine: str) -> None:
    before = """.extern .func __assertfail (.param .b64 a, .param .b64 b, .param .b32 c, .param .b64 d, .param .b64 e);
    .global .b8 text[6] = {72, 97, 108, 108, 111, 0};"""
    body = """.reg .u64 %t; mov.u64 %t, text; { .param .b64 a; .param .b64 b; .param .b32 c; .param .b64 d; .param .b64 e;
    st.param.b64 [a], %t;
    call.uni __assertfail, (a, b, c, d, e); }"""
    message = "assertion failed: Hallo" if engine == "simt" else "assertion failed"
    assert fault(body, engine, message, before=before).line == BODY_LINE + 2


@ALL_ENGINES
def test_endless_recursion_ends(engine: str) -> None:
    before = ".func f() { call f, (); ret; }"
    error = fault("mov.u64 %out, 0;\ncall f, ();", engine, "calls nested more than 200 deep", before=before)
    assert error.function == "f"


ENDLESS = "mov.u64 %out, 0;\nAGAIN:\nadd.u64 %out, %out, 1;\nbra AGAIN;"


@ALL_ENGINES
def test_budget(engine: str) -> None:
    error = fault(ENDLESS, engine, "budget of 10000 thread instructions exceeded", budget=10_000)
    assert error.line in (BODY_LINE + 2, BODY_LINE + 3)
    assert error.kernel == "k"


@ALL_ENGINES
def test_the_budget_is_one_launchs(engine: str) -> None:
    """And holds without any loop too, where there are many blocks."""
    module = Module(text_of("mov.u64 %out, 1;"), budget=1000)
    for _ in range(10):
        launch("", engine, module=module, block=32)
    with pytest.raises(PtxFault, match="budget of 1000 "):
        launch("", engine, module=module, block=32, grid=8)


@ALL_ENGINES
def test_recursion_without_loops_is_within_the_budget(engine: str) -> None:
    before = """.func f(.param .u32 n) { .reg .u32 %n; .reg .pred %p; ld.param.u32 %n, [n]; setp.eq.u32 %p, %n, 0;
    @%p ret; sub.u32 %n, %n, 1; { .param .u32 a; st.param.u32 [a], %n; call f, (a); call f, (a); } ret; }"""
    body = "mov.u64 %out, 0; { .param .u32 a; st.param.u32 [a], 60; call f, (a); }"
    fault(body, engine, "budget of 100000 ", before=before, budget=100_000)


@ALL_ENGINES
def test_wall_clock(engine: str) -> None:
    error = fault(ENDLESS, engine, "still running after 0.05 s", seconds=0.05)
    assert error.line in (BODY_LINE + 2, BODY_LINE + 3)
    assert run_u64("mov.u64 %out, 1;", engines=[engine], seconds=60.0) == [1]


@ALL_ENGINES
def test_what_was_stored_before_a_fault_stays(engine: str) -> None:
    given = np.zeros(2, np.uint64)
    body = ".reg .u64 %o; ld.param.u64 %o, [other]; st.u64 [%o], 9; trap; mov.u64 %out, 0;"
    module = Module(text_of(body))
    with pytest.raises(PtxFault):
        launch("", engine, module=module, other=given)
    assert given.tolist() == [9, 0]
    assert [s.name for s in module.memory.segments] == []


@ALL_ENGINES
def test_faults_in_functions_name_them(engine: str) -> None:
    before = ".func f(.param .u64 p)\n{ .reg .u64 %p; ld.param.u64 %p, [p]; st.u64 [%p], 1; ret; }"
    body = "mov.u64 %out, 0; { .param .u64 a; st.param.u64 [a], 64; call f, (a); }"
    error = fault(body, engine, r"store of 8 bytes at 0x40 .*\(f, line", before=before, block=2)
    assert (error.function, error.kernel, error.thread, error.address) == ("f", "k", (0, 0, 0), 64)


def test_memory_of_another_module_is_not_reached_unless_shared() -> None:
    first = Module(text_of("mov.u64 %out, x;", before=".global .u32 x = 7;"))
    address = int(launch("", "simt", module=first)[0][0])
    body = f"ld.global.u32 %out, [{address}];"
    with pytest.raises(PtxFault, match="outside every buffer"):
        launch(text_of(body), "simt")
    shared = Module(text_of(body), memory=first.memory)
    assert launch("", "simt", module=shared)[0].tolist() == [7]


def test_closed_modules() -> None:
    memory = DeviceMemory()
    module = Module(text_of("mov.u64 %out, 0;", before=".global .u32 x; .const .u32 y;"), memory=memory)
    assert len(memory.segments) == 2
    module.close()
    assert memory.segments == []
    with pytest.raises(PtxError, match="closed"):
        launch("", "simt", module=module)
    other = Module(text_of("mov.u64 %out, 0;", before=".global .u32 x;"), memory=memory)
    assert len(memory.segments) == 1
    del other
    assert memory.segments == []
