"""Operands, ops and terminators: the nouns of the IR.

A `Register` names a guest register, a `Temp` a value computed by an earlier op of the same guest instruction, a
`Const` a number. `RegisterSlot` and `ConstSlot` stand for "some register" and "some number": the interpreter's
handlers are lowered from ops written over slots, and fetch the actual operands from the code stream at run time.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmjit.ir.types import Type


@dataclass(frozen=True, slots=True)
class Register:
    index: int


@dataclass(frozen=True, slots=True)
class Temp:
    index: int
    type: Type


@dataclass(frozen=True, slots=True)
class Const:
    """A number of a given type, kept in unsigned form."""

    value: int
    type: Type

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", self.value & self.type.mask)


@dataclass(frozen=True, slots=True)
class RegisterSlot:
    """`type` is that of the registers that may stand there; None: that of the register file."""

    slot: int
    type: Type | None = None


@dataclass(frozen=True, slots=True)
class ConstSlot:
    slot: int
    type: Type


Operand = Register | Temp | Const | RegisterSlot | ConstSlot
Destination = Register | Temp | RegisterSlot


@dataclass(frozen=True, slots=True)
class Op:
    """One row of three-address code: `dest = name.type args`. `kind` is the trap kind of `trap_if`."""

    name: str
    type: Type
    dest: Destination | None
    args: tuple[Operand, ...]
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Terminator:
    """How a block ends. Static targets are guest addresses (`Const` or `ConstSlot`) in `targets`.

    `data` carries what only some kinds need: the trap kind of `trap`, the hint of `indirect`
    ("call", "return" or ""), the instruction bytes in hex of `unsupported`.
    """

    name: str
    args: tuple[Operand, ...] = ()
    targets: tuple[Operand, ...] = ()
    data: str = ""
