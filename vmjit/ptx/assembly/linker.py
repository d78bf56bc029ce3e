"""Units to one program: every name bound to what it names, across texts (PTX ISA, "Linking Directives").

A `.visible` definition is found by the `.extern` declarations of all texts, a `.weak` one where there is no visible
one, and what has no linkage by its own text alone; such names may be there once in every text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from vmjit.ptx.assembly.syntax import Function, Unit, Variable
from vmjit.ptx.errors import PtxError

_Named = TypeVar("_Named", Function, Variable)


@dataclass(slots=True)
class Program:
    """What the units say together. A function without a body, or a variable that is `.extern`, is defined nowhere."""

    functions: dict[str, Function] = field(default_factory=dict)  # in the order of their numbers
    variables: list[Variable] = field(default_factory=list)
    names: dict[str, Variable] = field(default_factory=dict)  # of the variables of module scopes


def link(units: Sequence[Unit]) -> Program:
    """Binds all names. Raises `PtxError` for one that is declared nowhere or defined twice."""
    functions = _Table([unit.functions for unit in units], units)
    variables = _Table([unit.variables for unit in units], units)
    program = Program()
    for unit, scope in zip(units, functions.scopes, strict=True):
        for alias, name in unit.aliases.items():
            if name not in scope:
                raise PtxError(f"{_prefix(unit)}.alias of {name}, which is no function")
            scope[alias] = scope[name]
    for number, function in enumerate(functions.chosen()):
        function.number = number
        function.name = _unique(function.name, program.functions)
        program.functions[function.name] = function
    for variable in variables.chosen():
        program.variables.append(variable)
        program.names[_unique(variable.name, program.names)] = variable
    for unit, function_scope, variable_scope in zip(units, functions.scopes, variables.scopes, strict=True):
        program.variables += unit.inner_variables
        for symbol, line in unit.uses:
            target = variable_scope.get(symbol.name) or function_scope.get(symbol.name)
            if target is None:
                raise PtxError(f"{_prefix(unit)}line {line}: {symbol.name} is not declared", line=line)
            symbol.target = target
    return program


def _prefix(unit: Unit) -> str:
    return f"{unit.source}, " if unit.source else ""


def _unique(name: str, taken: dict[str, _Named]) -> str:
    """The name, or the name with a number where another text has a private thing of that name."""
    if name not in taken:
        return name
    number = 2
    while f"{name}@{number}" in taken:
        number += 1
    return f"{name}@{number}"


def _is_defined(item: Function | Variable) -> bool:
    return item.has_body if isinstance(item, Function) else item.linkage != "extern"


class _Table(Generic[_Named]):
    """The functions, or the variables, of all units: what each name means in each unit."""

    def __init__(self, declared: Sequence[dict[str, _Named]], units: Sequence[Unit]) -> None:
        exported: dict[str, _Named] = {}
        for unit, items in zip(units, declared, strict=True):
            for item in items.values():
                if item.linkage and _is_defined(item):
                    self._export(exported, item, unit)
        self.scopes: list[dict[str, _Named]] = [
            {name: self._meaning(item, exported) for name, item in items.items()} for items in declared
        ]
        undefined: dict[str, _Named] = {}
        for scope in self.scopes:  # one declaration stands for all of something defined nowhere
            for name, item in scope.items():
                if not _is_defined(item):
                    scope[name] = undefined.setdefault(name, item)

    @staticmethod
    def _export(exported: dict[str, _Named], item: _Named, unit: Unit) -> None:
        earlier = exported.get(item.name)
        if earlier is None or (earlier.linkage in ("weak", "common") and item.linkage not in ("weak", "common")):
            exported[item.name] = item
        elif item.linkage == "common" and isinstance(item, Variable) and isinstance(earlier, Variable):
            if earlier.linkage == "common":
                earlier.size = max(earlier.size, item.size)
        elif item.linkage != "weak":
            message = f"{_prefix(unit)}line {item.line}: {item.name} is defined in another text already"
            raise PtxError(message, line=item.line)

    @staticmethod
    def _meaning(item: _Named, exported: dict[str, _Named]) -> _Named:
        private = not item.linkage and _is_defined(item)
        return item if private else exported.get(item.name, item)

    def chosen(self) -> list[_Named]:
        """Each item once, in the order of the texts."""
        return list({id(item): item for scope in self.scopes for item in scope.values()}.values())
