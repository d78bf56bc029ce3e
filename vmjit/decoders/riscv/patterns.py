"""The pattern language of the instruction tables: the specification's own notation.

A pattern lists fields from the most significant bit: binary digits (`-` for a bit that does not matter), `rd`, `rs1`,
`rs2` (five bits), `rd'`, `rs1'`, `rs2'` (three bits, registers 8 to 15), the same with `f` for float registers, the
rounding mode `rm` (three bits), and immediates with the bits they hold, as in
`imm[12|10:5]`. Immediates named `imm` are signed from their highest bit, `uimm` and `shamt` are not. `rd!=0` or
`rd!={0,2}` excludes values, and `nzimm`/`nzuimm` exclude zero.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_RANGES = r"\d+(?::\d+)?(?:\|\d+(?::\d+)?)*"
_EXCLUDED = r"\d+|\{\d+(?:,\d+)*\}"
_TOKEN = re.compile(
    rf"(?P<bits>[01-]+)|(?P<name>[a-z]+[0-9]?'?)(?:\[(?P<range>{_RANGES})\])?(?:!=(?P<not>{_EXCLUDED}))?"
)
_WIDTH = {
    "rd": 5,
    "rs1": 5,
    "rs2": 5,
    "rd'": 3,
    "rs1'": 3,
    "rs2'": 3,
    "pred": 4,
    "succ": 4,
    "csr": 12,
    "zimm": 5,
    "fd": 5,
    "fs1": 5,
    "fs2": 5,
    "fs3": 5,
    "fd'": 3,
    "fs2'": 3,
    "rm": 3,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One operand of a pattern: pieces are (position in the word, position in the value, width)."""

    name: str
    pieces: tuple[tuple[int, int, int], ...]
    base: int
    signed_bits: int  # 0: unsigned
    excluded: frozenset[int]

    def extract(self, word: int) -> int:
        value = 0
        for source, target, width in self.pieces:
            value |= ((word >> source) & ((1 << width) - 1)) << target
        if self.signed_bits and value >> (self.signed_bits - 1):
            value -= 1 << self.signed_bits
        return value + self.base

    def insert(self, value: int) -> int:
        """The word bits that make this operand `value`."""
        value -= self.base
        word = 0
        for source, target, width in self.pieces:
            word |= ((value >> target) & ((1 << width) - 1)) << source
        return word


@dataclass(frozen=True, slots=True)
class Pattern:
    size: int  # bytes
    mask: int
    match: int
    fields: tuple[Field, ...]

    def accepts(self, word: int) -> bool:
        if word & self.mask != self.match:
            return False
        return all(not f.excluded or f.extract(word) not in f.excluded for f in self.fields)


def parse_pattern(text: str) -> Pattern:
    """Compile a pattern.

    Raises ValueError for a word that cannot be read, a field of unknown width, a range that runs upwards, and widths
    that do not add up to 16 or 32 bits.
    """
    tokens = []
    for word in text.split():
        match = _TOKEN.fullmatch(word)
        if match is None:
            raise ValueError(f"cannot read {word!r} in pattern {text!r}")
        tokens.append(match)
    widths = [_token_width(t) for t in tokens]
    total = sum(widths)
    if total not in (16, 32):
        raise ValueError(f"pattern {text!r} has {total} bits")
    position, mask, value = total, 0, 0
    pieces: dict[str, list[tuple[int, int, int]]] = {}
    excluded: dict[str, set[int]] = {}
    for token, width in zip(tokens, widths, strict=True):
        position -= width
        if token["bits"]:
            for i, bit in enumerate(token["bits"]):
                place = position + width - 1 - i
                if bit != "-":
                    mask |= 1 << place
                    value |= int(bit) << place
            continue
        name = token["name"]
        pieces.setdefault(name, []).extend(_pieces(token, position, width))
        if token["not"]:
            excluded.setdefault(name, set()).update(int(x) for x in token["not"].strip("{}").split(","))
    fields = tuple(_field(name, p, excluded.get(name, set())) for name, p in pieces.items())
    return Pattern(total // 8, mask, value, fields)


def _ranges(text: str) -> list[tuple[int, int]]:
    """`12|10:5` as (low bit, width) pairs, from the most significant."""
    found = []
    for part in text.split("|"):
        high, _, low = part.partition(":")
        bottom = int(low) if low else int(high)
        if bottom > int(high):
            raise ValueError(f"the range {part!r} runs upwards; the specification writes high:low")
        found.append((bottom, int(high) - bottom + 1))
    return found


def _token_width(token: re.Match[str]) -> int:
    if token["bits"]:
        return len(token["bits"])
    if token["range"]:
        return sum(width for _, width in _ranges(token["range"]))
    if token["name"] not in _WIDTH:
        raise ValueError(f"the width of {token['name']!r} is not known; give its bits, as in imm[11:0]")
    return _WIDTH[token["name"]]


def _pieces(token: re.Match[str], position: int, width: int) -> list[tuple[int, int, int]]:
    if not token["range"]:
        return [(position, 0, width)]
    found, place = [], position + width
    for low, bits in _ranges(token["range"]):
        place -= bits
        found.append((place, low, bits))
    return found


def _field(name: str, pieces: list[tuple[int, int, int]], excluded: set[int]) -> Field:
    top = max(target + width for _, target, width in pieces)
    plain = name.removeprefix("nz")
    if plain != name:
        excluded = excluded | {0}
    return Field(
        name=plain.rstrip("'"),
        pieces=tuple(pieces),
        base=8 if name.endswith("'") else 0,
        signed_bits=top if plain == "imm" else 0,
        excluded=frozenset(excluded),
    )
