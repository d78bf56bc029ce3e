"""Variables and parameters as declared in every scope (PTX ISA, "State Spaces, Types, and Variables")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Union

from vmjit.ptx.assembly.cursor import Cursor
from vmjit.ptx.assembly.syntax import AddressPart, InitialValue, IntegerLiteral, Symbol, Variable
from vmjit.ptx.types import BITS, byte_size

_VECTOR_WIDTHS = {"v2": 2, "v4": 4, "v8": 8}
_SPACES_OF_POINTEES = (".global", ".const", ".local", ".shared")

Nested = Union[InitialValue, list["Nested"]]  # noqa: UP007 - it names itself
UseOf = Callable[[Symbol, int], None]  # told of every symbol in an initial value, with its line


@dataclass(slots=True)
class _Kind:
    """What stands before the names of a declaration."""

    type: str = ""
    alignment: int = 0
    width: int = 1
    other: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return byte_size(self.type) * self.width


def _kind(cursor: Cursor) -> _Kind:
    kind = _Kind()
    while cursor.token.kind == "directive":
        word = cursor.take().text[1:]
        if word == "align":
            kind.alignment = cursor.take_integer()
        elif word in BITS:
            kind.type = word
        elif word in _VECTOR_WIDTHS:
            kind.width = _VECTOR_WIDTHS[word]
        elif word == "attribute":
            cursor.skip_past(")")
        elif word == "ptr":
            _skip_pointee(cursor)
        else:
            raise cursor.unsupported(f".{word} in a declaration")
    if not kind.type:
        raise cursor.error("a declaration without a type")
    kind.alignment = kind.alignment or kind.bytes
    return kind


def _skip_pointee(cursor: Cursor) -> None:
    """`.ptr .global .align 16` speaks of what the pointer points to, not of the variable."""
    while cursor.token.text in _SPACES_OF_POINTEES:
        cursor.take()
    if cursor.accept(".align"):
        cursor.take_integer()


def _dimensions(cursor: Cursor) -> list[int] | None:
    """`[3][4]` as [3, 4], and None where there are none; an empty first one counts as 0."""
    found: list[int] = []
    while cursor.accept("["):
        found.append(0 if cursor.at("]") else cursor.take_integer())
        cursor.expect("]")
    return found or None


def variables(cursor: Cursor, linkage: str, use_of: UseOf) -> list[Variable]:
    """One declaration from its state space to its semicolon: `.global .align 8 .u64 a[3] = {1, b, 2}, c;`"""
    space = cursor.take().text[1:]
    kind = _kind(cursor)
    found: list[Variable] = []
    while True:
        line = cursor.line
        name = cursor.take_name()
        names = [name]
        if cursor.accept("<"):
            names = [f"{name}{k}" for k in range(cursor.take_integer())]
            cursor.expect(">")
        dimensions = _dimensions(cursor)
        initial = None
        if cursor.accept("="):
            initial = _flatten(_initial(cursor, use_of), dimensions or [])
        count = 1 if dimensions is None else prod(dimensions)
        if initial is not None:
            given = -(-len(initial) // kind.width)
            if 0 < count < given:
                raise cursor.error(f"{name} has {count} elements and {given} initial values", line)
            count = count or given
        for each in names:
            found.append(Variable(each, space, kind.type, kind.bytes * count, kind.alignment, line, initial, linkage))
        if cursor.accept(";"):
            return found
        cursor.expect(",")


def parameters(cursor: Cursor) -> list[Variable]:
    """The parameters after an opened parenthesis, with the closing one, each at its offset from the first."""
    found: list[Variable] = []
    while not cursor.accept(")"):
        line = cursor.line
        space = cursor.take().text
        if space not in (".param", ".reg"):
            raise cursor.unsupported(f"parameter {space!r}")
        kind = _kind(cursor)
        name = cursor.take_name()
        dimensions = _dimensions(cursor)
        count = 1 if dimensions is None else prod(max(d, 1) for d in dimensions)
        found.append(Variable(name, space[1:], kind.type, kind.bytes * count, kind.alignment, line))
        cursor.accept(",")
    return found


def lay_out(items: Sequence[Variable], start: int = 0) -> int:
    """Gives each variable its offset, one behind the other as aligned; returns the end."""
    end = start
    for item in items:
        item.offset = -(-end // item.alignment) * item.alignment
        end = item.offset + item.size
    return end


def _initial(cursor: Cursor, use_of: UseOf) -> Nested:
    if cursor.accept("{"):
        items: list[Nested] = []
        while not cursor.accept("}"):
            items.append(_initial(cursor, use_of))
            if not cursor.accept(",") and not cursor.at("}"):
                raise cursor.error(f"expected ',' or '}}', found {cursor.token.text!r}")
        return items
    if cursor.token.kind == "name":
        return _address(cursor, use_of)
    number = cursor.take_number()
    if not isinstance(number, IntegerLiteral):
        return number
    if cursor.accept("("):  # 0xFF00(symbol): some bytes of an address
        symbol = _address(cursor, use_of)
        cursor.expect(")")
        if number.value <= 0:
            raise cursor.error("an address masked with nothing")
        return AddressPart(symbol, number.value)
    return IntegerLiteral(number.value + cursor.take_offset())


def _address(cursor: Cursor, use_of: UseOf) -> Symbol:
    line = cursor.line
    name = cursor.take_name()
    if name == "generic" and cursor.accept("("):  # generic and state space addresses are the same here
        name = cursor.take_name()
        cursor.expect(")")
    symbol = Symbol(name, cursor.take_offset())
    use_of(symbol, line)
    return symbol


def _flatten(value: Nested, dimensions: list[int]) -> list[InitialValue]:
    """An initial value in the order of memory; rows given short are filled up with zeros."""
    if not isinstance(value, list):
        return [value]
    found: list[InitialValue] = []
    for item in value:
        found += _flatten(item, dimensions[1:])
    found += [IntegerLiteral(0)] * (prod(dimensions) - len(found))
    return found
