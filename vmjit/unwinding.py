"""Callers of a lane's instruction, by what the ELF file says of frames (DWARF 5, section 6.4; .eh_frame)."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from typing import Any

_RA, _SP, _FP = 1, 2, 8
_DEEPEST = 64

Read = Callable[[int, int], bytes | None]


class Unwinder:
    """Of one program. Frames of functions that nothing is said of end a stack."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        from elftools.dwarf.callframe import FDE
        from elftools.elf.elffile import ELFFile

        ranges: list[tuple[int, int, Any]] = []
        with open(path, "rb") as file:
            elf = ELFFile(file)
            self._word = elf.elfclass // 8
            dwarf = elf.get_dwarf_info()
            entries = list(dwarf.EH_CFI_entries()) if dwarf.has_EH_CFI() else []
            entries += list(dwarf.CFI_entries()) if dwarf.has_CFI() else []
            for entry in entries:
                if isinstance(entry, FDE):
                    start = entry.header["initial_location"]
                    ranges.append((start, start + entry.header["address_range"], entry.get_decoded().table))
        self._ranges = sorted(ranges, key=lambda r: r[0])
        self._starts = [r[0] for r in self._ranges]
        self._row = lru_cache(maxsize=1 << 16)(self._find_row)

    def _find_row(self, pc: int) -> dict[Any, Any] | None:
        """What holds of the frame at an instruction."""
        number = bisect_right(self._starts, pc) - 1
        if number < 0 or pc >= self._ranges[number][1]:
            return None
        rows = [row for row in self._ranges[number][2] if row["pc"] <= pc]
        return rows[-1] if rows else None

    def callers(self, pc: int, registers: dict[int, int], read: Read) -> list[int]:
        """The addresses of the calls that led to an instruction, the innermost first."""
        found: list[int] = []
        here, values, seen = pc, dict(registers), set[tuple[int, int]]()
        while len(found) < _DEEPEST:
            row = self._row(here)
            if row is None or row["cfa"].reg not in values or getattr(row.get(_RA), "type", "") == "UNDEFINED":
                break
            frame = values[row["cfa"].reg] + row["cfa"].offset
            if (here, frame) in seen:
                break
            seen.add((here, frame))
            for register in (_RA, _FP):
                rule = row.get(register)
                if rule is not None and rule.type == "OFFSET":
                    data = read(frame + rule.arg, self._word)
                    if data is None:
                        return found
                    values[register] = int.from_bytes(data, "little")
            values[_SP] = frame
            caller = values.get(_RA, 0)
            if not caller:
                break
            here = caller - 1  # in the call, where it belongs
            found.append(here)
            if row.get(_RA) is None:
                values.pop(_RA)  # only the innermost frame has it in the register
        return found
