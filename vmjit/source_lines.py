"""Source lines of a program's instructions, by its ELF file's line tables (DWARF 2 to 5, section 6.2)."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

# (first address, address behind the last, path of the file, line)
_Row = tuple[int, int, PurePosixPath, int]


class SourceLines:
    """Which line of which file the code at an address was compiled from. False where the file says nothing of it.

    Files are named by as much of the end of their paths as tells them from the others of the program: `prog.c`, or
    `a/list.c` where there is `b/list.c` too.
    """

    def __init__(self, rows: list[_Row]) -> None:
        self._rows: list[_Row] = []
        for start, end, path, line in sorted(rows, key=lambda row: row[:2]):
            last = self._rows[-1] if self._rows else None
            if last is not None and last[1:] == (start, path, line):
                self._rows[-1] = (last[0], end, path, line)
            else:
                self._rows.append((start, end, path, line))
        self._starts = [row[0] for row in self._rows]
        self._names = _short_names({row[2] for row in self._rows})

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> SourceLines:
        """Those of an ELF file. Raises OSError where it cannot be read."""
        from elftools.elf.elffile import ELFFile

        rows: list[_Row] = []
        with open(path, "rb") as file:
            # Lines are an extra of files that may be damaged in many ways: of those, what came before stays.
            try:
                elf = ELFFile(file)
                code = [
                    (s["p_vaddr"], s["p_vaddr"] + s["p_memsz"])
                    for s in elf.iter_segments("PT_LOAD")
                    if s["p_flags"] & 1
                ]
                for row in _rows_of(elf.get_dwarf_info()) if elf.has_dwarf_info() else ():
                    # Linkers leave the tables of functions that they dropped, with addresses that are none.
                    if any(lo <= row[0] and row[1] <= hi for lo, hi in code):
                        rows.append(row)
            except Exception:
                pass
        return cls(rows)

    def __bool__(self) -> bool:
        return bool(self._rows)

    @property
    def files(self) -> list[str]:
        """The names of all files that code is from, sorted."""
        return sorted(self._names.values())

    def line(self, pc: int) -> tuple[str, int] | None:
        """(file, line) of the code at an address; None where nothing is said of it."""
        place = bisect_right(self._starts, pc) - 1
        if place < 0 or pc >= self._rows[place][1]:
            return None
        _, _, path, line = self._rows[place]
        return self._names[path], line

    def text(self, pc: int) -> str:
        """`file.c:12`; empty where nothing is said of the address."""
        found = self.line(pc)
        return f"{found[0]}:{found[1]}" if found is not None else ""

    def ranges(self, file: str, line: int) -> list[tuple[int, int]]:
        """(first address, address behind the last) of a line's code, sorted. `file` is a name or the end of a path."""
        paths = self._paths(file)
        return [(start, end) for start, end, path, number in self._rows if number == line and path in paths]

    def addresses(self, file: str, line: int) -> list[int]:
        """Where the code of a line begins, each time that it does."""
        return [start for start, _ in self.ranges(file, line)]

    def lines(self, file: str) -> list[int]:
        """The lines of a file that there is code of, sorted."""
        paths = self._paths(file)
        return sorted({number for _, _, path, number in self._rows if path in paths})

    def _paths(self, file: str) -> set[PurePosixPath]:
        given = PurePosixPath(file).parts
        return {path for path in self._names if given and path.parts[-len(given) :] == given}


def _rows_of(dwarf: Any) -> Iterator[_Row]:
    for unit in dwarf.iter_CUs():
        table = dwarf.line_program_for_CU(unit)
        if table is None:
            continue
        paths = _paths_of(unit, table.header)
        before: Any = None
        for entry in table.get_entries():
            state = entry.state
            if state is None:
                continue
            # A row holds up to the next; line 0 is code that is of no line.
            if before is not None and before.address < state.address and before.line:
                path = paths.get(before.file)
                if path is not None:
                    yield before.address, state.address, path, before.line
            before = None if state.end_sequence else state


def _paths_of(unit: Any, header: Any) -> dict[int, PurePosixPath]:
    """The files of a unit by the number that its line table calls them by, which begins with 1 before DWARF 5."""
    named = unit.get_top_DIE().attributes.get("DW_AT_comp_dir")
    home = PurePosixPath(_decoded(named.value) if named is not None else "")
    first = 0 if header["version"] >= 5 else 1
    # Before DWARF 5 folder 0 is the unit's own, which the table does not list.
    folders = [home] * first + [home / _decoded(folder) for folder in header["include_directory"]]
    found = {}
    for number, file in enumerate(header["file_entry"], first):
        folder = folders[file.dir_index] if 0 <= file.dir_index < len(folders) else home
        found[number] = PurePosixPath(os.path.normpath(folder / _decoded(file.name)))
    return found


def _decoded(name: bytes) -> str:
    return name.decode(errors="replace")


def _short_names(paths: set[PurePosixPath]) -> dict[PurePosixPath, str]:
    """The end of each path that no other one has."""
    found: dict[PurePosixPath, str] = {}
    asked, parts = set(paths), 1
    while asked:
        ends: dict[tuple[str, ...], list[PurePosixPath]] = {}
        for path in paths:
            ends.setdefault(path.parts[-parts:], []).append(path)
        for path in list(asked):
            if len(ends[path.parts[-parts:]]) == 1 or parts >= len(path.parts):
                found[path] = str(PurePosixPath(*path.parts[-parts:]))
                asked.discard(path)
        parts += 1
    return found
