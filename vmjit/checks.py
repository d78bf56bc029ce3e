"""Arguments of the API, checked: what is wrong with one is said in a line, whatever it is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vmjit.errors import ArgumentError

MAX_BUDGET = (1 << 62) - 1

# More lanes than any host has memory for: a slip of the keyboard.
MAX_LANES = 1 << 26

_SHOWN = 60


def shown(value: object) -> str:
    """A value for a message, never longer than some words: numbers may have thousands of digits, texts pages."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def check_on_cpu(device: str, done: str) -> None:
    """Raise `ArgumentError` where lanes are on a device, for what can be `done` to them on the CPU alone."""
    if device != "cpu":
        raise ArgumentError(f"lanes are {done} on the CPU, and these are on {device}")


def is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool_)


def checked_integer(name: str, value: object, least: int, most: int) -> int:
    """`value` as an int from `least` to `most`. Raises `ArgumentError`."""
    if not is_integer(value):
        raise ArgumentError(f"{name} must be a number from {least} to {most}, got {shown(value)}")
    number = int(value)  # type: ignore[call-overload]
    if not least <= number <= most:
        raise ArgumentError(f"{name} must be a number from {least} to {most}, got {shown(number)}")
    return int(number)


def checked_budget(value: object) -> int | None:
    """`max_instructions`: a number of instructions, or None for no limit."""
    return None if value is None else checked_integer("max_instructions", value, 0, MAX_BUDGET)


def checked_seconds(name: str, value: object) -> float | None:
    """A number of seconds of at least 0, or None for no limit."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not float(value) >= 0:
        raise ArgumentError(f"{name} must be a number of seconds, got {shown(value)}")
    return float(value)


def as_unsigned(values: ArrayLike, dtype: np.dtype[Any], lanes: int, what: str) -> NDArray[Any]:
    """A number or (lanes,) integers as (lanes,) of an unsigned type; negative ones are two's complement."""
    most = int(np.iinfo(dtype).max)
    if is_integer(values):
        return np.full(lanes, int(values) & most, dtype)  # type: ignore[arg-type]
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError) as error:
        raise ArgumentError(f"{what} take integers: {error}") from None
    if array.dtype.kind == "f" and isinstance(values, (list, tuple)) and all(map(is_integer, values)):
        # NumPy finds no type for a list with numbers from 2^63 up beside smaller ones.
        array = np.array([int(v) & most for v in values], dtype)
    if array.dtype.kind not in "iu":
        raise ArgumentError(f"{what} take integers, got {array.dtype}")
    if array.shape not in ((), (1,), (lanes,)):
        raise ArgumentError(f"{what}: expected one value or an array of shape ({lanes},), got {array.shape}")
    return np.broadcast_to(array.astype(dtype), (lanes,))
