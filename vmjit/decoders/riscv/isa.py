"""ISA strings: `rv64imac_zba_zbb` to a set of extensions and back.

Naming follows the RISC-V unprivileged specification, chapter "ISA Extension Naming Conventions".
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from functools import lru_cache

from vmjit.checks import shown
from vmjit.errors import IsaError

# What an extension brings with it.
_IMPLIES: dict[str, tuple[str, ...]] = {
    "g": ("i", "m", "a", "f", "d", "zicsr", "zifencei"),
    "m": ("zmmul",),
    "a": ("zaamo", "zalrsc"),
    "b": ("zba", "zbb", "zbs"),
    "c": ("zca",),
    "f": ("zicsr",),
    "d": ("f",),
    "q": ("d",),
    "zcb": ("zca",),
    "zce": ("zca", "zcb"),
    "zcd": ("zca", "d"),
    "zcf": ("zca", "f"),
    "zfh": ("zfhmin",),
    "zfhmin": ("f",),
    "zicntr": ("zicsr",),
    "zihpm": ("zicsr",),
}

# Extensions with rows in the tables.
IMPLEMENTED = frozenset(
    "i m a f d c b zfh zfhmin zcd zcf zicsr zicntr zifencei zmmul zaamo zalrsc zca zcb zba zbb zbs zbc zicond "
    "zihintpause zihintntl".split()
)

# Extensions the specification names and the decoder has no rows for. A program may carry them in its attributes
# (compilers list what they may use, not what they do use); executing one of their instructions stops the lane.
_KNOWN = frozenset(
    "q v h zfa zfinx zdinx zhinx zhinxmin zfbfmin zce zcmp zcmt zcmop zimop zawrs zacas zabha "
    "zihpm zicbom zicbop zicboz zic64b ziccif ziccrse ziccamoa zicclsm za64rs za128rs zama16b ztso zbkb zbkc zbkx zk "
    "zkn zknd zkne zknh zkr zks zksed zksh zkt zve32x zve32f zve64x zve64f zve64d zvbb zvbc zvfh zvfhmin zvkb zvkg "
    "zvkn zvkned zvknha zvknhb zvks zvksed zvksh zvkt zvl32b zvl64b zvl128b zvl256b zvl512b zvl1024b".split()
)

_SINGLE_ORDER = "imafdqcbvh"


@dataclass(frozen=True)
class Isa:
    """An ISA configuration: the register width and the extensions, with all that they imply."""

    xlen: int
    extensions: frozenset[str]

    @property
    def name(self) -> str:
        """The canonical string: single letters in the specification's order, then the others in alphabetical order."""
        listed = self.extensions - _implied(self.extensions, self.xlen)
        singles = "".join(x for x in _SINGLE_ORDER if x in listed)
        longer = sorted(x for x in listed if len(x) > 1)
        return "_".join([f"rv{self.xlen}{singles}", *longer])

    @property
    def compressed(self) -> bool:
        """True where instructions may start at any even address (IALIGN=16)."""
        return "zca" in self.extensions

    def has(self, expression: str) -> bool:
        """`expression` names extensions that must all be there, joined by `+`; `!x` asks that x is not there."""
        return all(
            (word[1:] not in self.extensions) if word.startswith("!") else (word in self.extensions)
            for word in expression.split("+")
        )

    def __str__(self) -> str:
        return self.name


def _implied(extensions: frozenset[str], xlen: int) -> set[str]:
    """Parts of single letters (zca of c, zmmul of m, …): they are not listed beside the letter."""
    parts: set[str] = set()
    for letter in extensions & {"m", "a", "c"}:
        parts.update(_IMPLIES[letter])
    parts |= _compressed_floats(extensions, xlen)
    if "zfh" in extensions:
        parts.add("zfhmin")
    return parts


def _compressed_floats(extensions: Set[str], xlen: int) -> set[str]:
    """C has the loads and stores of the floats that there are (specification, chapter "Zc", "C")."""
    found = set()
    if {"c", "d"} <= extensions:
        found.add("zcd")
    if xlen == 32 and {"c", "f"} <= extensions:
        found.add("zcf")
    return found


def _closure(names: set[str], xlen: int) -> frozenset[str]:
    todo, done = list(names), set(names)
    while todo:
        for implied in _IMPLIES.get(todo.pop(), ()):
            if implied not in done:
                done.add(implied)
                todo.append(implied)
    done |= _compressed_floats(done, xlen)
    return frozenset(done - {"g"})


_VERSION = re.compile(r"\d+p\d+|\d+")
_ALL = IMPLEMENTED | _KNOWN | {"g"}


def parse_isa(text: str) -> Isa:
    """Read an ISA string such as `rv32imc`, `RV64GC_Zba` or, from an ELF, `rv64i2p1_m2p0_zmmul1p0`.

    Raises `IsaError` for another base than rv32i/rv64i and for an extension the specification does not name.
    """
    if not isinstance(text, str):
        raise IsaError(f"an ISA is a string such as 'rv32imac', got {shown(text)}")
    return _parse_isa(text)


@lru_cache(maxsize=256)
def _parse_isa(text: str) -> Isa:
    lower = text.strip().lower()
    match = re.match(r"rv(32|64)(.*)$", lower, re.DOTALL)
    if match is None:
        raise IsaError(f"ISA {shown(text)} does not start with rv32 or rv64")
    xlen, rest = int(match.group(1)), match.group(2)
    if rest.startswith("e"):
        raise IsaError(f"ISA {shown(text)}: RV32E and RV64E are not supported, vmjit runs rv{xlen}i")
    names: set[str] = set()
    for position, word in enumerate(rest.split("_")):
        names.update(_words(word, first=position == 0, text=text))
    if not names & {"i", "g"}:
        raise IsaError(f"ISA {shown(text)} has no base: vmjit runs rv{xlen}i (RV32E and RV64E are not supported)")
    if re.search(r"i2p0", lower):
        # Before version 2.1 of the base, the counters and fence.i were part of it.
        names |= {"zicsr", "zifencei"}
    return Isa(xlen, _closure(names, xlen))


def _words(word: str, *, first: bool, text: str) -> list[str]:
    """The extensions in one underscore-separated word; single letters may stand together in any word."""
    found: list[str] = []
    while word:
        long_name = re.match(r"[zsx][a-z]*(?:\d+[a-z]+)*", word) if word[0] in "zsx" else None
        if long_name is not None:
            # A name may hold digits (zve32x, zvl128b); a version behind it is digits, or digits p digits.
            name = re.sub(r"(\d+p\d+)$", "", word)
            if name not in _ALL:
                name = re.sub(r"\d+$", "", name)
            if name not in _ALL:
                raise IsaError(f"unknown extension {shown(name)} in ISA {shown(text)}", extension=name)
            return [*found, name]
        letter, word = word[0], word[1:]
        if letter not in _ALL:
            raise IsaError(f"unknown extension {shown(letter)} in ISA {shown(text)}", extension=letter)
        found.append(letter)
        version = _VERSION.match(word)
        if version:
            word = word[version.end() :]
    if not found and not first:
        raise IsaError(f"ISA {shown(text)} has an empty extension")
    return found


def default_isa(xlen: int, compressed: bool) -> Isa:
    """The ISA assumed for a program that does not say: all that is implemented, C only if the ELF's flags have it."""
    names = set(IMPLEMENTED) - {"b"}
    if not compressed:
        names -= {"c", "zca", "zcb", "zcd", "zcf"}
    if xlen == 64:
        names -= {"zcf"}
    return Isa(xlen, _closure(names, xlen))
