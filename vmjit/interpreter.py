"""The interpreter as loaded code: built once per ISA width, cached on disk, shared by all machines of the process."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from vmjit.cache import CodeCache, cache_key, process_cache
from vmjit.decoders.riscv.decoder import all_templates
from vmjit.decoders.riscv.registers import REGISTERS
from vmjit.translators.cpu import LoadedCode, cpu_target
from vmjit.translators.interpreter import (
    ENTER_COMPILED,
    EXPORTED,
    NEED_CODE,
    TemplateKey,
    build_interpreter,
    interpreter_keys,
    template_key,
)

_POINTER, _I64 = ctypes.c_void_p, ctypes.c_int64
_RUN_LANES = ctypes.CFUNCTYPE(None, _POINTER, _POINTER, _POINTER, _I64, _POINTER)
_RUN_GROUPS = ctypes.CFUNCTYPE(None, _POINTER, _POINTER, _POINTER, _POINTER, _I64, _POINTER)


@dataclass(frozen=True)
class Interpreter:
    """Addresses of the interpreter's parts; `run_lanes` and `run_groups` release the GIL while they run."""

    handlers: dict[TemplateKey, int]
    need_code: int
    enter_compiled: int
    symbols: dict[str, int]
    run_lanes: Callable[..., Any]
    run_groups: Callable[..., Any]
    code: LoadedCode


def _load(xlen: int, cache: CodeCache) -> Interpreter:
    registers = REGISTERS[xlen]
    templates = [template_key(t.ops, t.terminator) for t in all_templates(xlen)]
    keys = interpreter_keys(registers, templates)
    target = cpu_target()
    # Generating the IR takes longer than loading the code, so the sources that generate it stand for it in the key.
    key = cache_key("interpreter", (str(xlen), *target.identity))
    code = cache.get(key)
    if code is None:
        image = cache.image(
            key, f"the interpreter of rv{xlen}", lambda: target.compile(build_interpreter(registers, templates).ir)
        )
        code = target.load(image, EXPORTED)
        cache.put(key, code)
    table = (ctypes.c_uint64 * len(keys)).from_address(code.addresses["handlers"])
    return Interpreter(
        dict(zip(keys, (int(a) for a in table), strict=True)),
        code.addresses[NEED_CODE],
        code.addresses[ENTER_COMPILED],
        code.addresses,
        _RUN_LANES(code.addresses["run_lanes"]),
        _RUN_GROUPS(code.addresses["run_groups"]),
        code,
    )


@lru_cache(maxsize=4)
def interpreter_for(xlen: int) -> Interpreter:
    """The interpreter for guests of this width."""
    return _load(xlen, process_cache())
