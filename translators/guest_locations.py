"""Which guest instruction an LLVM instruction comes from, as debug locations: LLVM carries them through its passes and
into every target's code.

The guest's instructions are the lines of one file, by address, numbered above any that Numba gives the Python functions
around a region. Code that belongs to no instruction, such as what stores registers where a region is left, has no
location.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from vmjit.translators.regions import Region

_I32 = ir.IntType(32)
_DWARF_VERSION = 4
_FIRST_LINE = 1 << 20


class GuestLocations:
    """The lines of one region's instructions, for one function at a time."""

    def __init__(self, region: Region) -> None:
        self.pcs = sorted({i.pc for block in region.blocks.values() for i in block.instructions})
        self._lines = {pc: line for line, pc in enumerate(self.pcs, _FIRST_LINE)}
        self._scope: Any = None
        self._places: dict[int, Any] = {}

    def attach(self, function: Any) -> None:
        """Have a function that is emitted next carry locations. Numba's functions have a scope of their own."""
        self._places = {}
        self._scope = getattr(function, "metadata", {}).get("dbg") or _subprogram(function)

    def at(self, builder: Any, pc: int | None) -> None:
        """What `builder` appends from now on belongs to the instruction at `pc`, or to none."""
        if pc is None:
            builder.debug_metadata = None
            return
        if pc not in self._places:
            place = {"line": self._lines[pc], "column": 1, "scope": self._scope}
            self._places[pc] = builder.module.add_debug_info("DILocation", place)
        builder.debug_metadata = self._places[pc]

    def pc_of(self, line: int) -> int | None:
        """The address of the instruction on a line; None for what is no line of the guest's."""
        place = line - _FIRST_LINE
        return self.pcs[place] if 0 <= place < len(self.pcs) else None


def _subprogram(function: Any) -> Any:
    module = function.module
    file = module.add_debug_info("DIFile", {"filename": "guest", "directory": ""})
    unit = module.add_debug_info(
        "DICompileUnit",
        {
            "language": ir.DIToken("DW_LANG_C"),
            "file": file,
            "isOptimized": True,
            "runtimeVersion": 0,
            "emissionKind": ir.DIToken("LineTablesOnly"),
        },
        is_distinct=True,
    )
    module.add_named_metadata("llvm.dbg.cu", unit)
    for key, value in (("Debug Info Version", 3), ("Dwarf Version", _DWARF_VERSION)):
        module.add_named_metadata("llvm.module.flags", [ir.Constant(_I32, 2), key, ir.Constant(_I32, value)])
    type_ = module.add_debug_info("DISubroutineType", {"types": module.add_metadata([])})
    subprogram = module.add_debug_info(
        "DISubprogram",
        {
            "name": function.name,
            "file": file,
            "line": 0,
            "type": type_,
            "spFlags": ir.DIToken("DISPFlagDefinition | DISPFlagOptimized"),
            "unit": unit,
        },
        is_distinct=True,
    )
    function.set_metadata("dbg", subprogram)
    return subprogram
