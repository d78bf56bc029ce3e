"""What a PTX text says: operands, instructions, variables, functions, and the unit that holds them.

Registers, variables and functions are compared by identity: a name may be declared again in an inner scope.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from vmjit.ptx.types import BITS, STATE_SPACES


@dataclass(slots=True, eq=False)
class Register:
    name: str
    type: str
    index: int  # its number in the function
    bits: int = field(init=False)
    storage: str = field(init=False)  # the type its values are kept in: pred, f32, f64 or an unsigned integer

    def __post_init__(self) -> None:
        self.bits = BITS[self.type]
        self.storage = self.type if self.type in ("pred", "f32", "f64") else f"u{self.bits}"


@dataclass(frozen=True, slots=True)
class IntegerLiteral:
    value: int  # unlimited; cut to the operand's type where it is used


@dataclass(frozen=True, slots=True)
class FloatLiteral:
    value: float
    bits: int  # 32 or 64: how it was written


@dataclass(frozen=True, slots=True)
class SpecialRegister:
    name: str  # with its %, or WARP_SZ


@dataclass(slots=True, eq=False)
class Symbol:
    """A name that is no register, and a distance in bytes from it. `target` is what it names, once linked."""

    name: str
    offset: int = 0
    target: Variable | Function | None = None


@dataclass(frozen=True, slots=True)
class Address:
    base: Register | Symbol | None
    offset: int


@dataclass(frozen=True, slots=True)
class Vector:
    items: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Negation:
    operand: Operand  # a predicate


@dataclass(frozen=True, slots=True)
class Pair:
    """Two destinations, `d|p`."""

    first: Operand
    second: Operand


@dataclass(frozen=True, slots=True)
class Group:
    """A parenthesised list: what a call passes, or gets back."""

    items: tuple[Operand, ...]


Operand = (
    Register | IntegerLiteral | FloatLiteral | SpecialRegister | Symbol | Address | Vector | Negation | Pair | Group
)

SINK = SpecialRegister("_")  # a destination nobody reads


@dataclass(frozen=True, slots=True)
class AddressPart:
    """Bits of an address in an initial value, `0xFF00(symbol)`: those under the mask, moved down."""

    symbol: Symbol
    mask: int


InitialValue = IntegerLiteral | FloatLiteral | Symbol | AddressPart


@dataclass(slots=True, eq=False)
class Variable:
    name: str
    space: str  # a state space; "param" for parameters
    type: str
    size: int  # bytes; 0 for an array without a size
    alignment: int
    line: int
    initial: list[InitialValue] | None = None
    linkage: str = ""  # visible, extern, weak, common, or nothing: private to its text
    address: int | None = None  # where the image put it, for global and const
    offset: int = 0  # in its function's parameters or local memory, or in the block's shared memory


@dataclass(frozen=True, slots=True)
class Guard:
    register: Register
    negated: bool


_WITH_SPACE = frozenset(("ld", "ldu", "st", "atom", "red"))  # opcodes that statistics count by state space


@dataclass(slots=True, eq=False)
class Instruction:
    opcode: str  # the name without modifiers
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    line: int
    guard: Guard | None = None
    types: tuple[str, ...] = field(init=False)  # those modifiers that are types
    stem: str = field(init=False)  # what statistics count it as; "" is not counted

    def __post_init__(self) -> None:
        self.types = tuple(m for m in self.modifiers if m in BITS)
        space = self.one_of(STATE_SPACES) if self.opcode in _WITH_SPACE else None
        self.stem = f"{self.opcode}.{space}" if space else self.opcode

    @property
    def type(self) -> str:
        """The last of its types: that of its operands, or of its sources where the two differ."""
        return self.types[-1]

    @property
    def text(self) -> str:
        return ".".join((self.opcode, *self.modifiers))

    def has(self, modifier: str) -> bool:
        return modifier in self.modifiers

    def parameter_variables(self) -> Iterator[Variable]:
        """The `.param` variables it names, in addresses or as what a call passes and gets back."""
        for operand in self.operands:
            items = operand.items if isinstance(operand, Group) else (operand,)
            for item in items:
                base = item.base if isinstance(item, Address) else item
                if isinstance(base, Symbol) and isinstance(base.target, Variable) and base.target.space == "param":
                    yield base.target

    def addressed_variables(self) -> Iterator[Variable]:
        """The variables whose addresses it takes, as a value or for an access other than to parameters."""
        for operand in self.operands:
            base = operand.base if isinstance(operand, Address) and not self.has("param") else operand
            if isinstance(base, Symbol) and isinstance(base.target, Variable):
                yield base.target

    def call_parts(self) -> tuple[tuple[Operand, ...], Operand, tuple[Operand, ...]]:
        """What a call gets back, whom it calls, what it passes; a prototype behind that is of no interest."""
        operands = list(self.operands)
        first = operands[0]
        results = first.items if isinstance(first, Group) else ()
        if isinstance(first, Group):
            del operands[0]
        arguments = operands[1].items if len(operands) > 1 and isinstance(operands[1], Group) else ()
        return results, operands[0], arguments

    def one_of(self, words: frozenset[str]) -> str | None:
        """The first modifier among these words."""
        return next((m for m in self.modifiers if m in words), None)


@dataclass(slots=True, eq=False)
class Function:
    name: str
    is_entry: bool
    line: int
    linkage: str = ""
    source: str = ""  # names the text, where a module has several
    returns: list[Variable] = field(default_factory=list)
    parameters: list[Variable] = field(default_factory=list)
    parameter_bytes: int = 0
    has_body: bool = False
    registers: list[Register] = field(default_factory=list)
    local_variables: list[Variable] = field(default_factory=list)
    shared_variables: list[Variable] = field(default_factory=list)
    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)  # name: index into code
    branch_tables: dict[str, list[Symbol]] = field(default_factory=dict)  # name: labels
    max_threads: tuple[int, ...] = ()  # of .maxntid
    required_threads: tuple[int, ...] = ()  # of .reqntid
    number: int = 0  # its place in the image, which gives its address

    def addressed_parameters(self) -> list[Variable]:
        """The parameters of a device function whose addresses it takes. They are in its local memory, then.

        PTX ISA, "Device Function Parameters": compilers pass structures by value so.
        """
        if self.is_entry:
            return []
        taken = {variable for instruction in self.code for variable in instruction.addressed_variables()}
        return [parameter for parameter in self.parameters if parameter in taken]

    def where(self, line: int) -> str:
        """For messages: the line, and the text where there are several."""
        return f"{self.source}, line {line}" if self.source else f"line {line}"


@dataclass(slots=True)
class Unit:
    """One parsed text."""

    source: str = ""
    version: str = ""
    target: str = ""
    functions: dict[str, Function] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)  # of the module scope
    inner_variables: list[Variable] = field(default_factory=list)  # global and const ones declared in functions
    aliases: dict[str, str] = field(default_factory=dict)
    uses: list[tuple[Symbol, int]] = field(default_factory=list)  # symbols to link, with their lines
