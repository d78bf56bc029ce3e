"""Cases of `lower/`: a block, as bytes or as IR, and the LLVM IR that it becomes on each target.

    test: lower
    isa: rv64i
    targets: scalar, group

    code:
      33 85 c5 00   ; add a0, a1, a2

    expect scalar:
      ...
    expect group:
      ...

In place of `code:` there may be `block:`, which is IR. Without `targets:` all of `lowered_text.TARGETS` are expected;
what is shown of each is said there. The interpreter is a target of single instructions. `memory: pages` is memory as
programs for Linux have it. `pytest --update-golden` rewrites what is expected and prints the difference.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.filetests.files import case_files, case_id, check_listing, check_texts, decoded, hold, written_block
from tests.filetests.lowered_text import MEMORY, TARGETS, Lowered
from vmjit.cases.case_file import CaseFile, decoder_of, read_case
from vmjit.cases.run_case import code_address, code_bytes
from vmjit.translators import lowering

LOWER = case_files("lower")


def targets_of(case: CaseFile) -> list[str]:
    return case.settings["targets"].split(", ") if "targets" in case.settings else list(TARGETS)


def lowered(case: CaseFile) -> Lowered:
    windows = MEMORY[case.settings.get("memory", "segments")]
    if "block" in case.sections:
        return Lowered(written_block(case), windows)
    check_listing(case)
    decoder, code, start = decoder_of(case.settings["isa"]), code_bytes(case), code_address(case)
    block = decoded(case)
    one = len(block.instructions) == 1
    return Lowered(block, windows, decoder.template(decoder.decode(lambda pc, n: code, start)) if one else None)


def check_lower(path: Path, *, update: bool = False) -> str:
    """Hold a lower case against the targets. With `update` what it expects is rewritten; gives the difference."""
    case = read_case(path)
    assert case.settings["test"] == "lower"
    given = lowered(case)
    found = {f"expect {target}": TARGETS[target](given) for target in targets_of(case)}
    difference = check_texts(path, found, update=update)
    expected = {name for name in read_case(path).sections if name.startswith("expect")}
    assert expected == set(found), "other targets are expected than are to be"
    return difference


@pytest.mark.parametrize("path", LOWER, ids=case_id)
def test_lower(path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    hold(check_lower, path, request, capsys)


def test_every_target_has_cases() -> None:
    assert {target for path in LOWER for target in targets_of(read_case(path))} == set(TARGETS)


GOOD = """\
# A comment that stays.
test: lower
isa: rv64i
at: 0x1000
targets: scalar, group

code:
  33 85 c5 00 ; add a0, a1, a2

expect scalar:
    %0 = getelementptr i8, ptr %arg1, i64 304
    %1 = load ptr, ptr %0, align 8
    %2 = getelementptr i8, ptr %1, i64 8
    %3 = load ptr, ptr %2, align 8
  enough:
    %4 = load i64, ptr %x11
    %5 = load i64, ptr %x12
    %6 = add i64 %4, %5
    store i64 %6, ptr %x10
    br label %outside
  outside:
    %7 = getelementptr i8, ptr %3, i64 8
    %8 = load ptr, ptr %7, align 8
    br label %exit

expect group:
  enough:
    %0 = load <4 x i64>, ptr %x11
    %1 = load <4 x i64>, ptr %x12
    %2 = add <4 x i64> %0, %1
    store <4 x i64> %2, ptr %x10
    br label %exit
"""


def test_another_lowering_fails_and_can_be_updated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "case.test"
    path.write_text(GOOD, encoding="utf-8")
    assert check_lower(path) == ""
    with monkeypatch.context() as other:
        other.setitem(lowering.LOWERINGS, "add", lambda b, t, a: b.sub(a[0], b.sub(lowering.splat(a[0].type, 0), a[1])))
        with pytest.raises(AssertionError, match="sub i64 0"):
            check_lower(path)
        difference = check_lower(path, update=True)
        for line in ("-  %6 = add i64 %4, %5", "+  %6 = sub i64 0, %5", "+  %2 = sub <4 x i64> splat (i64 0), %1"):
            assert f"\n{line}\n" in difference
        assert check_lower(path) == ""
    with pytest.raises(AssertionError, match="add i64"):
        check_lower(path)
    assert check_lower(path, update=True)
    assert path.read_text(encoding="utf-8") == GOOD
    path.write_text(GOOD.replace("scalar, group", "scalar"), encoding="utf-8")
    with pytest.raises(AssertionError, match="other targets"):
        check_lower(path)
    path.write_text(GOOD.replace("scalar, group", "scalar, masked"), encoding="utf-8")
    with pytest.raises(AssertionError, match="expect masked"):
        check_lower(path)
