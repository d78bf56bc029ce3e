"""PTX as text: several modules into one."""

from __future__ import annotations

import re
from collections.abc import Sequence

_HEADER = re.compile(r"^\s*\.(version|target|address_size)\b.*$", re.MULTILINE)
_DECLARATION = re.compile(r"^\.extern\s+\.func\b[^;{]*;", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"^//.*\n|^\s*//\s*\.(?:globl|weak)\b.*\n", re.MULTILINE)
_VISIBLE = re.compile(r"^\.visible\s+\.func\b", re.MULTILINE)
_DEFINED = re.compile(r"^(?:\.visible\s+|\.weak\s+)?\.func\s+(?:\([^)]*\)\s*)?([\w$]+)", re.MULTILINE)


def defined_functions(text: str) -> list[str]:
    """The names of the device functions that a module defines or declares for itself."""
    return _DEFINED.findall(text)


def merge(texts: Sequence[str]) -> str:
    """One module from several for the same architecture, each before those that call its functions.

    Functions become local to the module, which lets ptxas choose their calling convention. Raises ValueError where two
    modules are for different architectures or define the same function.
    """
    headers = ["\n".join(m.group(0).strip() for m in _HEADER.finditer(text)) for text in texts]
    if len(set(headers)) != 1:
        raise ValueError("the modules are for different architectures or versions of PTX")
    bodies = []
    seen: set[str] = set()
    for text in texts:
        body = _COMMENT.sub("", _DECLARATION.sub("", _HEADER.sub("", text)))
        names = set(defined_functions(body))
        if names & seen:
            raise ValueError(f"defined twice: {', '.join(sorted(names & seen))}")
        seen |= names
        bodies.append(_VISIBLE.sub(".func", body).strip())
    return headers[0] + "\n\n" + "\n\n".join(bodies) + "\n"
