"""Pinned: the machine instructions that each row of the instruction tables costs on each target.

    pytest tests/filetests/test_instruction_counts.py --update-golden

rewrites `counts/TARGET.json` and prints what changed, a line a row. `rows.py` says what is compiled for a row and what
that is compared with, `machine_counts.py` what is counted. A count that is not the pinned one fails, also where it is
lower: pinned again, it keeps what was gained. With other versions of LLVM or of NVIDIA's compilers than the file says,
counts are other ones, and its tests are skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.devices.golden_values import Golden
from tests.filetests.machine_counts import AMD, CUDA, TARGETS, instructions_by_label, instructions_of_ptx
from tests.filetests.rows import row_regions
from vmjit.decoders.riscv.tables import ALL_ROWS
from vmjit.ir.types import Type
from vmjit.translators import lowering

COUNTS = Path(__file__).with_name("counts")

OpenGolden = Callable[..., Golden]


@pytest.fixture
def open_golden(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> OpenGolden:
    def opened(target: str, folder: Path = COUNTS) -> Golden:
        return Golden(f"{target}.json", request, capsys, folder=folder)

    return opened


def complaints(found: dict[str, int], prefix: str, golden: Golden, tools: dict[str, str]) -> list[str]:
    """What is worse or better than what is pinned."""
    wrong = []
    for name, count in found.items():
        pinned = golden.pinned(prefix + name, count, tools)
        if count != pinned:
            wrong.append(f"{name} {'got worse' if count > pinned else 'got better'}: {count}, and {pinned} is pinned")
    return wrong


# rv32's rows are rv64's but for a few: where compiling takes long, they are of `make test-all`.
_LONG = (CUDA, "gfx942")


@pytest.mark.parametrize(
    ("target", "xlen"),
    [
        pytest.param(target, xlen, marks=pytest.mark.slow if target in _LONG and xlen == 32 else ())
        for target in TARGETS
        for xlen in (32, 64)
    ],
)
def test_counts(target: str, xlen: int, open_golden: OpenGolden) -> None:
    if target == CUDA:
        pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
    counted, golden, prefix = TARGETS[target], open_golden(target), f"rv{xlen} "
    tools = counted.tools()
    if not golden.comparable(tools):
        pytest.skip(f"counts of {golden.tools} are pinned, and these would be of {tools}")
    found = counted.rows(row_regions(xlen))
    wrong = complaints(found, prefix, golden, tools)
    assert not wrong, "\n".join([f"{target}, rv{xlen}; pytest --update-golden pins what is meant:", *wrong])
    assert not golden.superfluous(prefix, {prefix + name for name in found})


def test_every_row_is_counted() -> None:
    """But those that have no meaning and those that stand for others."""
    for xlen in (32, 64):
        counted = {row.row for row in row_regions(xlen)}
        left = {row for row in ALL_ROWS if xlen in row.xlens} - counted
        assert all(row.expands is not None or row.meaning is None for row in left)
        assert len({row.name for row in row_regions(xlen)}) == len(counted)


def _rotated(b: Any, t: Type, a: list[Any]) -> Any:
    """A sum with its first operand rotated there and back, which takes more and gives the same."""
    first = lowering.LOWERINGS["rotl"](b, t, [lowering.LOWERINGS["rotr"](b, t, a), a[1]])
    return b.add(first, a[1])


PLANTED = ["x86-64-v3", "x86-64-v3-group", "x86-64-v3-interpreter", "aarch64", AMD]


@pytest.mark.parametrize("target", [*PLANTED, *([CUDA] if find_spec("numba_cuda") is not None else [])])
def test_a_lowering_that_gets_worse_fails(
    target: str, open_golden: OpenGolden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for row in row_regions(64) if row.name in ("add", "sub")]
    counted = TARGETS[target]
    tools, golden = counted.tools(), open_golden(target, tmp_path)
    before = counted.rows(rows)
    golden.update, golden.tools, golden.values = False, tools, before
    assert complaints(before, "", golden, tools) == []
    monkeypatch.setitem(lowering.LOWERINGS, "add", _rotated)
    found = complaints(counted.rows(rows), "", golden, tools)
    assert "add got worse" in [text.split(":")[0] for text in found]
    assert all(text.startswith("add") for text in found)
    assert not golden.comparable({"llvm": "another"})


def test_an_update_says_what_changed(
    open_golden: OpenGolden, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def opened(*, update: bool) -> Golden:
        golden = open_golden("cpu", tmp_path)
        golden.update, golden.capsys = update, SimpleNamespace(disabled=nullcontext)  # type: ignore[assignment]
        return golden

    tools = {"llvm": "1"}
    assert complaints({"add": 1, "sub": 2, "xor": 1}, "rv32 ", opened(update=True), tools) == []
    capsys.readouterr()
    changed = {"add": 1, "sub": 3}
    assert complaints(changed, "rv32 ", opened(update=False), tools) == ["sub got worse: 3, and 2 is pinned"]
    assert opened(update=False).superfluous("rv32 ", {"rv32 add", "rv32 sub"}) == {"rv32 xor"}
    golden = opened(update=True)
    assert complaints(changed, "rv32 ", golden, tools) == []
    assert golden.superfluous("rv32 ", {"rv32 add", "rv32 sub"}) == set()
    assert capsys.readouterr().out.split("\n") == ["", "cpu.json: rv32 sub: 2 -> 3", "cpu.json: rv32 xor: gone"]
    assert opened(update=False).values == {"rv32 add": 1, "rv32 sub": 3}
    with pytest.raises(AssertionError, match="nothing is pinned for rv32 or"):
        complaints({"or": 1}, "rv32 ", opened(update=False), tools)


X86_TEXT = """\
	.text
first:
	.cfi_startproc
	movq	%rdi, %rax
.LBB0_1:
	addq	$1, %rax   # twice
	jmp	.LBB0_1
.Lfunc_end0:
	.size	first, .Lfunc_end0-first
	.section .rodata
second:
	retq
"""
PTX_TEXT = """\
.version 9.0

.visible .func  (.param .b64 func_retval0) first(
	.param .b64 first_param_0
)
{
	.reg .pred 	%p<2>;
	.loc	1 2 3

	ld.param.u64 	%rd1, [first_param_0];
	setp.lt.s64 	%p1, %rd1, 1;
	@%p1 bra 	$L__BB0_2;

$L__BB0_2:
	ret;

}
"""


def test_what_counts_as_an_instruction() -> None:
    assert instructions_by_label(X86_TEXT) == {"first": 3, "second": 1}
    assert instructions_of_ptx(PTX_TEXT) == {"first": 4}
