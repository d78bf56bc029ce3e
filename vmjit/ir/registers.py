"""Register files: the guest registers an ISA declares, by index and name."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from vmjit.ir.types import Type


@dataclass(frozen=True)
class RegisterFile:
    """`names[i]` is register i, of `type` unless `types` says otherwise. Register `zero` reads as zero and ignores
    writes (None: there is none).

    `hidden` registers hold lane state that the ISA does not name (a load reservation); they print like the others.
    `stack` is the stack pointer, which the ABI keeps aligned to words.
    """

    name: str
    type: Type
    names: tuple[str, ...]
    zero: int | None = None
    aliases: dict[str, int] = field(default_factory=dict, hash=False)
    hidden: frozenset[int] = frozenset()
    stack: int | None = None
    types: dict[int, Type] = field(default_factory=dict, hash=False)
    float_status: int | None = None
    """The register with the rounding mode and the exceptions of float operations, if there are any."""

    def __len__(self) -> int:
        return len(self.names)

    def type_of(self, index: int) -> Type:
        """The type of register `index`."""
        return self.types.get(index, self.type)

    @cached_property
    def storage(self) -> Type:
        """The type that lane state keeps each register in: the widest of all. What it has beyond a register's own type
        is zero."""
        return max((self.type, *self.types.values()), key=lambda t: t.bits)

    def shown_name(self, index: int) -> str:
        """The name that assembly has for register `index`."""
        return next((name for name, other in self.aliases.items() if other == index), self.names[index])

    def index(self, name: str) -> int:
        """Index of a register by name or alias; KeyError if there is none."""
        if name in self.aliases:
            return self.aliases[name]
        try:
            return self.names.index(name)
        except ValueError:
            raise KeyError(name) from None


_REGISTERED: dict[str, RegisterFile] = {}


def declare_register_file(registers: RegisterFile) -> RegisterFile:
    """Make a register file known by name to the text form."""
    _REGISTERED[registers.name] = registers
    return registers


def register_file(name: str) -> RegisterFile:
    """The register file declared under `name`; KeyError lists those known."""
    try:
        return _REGISTERED[name]
    except KeyError:
        raise KeyError(f"no register file {name!r}; known: {', '.join(sorted(_REGISTERED)) or 'none'}") from None
