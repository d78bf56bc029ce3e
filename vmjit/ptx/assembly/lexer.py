"""PTX text to tokens. What only debuggers read (`.loc`, `.file`, DWARF sections) is dropped here."""

from __future__ import annotations

import re
from typing import NamedTuple

from vmjit.ptx.errors import PtxError


class Token(NamedTuple):
    kind: str  # "string", "number", "name", "directive", "mark", "end"
    text: str
    line: int


# Opcodes are one name with their modifiers: "ld.param.u64". `%tid.x` and `shared::cta` are one name too.
_TOKEN = re.compile(
    r"""
    (?P<skip>\s+ | //[^\n]* | /\*.*?\*/ | \.(?:loc|file)\b[^\n]* | \.section\s+[.\w]+\s*\{[^}]*\})
  | (?P<string>"(?:\\.|[^"\\\n])*")
  | (?P<number>0[fF][0-9a-fA-F]{8}(?!\w) | 0[dD][0-9a-fA-F]{16}(?!\w) | 0[xX][0-9a-fA-F]+U? | 0[bB][01]+U?
              | \d+\.\d*(?:[eE][+-]?\d+)? | \d+U?)
  | (?P<name>[%$_A-Za-z][\w$]*(?:(?:\.|::)\w+)*)
  | (?P<directive>\.[A-Za-z_]\w*)
  | (?P<mark>[{}()\[\],;:@!+\-=<>|])
    """,
    re.VERBOSE | re.DOTALL,
)


def tokenize(text: str) -> list[Token]:
    """All tokens of a text, an "end" token last. Raises `PtxError` for characters that PTX does not have."""
    tokens: list[Token] = []
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            excerpt = text[position : position + 30].split("\n")[0]
            raise PtxError(f"line {line}: cannot read {excerpt!r}", line=line)
        kind, piece = str(match.lastgroup), match.group(0)
        if kind != "skip":
            tokens.append(Token(kind, piece, line))
        line += piece.count("\n")
        position = match.end()
    tokens.append(Token("end", "", line))
    return tokens
