"""Accesses to a lane group's interleaved memory, compiled for this host, against NumPy.

Every setup is one module: a function for each kind of access, that makes it where it may be made and says for which lanes
it may.
"""

from __future__ import annotations

import ctypes
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from llvmlite import ir

from vmjit.kernels.emit import I64, PTR
from vmjit.kernels.interleaved import LaneVectors, PrivateWords
from vmjit.translators.cpu import LoadedCode, cpu_target

WORD = 4
GUARD = 64  # words of the group before and behind the window that no access may touch
HAVE_GATHER = "+avx2" in cpu_target().features.split(",")


@dataclass(frozen=True)
class Setup:
    """A group of so many lanes, the private window, the width of addresses, and whether AVX2's gather is used."""

    lanes: int
    lo: int
    size: int
    address_bits: int
    gathers: bool = False

    @property
    def first(self) -> int:
        """The first address that begins a word."""
        return (self.lo + 3) & -4

    @property
    def words(self) -> int:
        return (self.lo + self.size) // WORD - self.first // WORD

    def allowed(self, address: int, bits: int) -> bool:
        count = bits // 8
        end = self.first + WORD * self.words
        return address % min(count, WORD) == 0 and self.first <= address and address + count <= end

    def wild(self) -> list[int]:
        """Addresses of no window."""
        top = 1 << self.address_bits
        return [0, 1, 4, self.first - 4, self.first - 1, self.first + WORD * self.words, top - 1, top - 4, top // 2]


SETUPS = [
    Setup(4, 0x1000, 64, 32),
    Setup(8, 0x1002, 61, 64),
    Setup(16, 0x1003, 42, 32),
    Setup(16, 0x2000, 7, 64),
    Setup(32, 0x1001, 40, 32),
]
SETUPS += [
    Setup(s.lanes, s.lo, s.size, bits, gathers=True)
    for s, bits in ((SETUPS[1], 32), (SETUPS[2], 64), (SETUPS[4], 32))
    if HAVE_GATHER
]
KINDS = list(itertools.product(("uniform", "varying"), ("load", "store"), (8, 16, 32, 64), (False, True)))


def symbol(way: str, access: str, bits: int, masked: bool) -> str:
    return f"{way}_{access}_{bits}_{'masked' if masked else 'all'}"


def emit(module: Any, setup: Setup, way: str, access: str, bits: int, masked: bool) -> None:
    """i64 function(memory, i64* addresses, i64* values, i64 mask, scratch): the lanes whose access is inside."""
    signature = ir.FunctionType(I64, [PTR, PTR, PTR, I64, PTR])
    function = ir.Function(module, signature, symbol(way, access, bits, masked))
    memory, addresses, values, mask, scratch = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    lanes = LaneVectors(b, setup.lanes, gathers=setup.gathers)
    if masked:
        lanes.activate(lanes.from_bits(mask))
    words = PrivateWords(lanes, memory, setup.lo, setup.size)
    wide = lanes.type(64)
    value = b.load(values, typ=wide, align=8)
    value = value if bits == 64 else b.trunc(value, lanes.type(bits))

    def make(place: Any) -> None:
        if access == "load":
            loaded = place.load()
            b.store(loaded if bits == 64 else b.zext(loaded, wide), values, align=8)
        elif way == "uniform":
            place.store(value)
        else:
            place.store(value, scratch)

    if way == "uniform":
        address = b.load(addresses, typ=I64)
        address = address if setup.address_bits == 64 else b.trunc(address, ir.IntType(32))
        inside, place = words.uniform(address, bits)
        held = b.zext(inside, I64)
    else:
        vector = b.load(addresses, typ=wide, align=8)
        vector = vector if setup.address_bits == 64 else b.trunc(vector, lanes.type(32))
        condition, place = words.varying(vector, bits)
        inside = lanes.all(condition)
        held = b.zext(lanes.bits(condition), I64)
    with b.if_then(inside):
        make(place)
    b.ret(held)


class Group:
    """The functions of a setup, and memory to call them on."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        module = ir.Module("interleaved")
        for kind in KINDS:
            emit(module, setup, *kind)
        target = cpu_target()
        symbols = tuple(symbol(*kind) for kind in KINDS)
        self.code: LoadedCode = target.load(target.compile(str(module)), symbols)
        make = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 5)
        self.functions: dict[str, Callable[..., int]] = {s: make(self.code.addresses[s]) for s in symbols}
        rows = setup.words + 2 * GUARD
        self.memory = np.zeros((rows, setup.lanes), np.uint32)
        self.scratch = np.zeros(setup.lanes, np.uint64)

    def fill(self, source: random.Random) -> None:
        data = np.frombuffer(source.randbytes(self.memory.nbytes), np.uint32)
        self.memory[:] = data.reshape(self.memory.shape)

    def bytes(self) -> np.ndarray:
        """(lanes, bytes) of the window, as a lane sees them; a copy."""
        words = self.memory[GUARD : GUARD + self.setup.words]
        return np.ascontiguousarray(words.T).view(np.uint8)

    def call(self, kind: tuple[str, str, int, bool], addresses: np.ndarray, values: np.ndarray, mask: int) -> int:
        start = int(self.memory[GUARD:].ctypes.data)
        places = (int(a.ctypes.data) for a in (addresses, values, self.scratch))
        first, second, third = places
        return self.functions[symbol(*kind)](start, first, second, mask, third)


@pytest.fixture(scope="module", params=SETUPS, ids=lambda s: f"{s.lanes}x{s.lo:x}-{s.address_bits}-{s.gathers}")
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    found = Group(request.param)
    yield found
    assert found.code.size > 0  # it had to stay loaded until here


def check(
    group: Group, kind: tuple[str, str, int, bool], addresses: list[int], mask: int, source: random.Random
) -> bool:
    """One access of all lanes against NumPy; gives whether it was made."""
    way, access, bits, masked = kind
    setup, count = group.setup, bits // 8
    group.fill(source)
    values = np.array([source.getrandbits(64) for _ in range(setup.lanes)], np.uint64)
    before, given = group.memory.copy(), values.copy()
    seen = group.bytes()
    took = mask if masked else (1 << setup.lanes) - 1
    part = [lane for lane in range(setup.lanes) if took >> lane & 1]
    held = group.call(kind, np.array(addresses, np.uint64), values, mask)
    inside = [lane for lane in part if setup.allowed(addresses[lane], bits)]
    if way == "uniform":
        assert held == setup.allowed(addresses[0], bits), hex(addresses[0])
        made = held == 1
    else:
        assert held == sum(1 << lane for lane in inside), [hex(a) for a in addresses]
        made = inside == part
    wanted = seen.copy()
    for lane in part if made else ():
        at = addresses[lane] - setup.first
        if access == "load":
            assert int(values[lane]) == int.from_bytes(seen[lane, at : at + count].tobytes(), "little"), f"lane {lane}"
        else:
            wanted[lane, at : at + count] = np.frombuffer(int(given[lane]).to_bytes(8, "little")[:count], np.uint8)
    np.testing.assert_array_equal(group.bytes(), wanted)
    for rows in (slice(0, GUARD), slice(GUARD + setup.words, None)):
        np.testing.assert_array_equal(group.memory[rows], before[rows], "outside of the window")
    return made


def some_mask(source: random.Random, lanes: int) -> int:
    """The lanes that take part: at least one."""
    return source.choice([(1 << lanes) - 1, 1 << source.randrange(lanes), source.getrandbits(lanes) or 1])


@pytest.mark.parametrize("kind", [k for k in KINDS if k[0] == "uniform"], ids=lambda k: symbol(*k))
def test_one_address(kind: tuple[str, str, int, bool], group: Group) -> None:
    """Every address of the window and around it, aligned or not."""
    source, setup = random.Random(symbol(*kind)), group.setup
    around = range(setup.lo - 9, setup.lo + setup.size + 9)
    made = [
        check(group, kind, [a] * setup.lanes, some_mask(source, setup.lanes), source) for a in [*around, *setup.wild()]
    ]
    assert any(made) == any(setup.allowed(a, kind[2]) for a in around)


@pytest.mark.parametrize("kind", [k for k in KINDS if k[0] == "varying"], ids=lambda k: symbol(*k))
def test_each_lane_an_address(kind: tuple[str, str, int, bool], group: Group) -> None:
    """Inside for all lanes; outside or misaligned for some; anything at all in lanes that take no part."""
    source, setup, bits = random.Random(symbol(*kind)), group.setup, kind[2]
    around = range(setup.lo - 9, setup.lo + setup.size + 9)
    good = [a for a in around if setup.allowed(a, bits)]
    made = 0
    for turn in range(24):
        mask = some_mask(source, setup.lanes)
        pool = good or list(around)
        addresses = [source.choice(pool) for _ in range(setup.lanes)]
        if turn < 2 and good:
            addresses = [good[-turn]] * setup.lanes  # both ends
        for lane in range(setup.lanes):
            if kind[3] and not mask >> lane & 1:
                addresses[lane] = source.choice([*around, *setup.wild()])
        if turn % 4 == 3:
            addresses[source.randrange(setup.lanes)] = source.choice([*around, *setup.wild()])
        made += check(group, kind, addresses, mask, source)
    assert (made > 0) == bool(good)


def test_what_vectors_are_asked(group: Group) -> None:
    """all, any and all_same count the lanes that take part and no others."""
    setup = group.setup
    module = ir.Module("asking")
    function = ir.Function(module, ir.FunctionType(I64, [PTR, I64]), "ask")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    lanes = LaneVectors(b, setup.lanes)
    lanes.activate(lanes.from_bits(function.args[1]))
    values = b.load(function.args[0], typ=lanes.type(64), align=8)
    odd = b.trunc(values, lanes.type(1))
    same, first = lanes.all_same(values)
    answers = [
        lanes.all(odd),
        lanes.any(odd),
        lanes.is_none(lanes.bits(odd)),
        same,
        b.icmp_unsigned("<", first, I64(3)),
    ]
    total = I64(0)
    for place, answer in enumerate(answers):
        total = b.or_(total, b.shl(b.zext(answer, I64), I64(place)))
    b.ret(total)
    target = cpu_target()
    code = target.load(target.compile(str(module)), ("ask",))
    ask = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)(code.addresses["ask"])
    source = random.Random(setup.lanes)
    for _ in range(300):
        row = np.array(
            [source.choice([1, 2, 3, 5] if source.random() < 0.5 else [1]) for _ in range(setup.lanes)], np.uint64
        )
        if source.random() < 0.5:
            row[:] = source.randrange(4)
        mask = some_mask(source, setup.lanes)
        row = np.where([mask >> i & 1 for i in range(setup.lanes)], row, np.uint64(source.randrange(5)))
        part = [int(row[i]) for i in range(setup.lanes) if mask >> i & 1]
        odds = [bool(v & 1) for v in part]
        wanted = [all(odds), any(odds), not any(odds), len(set(part)) == 1, part[0] < 3]
        assert ask(int(row.ctypes.data), mask) == sum(w << i for i, w in enumerate(wanted)), (part, hex(mask))
    assert code.size > 0
