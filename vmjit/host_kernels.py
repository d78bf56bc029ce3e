"""Kernels for the host's own work on large memory, each compiled when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from vmjit.cache import cache_key, process_cache
from vmjit.translators.cpu import cpu_target


@cache
def host_kernel(symbol: str, emit: Callable[[], str], prototype: Any, purpose: str) -> Any:
    """The function `symbol` of the LLVM IR that `emit` gives, as a ctypes `prototype`; `purpose` names it in errors.

    Calls of it release the GIL.
    """
    target, text = cpu_target(), emit()
    key = cache_key(symbol, (text, *target.identity))
    code = target.load(process_cache().image(key, purpose, lambda: target.compile(text)), (symbol,))
    function = prototype(code.addresses[symbol])
    function.code = code  # which must live as long
    return function
