"""Every opcode that the SIMT engine executes, with what translates it."""

from __future__ import annotations

from vmjit.ptx.simt import (
    codegen_control,
    codegen_conversion,
    codegen_float,
    codegen_integer,
    codegen_logic,
    codegen_memory,
)
from vmjit.ptx.simt.codegen import Translate

OPCODES: dict[str, Translate] = {
    **codegen_integer.OPCODES,
    **codegen_float.OPCODES,
    **codegen_logic.OPCODES,
    **codegen_conversion.OPCODES,
    **codegen_memory.OPCODES,
    **codegen_control.OPCODES,
}
