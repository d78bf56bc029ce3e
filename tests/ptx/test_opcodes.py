"""Every opcode form on random and edge operands, on both engines, against references on exact numbers."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest

from tests.ptx.forms import FAMILIES, FORMS, Form
from tests.ptx.kernels import apply_kernel
from tests.ptx.operands import Patterns, interpret, mask, operands, without_nan_payload
from vmjit.ptx import Module, Ptr, PtxUnsupported
from vmjit.ptx.types import BITS

COUNT = 1024

# What the thread engine leaves to the SIMT engine.
THREAD_ENGINE_LACKS = re.compile(
    r"""cvt\.sat\. | prmt\.b32\.\w
      | (add|sub|mul|fma)\.(rz|rm|rp)\.f64 | (div|sqrt|rcp)\.(rz|rm|rp)
      | cvt\.(rz|rm|rp)\.f(32|64)\.[us]""",
    re.VERBOSE,
)


@cache
def operands_of(form: Form) -> list[Patterns]:
    near_cancellation = form.name.startswith("fma")
    return operands(form.name, form.operands, COUNT, near_cancellation=near_cancellation)


@cache
def expected(form: Form) -> list[Patterns]:
    """The reference's results, as patterns."""
    columns = [
        [int(pattern) & 1 if t == "pred" else interpret(int(pattern), t) for pattern in values]
        for values, t in zip(operands_of(form), form.operands, strict=True)
    ]
    rows = []
    for numbers in zip(*columns, strict=True):
        result = form.reference(*numbers)
        rows.append(result if isinstance(result, tuple) else (result,))
    return [
        without_nan_payload(np.array([int(row[k]) & mask(max(BITS[t], 1)) for row in rows], np.uint64), t)
        for k, t in enumerate(form.results)
    ]


def run(module: Module, forms: list[Form], engine: str) -> list[list[Patterns]]:
    given = np.zeros((len(forms), 3, COUNT), np.uint64)
    for row, form in zip(given, forms, strict=True):
        row[: len(form.operands)] = operands_of(form)
    results = np.zeros((len(forms), 2, COUNT), np.uint64)
    module.launch("k", COUNT // 128, 128, [Ptr(given), Ptr(results)], engine=engine)
    return [
        [without_nan_payload(row[k], t) for k, t in enumerate(form.results)]
        for row, form in zip(results, forms, strict=True)
    ]


def module_of(forms: list[Form], jit_opt: int) -> Module:
    parts = [(form.code, form.results, form.operands) for form in forms]
    return Module(apply_kernel(parts, COUNT), jit_opt=jit_opt)


def differences(form: Form, found: list[Patterns]) -> list[str]:
    """One line for every result of a form that is not as expected."""
    lines = []
    for k, (right, result) in enumerate(zip(expected(form), found, strict=True)):
        wrong = np.flatnonzero(right != result)
        if len(wrong):
            lane = wrong[0]
            given = ", ".join(hex(int(values[lane])) for values in operands_of(form))
            lines.append(
                f"{form.name} result {k}: {len(wrong)} lanes wrong, such as ({given}) -> {int(result[lane]):#x},"
                f" expected {int(right[lane]):#x}"
            )
    return lines


def family(name: str) -> list[Form]:
    return [form for form in FORMS if form.family == name]


def test_all_forms_are_here() -> None:
    assert len(FORMS) == 631
    assert len({form.name for form in FORMS}) == 631
    assert sum(bool(THREAD_ENGINE_LACKS.match(form.name)) for form in FORMS) == 96


@pytest.mark.parametrize("name", FAMILIES)
def test_simt_engine(name: str) -> None:
    wrong: list[str] = []
    for form in family(name):
        wrong += differences(form, run(module_of([form], 0), [form], "simt")[0])
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", FAMILIES)
def test_thread_engine(name: str) -> None:
    wrong: list[str] = []
    for form in family(name):
        module = module_of([form], 0)
        if THREAD_ENGINE_LACKS.match(form.name):
            with pytest.raises(PtxUnsupported, match=re.escape(f"{form.code.split()[0]} (not supported")):
                run(module, [form], "thread")
        else:
            wrong += differences(form, run(module, [form], "thread")[0])
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("engine", ["simt", "thread"])
@pytest.mark.parametrize("name", FAMILIES)
def test_family_in_one_kernel(name: str, engine: str) -> None:
    """All forms of a family in one kernel, each in a scope with registers of the same names; optimized."""
    forms = [form for form in family(name) if not THREAD_ENGINE_LACKS.match(form.name)]
    if not forms:
        pytest.skip("the thread engine has none of them")
    results = run(module_of(forms, 1), forms, engine)
    wrong = [line for form, found in zip(forms, results, strict=True) for line in differences(form, found)]
    assert not wrong, "\n".join(wrong)
