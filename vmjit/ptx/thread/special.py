"""Special registers as LLVM IR, for one thread (PTX ISA, "Special Registers")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmjit.ptx.errors import PtxUnsupported
from vmjit.ptx.thread.context import Word

if TYPE_CHECKING:
    from vmjit.ptx.thread.codegen import FunctionCode

_COORDINATES = {"%tid": Word.THREAD, "%ctaid": Word.BLOCK, "%ntid": Word.NTID, "%nctaid": Word.NCTAID}
_CONSTANTS = {
    "WARP_SZ": 32,
    "%smid": 0,
    "%nsmid": 1,
    "%gridid": 0,
    "%tid.w": 0,
    "%ctaid.w": 0,
    "%ntid.w": 1,
    "%nctaid.w": 1,
}
_WORDS = {"%dynamic_smem_size": Word.DYNAMIC_SHARED, "%total_smem_size": Word.SHARED_BYTES}


def special(code: FunctionCode, name: str) -> str:
    """The value of a special register, an i64. Clocks count the thread instructions of the launch."""
    if name in _CONSTANTS or name.startswith("%envreg"):
        return str(_CONSTANTS.get(name, 0))
    if name in _WORDS:
        return code.context(_WORDS[name])
    register, _, axis = name.partition(".")
    if register in _COORDINATES:
        return code.context(_COORDINATES[register] + "xyz".index(axis))
    if register in ("%laneid", "%warpid", "%nwarpid") or register.startswith("%lanemask"):
        return _in_warp(code, name)
    if name in ("%clock", "%clock64", "%globaltimer", "%globaltimer_lo"):
        return code.value("load i64, ptr %count")
    if name in ("%clock_hi", "%globaltimer_hi"):
        return code.value(f"lshr i64 {code.value('load i64, ptr %count')}, 32")
    raise PtxUnsupported(f"{name} (not supported by the thread engine)")


def _linear_thread(code: FunctionCode) -> str:
    x, y, z = (code.context(word) for word in (Word.THREAD, Word.THREAD_Y, Word.THREAD_Z))
    width, height = code.context(Word.NTID), code.context(Word.NTID_Y)
    row = code.value(f"add i64 {code.value(f'mul i64 {z}, {height}')}, {y}")
    return code.value(f"add i64 {code.value(f'mul i64 {row}, {width}')}, {x}")


def _in_warp(code: FunctionCode, name: str) -> str:
    if name == "%nwarpid":
        threads = "1"
        for word in (Word.NTID, Word.NTID_Y, Word.NTID_Z):
            threads = code.value(f"mul i64 {threads}, {code.context(word)}")
        return code.value(f"lshr i64 {code.value(f'add i64 {threads}, 31')}, 5")
    thread = _linear_thread(code)
    if name == "%warpid":
        return code.value(f"lshr i64 {thread}, 5")
    lane = code.value(f"and i64 {thread}, 31")
    return lane if name == "%laneid" else _lane_mask(code, lane, name.rpartition("_")[2])


def _lane_mask(code: FunctionCode, lane: str, relation: str) -> str:
    equal = code.value(f"shl i64 1, {lane}")
    if relation == "eq":
        return equal
    less = code.value(f"sub i64 {equal}, 1")
    if relation == "lt":
        return less
    if relation == "ge":
        return code.value(f"xor i64 {less}, 4294967295")
    less_or_equal = code.value(f"or i64 {less}, {equal}")
    return less_or_equal if relation == "le" else code.value(f"xor i64 {less_or_equal}, 4294967295")
