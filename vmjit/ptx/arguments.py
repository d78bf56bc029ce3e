"""Arguments of a launch to the bytes of a kernel's parameters."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmjit.errors import ArgumentError
from vmjit.ptx.assembly.syntax import Function, Variable
from vmjit.ptx.errors import PtxError


class Ptr:
    """An argument that is passed as the address of an array's first element alone."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array


def pack(function: Function, args: Iterable[Any]) -> tuple[NDArray[np.uint8], list[NDArray[Any]]]:
    """The parameters' bytes, and the arrays among the arguments.

    Raises `PtxError` for a wrong number of arguments, `ArgumentError` for one that does not fit its parameter.
    """
    values: list[Any] = []
    arrays: list[NDArray[Any]] = []
    for argument in args:
        _expand(argument, values, arrays)
    if len(values) != len(function.parameters):
        raise PtxError(f"{function.name} takes {len(function.parameters)} parameters, {len(values)} given")
    content = np.zeros(max(function.parameter_bytes, 8), np.uint8)
    for parameter, value in zip(function.parameters, values, strict=True):
        data = _encode(parameter, value)
        if len(data) > parameter.size:
            raise ArgumentError(f"{len(data)} bytes for {parameter.name}, which has {parameter.size}")
        content[parameter.offset : parameter.offset + len(data)] = np.frombuffer(data, np.uint8)
    return content, arrays


def _expand(argument: Any, values: list[Any], arrays: list[NDArray[Any]]) -> None:
    """An array as Numba passes one: meminfo, parent, size, item size, data, shape, strides."""
    if isinstance(argument, np.ndarray):
        arrays.append(argument)
        values += [0, 0, argument.size, argument.itemsize, argument.ctypes.data, *argument.shape, *argument.strides]
    elif isinstance(argument, Ptr):
        arrays.append(argument.array)
        values.append(argument.array.ctypes.data)
    elif isinstance(argument, tuple):
        for item in argument:
            _expand(item, values, arrays)
    else:
        values.append(argument)


def _encode(parameter: Variable, value: Any) -> bytes:
    size = parameter.size
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if parameter.type in ("f32", "f64") or (size in (4, 8) and isinstance(value, (float, np.floating))):
        return struct.pack("<f" if size == 4 else "<d", float(value))
    if isinstance(value, (complex, np.complexfloating)):
        return struct.pack("<dd" if size == 16 else "<ff", value.real, value.imag)
    try:
        return (int(value) & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    except (TypeError, ValueError):
        raise ArgumentError(f"{value!r} cannot be passed as {parameter.name}") from None
