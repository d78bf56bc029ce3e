"""f32 arithmetic in directed rounding modes as LLVM IR, which itself rounds to nearest: through exact f64 values."""

from __future__ import annotations

from vmjit.ptx.thread.codegen import FunctionCode

_DIRECTED = frozenset(("rz", "rm", "rp"))


def directed_mode(modifiers: tuple[str, ...]) -> str | None:
    return next((m for m in modifiers if m in _DIRECTED), None)


def round_f64_to_f32(code: FunctionCode, a: str, mode: str) -> str:
    """An f64 rounded to f32: to nearest, then one step back where that went the wrong way."""
    nearest = code.value(f"fptrunc double {a} to float")
    wide = code.value(f"fpext float {nearest} to double")
    bits = code.value(f"bitcast float {nearest} to i32")
    is_above, is_below = code.value(f"fcmp ogt double {wide}, {a}"), code.value(f"fcmp olt double {wide}, {a}")
    up, down = _neighbours(code, bits)
    if mode == "rm":
        result = code.select(is_above, "i32", down, bits)
    elif mode == "rp":
        result = code.select(is_below, "i32", up, bits)
    else:
        is_positive = code.value(f"fcmp ogt double {a}, 0.0")
        too_high = code.value(f"and i1 {is_above}, {is_positive}")
        too_low = code.value(f"and i1 {is_below}, {code.value(f'xor i1 {is_positive}, true')}")
        result = code.select(too_low, "i32", up, code.select(too_high, "i32", down, bits))
    return code.value(f"bitcast i32 {result} to float")


def _neighbours(code: FunctionCode, bits: str) -> tuple[str, str]:
    """The bits of the next f32 above and below."""
    is_negative = code.value(f"icmp slt i32 {bits}, 0")
    is_zero = code.value(f"icmp eq i32 {code.value(f'and i32 {bits}, 2147483647')}, 0")
    more, less = code.value(f"add i32 {bits}, 1"), code.value(f"sub i32 {bits}, 1")
    up = code.select(is_zero, "i32", "1", code.select(is_negative, "i32", less, more))
    down = code.select(is_zero, "i32", "-2147483647", code.select(is_negative, "i32", more, less))
    return up, down


def multiply(code: FunctionCode, a: str, b: str, mode: str) -> str:
    product = code.value(f"fmul double {_wide(code, a)}, {_wide(code, b)}")  # exact
    return round_f64_to_f32(code, product, mode)


def add(code: FunctionCode, a: str, b: str, mode: str) -> str:
    return _add(code, _wide(code, a), _wide(code, b), mode)


def fused_multiply_add(code: FunctionCode, a: str, b: str, c: str, mode: str) -> str:
    product = code.value(f"fmul double {_wide(code, a)}, {_wide(code, b)}")
    return _add(code, product, _wide(code, c), mode)


def _wide(code: FunctionCode, a: str) -> str:
    return code.value(f"fpext float {a} to double")


def _add(code: FunctionCode, a: str, b: str, mode: str) -> str:
    """The f64 sum rounded to odd, by Knuth's exact error, and then to f32: as if rounded once."""
    total = code.value(f"fadd double {a}, {b}")
    part = code.value(f"fsub double {total}, {a}")
    error_a = code.value(f"fsub double {a}, {code.value(f'fsub double {total}, {part}')}")
    error = code.value(f"fadd double {error_a}, {code.value(f'fsub double {b}, {part}')}")
    bits = code.value(f"bitcast double {total} to i64")
    is_even = code.value(f"xor i1 {code.value(f'trunc i64 {bits} to i1')}, true")
    is_inexact = code.value(f"and i1 {code.value(f'fcmp one double {error}, 0.0')}, {is_even}")
    error_sign, total_sign = (code.value(f"fcmp ogt double {x}, 0.0") for x in (error, total))
    step = code.select(code.value(f"icmp eq i1 {error_sign}, {total_sign}"), "i64", "1", "-1")
    odd_bits = code.select(is_inexact, "i64", code.value(f"add i64 {bits}, {step}"), bits)
    odd = code.value(f"bitcast i64 {odd_bits} to double")
    if mode == "rm":  # x + -x is -0 when rounding down
        bits_a, bits_b = (code.value(f"bitcast double {x} to i64") for x in (a, b))
        differ = code.value(f"icmp slt i64 {code.value(f'xor i64 {bits_a}, {bits_b}')}, 0")
        is_zero = code.value(f"and i1 {differ}, {code.value(f'fcmp oeq double {total}, 0.0')}")
        odd = code.select(is_zero, "double", "-0.0", odd)
    return round_f64_to_f32(code, odd, mode)
