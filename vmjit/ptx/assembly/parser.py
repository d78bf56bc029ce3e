"""One PTX text to a unit: module directives, variables, functions (PTX ISA, "Directives")."""

from __future__ import annotations

from vmjit.ptx.assembly import declarations
from vmjit.ptx.assembly.body import BodyParser
from vmjit.ptx.assembly.cursor import Cursor
from vmjit.ptx.assembly.syntax import Function, Symbol, Unit, Variable

_LINKAGES = (".visible", ".extern", ".weak", ".common")
_VARIABLES = (".global", ".const", ".shared", ".tex")
_WITHOUT_ARGUMENTS = (".noreturn", ".explicitcluster", ".blocksareclusters")


def parse(text: str, source: str = "") -> Unit:
    """The unit of a text. `source` names it in messages. Raises `PtxError` and `PtxUnsupported`, with the line."""
    return _UnitParser(text, source).unit


class _UnitParser:
    def __init__(self, text: str, source: str) -> None:
        self._cursor = Cursor(text, source)
        self.unit = Unit(source)
        while self._cursor.token.kind != "end":
            self._declaration()

    def _declaration(self) -> None:
        cursor = self._cursor
        directive = cursor.token.text
        linkage = ""
        if directive in _LINKAGES:
            linkage = cursor.take().text[1:]
            directive = cursor.token.text
        if directive in (".entry", ".func"):
            self._function(linkage)
        elif directive in _VARIABLES:
            for variable in declarations.variables(cursor, linkage, self._use_of):
                self._add_variable(variable)
        elif directive in _PLAIN:
            cursor.take()
            _PLAIN[directive](self)
        else:
            raise cursor.unsupported(f"{directive!r} in the module's scope")

    def version(self) -> None:
        self.unit.version = self._cursor.take().text

    def target(self) -> None:
        self.unit.target = self._cursor.take_name()
        while self._cursor.accept(","):
            self._cursor.take_name()

    def address_size(self) -> None:
        if self._cursor.take_integer() != 64:
            raise self._cursor.unsupported("addresses of other than 64 bits")

    def alias(self) -> None:
        line = self._cursor.line
        names = self._cursor.take_names()
        if len(names) != 2:
            raise self._cursor.error(".alias takes two names", line)
        self.unit.aliases[names[0]] = names[1]

    def pragma(self) -> None:
        self._cursor.skip_past(";")

    def _use_of(self, symbol: Symbol, line: int) -> None:
        self.unit.uses.append((symbol, line))

    def _add_variable(self, variable: Variable) -> None:
        """A definition replaces a declaration of the same name; a second definition is an error."""
        earlier = self.unit.variables.get(variable.name)
        if earlier is None or earlier.linkage == "extern":
            self.unit.variables[variable.name] = variable
        elif variable.linkage != "extern":
            raise self._cursor.error(f"{variable.name} is defined on line {earlier.line} already", variable.line)

    def _function(self, linkage: str) -> None:
        cursor = self._cursor
        line = cursor.line
        is_entry = cursor.take().text == ".entry"
        self._skip_attributes()
        returns = declarations.parameters(cursor) if cursor.accept("(") else []
        function = Function(cursor.take_name(), is_entry, line, linkage, self.unit.source, returns)
        if cursor.accept("("):
            function.parameters = declarations.parameters(cursor)
        function.parameter_bytes = declarations.lay_out(function.parameters)
        self._tuning(function)
        if not cursor.accept(";"):
            cursor.expect("{")
            function.has_body = True
            BodyParser(cursor, self.unit, function).parse()
        self._add_function(function)

    def _skip_attributes(self) -> None:
        cursor = self._cursor
        while cursor.token.kind == "directive":
            cursor.take()
            if cursor.at("("):
                cursor.skip_past(")")

    def _tuning(self, function: Function) -> None:
        """The directives between a function's head and its body, of which a launch respects two."""
        cursor = self._cursor
        while cursor.token.kind == "directive":
            directive = cursor.take().text
            if directive == ".pragma":
                cursor.skip_past(";")
            if directive == ".pragma" or directive in _WITHOUT_ARGUMENTS:
                continue
            numbers = []
            while cursor.token.kind == "number":
                numbers.append(cursor.take_integer())
                cursor.accept(",")
            if directive == ".maxntid":
                function.max_threads = tuple(numbers)
            elif directive == ".reqntid":
                function.required_threads = tuple(numbers)

    def _add_function(self, function: Function) -> None:
        earlier = self.unit.functions.get(function.name)
        if earlier is not None and earlier.has_body:
            if function.has_body:
                raise self._cursor.error(f"{function.name} is defined on line {earlier.line} already", function.line)
            return
        if earlier is not None and not function.linkage:
            function.linkage = earlier.linkage
        self.unit.functions[function.name] = function


_PLAIN = {
    ".version": _UnitParser.version,
    ".target": _UnitParser.target,
    ".address_size": _UnitParser.address_size,
    ".alias": _UnitParser.alias,
    ".pragma": _UnitParser.pragma,
}
