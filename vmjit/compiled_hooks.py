"""Compiles hooks with Numba to functions that translated code calls (`translators/interpreter.py`, `call_hook`).

Such a function gets a pointer to the lane's registers in the frame and the frame's address. Loads and stores go through
the interpreter's own slow accesses, so windows, permissions and interleaved memory are as for the guest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core.errors import NumbaError
from numba.extending import intrinsic, overload

from vmjit import hooks
from vmjit.checks import shown
from vmjit.errors import ArgumentError
from vmjit.kernels.layout import HOOK_FAILS, HOOK_FAULTS, HOOK_GOES_ON, HOOK_STOPS, Frame

_I1, _I64 = ir.IntType(1), ir.IntType(64)
_POINTER = ir.PointerType(ir.IntType(8))


def _field(builder: ir.IRBuilder, frame: Any, place: int) -> Any:
    address = builder.add(frame, ir.Constant(_I64, place))
    return builder.inttoptr(address, ir.PointerType(_I64))


def _access(builder: ir.IRBuilder, place: int, args: tuple[Any, ...], last: Any) -> Any:
    """Call the frame's slow access of (frame, mask, address, size); notes where it is not permitted."""
    frame, mask, address, size = args
    type_ = ir.FunctionType(_I1, [_POINTER, _I64, _I64, _I64, last.type])
    function = builder.inttoptr(builder.load(_field(builder, frame, place)), ir.PointerType(type_))
    pointer = builder.inttoptr(frame, _POINTER)
    good = builder.call(function, [pointer, builder.and_(address, mask), size, mask, last])
    fault = _field(builder, frame, Frame.HOOK_FAULT)
    bad = builder.zext(builder.not_(good), _I64)
    builder.store(builder.or_(builder.load(fault), bad), fault)
    return good


@intrinsic  # type: ignore[untyped-decorator]
def _slow_load(context: Any, frame: Any, mask: Any, address: Any, size: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        with builder.goto_entry_block():
            out = builder.alloca(_I64)
        builder.store(ir.Constant(_I64, 0), out)
        good = _access(builder, Frame.SLOW_LOAD, args, builder.bitcast(out, _POINTER))
        return builder.select(good, builder.load(out), ir.Constant(_I64, 0))

    return types.uint64(types.uint64, types.uint64, types.uint64, types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _slow_store(context: Any, frame: Any, mask: Any, address: Any, size: Any, value: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        _access(builder, Frame.SLOW_STORE, args[:4], args[4])
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64, types.uint64, types.uint64, types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _faulted(context: Any, frame: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return builder.load(_field(builder, args[0], Frame.HOOK_FAULT))

    return types.uint64(types.uint64), generate


_SIZES = hooks.ACCESS_SIZES


@overload(hooks.load)  # type: ignore[untyped-decorator]
def _load(memory: Any, address: Any, size: Any) -> Any:
    def load(memory: Any, address: Any, size: Any) -> Any:
        if size not in _SIZES:
            raise ValueError("an access has 1, 2, 4 or 8 bytes")
        return _slow_load(memory[0], memory[1], address, size)

    return load


@overload(hooks.store)  # type: ignore[untyped-decorator]
def _store(memory: Any, address: Any, size: Any, value: Any) -> Any:
    def store(memory: Any, address: Any, size: Any, value: Any) -> Any:
        if size not in _SIZES:
            raise ValueError("an access has 1, 2, 4 or 8 bytes")
        _slow_store(memory[0], memory[1], address, size, value)

    return store


def _inner(function: Callable[..., Any]) -> Any:
    ready = isinstance(function, numba.core.dispatcher.Dispatcher)
    return function if ready else numba.njit(boundscheck=True)(function)


def _compiled(signature: Any, wrapper: Callable[..., Any], function: Callable[..., Any]) -> Any:
    """A wrapper of a hook as code; `function` is whom errors name."""
    try:
        return numba.cfunc(signature)(wrapper)
    except (NumbaError, NotImplementedError) as error:
        name = getattr(function, "__name__", None) or shown(function)
        raise ArgumentError(
            f"Numba cannot compile the hook {name}; host=True has it called in Python instead. Numba says: {error}"
        ) from error


def compile_hook(function: Callable[..., Any], xlen: int) -> Any:
    """What Numba makes of a hook: `address` is its code. Raises `ArgumentError` where it cannot."""
    word = types.uint32 if xlen == 32 else types.uint64
    mask = (1 << xlen) - 1
    step = 64 // xlen  # in the frame, every register has eight bytes
    count = hooks.X_REGISTERS
    inner = _inner(function)

    def hook(registers: Any, frame: Any) -> Any:
        array = numba.carray(registers, (count, step))[:, 0]
        try:
            stops = bool(inner(array, (types.uint64(frame), types.uint64(mask))))
        except Exception:
            array[0] = 0
            return HOOK_FAILS
        array[0] = 0  # instructions read it
        if _faulted(frame):
            return HOOK_FAULTS
        return HOOK_STOPS if stops else HOOK_GOES_ON

    return _compiled(types.int64(types.CPointer(word), types.uint64), hook, function)


_ACCESS = types.int64(*4 * (types.uint64,), types.CPointer(types.uint64))


def compile_read(function: Callable[..., Any], xlen: int) -> Any:
    """The same of read(memory, address, size), for an access to a device register (`kernels/memory.py`, `mapped`)."""
    mask = (1 << xlen) - 1
    inner = _inner(function)

    def hook(frame: Any, address: Any, size: Any, value: Any, out: Any) -> Any:
        try:
            found = types.uint64(inner((types.uint64(frame), types.uint64(mask)), address, size))
        except Exception:
            return HOOK_FAILS
        if _faulted(frame):
            return HOOK_FAULTS
        if size < 8:
            found &= (types.uint64(1) << (types.uint64(8) * size)) - types.uint64(1)
        numba.carray(out, 1)[0] = found
        return HOOK_GOES_ON

    return _compiled(_ACCESS, hook, function)


def compile_write(function: Callable[..., Any], xlen: int) -> Any:
    """The same of write(memory, address, size, value)."""
    mask = (1 << xlen) - 1
    inner = _inner(function)

    def hook(frame: Any, address: Any, size: Any, value: Any, out: Any) -> Any:
        if size < 8:
            value &= (types.uint64(1) << (types.uint64(8) * size)) - types.uint64(1)
        try:
            inner((types.uint64(frame), types.uint64(mask)), address, size, value)
        except Exception:
            return HOOK_FAILS
        return HOOK_FAULTS if _faulted(frame) else HOOK_GOES_ON

    return _compiled(_ACCESS, hook, function)
