"""The interpreter as loaded code: built once per register file, cached on disk, shared by a process's machines."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from vmjit.cache import CodeCache, cache_key, process_cache
from vmjit.decoders.riscv.decoder import Template, all_templates
from vmjit.decoders.riscv.fusion import fused_templates
from vmjit.ir.registers import RegisterFile
from vmjit.translators.cpu import LoadedCode, cpu_target
from vmjit.translators.interpreter import (
    CALL_HOOK,
    ENTER_COMPILED,
    NEED_CODE,
    FusedKey,
    TemplateKey,
    build_interpreter,
    exported,
    interpreter_keys,
    template_key,
)

_POINTER, _I64 = ctypes.c_void_p, ctypes.c_int64
_RUN_LANES = ctypes.CFUNCTYPE(None, _POINTER, _POINTER, _POINTER, _I64, _POINTER)
_RUN_GROUPS = ctypes.CFUNCTYPE(None, _POINTER, _POINTER, _POINTER, _POINTER, _I64, _POINTER)
_SEPARATE_GROUPS = ctypes.CFUNCTYPE(None, _POINTER, _POINTER, _POINTER, _I64, _POINTER)


@dataclass(frozen=True)
class Interpreter:
    """Addresses of the interpreter's parts; what is called releases the GIL while it runs.

    numbers: the place of each template's handler in `handlers`, which is how slots name it too.
    fused: the address of the handler that runs instructions of two numbers one after the other; the third part of the
    key is as in `FusedKey.passed`.
    """

    numbers: dict[TemplateKey, int]
    handlers: tuple[int, ...]
    fused: dict[tuple[int, int, int | None], int]
    need_code: int
    enter_compiled: int
    call_hook: int
    symbols: dict[str, int]
    run_lanes: Callable[..., Any]
    run_groups: Callable[..., Any]
    separate_groups: Callable[..., Any]
    code: LoadedCode
    _templates: dict[Template, int] = field(default_factory=dict)

    def number(self, template: Template) -> int:
        """The number of a template's handler."""
        number = self._templates.get(template)
        if number is None:
            number = self._templates[template] = self.numbers[template_key(template.ops, template.terminator)]
        return number


def _fused_keys(registers: RegisterFile) -> list[FusedKey]:
    return list(
        dict.fromkeys(
            FusedKey(
                template_key(pair.first.ops, pair.first.terminator),
                template_key(pair.second.ops, pair.second.terminator),
                pair.passed,
            )
            for pair in fused_templates(registers)
        )
    )


def _load(registers: RegisterFile, cache: CodeCache) -> Interpreter:
    templates = [template_key(t.ops, t.terminator) for t in all_templates(registers)]
    keys = interpreter_keys(registers, templates)
    pairs = _fused_keys(registers)
    target = cpu_target()
    # Generating the IR takes longer than loading the code, so the sources that generate it stand for it in the key.
    key = cache_key("interpreter", (registers.name, *target.identity))
    code = cache.get(key)
    if code is None:
        image = cache.image(
            key,
            f"the interpreter of {registers.name}",
            lambda: target.compile(build_interpreter(registers, templates, pairs).ir),
        )
        code = target.load(image, exported(registers))
        cache.put(key, code)
    table = (ctypes.c_uint64 * (len(keys) + len(pairs))).from_address(code.addresses["handlers"])
    handlers = tuple(map(int, table))
    numbers = {key: number for number, key in enumerate(keys)}
    return Interpreter(
        numbers,
        handlers[: len(keys)],
        {
            (numbers[pair.first], numbers[pair.second], pair.passed): handler
            for pair, handler in zip(pairs, handlers[len(keys) :], strict=True)
        },
        code.addresses[NEED_CODE],
        code.addresses[ENTER_COMPILED],
        code.addresses[CALL_HOOK],
        code.addresses,
        _RUN_LANES(code.addresses["run_lanes"]),
        _RUN_GROUPS(code.addresses["run_groups"]),
        _SEPARATE_GROUPS(code.addresses["separate_groups"]),
        code,
    )


@lru_cache(maxsize=4)
def interpreter_for(registers: RegisterFile) -> Interpreter:
    """The interpreter for guests with these registers."""
    return _load(registers, process_cache())
