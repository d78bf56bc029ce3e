"""Source lines by address, of programs that a compiler made and of tables as they could be."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest

import vmjit
from tests.cli.conftest import guest
from vmjit.source_lines import SourceLines

GCC = shutil.which("riscv64-linux-gnu-gcc")
needs_gcc = pytest.mark.skipif(GCC is None, reason="no compiler for RISC-V Linux is installed")

# A program of files with the same name and a function of which nothing is said.
SOURCES = {
    "main.c": "int one(int), two(int), silent(int);\nint main(void)\n{\n  return one(1) + two(2) + silent(3);\n}\n",
    "one/part.c": "int one(int x)\n{\n  return x * 3;\n}\n",
    "two/part.c": '#include "inside.h"\nint two(int x)\n{\n  return inside(x) - 1;\n}\n',
    "two/inside.h": "__attribute__((noinline)) static int inside(int x)\n{\n  return x * 7;\n}\n",
    "silent.c": "int silent(int x)\n{\n  return x + 9;\n}\n",
}


def built(folder: Path, version: int) -> Path:
    """The program, with line tables of a version of DWARF."""
    for name, text in SOURCES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    objects = []
    for name in ("main.c", "one/part.c", "two/part.c", "silent.c"):
        objects.append(name.replace("/", "-").replace(".c", ".o"))
        debug = "-g0" if name == "silent.c" else f"-gdwarf-{version}"
        command = [str(GCC), "-O1", debug, "-fno-inline", "-c", name, "-o", objects[-1]]
        subprocess.run(command, cwd=folder, check=True)
    subprocess.run([str(GCC), "-static", *objects, "-o", "program"], cwd=folder, check=True)
    return folder / "program"


@needs_gcc
@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_lines_of_a_compiled_program(version: int, tmp_path: Path) -> None:
    path = built(tmp_path, version)
    lines, symbols = SourceLines.of(path), vmjit.load(path).symbols
    assert lines
    assert lines.files == ["inside.h", "main.c", "one/part.c", "two/part.c"]
    # Of several rows at one address the last says what the code there is for: line 2 is but where it begins.
    assert lines.line(symbols["one"]) == ("one/part.c", 3)
    assert lines.line(symbols["inside"]) == ("inside.h", 3)
    assert lines.text(symbols["main"]) == "main.c:3"
    # Behind the end of a unit's code nothing is said, however near it is.
    assert lines.line(symbols["silent"]) is None
    assert lines.line(symbols["_start"]) is None
    assert lines.text(0) == ""


@needs_gcc
def test_addresses_of_a_line(tmp_path: Path) -> None:
    path = built(tmp_path, 5)
    lines, symbols = SourceLines.of(path), vmjit.load(path).symbols
    assert lines.lines("one/part.c") == [3, 4]
    assert lines.lines("part.c") == [3, 4, 5]  # of both
    assert lines.addresses("one/part.c", 3) == [symbols["one"]]
    assert set(lines.addresses("part.c", 4)) == {*lines.addresses("one/part.c", 4), *lines.addresses("two/part.c", 4)}
    assert lines.ranges(str(tmp_path / "one" / "part.c"), 3) == lines.ranges("one/part.c", 3)
    for start, end in lines.ranges("main.c", 4):
        assert {lines.line(pc) for pc in range(start, end, 2)} == {("main.c", 4)}
    assert lines.addresses("part.c", 99) == lines.addresses("art.c", 4) == lines.addresses("", 4) == []


@needs_gcc
def test_it_says_what_addr2line_says(tmp_path: Path) -> None:
    tool = shutil.which("riscv64-linux-gnu-addr2line")
    if tool is None:
        pytest.skip("no addr2line for RISC-V is installed")
    path = built(tmp_path, 5)
    lines, symbols = SourceLines.of(path), vmjit.load(path).symbols
    asked = [pc for name in ("main", "one", "two") for pc in range(symbols[name], symbols[name] + 24, 2)]
    done = subprocess.run([tool, "-e", path, *map(hex, asked)], capture_output=True, text=True, check=True)
    for pc, said in zip(asked, done.stdout.splitlines(), strict=True):
        file, _, number = said.split(" ")[0].rpartition(":")
        found = lines.line(pc)
        if found is not None and found[0] != "inside.h":  # it says the unit's file for this one's first address
            assert (os.path.basename(file), int(number)) == (os.path.basename(found[0]), found[1]), hex(pc)
    assert sum(lines.line(pc) is not None for pc in asked) > len(asked) // 2


def test_files_that_say_nothing(tmp_path: Path) -> None:
    assert not SourceLines.of(guest("sort"))
    (tmp_path / "text").write_text("no ELF file")
    assert not SourceLines.of(tmp_path / "text")
    with pytest.raises(OSError, match="nothing"):
        SourceLines.of(tmp_path / "nothing")


@needs_gcc
def test_a_damaged_table_costs_its_lines_only(tmp_path: Path) -> None:
    path = built(tmp_path, 5)
    subprocess.run(
        [str(GCC).replace("gcc", "objcopy"), "--dump-section", ".debug_line=lines", "program", "copy"],
        cwd=tmp_path,
        check=True,
    )
    table = (tmp_path / "lines").read_bytes()
    data = path.read_bytes()
    path.write_bytes(data.replace(table, table[: len(table) // 2] + b"\xff" * (len(table) - len(table) // 2)))
    lines = SourceLines.of(path)
    assert set(lines.files) < {"inside.h", "main.c", "one/part.c", "two/part.c", "part.c"}


def test_rows_and_names() -> None:
    a, b, c = (PurePosixPath(text) for text in ("/x/a/f.c", "/y/a/f.c", "/y/g.c"))
    lines = SourceLines([(8, 12, a, 3), (4, 8, a, 3), (20, 24, b, 1), (12, 14, c, 3)])
    assert lines.files == ["g.c", "x/a/f.c", "y/a/f.c"]
    assert lines.ranges("f.c", 3) == [(4, 12)]
    assert [lines.line(pc) for pc in (3, 4, 11, 12, 14, 20, 24)] == [
        None,
        ("x/a/f.c", 3),
        ("x/a/f.c", 3),
        ("g.c", 3),
        None,
        ("y/a/f.c", 1),
        None,
    ]
