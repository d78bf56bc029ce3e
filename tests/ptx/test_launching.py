"""Arguments, registered memory, launches that make no sense, what importing costs."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from tests.ptx.kernels import HEADER
from tests.ptx.running import ENGINES, launch, run_u64, text_of
from vmjit.errors import ArgumentError, VmjitError
from vmjit.ptx import DeviceMemory, Module, Ptr, PtxError, PtxFault, PtxUnsupported
from vmjit.ptx import memory as memory_module

ALL_ENGINES = pytest.mark.parametrize("engine", ENGINES)

INCREMENT = """.visible .entry k(.param .u64 p) { .reg .u64 %p, %v; .reg .u32 %t; mov.u32 %t, %tid.x; ld.param.u64 %p, [p];
mad.wide.u32 %p, %t, 8, %p; ld.u64 %v, [%p]; add.u64 %v, %v, 1; st.u64 [%p], %v; ret; }"""


@ALL_ENGINES
def test_registered_arrays_stay_between_launches(engine: str) -> None:
    memory = DeviceMemory()
    array = np.zeros(8, np.uint64)
    module = Module(HEADER + INCREMENT, memory=memory)
    with pytest.raises(PtxFault):
        module.launch("k", 1, 8, [array.ctypes.data], engine=engine)
    memory.add(array, "counters")
    for _ in range(3):
        module.launch("k", 1, 8, [array.ctypes.data], engine=engine)
    other = Module(HEADER + INCREMENT, memory=memory)
    other.launch("k", 1, 8, [array.ctypes.data], engine=engine)
    assert array.tolist() == [4] * 8
    with pytest.raises(PtxFault, match="nearest: counters"):
        module.launch("k", 1, 9, [array.ctypes.data], engine=engine)
    memory.remove(array)
    with pytest.raises(PtxFault):
        module.launch("k", 1, 8, [array.ctypes.data], engine=engine)
    with pytest.raises(ArgumentError):
        memory.remove(array)


@ALL_ENGINES
def test_memory_is_what_the_caller_says(engine: str) -> None:
    array = np.zeros(8, np.uint64)
    memory = DeviceMemory()
    segment = memory.add(array, "table", writable=False)
    module = Module(HEADER + INCREMENT, memory=memory)
    with pytest.raises(PtxFault, match="store to read-only table"):
        module.launch("k", 1, 8, [array.ctypes.data], engine=engine)
    memory.remove(segment)
    module.launch("k", 1, 8, [array.ctypes.data], engine=engine, mem=[array])
    assert array.tolist() == [1] * 8
    array.flags.writeable = False
    with pytest.raises(ArgumentError, match="read-only"):
        memory.add(array, writable=True)
    with pytest.raises(ArgumentError, match="Python objects"):
        memory.add(np.array([None]))


@ALL_ENGINES
def test_many_arrays(engine: str) -> None:
    """A list of pointers, each to an array of its own."""
    memory = DeviceMemory()
    arrays = [np.full(1, k, np.uint64) for k in range(64)]
    for array in arrays:
        memory.add(array)
    pointers = np.array([array.ctypes.data for array in arrays], np.uint64)
    body = """.reg .u64 %o; ld.param.u64 %o, [other]; mad.wide.u32 %o, %thread, 8, %o; ld.u64 %o, [%o]; ld.u64 %out, [%o];
    add.u64 %out, %out, 100; st.u64 [%o], %out;"""
    module = Module(text_of(body), memory=memory)
    results, _ = launch("", engine, module=module, block=64, other=pointers)
    assert results.tolist() == [int(array[0]) for array in arrays] == [k + 100 for k in range(64)]


@ALL_ENGINES
@pytest.mark.parametrize("view", [np.s_[::-1], np.s_[::2], np.s_[2:6], np.s_[:, ::-1], np.s_[1:3, 2:4]])
def test_views_reach_from_their_first_to_their_last_byte(engine: str, view: object) -> None:
    array = np.arange(64, dtype=np.uint32).reshape(8, 8)
    part = array[view]  # type: ignore[index]
    addresses = [part[k, j : j + 1].ctypes.data for k in range(part.shape[0]) for j in range(part.shape[1])]
    for address in (min(addresses), max(addresses)):
        assert run_u64(f"ld.u32 %out, [{address}];", engines=[engine], mem=[part])[0] < 64
    for address in (min(addresses) - 4, max(addresses) + 4):
        with pytest.raises(PtxFault):
            run_u64(f"ld.u32 %out, [{address}];", engines=[engine], mem=[part])


@ALL_ENGINES
def test_odd_addresses_of_arrays(engine: str) -> None:
    """An array may begin anywhere; what is aligned in it is accessible."""
    whole = np.arange(64, dtype=np.uint8)
    part = whole[3:29]
    first = -(-part.ctypes.data // 8) * 8
    expected = int.from_bytes(whole.tobytes()[first - whole.ctypes.data :][:8], "little")
    assert run_u64(f"ld.u64 %out, [{first}];", engines=[engine], mem=[part]) == [expected]
    with pytest.raises(PtxFault):
        run_u64(f"ld.u64 %out, [{first - 8}];", engines=[engine], mem=[part])


@ALL_ENGINES
def test_arguments(engine: str) -> None:
    text = (
        HEADER
        + """.visible .entry k(.param .u64 p, .param .u8 a, .param .f32 b, .param .f64 c, .param .u32 d,
    .param .align 8 .b8 e[16], .param .u64 f, .param .u16 g) { .reg .u64 %p, %v; .reg .u32 %r; .reg .f32 %f; .reg .f64 %d;
    ld.param.u64 %p, [p]; ld.param.u8 %r, [a]; cvt.u64.u32 %v, %r; st.u64 [%p], %v; ld.param.f32 %f, [b];
    cvt.f64.f32 %d, %f; st.f64 [%p+8], %d; ld.param.f64 %d, [c]; st.f64 [%p+16], %d; ld.param.s32 %v, [d];
    st.u64 [%p+24], %v; ld.param.v2.u64 {%v, %p}, [e]; ld.param.u64 %p, [p]; st.u64 [%p+32], %v; ld.param.u64 %v, [e+8];
    st.u64 [%p+40], %v; ld.param.u64 %v, [f]; st.u64 [%p+48], %v; ld.param.u16 %v, [g]; st.u64 [%p+56], %v; ret; }"""
    )
    found = np.zeros(8, np.uint64)
    structure = np.array([5, 6], np.uint64).tobytes()
    arguments = [Ptr(found), -1, 1.5, np.float32(2.5), -7, structure, 2**64 - 1, True]
    Module(text).launch("k", 1, 1, arguments, engine=engine)
    assert found[[0, 3, 4, 5, 6, 7]].tolist() == [255, 2**64 - 7, 5, 6, 2**64 - 1, 1]
    assert found[1:3].view(np.float64).tolist() == [1.5, 2.5]


@ALL_ENGINES
def test_arrays_as_numba_passes_them(engine: str) -> None:
    names = "meminfo parent nitems itemsize data n0 n1 s0 s1".split()
    stores = "".join(f"ld.param.u64 %v, [{name}]; st.u64 [%p+{8 * k}], %v;" for k, name in enumerate(names))
    parameters = ", ".join(f".param .u64 {name}" for name in names)
    text = f"{HEADER}.visible .entry k(.param .u64 p, {parameters}) {{ .reg .u64 %p, %v; ld.param.u64 %p, [p]; {stores} ret; }}"
    found = np.zeros(9, np.uint64)
    array = np.zeros((3, 5), np.float32)
    Module(text).launch("k", 1, 1, (Ptr(found), (array,)), engine=engine)
    assert found.tolist() == [0, 0, 15, 4, array.ctypes.data, 3, 5, 20, 4]


@ALL_ENGINES
def test_printing(engine: str) -> None:
    before = """.extern .func (.param .b32 r) vprintf (.param .b64 f, .param .b64 a);
    .global .b8 text[4] = {37, 100, 10, 0};"""
    body = """.reg .u64 %t; mov.u64 %t, text; mov.u64 %out, 6; { .param .b64 f; .param .b64 a; .param .b32 r;
    st.param.b64 [f], %t; st.param.b64 [a], 0; call.uni (r), vprintf, (f, a); }"""
    module = Module(text_of(body, before))
    assert launch("", engine, module=module, block=3)[0].tolist() == [6] * 3
    assert module.printed == ([(b"%d\n", 3)] if engine == "simt" else [])


@ALL_ENGINES
def test_texts_for_printing_are_checked(engine: str) -> None:
    before = ".extern .func (.param .b32 r) vprintf (.param .b64 f, .param .b64 a);"
    body = """mov.u64 %out, 6; { .param .b64 f; .param .b64 a; .param .b32 r; st.param.b64 [f], 12345;
    call.uni (r), vprintf, (f, a); }"""
    if engine == "simt":
        with pytest.raises(PtxFault, match="no text ended by a zero at 0x3039"):
            run_u64(body, before=before, engines=[engine])
    else:
        assert run_u64(body, before=before, engines=[engine]) == [6]


@ALL_ENGINES
def test_addresses_of_32_bits(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared and local memory may be addressed with 32 bits, wherever the host put it."""
    body = """.shared .align 4 .b8 s[16]; .local .align 4 .b8 l[16]; .reg .u32 %a; .reg .u64 %w; mov.u32 %a, s;
    st.shared.u32 [%a+4], 5; cvt.u64.u32 %w, %a; cvta.shared.u64 %w, %w; ld.u32 %out, [%w+4];
    mov.u32 %a, l; st.local.u32 [%a+8], 7; ld.local.u32 %w, [%a+8]; mad.lo.u64 %out, %out, 10, %w;"""
    assert run_u64(body, engines=[engine], block=3) == [57] * 3
    monkeypatch.setattr(memory_module, "_LOW_ADDRESSES", 0)
    assert run_u64(body, engines=[engine], block=3) == [57] * 3


@ALL_ENGINES
def test_state_spaces_of_addresses(engine: str) -> None:
    body = """.shared .align 4 .b8 s[16]; .local .align 4 .b8 l[16]; .reg .u64 %w; .reg .pred %p; mov.u64 %out, 0;"""
    for address in ("s", "l", "results"):
        move = "mov.u64 %w, %results;" if address == "results" else f"mov.u64 %w, {address};"
        for space in ("shared", "local", "global"):
            body += f"{move} isspacep.{space} %p, %w; shl.b64 %out, %out, 1; @%p or.b64 %out, %out, 1;"
    assert run_u64(body, engines=[engine]) == [0b100_010_001]


ATOMICS = [
    *((operation, "u32") for operation in ("inc", "dec")),
    *((operation, type_) for operation in ("and", "or", "xor", "exch", "cas") for type_ in ("u32", "u64")),
    *((operation, type_) for operation in ("add", "min", "max") for type_ in ("u32", "u64", "s32", "s64")),
]


@ALL_ENGINES
@pytest.mark.parametrize(("operation", "type_"), ATOMICS)
@pytest.mark.parametrize("places", [1, 5, 64])
def test_atomics_are_as_one_lane_after_the_other(engine: str, operation: str, type_: str, places: int) -> None:
    kind = type_ if operation in ("add", "min", "max", "inc", "dec") else f"b{type_[1:]}"
    width = int(type_[1:])
    random = np.random.default_rng(5)
    start = random.integers(0, 6, places).astype(f"u{width // 8}")
    memory = start.copy()
    body = f""".reg .u64 %o; .reg .u32 %k; .reg .{kind[0]}{width} %old, %v; ld.param.u64 %o, [other];
    rem.u32 %k, %thread, {places}; mad.wide.u32 %o, %k, {width // 8}, %o; mul.lo.u32 %k, %thread, 7; rem.u32 %k, %k, 5;
    cvt.u{width}.u32 %v, %k; atom.global.{operation}.{kind} %old, [%o], %v{", 3" if operation == "cas" else ""};
    cvt.u64.u{width} %out, %old;"""
    found = run_u64(body, engines=[engine], block=64, other=memory)
    mask = (1 << width) - 1
    signed = lambda x: x - (1 << width) if type_[0] == "s" and x >> (width - 1) else x  # noqa: E731
    combine = {
        "add": lambda a, b: (a + b) & mask,
        "min": lambda a, b: min(a, b, key=signed),
        "max": lambda a, b: max(a, b, key=signed),
        "and": lambda a, b: a & b,
        "or": lambda a, b: a | b,
        "xor": lambda a, b: a ^ b,
        "exch": lambda a, b: b,
        "inc": lambda a, b: 0 if a >= b else a + 1,
        "dec": lambda a, b: b if a == 0 or a > b else a - 1,
        "cas": lambda a, b: 3 if a == b else a,
    }[operation]
    expected = [int(x) for x in start]
    olds = []
    for lane in range(64):
        place = lane % places
        olds.append(expected[place])
        expected[place] = combine(expected[place], lane * 7 % 5)
    assert memory.tolist() == expected
    assert found == olds


@ALL_ENGINES
def test_float_atomics(engine: str) -> None:
    memory = np.array([1.0, np.nan], np.float32)
    body = """.reg .u64 %o; .reg .f32 %f; ld.param.u64 %o, [other]; mov.u64 %out, 0; atom.add.f32 %f, [%o], 0f3F000000;
    red.add.f32 [%o+4], 0f3F000000;"""
    run_u64(body, engines=[engine], block=8, other=memory)
    assert memory.view(np.uint32).tolist() == [0x40A00000, 0x7FFFFFFF]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": 0}, "grid"),
        ({"block": (1, 2, 3, 4)}, "block"),
        ({"block": 1025}, "1025 threads"),
        ({"engine": "gpu"}, "no engine 'gpu'"),
        ({"shared": -1}, "shared"),
        ({"args": ["x"]}, "cannot be passed as p"),
        ({"args": [b"123456789"]}, "9 bytes for p"),
    ],
)
def test_launches_that_make_no_sense(arguments: dict[str, object], message: str) -> None:
    given = {"kernel": "k", "grid": 1, "block": 1, "args": [0]} | arguments
    with pytest.raises(ArgumentError, match=message):
        Module(HEADER + INCREMENT).launch(**given)  # type: ignore[arg-type]


def test_wrong_number_of_arguments() -> None:
    with pytest.raises(PtxError, match="k takes 1 parameters, 2 given"):
        Module(HEADER + INCREMENT).launch("k", 1, 1, [0, 1])


def test_block_sizes_of_kernels() -> None:
    text = HEADER + ".entry a() .maxntid 8, 4 { ret; } .entry b() .reqntid 16 .minnctapersm 2 { ret; }"
    module = Module(text)
    module.launch("a", 1, (4, 8))
    module.launch("b", 1, 16)
    with pytest.raises(PtxError, match="up to 32 threads"):
        module.launch("a", 1, 33)
    with pytest.raises(PtxError, match="requires blocks of"):
        module.launch("b", 1, 8)


def test_bad_options() -> None:
    with pytest.raises(ArgumentError, match="jit_opt"):
        Module(HEADER, jit_opt=4)
    with pytest.raises(ArgumentError, match="no variable 'x'"):
        Module(HEADER).variable("x")


def test_errors_belong_to_the_package() -> None:
    for kind in (PtxError, PtxFault, PtxUnsupported):
        assert issubclass(kind, VmjitError)


def test_launches_cost_little() -> None:
    """A millisecond is far more than one takes; the best of many is not what else the machine does."""
    module = Module(HEADER + INCREMENT)
    array = np.zeros(32, np.uint64)
    module.memory.add(array)
    for engine in ENGINES:
        best = 1.0
        for _ in range(30):
            start = time.perf_counter()
            module.launch("k", 1, 32, [array.ctypes.data], engine=engine)
            best = min(best, time.perf_counter() - start)
        assert best < 1e-3


def test_what_importing_imports() -> None:
    code = "import sys, vmjit; print('vmjit.ptx' in sys.modules); import vmjit.ptx; print('llvmlite' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["False", "False"]


def test_the_simt_engine_does_not_import_llvm() -> None:
    code = f"""import sys, vmjit.ptx; m = vmjit.ptx.Module({HEADER + ".entry k() { ret; }"!r}); m.launch("k", 1, 1, engine="simt")
print('llvmlite' in sys.modules); m.launch("k", 1, 1); print('llvmlite' in sys.modules)"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["False", "True"]
