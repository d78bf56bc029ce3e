"""The case files of this folder, and what those that expect texts have in common."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from vmjit.cases.case_file import CaseFile, decoder_of, parse_listing, read_case
from vmjit.cases.run_case import code_address, code_bytes
from vmjit.ir import Block, parse_block, verify_block

FOLDER = Path(__file__).resolve().parent


def case_files(folder: str) -> list[Path]:
    """The case files below a folder of the file tests."""
    return sorted((FOLDER / folder).rglob("*.test"))


def case_id(path: Path) -> str:
    return path.relative_to(FOLDER).with_suffix("").as_posix()


def section_text(case: CaseFile, name: str) -> str:
    """A section as a text; empty where there is none."""
    return "".join(f"{line}\n" for line in case.sections.get(name, ()))


def check_listing(case: CaseFile) -> None:
    """The disassembly beside the bytes, where there is one, is vmjit's."""
    decoder, place = decoder_of(case.settings["isa"]), code_address(case)
    for data, text in parse_listing(case.sections["code"]):
        if text:
            found = decoder.decode(lambda pc, n, data=data, place=place: data[pc - place :][:n], place)
            assert decoder.text(found) == text, f"at {place:#x}"
        place += len(data)


def decoded(case: CaseFile) -> Block:
    """The block that a case's `code:` decodes to."""
    start, code = code_address(case), code_bytes(case)
    return decoder_of(case.settings["isa"]).block(lambda pc, n: code[pc - start :][:n] if pc >= start else b"", start)


def written_block(case: CaseFile) -> Block:
    """The block that a case's `block:` is."""
    block = parse_block(section_text(case, "block"))
    verify_block(block)
    return block


def check_texts(path: Path, found: Mapping[str, str], *, update: bool) -> str:
    """Hold the sections that a case ends with against the texts found for them, by their names.

    With `update` they are rewritten. Gives the difference. Raises AssertionError where they differ and stay so.
    """
    case = read_case(path)
    difference = "".join(
        line
        for name, text in found.items()
        for line in difflib.unified_diff(
            section_text(case, name).splitlines(True), text.splitlines(True), f"{path.name}: {name}", "found"
        )
    )
    if update and difference:
        head = path.read_text(encoding="utf-8").partition("\nexpect")[0].rstrip()
        bodies = [f"{name}:\n" + "".join(f"  {line}\n" for line in text.splitlines()) for name, text in found.items()]
        path.write_text("\n".join([f"{head}\n", *bodies]), encoding="utf-8")
        case = read_case(path)
    for name, text in found.items():
        assert section_text(case, name) == text, difference
    return difference


def hold(
    check: Callable[..., str], path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Have a case checked, or with `--update-golden` rewritten: then what changed is shown."""
    difference = check(path, update=request.config.getoption("--update-golden"))
    if difference:
        with capsys.disabled():
            print(f"\n{difference}", end="")
