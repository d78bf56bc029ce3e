"""Function bodies: scopes of names, instructions and their operands (PTX ISA, "Instruction Operands")."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from vmjit.ptx.assembly import declarations
from vmjit.ptx.assembly.cursor import Cursor
from vmjit.ptx.assembly.syntax import (
    SINK,
    Address,
    Function,
    Group,
    Guard,
    Instruction,
    IntegerLiteral,
    Negation,
    Operand,
    Pair,
    Register,
    SpecialRegister,
    Symbol,
    Unit,
    Variable,
    Vector,
)
from vmjit.ptx.types import BITS

_SPECIAL_REGISTER = re.compile(
    r"""%( (tid|ntid|ctaid|nctaid|clusterid|nclusterid|cluster_ctaid|cluster_nctaid)\.[xyzw]
         | laneid | warpid | nwarpid | smid | nsmid | gridid | clock | clock_hi | clock64
         | globaltimer | globaltimer_lo | globaltimer_hi | lanemask_(eq|le|lt|ge|gt)
         | dynamic_smem_size | total_smem_size | aggr_smem_size | reserved_smem_offset_\w+ | envreg\d+
         | cluster_ctarank | cluster_nctarank | is_explicit_cluster | pm\d(_64)? | current_graph_exec )$
      | WARP_SZ$""",
    re.VERBOSE,
)
_VARIABLES = (".param", ".local", ".shared", ".const", ".global")


@dataclass(slots=True)
class _Scope:
    names: dict[str, Register | Variable] = field(default_factory=dict)
    ranges: list[tuple[str, str, int]] = field(default_factory=list)  # `.reg .b32 %r<10>`: prefix, type, count
    labels: dict[str, str] = field(default_factory=dict)  # as written: as kept in the function
    label_uses: list[tuple[Symbol, int]] = field(default_factory=list)  # not yet resolved, with their lines


class BodyParser:
    """Reads the body of one function, after its opening brace, into that function."""

    def __init__(self, cursor: Cursor, unit: Unit, function: Function) -> None:
        self._cursor, self._unit, self._function = cursor, unit, function
        outermost = _Scope()
        outermost.names.update({p.name: p for p in (*function.parameters, *function.returns)})
        self._scopes = [outermost]
        self._prototypes: set[str] = set()

    def parse(self) -> None:
        while self._scopes:
            self._statement()
        for instruction in self._function.code:
            table = instruction.operands[-1] if instruction.opcode == "brx" else None
            if isinstance(table, Symbol) and table.name not in self._function.branch_tables:
                raise self._cursor.error(f"no branch targets {table.name}", instruction.line)

    def _statement(self) -> None:
        cursor = self._cursor
        token = cursor.token
        if cursor.accept("{"):
            self._scopes.append(_Scope())
        elif cursor.accept("}"):
            self._close_scope()
        elif cursor.accept(";"):
            pass
        elif token.kind == "directive":
            self._directive(token.text)
        elif token.kind == "name" and cursor.following.text == ":":
            self._label()
        else:
            self._function.code.append(self._instruction())

    # Declarations

    def _directive(self, directive: str) -> None:
        cursor = self._cursor
        if directive == ".reg":
            self._registers()
        elif directive in _VARIABLES:
            self._variables()
        elif directive == ".pragma":
            cursor.skip_past(";")
        else:
            raise cursor.unsupported(f"{directive} in a function")

    def _registers(self) -> None:
        cursor, scope = self._cursor, self._scopes[-1]
        cursor.take()
        words = cursor.take_directives()
        if len(words) != 1 or words[0] not in BITS:
            raise cursor.unsupported(f"registers of type {' '.join(words) or '(none)'}")
        while True:
            name = cursor.take_name()
            if cursor.accept("<"):
                scope.ranges.append((name, words[0], cursor.take_integer()))
                cursor.expect(">")
            else:
                scope.names[name] = self._new_register(name, words[0])
            if cursor.accept(";"):
                return
            cursor.expect(",")

    def _new_register(self, name: str, type_name: str) -> Register:
        register = Register(name, type_name, len(self._function.registers))
        self._function.registers.append(register)
        return register

    def _variables(self) -> None:
        function = self._function
        for variable in declarations.variables(self._cursor, "", self._use_of):
            self._scopes[-1].names[variable.name] = variable
            if variable.space == "local":
                function.local_variables.append(variable)
            elif variable.space == "shared":
                function.shared_variables.append(variable)
            elif variable.space != "param":
                self._unit.inner_variables.append(variable)

    def _use_of(self, symbol: Symbol, line: int) -> None:
        self._unit.uses.append((symbol, line))

    def _lookup(self, name: str) -> Register | Variable | None:
        for scope in reversed(self._scopes):
            found = scope.names.get(name)
            if found is not None:
                return found
            for prefix, type_name, count in scope.ranges:
                digits = name[len(prefix) :]
                if name.startswith(prefix) and digits.isdigit() and int(digits) < count:
                    register = scope.names[name] = self._new_register(name, type_name)
                    return register
        return None

    # Labels

    def _label(self) -> None:
        cursor, function = self._cursor, self._function
        name = cursor.take_name()
        cursor.expect(":")
        if cursor.accept(".branchtargets"):
            line = cursor.line
            targets = [Symbol(label) for label in cursor.take_names()]
            self._scopes[-1].label_uses += [(target, line) for target in targets]
            function.branch_tables[name] = targets
        elif cursor.token.text in (".callprototype", ".calltargets"):
            self._prototypes.add(name)
            cursor.skip_past(";")
        else:
            if name in self._scopes[-1].labels:
                raise cursor.error(f"label {name} is there already")
            unique = name if name not in function.labels else f"{name}@{len(function.labels)}"
            self._scopes[-1].labels[name] = unique
            function.labels[unique] = len(function.code)

    def _close_scope(self) -> None:
        """Binds the labels used in the scope that ends; what it does not know is left to the one around it."""
        scope = self._scopes.pop()
        for use in scope.label_uses:
            symbol, line = use
            if symbol.name in scope.labels:
                symbol.name = scope.labels[symbol.name]
            elif self._scopes:
                self._scopes[-1].label_uses.append(use)
            elif symbol.name not in self._function.labels:
                raise self._cursor.error(f"no label {symbol.name} in {self._function.name}", line)

    # Instructions

    def _instruction(self) -> Instruction:
        cursor = self._cursor
        line = cursor.line
        guard = self._guard() if cursor.accept("@") else None
        opcode, *modifiers = cursor.take_name().split(".")
        operands: list[Operand] = []
        while not cursor.accept(";"):
            if operands:
                cursor.expect(",")
            if opcode == "bra":
                target = Symbol(cursor.take_name())
                self._scopes[-1].label_uses.append((target, line))
                operands.append(target)
            elif opcode == "brx" and operands:
                operands.append(Symbol(cursor.take_name()))
            else:
                operands.append(self._operand())
        return Instruction(opcode, tuple(modifiers), tuple(operands), line, guard)

    def _guard(self) -> Guard:
        negated = self._cursor.accept("!")
        name = self._cursor.take_name()
        register = self._lookup(name)
        if not isinstance(register, Register) or register.type != "pred":
            raise self._cursor.error(f"{name} is no predicate")
        return Guard(register, negated)

    def _operand(self) -> Operand:
        cursor = self._cursor
        if cursor.accept("["):
            return self._address()
        if cursor.accept("{"):
            return Vector(self._items("}"))
        if cursor.accept("("):
            return Group(self._items(")"))
        if cursor.accept("!"):
            return Negation(self._operand())
        if cursor.at("-") or cursor.token.kind == "number":
            return cursor.take_number()
        operand = self._named()
        return Pair(operand, self._operand()) if cursor.accept("|") else operand

    def _items(self, closing: str) -> tuple[Operand, ...]:
        cursor = self._cursor
        items: list[Operand] = []
        while not cursor.accept(closing):
            items.append(self._operand())
            if not cursor.accept(",") and not cursor.at(closing):
                raise cursor.error(f"expected ',' or {closing!r}, found {cursor.token.text!r}")
        return tuple(items)

    def _named(self) -> Register | SpecialRegister | Symbol:
        cursor = self._cursor
        line = cursor.line
        if cursor.token.kind != "name":
            raise cursor.error(f"{cursor.token.text!r} is no operand")
        name = cursor.take_name()
        if name == "_":
            return SINK
        if _SPECIAL_REGISTER.match(name):
            return SpecialRegister(name)
        found = self._lookup(name)
        if isinstance(found, Register):
            return found
        symbol = Symbol(name, cursor.take_offset(), found)
        if found is None and name not in self._prototypes and name not in self._function.branch_tables:
            self._use_of(symbol, line)
        return symbol

    def _address(self) -> Address:
        """`[register + 8]`, `[variable]` or `[4096]`, after its opening bracket."""
        cursor = self._cursor
        base: Register | Symbol | None = None
        offset = 0
        if cursor.token.kind == "name":
            named = self._named()
            if isinstance(named, SpecialRegister):
                raise cursor.error(f"{named.name} is no address")
            base = named
            if isinstance(named, Symbol):
                offset, named.offset = named.offset, 0
        else:
            value = cursor.take_number()
            if not isinstance(value, IntegerLiteral):
                raise cursor.error("an address is no floating-point number")
            offset = value.value
        offset += cursor.take_offset()
        if cursor.at(","):
            raise cursor.unsupported("addresses of textures and tensors")
        cursor.expect("]")
        return Address(base, offset)
