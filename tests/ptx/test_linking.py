"""Several texts in one module: what is shared between them, what each has for itself."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ptx.kernels import HEADER
from tests.ptx.running import ENGINES
from vmjit.ptx import Module, Ptr, PtxError

ALL_ENGINES = pytest.mark.parametrize("engine", ENGINES)

KERNEL = """.visible .entry {name}(.param .u64 p) {{ .reg .u64 %p, %v; ld.param.u64 %p, [p]; {code} st.u64 [%p], %v; ret; }}"""
CALL = "{{ .param .u64 r; call (r), {0}, (); ld.param.u64 %v, [r]; }}"


def function(linkage: str, name: str, value: int) -> str:
    return f"{linkage} .func (.param .u64 r) {name}() {{ st.param.u64 [r], {value}; ret; }}\n"


def declaration(name: str) -> str:
    return f".extern .func (.param .u64 r) {name}();\n"


def calling(kernel: str, name: str, before: str) -> str:
    return HEADER + before + KERNEL.format(name=kernel, code=CALL.format(name))


def result(module: Module, kernel: str, engine: str) -> int:
    found = np.zeros(1, np.uint64)
    module.launch(kernel, 1, 1, [Ptr(found)], engine=engine)
    return int(found[0])


@ALL_ENGINES
@pytest.mark.parametrize("order", [1, -1])
def test_extern_finds_visible(engine: str, order: int) -> None:
    texts = [calling("k", "f", declaration("f")), HEADER + function(".visible", "f", 7)]
    assert result(Module(texts[::order]), "k", engine) == 7


@ALL_ENGINES
def test_both_ways(engine: str) -> None:
    first = calling("k", "f", declaration("f")) + function(".visible", "g", 5)
    second = HEADER + declaration("g") + ".visible .func (.param .u64 r) f() { .reg .u64 %v; "
    second += CALL.format("g") + " add.u64 %v, %v, 1; st.param.u64 [r], %v; ret; }"
    assert result(Module([first, second]), "k", engine) == 6


@ALL_ENGINES
def test_private_names_are_each_texts_own(engine: str) -> None:
    module = Module([calling("a", "f", function("", "f", 1)), calling("b", "f", function("", "f", 2))])
    assert [result(module, k, engine) for k in "ab"] == [1, 2]


@ALL_ENGINES
def test_weak_functions_are_there_once(engine: str) -> None:
    texts = [calling("a", "f", function(".weak", "f", 1)), calling("b", "f", function(".weak", "f", 2))]
    module = Module(texts)
    assert [result(module, k, engine) for k in "ab"] == [1, 1]
    module = Module([*texts, HEADER + function(".visible", "f", 3)])
    assert [result(module, k, engine) for k in "ab"] == [3, 3]


def test_variables_link_too() -> None:
    load = KERNEL.format(name="a", code="ld.u64 %v, [x];")
    module = Module([HEADER + ".extern .global .u64 x;" + load, HEADER + ".visible .global .u64 x = 9;"])
    assert result(module, "a", "simt") == 9
    module.variable("x").view("u8")[0] = 10
    assert result(module, "a", "thread") == 10
    texts = [
        HEADER + ".global .u64 x = 1;" + load,
        HEADER + ".global .u64 x = 2;" + KERNEL.format(name="b", code="ld.u64 %v, [x];"),
    ]
    module = Module(texts)
    assert [result(module, k, "simt") for k in "ab"] == [1, 2]


def test_common_variables_are_as_large_as_the_largest() -> None:
    module = Module([HEADER + ".common .global .b8 x[8];", HEADER + ".common .global .b8 x[24];"])
    assert module.variable("x").size == 24


def test_dynamic_shared_memory_is_one() -> None:
    extern = ".extern .shared .align 8 .b8 s[];"
    first = (
        HEADER + extern + declaration("f") + KERNEL.format(name="k", code="st.shared.u64 [s], 4; " + CALL.format("f"))
    )
    body = ".visible .func (.param .u64 r) f() { .reg .u64 %v; ld.shared.u64 %v, [s]; st.param.u64 [r], %v; ret; }"
    found = np.zeros(1, np.uint64)
    Module([first, HEADER + extern + body]).launch("k", 1, 1, [Ptr(found)], shared=8)
    assert found.tolist() == [4]


def test_defined_twice() -> None:
    with pytest.raises(PtxError, match=r"text 2, line 4: f is defined in another text already"):
        Module([HEADER + function(".visible", "f", 1), HEADER + function(".visible", "f", 2)])
    with pytest.raises(PtxError, match=r"text 2, line 4: x is defined in another text already"):
        Module([HEADER + ".visible .global .u32 x;", HEADER + ".visible .global .u32 x;"])


@ALL_ENGINES
def test_defined_nowhere(engine: str) -> None:
    """An error where it is used, not before."""
    text = HEADER + declaration("f") + ".extern .global .u64 x;" + KERNEL.format(name="a", code=CALL.format("f"))
    text += KERNEL.format(name="b", code="ld.u64 %v, [x];") + KERNEL.format(name="c", code="mov.u64 %v, 3;")
    module = Module(text)
    assert result(module, "c", engine) == 3
    with pytest.raises(PtxError, match=r"line 5: call: f is declared and defined nowhere"):
        result(module, "a", engine)
    with pytest.raises(PtxError, match=r"line 5: x is declared \.extern and defined nowhere"):
        result(module, "b", engine)


@ALL_ENGINES
def test_aliases(engine: str) -> None:
    text = calling("k", "g", function("", "f", 8) + ".func (.param .u64 r) g();\n.alias g, f;\n")
    assert result(Module(text), "k", engine) == 8
    with pytest.raises(PtxError, match="alias of nothing"):
        Module(HEADER + ".alias g, nothing;")


def test_kernels_by_name() -> None:
    texts = [calling(name, "f", function("", "f", 1)) for name in ("first_kernel", "second_kernel")]
    module = Module(texts)
    assert module.entries == ["first_kernel", "second_kernel"]
    assert result(module, "second", "simt") == 1
    for wrong, message in ((None, "more than one kernel"), ("kernel", "more than one"), ("third", "no kernel 'third'")):
        with pytest.raises(PtxError, match=message):
            result(module, wrong, "simt")  # type: ignore[arg-type]
