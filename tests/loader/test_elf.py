"""ELF files that are good, and the many that are not: one clear line for each of these."""

from __future__ import annotations

import contextlib
import signal
import struct
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

import vmjit
from tests.cli.conftest import Cli, cli
from tests.differential import oracles
from tests.loader.elves import (
    BASE,
    CODE,
    EXECUTE,
    PT_DYNAMIC,
    PT_INTERP,
    PT_NOTE,
    READ,
    SHT_NOBITS,
    SHT_PROGBITS,
    SHT_RISCV_ATTRIBUTES,
    SHT_STRTAB,
    SHT_SYMTAB,
    WRITE,
    Load,
    Section,
    attributes,
    complete,
    elf,
    symbols,
    uleb,
)
from vmjit import IsaError, Program, ProgramError
from vmjit.loader.elf import read_elf
from vmjit.loader.riscv_attributes import arch_attribute

__all__ = ["cli"]  # a fixture

ROOT = Path(__file__).resolve().parents[2]
NAME = "folder/guest.elf"
both = pytest.mark.parametrize("xlen", [32, 64])


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fails what takes longer, also where it would never end."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def complaint(data: bytes, isa: str | None = None) -> str:
    """The one line that is said of a file that cannot be loaded: it starts with the file's name."""
    with within(10), pytest.raises(ProgramError) as caught:
        read_elf(data, NAME, isa)
    text = str(caught.value)
    assert text.startswith(f"{NAME}: "), text
    assert len(text.splitlines()) == 1
    assert len(text) < 300
    assert text.isprintable()
    return text


# -- good files


@both
def test_a_complete_file(xlen: int) -> None:
    program = read_elf(complete(xlen), NAME)
    assert (program.name, program.xlen, program.entry) == (NAME, xlen, BASE)
    assert program.isa == f"rv{xlen}imac"
    assert [(s.address, s.size, s.data, s.permissions) for s in program.segments] == [
        (BASE, len(CODE), CODE, oracles.READ | oracles.EXECUTE),
        (0x20000, 64, b"data", oracles.READ | oracles.WRITE),
    ]
    assert program.symbols == {"_start": BASE, "table": 0x20000}
    result = vmjit.Machine(program, 3).run()
    assert result.exit_code.tolist() == [7, 7, 7]


@both
def test_a_file_of_two_segments(xlen: int) -> None:
    """What the other tests write, without any section."""
    pieces = [
        (BASE, CODE, len(CODE), oracles.READ | oracles.EXECUTE),
        (0x30000, b"abc", 4096, oracles.READ | oracles.WRITE),
    ]
    for flags, compressed in ((1, True), (0, False)):
        program = read_elf(oracles.write_elf(xlen, pieces, BASE, flags=flags), NAME)
        assert program.isa_config.compressed == compressed
        assert [(s.address, s.size) for s in program.segments] == [(BASE, len(CODE)), (0x30000, 4096)]
        m = vmjit.Machine(program)
        assert m.memory.read(0x30000, 6)[0].tobytes() == b"abc\0\0\0"
        assert m.run().exit_code.tolist() == [7]


def test_permissions() -> None:
    """A segment that can be written can be read as well."""
    for flags, wanted in ((4, 1), (2, 3), (6, 3), (5, 5), (7, 7), (1, 4), (3, 7), (0, 0)):
        program = read_elf(elf(loads=[Load(BASE, CODE), Load(0x20000, b"x", flags=flags)]), NAME)
        assert program.segments[1].permissions == wanted, flags


def test_segments_in_any_order_and_empty_ones() -> None:
    loads = [Load(0x30000, b"c", 16), Load(BASE, CODE), Load(0x20000, b"", 0), Load(0x20000, b"b", 16, READ)]
    kinds = [(PT_NOTE, Load(0, b"note")), (0x6474E551, Load(0, b"", 0)), (0x70000003, Load(0, b"x"))]
    program = read_elf(elf(loads=loads, kinds=kinds), NAME)
    assert [s.address for s in program.segments] == [BASE, 0x20000, 0x30000]


def test_the_top_of_the_address_space() -> None:
    for xlen in (32, 64):
        top = 1 << xlen
        program = read_elf(elf(xlen, [Load(BASE, CODE), Load(top - 16, b"end", 16, READ | WRITE)]), NAME)
        assert program.segments[-1].end == top
        assert vmjit.Machine(program).run().exit_code.tolist() == [7]


@both
def test_sections_that_say_nothing(xlen: int) -> None:
    """Unknown kinds, sections without bytes in the file, empty tables."""
    sections = [
        Section(".bss", SHT_NOBITS, b"", {"size": 1 << 30}),
        Section(".odd", 0x6FFFFFF0, b"data"),
        Section(".symtab", SHT_SYMTAB, b"", {"link": 4, "entsize": 16 if xlen == 32 else 24}),
        Section(".strtab", SHT_STRTAB, b"\0"),
    ]
    program = read_elf(elf(xlen, sections=sections), NAME)
    assert program.symbols == {}


def test_symbols() -> None:
    """Undefined ones, files and mapping symbols are none; of two with a name, the first counts."""
    table, strings = symbols(
        64,
        {"main": (BASE + 4, 2, 1), "undefined": (0, 0, 0), "$x": (BASE, 0, 1), "$d.1": (BASE, 0, 1), "a.c": (5, 4, 0xFFF1),
         "größe": (64, 1, 0xFFF1), "": (9, 0, 1)},
    )  # fmt: skip
    second, more = symbols(64, {"main": (1, 2, 1), "other": (2, 2, 1)})
    sections = [
        Section(".text", SHT_PROGBITS, CODE),
        Section(".symtab", SHT_SYMTAB, table, {"link": 3, "entsize": 24}),
        Section(".strtab", SHT_STRTAB, strings),
        Section(".dynsym", SHT_SYMTAB, second, {"link": 5, "entsize": 24}),
        Section(".dynstr", SHT_STRTAB, more),
    ]
    program = read_elf(elf(sections=sections), NAME)
    assert program.symbols == {"main": BASE + 4, "größe": 64, "other": 2}
    assert program.address("main") == BASE + 4


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "guests" / "bin").glob("*.elf")), ids=lambda p: p.name)
def test_guests_of_the_repository(path: Path) -> None:
    program = vmjit.load(path)
    assert program.isa.startswith(path.name.split(".")[1])
    assert "_start" in program.symbols
    assert program.entry == program.symbols["_start"]


# -- ISAs


def with_arch(arch: str | None, xlen: int = 64, **header: int) -> bytes:
    kind = Section(".riscv.attributes", SHT_RISCV_ATTRIBUTES, attributes(arch))
    return elf(xlen, sections=[Section(".text", SHT_PROGBITS, CODE), kind], **header)


@pytest.mark.parametrize(
    ("arch", "flags", "isa"),
    [
        ("rv64i2p1", 0, "rv64i"),
        ("rv64i2p1_m2p0_c2p0", 1, "rv64imc"),
        ("rv64i2p1_m2p0", 1, "rv64im_zca"),
        ("rv64i2p0_m2p0_a2p0", 0, "rv64ima_zicsr_zifencei"),
        ("rv64gc", 1, "rv64imafdc_zicsr_zifencei"),
        ("rv64i2p1_m2p0_zba1p0_zbb1p0_zvl128b1p0_zve32x1p0", 0, "rv64im_zba_zbb_zve32x_zvl128b"),
    ],
)
def test_the_isa_of_the_attributes(arch: str, flags: int, isa: str) -> None:
    assert read_elf(with_arch(arch, flags=flags), NAME).isa == isa


def test_the_isa_without_attributes() -> None:
    for xlen in (32, 64):
        for data in (elf(xlen, flags=1), with_arch(None, xlen, flags=1), elf(xlen, sections=[], flags=1)):
            program = read_elf(data, NAME)
            assert program.xlen == xlen
            assert program.isa_config.has("m+a+c+zba+zbb+zbs+zicsr")
        assert not read_elf(elf(xlen, flags=0), NAME).isa_config.compressed


def test_the_isa_that_is_asked_for() -> None:
    assert read_elf(with_arch("rv64i2p1_zoo1p0"), NAME, "rv64im").isa == "rv64im"
    assert "is a 64-bit program, the ISA asked for is rv32i" in complaint(complete(64), "rv32i")
    with pytest.raises(IsaError, match="unknown extension 'zoo'"):
        read_elf(complete(64), NAME, "rv64i_zoo")


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("rv64i2p1_zoo1p0", "unknown extension 'zoo'"),
        ("rv64i2p1_y2p0", "unknown extension 'y'"),
        ("rv64e2p0", "RV32E and RV64E are not supported"),
        ("rv32i2p1", "a 64-bit ELF whose attributes say rv32i2p1"),
        ("rv128i", "does not start with rv32 or rv64"),
        ("x86", "does not start with rv32 or rv64"),
        ("rv64i__m", "empty extension"),
        ("rv64i_" + "z" * 5000, "unknown extension"),
        ("rv64i\nm", "ISA"),
        ("rv64i\x1b[31m", "ISA"),
    ],
)
def test_isas_that_are_none(arch: str, words: str) -> None:
    assert words in complaint(with_arch(arch))


@pytest.mark.parametrize("byte", [b"\n", b"\r", b"\x0b", b"\x1b", b"\0", b"B", b"\xff"], ids=repr)
def test_attributes_of_another_version(byte: bytes) -> None:
    """The version is one byte, a letter; what is said of another one is one line all the same."""
    kind = Section(".riscv.attributes", SHT_RISCV_ATTRIBUTES, byte + attributes("rv64im")[1:])
    data = elf(sections=[Section(".text", SHT_PROGBITS, CODE), kind])
    try:
        assert read_elf(data, NAME).segments[0].data == CODE
    except ProgramError:
        complaint(data)


def test_attributes_that_say_nothing() -> None:
    """Other vendors, other versions, other attributes: no ISA; what is read is bounded by what is there."""
    good = attributes("rv64im")
    assert arch_attribute(good) == "rv64im"
    assert (
        arch_attribute(attributes("rv64im", before=uleb(4) + uleb(16) + uleb(7) + b"text\0" + uleb(6) + uleb(1)))
        == "rv64im"
    )
    assert arch_attribute(attributes("rv64im", before=uleb(4) + uleb(1 << 40))) == "rv64im"
    assert arch_attribute(attributes("rv32i", vendor=b"other")[:] + good[1:]) == "rv64im"
    for nothing in (
        b"",
        b"A",
        b"B" + good[1:],
        attributes(None),
        attributes("rv64im", vendor=b"gnu"),
        b"A\0\0\0\0",
        b"A" * 40,
    ):
        assert arch_attribute(nothing) is None
    assert arch_attribute(b"A" + struct.pack("<I", 1 << 31) + good[5:]) == "rv64im"  # longer than the section


# -- files that are none


def test_no_elf_at_all() -> None:
    for data in (
        b"",
        b"\x7f",
        b"\x7fEL",
        b"#!/bin/sh\n",
        bytes(64),
        b"MZ" + bytes(100),
        complete()[1:],
        b"\x7fELf" + bytes(60),
    ):
        assert complaint(data) == f"{NAME}: not an ELF file"


@both
def test_every_truncation(xlen: int) -> None:
    """A file that was cut off is refused, unless all that was cut off says nothing of the program."""
    small = elf(xlen)
    read_elf(small, NAME)
    for size in range(len(small)):
        text = complaint(small[:size])
        assert "not an ELF file" in text if size < 4 else True
        assert "truncated" in text if size >= len(small) - len(CODE) else True
    whole = complete(xlen)
    read_elf(whole, NAME)
    for size in range(4, len(whole)):
        complaint(whole[:size])


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0, "no machine"), (3, "x86"), (8, "MIPS"), (20, "PowerPC"), (21, "64-bit PowerPC"), (22, "S390"), (40, "Arm"), (42, "SH"),
        (43, "SPARC"), (50, "IA_64"), (62, "x86-64"), (94, "XTENSA"), (183, "AArch64"), (247, "BPF"), (258, "LoongArch"),
        (0xFFFE, "65534"),
    ],
)  # fmt: skip
@both
def test_other_machines_are_named(number: int, name: str, xlen: int) -> None:
    text = complaint(elf(xlen, machine=number))
    assert text.endswith("not for RISC-V")
    assert name.lower() in text.lower()


@both
def test_other_kinds_of_files(xlen: int) -> None:
    assert "an object file" in complaint(elf(xlen, type=1))
    assert "shared library" in complaint(elf(xlen, type=3))
    for kind in (0, 4, 0xFE00, 0xFFFF):
        assert "not a static executable" in complaint(elf(xlen, type=kind))
    assert "big-endian" in complaint(elf(xlen, order=">"))
    for ident in ({"class": 0}, {"class": 3}, {"data": 0}, {"data": 3}):
        complaint(elf(xlen, **ident))


@both
def test_dynamically_linked(xlen: int) -> None:
    interpreter = (PT_INTERP, Load(0, b"/lib/ld.so\0", flags=READ))
    assert "dynamically linked; link with -static" in complaint(elf(xlen, kinds=[interpreter]))
    # A static program may have a dynamic section, for its own relocation.
    assert read_elf(elf(xlen, kinds=[(PT_DYNAMIC, Load(0x20000, b"", 0))]), NAME)


# -- segments


@both
def test_segments_that_cannot_be(xlen: int) -> None:
    top = 1 << xlen
    assert "more bytes in the file than in memory" in complaint(elf(xlen, [Load(BASE, CODE, len(CODE) - 1)]))
    assert "has nothing to load" in complaint(elf(xlen, []))
    assert "has nothing to load" in complaint(elf(xlen, [Load(BASE, b"", 0)]))
    for field in ("offset", "filesz"):
        for value in (4096, 1 << 31, top - 1, top - len(CODE)):
            other = {field: value, "memsz": top - 1} if field == "filesz" else {field: value}
            text = complaint(elf(xlen, [Load(BASE, CODE, other=other)]))
            assert "truncated" in text or "leaves the address space" in text
    for address, size in ((top - 4, 12), (top - 1, 2), (BASE, top - 1), (top - 16, top - 1)):
        assert "leaves the address space" in complaint(elf(xlen, [Load(address, CODE if size == 12 else b"", size)]))


@both
def test_overlapping_segments(xlen: int) -> None:
    for address, size in ((BASE, 16), (BASE + 8, 16), (BASE - 8, 9), (BASE + 2, 1), (BASE - 100, 10_000)):
        assert "segments overlap" in complaint(elf(xlen, [Load(BASE, CODE), Load(address, b"", size, READ | WRITE)]))
    assert read_elf(elf(xlen, [Load(BASE, CODE), Load(BASE + len(CODE), b"x"), Load(BASE - 8, b"", 8)]), NAME)


@both
def test_entries_that_are_none(xlen: int) -> None:
    for entry in (0, BASE - 2, BASE + len(CODE), 0x20000, (1 << xlen) - 2):
        assert f"entry {entry:#x} is in no executable segment" in complaint(
            elf(xlen, [Load(BASE, CODE), Load(0x20000, b"data", 64, READ | WRITE)], entry=entry)
        )
    assert "no instruction can start at the entry" in complaint(elf(xlen, entry=BASE + 1))
    assert "no instruction can start at the entry" in complaint(elf(xlen, entry=BASE + 2, flags=0))
    assert read_elf(elf(xlen, entry=BASE + 2, flags=1), NAME).entry == BASE + 2
    assert "in no executable segment" in complaint(elf(xlen, [Load(BASE, CODE, flags=READ | WRITE)]))
    assert read_elf(elf(xlen, [Load(BASE, CODE, flags=EXECUTE)]), NAME)


# -- headers and tables that lead astray


@both
@pytest.mark.parametrize(
    "header",
    [
        {"phoff": 1 << 30}, {"phoff": (1 << 32) - 1}, {"phnum": 200}, {"phnum": 0xFFFF}, {"phentsize": 0}, {"phentsize": 1},
        {"phentsize": 0xFFFF}, {"phnum": 0xFFFF, "phentsize": 0}, {"phoff": 0},
    ],
    ids=str,
)  # fmt: skip
def test_program_headers_that_lead_astray(xlen: int, header: dict[str, int]) -> None:
    whole = elf(xlen, [Load(BASE, CODE), Load(0x20000, b"data", 64, READ)], **header)
    with within(10):
        try:
            program = read_elf(whole, NAME)
        except ProgramError as error:
            assert str(error).startswith(f"{NAME}: ")
        else:
            assert program.segments[0].data == CODE


@both
@pytest.mark.parametrize(
    "header",
    [
        {"shoff": 1 << 30}, {"shoff": (1 << 32) - 1}, {"shnum": 0}, {"shnum": 0xFFFF}, {"shentsize": 0}, {"shentsize": 1},
        {"shentsize": 0, "shnum": 0xFFFF}, {"shstrndx": 0}, {"shstrndx": 3}, {"shstrndx": 200}, {"shstrndx": 0xFFFF},
        {"shentsize": 0, "shnum": 0},
    ],
    ids=str,
)  # fmt: skip
def test_section_headers_that_lead_astray(xlen: int, header: dict[str, int]) -> None:
    """Sections say nothing that is needed to run; a file with damaged ones is refused or loaded, but answered."""
    whole = bytearray(complete(xlen))
    struct_of = {"shoff": (0x28, 8) if xlen == 64 else (0x20, 4), "shentsize": (0x3A, 2) if xlen == 64 else (0x2E, 2),
                 "shnum": (0x3C, 2) if xlen == 64 else (0x30, 2), "shstrndx": (0x3E, 2) if xlen == 64 else (0x32, 2)}  # fmt: skip
    for name, value in header.items():
        place, size = struct_of[name]
        whole[place : place + size] = value.to_bytes(size, "little")
    with within(10):
        try:
            program = read_elf(bytes(whole), NAME)
        except ProgramError as error:
            assert str(error).startswith(f"{NAME}: ")
            assert len(str(error).splitlines()) == 1
        else:
            assert program.segments[0].data == CODE


@both
@pytest.mark.parametrize("count", ["sections", "programs"])
def test_counts_beyond_the_header_s(xlen: int, count: str) -> None:
    """A count that does not fit its field is in the first section header: it may be anything, and must not be believed
    where the entries have no size."""
    first = {"size": (1 << xlen) - 1} if count == "sections" else {"info": (1 << 32) - 1}
    data = bytearray(elf(xlen, sections=[Section(".text", SHT_PROGBITS, CODE)]))
    shoff = int.from_bytes(data[0x28:0x30], "little") if xlen == 64 else int.from_bytes(data[0x20:0x24], "little")
    fields = {"size": (32, 8) if xlen == 64 else (20, 4), "info": (44, 4) if xlen == 64 else (28, 4)}
    for name, value in first.items():
        place, size = fields[name]
        data[shoff + place : shoff + place + size] = value.to_bytes(size, "little")
    entsize, number = (0x3A, 0x3C) if count == "sections" else (0x36, 0x38)
    if xlen == 32:
        entsize, number = (0x2E, 0x30) if count == "sections" else (0x2A, 0x2C)
    data[entsize : entsize + 2] = bytes(2)
    data[number : number + 2] = bytes(2) if count == "sections" else b"\xff\xff"
    with within(10), contextlib.suppress(ProgramError):
        read_elf(bytes(data), NAME)


@both
@pytest.mark.parametrize(
    ("section", "other"),
    [
        (".symtab", {"entsize": 0}), (".symtab", {"entsize": 1}), (".symtab", {"entsize": 1 << 20}), (".symtab", {"link": 0}),
        (".symtab", {"link": 99}), (".symtab", {"link": 3}), (".symtab", {"size": (1 << 32) - 1}), (".symtab", {"offset": 1 << 31}),
        (".strtab", {"offset": 1 << 31}), (".strtab", {"size": 1 << 31}), (".strtab", {"type": 1}),
        (".riscv.attributes", {"offset": 1 << 31}), (".riscv.attributes", {"size": (1 << 32) - 1}),
        (".riscv.attributes", {"type": SHT_NOBITS}), (".riscv.attributes", {"flags": 0x800}), (".text", {"flags": 0x800}),
        (".symtab", {"flags": 0x800}), (".symtab", {"type": 11}), (".symtab", {"type": 6}), (".symtab", {"type": 18}),
        (".text", {"type": 0x6FFFFFFF}), (".text", {"type": 17}), (".text", {"name": 1 << 30}),
    ],
    ids=lambda value: str(value),
)  # fmt: skip
def test_sections_that_lead_astray(xlen: int, section: str, other: dict[str, int]) -> None:
    table, strings = symbols(xlen, {"_start": (BASE, 2, 1), "x" * 40: (BASE, 1, 1)})
    sections = [
        Section(".text", SHT_PROGBITS, CODE),
        Section(".riscv.attributes", SHT_RISCV_ATTRIBUTES, attributes(f"rv{xlen}im")),
        Section(".symtab", SHT_SYMTAB, table, {"link": 4, "entsize": 16 if xlen == 32 else 24}),
        Section(".strtab", SHT_STRTAB, strings),
    ]
    for s in sections:
        if s.name == section:
            s.other.update(other)
    with within(10):
        try:
            program = read_elf(elf(xlen, sections=sections), NAME)
        except ProgramError as error:
            assert str(error).startswith(f"{NAME}: ")
            assert len(str(error).splitlines()) == 1
        else:
            assert program.segments[0].data == CODE


def peak(data: bytes) -> int:
    """Bytes that reading takes at its height, beside the file's own."""
    tracemalloc.start()
    try:
        with within(20), contextlib.suppress(ProgramError):
            read_elf(data, NAME)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_many_headers_of_one_segment() -> None:
    """A thousand program headers that all name the same large piece of the file do not make a thousand copies."""
    big = bytes(200_000)
    first = Load(BASE, CODE + big)
    data = elf(loads=[first, *[Load(BASE, b"", 0) for _ in range(1000)]])
    place = 64 + 56
    whole = bytearray(data)
    for k in range(1000):
        whole[place + 56 * k : place + 56 * (k + 1)] = whole[64 : 64 + 56]
    assert "overlap" in complaint(bytes(whole))
    assert peak(bytes(whole)) < 50 << 20


def test_a_section_that_would_unpack_to_much() -> None:
    """Compressed sections are not unpacked for the sake of the attributes."""
    size = 1 << 26
    bomb = struct.pack("<IIQQ", 1, 0, size, 1) + zlib.compress(bytes(size), 9)
    for kind in (SHT_RISCV_ATTRIBUTES, SHT_PROGBITS):
        section = Section(".riscv.attributes", kind, bomb, {"flags": 0x800})
        data = elf(sections=[Section(".text", SHT_PROGBITS, CODE), section])
        assert len(data) < 1 << 20
        assert peak(data) < size // 2


@both
def test_compressed_sections_that_are_damaged(xlen: int) -> None:
    header = struct.pack("<IIQQ", 1, 0, 100, 1) if xlen == 64 else struct.pack("<III", 1, 100, 1)
    table, strings = symbols(xlen, {"_start": (BASE, 2, 1)})
    for packed in (b"", b"no zlib stream", zlib.compress(b"short"), zlib.compress(bytes(100))[:-6]):
        for kind in (SHT_RISCV_ATTRIBUTES, SHT_PROGBITS):
            sections = [
                Section(".text", SHT_PROGBITS, CODE),
                Section(".riscv.attributes", kind, header + packed, {"flags": 0x800}),
                Section(".symtab", SHT_SYMTAB, header + packed + table, {"flags": 0x800, "link": 4, "entsize": 24}),
                Section(".strtab", SHT_STRTAB, header + packed + strings, {"flags": 0x800}),
            ]
            with contextlib.suppress(ProgramError):
                read_elf(elf(xlen, sections=sections), NAME)


def test_many_symbols_take_little_time() -> None:
    table, strings = symbols(64, {f"symbol_{k}": (BASE, 2, 1) for k in range(5000)})
    sections = [
        Section(".text", SHT_PROGBITS, CODE),
        Section(".symtab", SHT_SYMTAB, table, {"link": 3, "entsize": 24}),
        Section(".strtab", SHT_STRTAB, strings),
    ]
    started = time.perf_counter()
    assert len(read_elf(elf(sections=sections), NAME).symbols) == 5000
    assert time.perf_counter() - started < 5


# -- files and programs that are not


def test_loading_from_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "guest.elf"
    path.write_bytes(complete())
    for place in (path, str(path)):
        assert vmjit.load(place).name == str(path)
    assert vmjit.load(path, "rv64i").isa == "rv64i"
    for bad, words in ((tmp_path / "none", "No such file"), (tmp_path, "directory")):
        with pytest.raises(ProgramError, match=words) as caught:
            vmjit.load(bad)
        assert caught.value.path == str(bad)


def test_programs_of_bytes() -> None:
    program = Program.from_bytes(CODE, "rv32im", base=0x400)
    assert (program.entry, program.isa, program.segments[0].writable) == (0x400, "rv32im", True)
    assert vmjit.Machine(program).run().exit_code.tolist() == [7]
    assert Program.from_bytes(bytearray(CODE), "rv32im", entry=0x10004).entry == 0x10004  # type: ignore[arg-type]
    for arguments, words in (
        ((b"", "rv32i"), "code is empty"),
        ((CODE, "rv32i", -4), "leaves the address space"),
        ((CODE, "rv32i", (1 << 32) - 8), "leaves the address space"),
        ((CODE, "rv32i", 0x10002), "no instruction can start"),
        ((CODE, "rv32ic", 0x10001), "no instruction can start"),
        ((CODE, "mips"), "does not start with"),
    ):
        with pytest.raises(ProgramError, match=words):
            Program.from_bytes(*arguments)  # type: ignore[arg-type]
    with pytest.raises(ProgramError, match="in no executable segment"):
        Program.from_bytes(CODE, "rv32i", entry=0)


# -- on the command line


@pytest.mark.parametrize("words", [("run",), ("disassemble",), ("translate", "--at", "0x10000", "--emit", "ir")])
def test_bad_files_on_the_command_line(cli: Cli, tmp_path: Path, words: tuple[str, ...]) -> None:
    path = tmp_path / "guest.elf"
    whole = complete()
    table, strings = symbols(64, {"_start": (BASE, 2, 1)})
    entsize = [
        Section(".text", SHT_PROGBITS, CODE),
        Section(".symtab", SHT_SYMTAB, table, {"link": 3, "entsize": 0}),
        Section(".strtab", SHT_STRTAB, strings),
    ]
    for data, message in (
        (b"", "not an ELF file"),
        (whole[:100], ""),
        (elf(machine=62), "built for x86-64, not for RISC-V"),
        (elf(machine=183), "built for AArch64, not for RISC-V"),
        (elf(order=">"), "big-endian"),
        (elf(type=1), "an object file"),
        (elf(type=3), "shared library"),
        (elf(kinds=[(PT_INTERP, Load(0, b"/lib/ld.so\0"))]), "dynamically linked"),
        (elf(loads=[Load(BASE, CODE, 3)]), "more bytes in the file than in memory"),
        (elf(loads=[Load(BASE, CODE), Load(BASE, CODE)]), "segments overlap"),
        (elf(entry=BASE + 1), "no instruction can start"),
        (elf(entry=4), "in no executable segment"),
        (with_arch("rv64i_zoo"), "unknown extension 'zoo'"),
        (with_arch("rv32i"), "a 64-bit ELF whose attributes say rv32i"),
        (elf(sections=entsize), ""),
    ):
        path.write_bytes(data)
        line = cli(*words, path).complaint()
        assert line.startswith(f"vmjit: {path}: "), line
        assert message.lower() in line.lower()
