"""PTX texts for tests: headers, and kernels that apply some code to arrays of operands."""

from __future__ import annotations

from collections.abc import Sequence

from vmjit.ptx.types import BITS

HEADER = ".version 7.0\n.target sm_70\n.address_size 64\n"

# %q, %h, %r, %rd, %f, %fd from 1 on are operands, from 10 on results; the rest is free for code under test.
_REGISTERS = (
    ".reg .pred %q<20>; .reg .b16 %h<20>; .reg .b32 %r<40>; .reg .b64 %rd<40>; .reg .f32 %f<20>; .reg .f64 %fd<20>;"
)


def register(type_name: str) -> str:
    """The name without its number of registers that hold a type."""
    by_type = {"pred": "%q", "f32": "%f", "f64": "%fd"}
    by_bits = {8: "%h", 16: "%h", 32: "%r", 64: "%rd"}
    return by_type.get(type_name) or by_bits[BITS[type_name]]


def _load(type_name: str, number: int, place: str) -> str:
    """A register from the u64 at an address."""
    special = {
        "pred": f"and.b64 %rd25, %rd24, 1; setp.ne.u64 %q{number}, %rd25, 0;",
        "f64": f"mov.b64 %fd{number}, %rd24;",
        "f32": f"cvt.u32.u64 %r29, %rd24; mov.b32 %f{number}, %r29;",
    }
    by_bits = {
        64: f"mov.b64 %rd{number}, %rd24;",
        32: f"cvt.u32.u64 %r{number}, %rd24;",
        16: f"cvt.u16.u64 %h{number}, %rd24;",
    }
    return f"ld.global.u64 %rd24, [{place}]; {special.get(type_name) or by_bits[BITS[type_name]]}"


def _store(type_name: str, number: int, place: str) -> str:
    """A register to the u64 at an address."""
    special = {
        "pred": f"selp.u64 %rd26, 1, 0, %q{number};",
        "f64": f"mov.b64 %rd26, %fd{number};",
        "f32": f"mov.b32 %r29, %f{number}; cvt.u64.u32 %rd26, %r29;",
    }
    by_bits = {
        64: f"mov.b64 %rd26, %rd{number};",
        32: f"cvt.u64.u32 %rd26, %r{number};",
        16: f"cvt.u64.u16 %rd26, %h{number};",
    }
    return f"{special.get(type_name) or by_bits[BITS[type_name]]} st.global.u64 [{place}], %rd26;"


def apply_kernel(parts: Sequence[tuple[str, list[str], list[str]]], count: int) -> str:
    """A kernel `k(operands, results)` that applies pieces of code, each (code, result types, operand types).

    Operands are u64[part][3][count], results u64[part][2][count]; a thread handles one of `count`.
    """
    lines = [
        f"{HEADER}.visible .entry k(.param .u64 operands, .param .u64 results)",
        "{",
        ".reg .b32 %i<4>; .reg .b64 %at<4>;",
        "mov.u32 %i0, %ctaid.x; mov.u32 %i1, %ntid.x; mov.u32 %i2, %tid.x; mad.lo.s32 %i3, %i0, %i1, %i2;",
        "mul.wide.u32 %at0, %i3, 8;",
        "ld.param.u64 %at1, [operands]; add.s64 %at1, %at1, %at0;",
        "ld.param.u64 %at2, [results]; add.s64 %at2, %at2, %at0;",
    ]
    for index, (code, results, operands) in enumerate(parts):
        lines += ["{", _REGISTERS]
        lines += [_load(t, k + 1, f"%at1+{(3 * index + k) * 8 * count}") for k, t in enumerate(operands)]
        lines.append(code)
        lines += [_store(t, k + 10, f"%at2+{(2 * index + k) * 8 * count}") for k, t in enumerate(results)]
        lines.append("}")
    return "\n".join([*lines, "ret;", "}"])
