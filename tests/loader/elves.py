"""ELF files by hand: every field can be set to what no linker would write."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tests.differential.asm import encode

READ, WRITE, EXECUTE = 4, 2, 1  # as in p_flags

# addi a0, zero, 7; addi a7, zero, 93; ecall
CODE = encode("addi", rd=10, imm=7) + encode("addi", rd=17, imm=93) + encode("ecall")
BASE = 0x10000

PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE = 1, 2, 3, 4
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_NOBITS, SHT_RISCV_ATTRIBUTES = 1, 2, 3, 8, 0x70000003


@dataclass
class Load:
    """A program header; `size` in memory, by default that of the data; fields in `other` as in the specification."""

    address: int
    data: bytes = b""
    size: int | None = None
    flags: int = READ | EXECUTE
    other: dict[str, int] = field(default_factory=dict)


@dataclass
class Section:
    name: str
    kind: int
    data: bytes = b""
    other: dict[str, int] = field(default_factory=dict)


def uleb(value: int) -> bytes:
    out = bytearray()
    while True:
        value, byte = value >> 7, value & 127
        out.append(byte | (128 if value else 0))
        if not value:
            return bytes(out)


def attributes(arch: str | None = None, *, before: bytes = b"", vendor: bytes = b"riscv") -> bytes:
    """A `.riscv.attributes` section; `before` are attributes in front of Tag_RISCV_arch."""
    body = before + (b"" if arch is None else uleb(5) + arch.encode() + b"\0")
    file = uleb(1) + struct.pack("<I", 5 + len(body)) + body
    return b"A" + struct.pack("<I", 4 + len(vendor) + 1 + len(file)) + vendor + b"\0" + file


def symbols(xlen: int, table: dict[str, tuple[int, int, int]]) -> tuple[bytes, bytes]:
    """(.symtab, .strtab) of symbols by name: (value, type, section)."""
    strings = b"\0"
    entries = bytes(16 if xlen == 32 else 24)
    for name, (value, kind, section) in table.items():
        info = 1 << 4 | kind
        if xlen == 32:
            entries += struct.pack("<IIIBBH", len(strings), value, 0, info, 0, section)
        else:
            entries += struct.pack("<IBBHQQ", len(strings), info, 0, section, value, 0)
        strings += name.encode() + b"\0"
    return entries, strings


def elf(
    xlen: int = 64,
    loads: list[Load] | None = None,
    sections: list[Section] | None = None,
    *,
    kinds: list[tuple[int, Load]] | None = None,
    order: str = "<",
    **header: int,
) -> bytes:
    """A file of loads, of program headers of other `kinds`, and of sections. `header` sets fields of the ELF header."""
    wide = xlen == 64
    loads = [Load(BASE, CODE)] if loads is None else loads
    programs = [(PT_LOAD, load) for load in loads] + (kinds or [])
    header_size, ph_size, sh_size = (64, 56, 64) if wide else (52, 32, 40)
    body = bytearray(header_size + ph_size * len(programs))
    program_headers = b""
    for kind, load in programs:
        offset = len(body)
        body += load.data
        f = {"type": kind, "flags": load.flags, "offset": offset, "vaddr": load.address, "paddr": load.address,
             "filesz": len(load.data), "memsz": len(load.data) if load.size is None else load.size, "align": 1,
             **load.other}  # fmt: skip
        names = (
            ("type", "flags", "offset", "vaddr", "paddr", "filesz", "memsz", "align")
            if wide
            else ("type", "offset", "vaddr", "paddr", "filesz", "memsz", "flags", "align")
        )
        program_headers += struct.pack(order + ("IIQQQQQQ" if wide else "IIIIIIII"), *(f[n] for n in names))
    section_headers, count, where = b"", 0, 0
    if sections is not None:
        text = b"\0" + b"".join(s.name.encode() + b"\0" for s in sections) + b".shstrtab\0"
        everything = [Section("", 0), *sections, Section(".shstrtab", SHT_STRTAB, text)]
        place = 1
        for i, s in enumerate(everything):
            f = {"name": 0 if i == 0 else place, "type": s.kind, "flags": 0, "addr": 0, "offset": len(body), "size": len(s.data),
                 "link": 0, "info": 0, "addralign": 1, "entsize": 0, **s.other}  # fmt: skip
            place += len(s.name) + 1 if i else 0
            body += s.data
            section_headers += struct.pack(order + ("IIQQQQIIQQ" if wide else "10I"), *f.values())
        count, where = len(everything), len(body)
        body += section_headers
    fields = {"type": 2, "machine": 243, "version": 1, "entry": BASE, "phoff": header_size, "shoff": where, "flags": 1,
              "ehsize": header_size, "phentsize": ph_size, "phnum": len(programs), "shentsize": sh_size if count else 0,
              "shnum": count, "shstrndx": count - 1 if count else 0}  # fmt: skip
    ident = {"class": 2 if wide else 1, "data": 1 if order == "<" else 2}
    for name, value in header.items():
        (ident if name in ident else fields)[name] = value
    head = b"\x7fELF" + bytes([ident["class"], ident["data"], 1, 0]) + bytes(8)
    head += struct.pack(order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"), *fields.values())
    body[: len(head + program_headers)] = head + program_headers
    return bytes(body)


def complete(xlen: int = 64, arch: str | None = None) -> bytes:
    """A file as a linker would write it: code, data, sections, attributes, symbols."""
    arch = arch or f"rv{xlen}i2p1_m2p0_a2p1_c2p0_zmmul1p0"
    table, strings = symbols(xlen, {"_start": (BASE, 2, 1), "table": (0x20000, 1, 2), "file.c": (0, 4, 0xFFF1)})
    sections = [
        Section(".text", SHT_PROGBITS, CODE, {"addr": BASE}),
        Section(".riscv.attributes", SHT_RISCV_ATTRIBUTES, attributes(arch)),
        Section(".symtab", SHT_SYMTAB, table, {"link": 4, "entsize": 16 if xlen == 32 else 24}),
        Section(".strtab", SHT_STRTAB, strings),
    ]
    loads = [Load(BASE, CODE), Load(0x20000, b"data", 64, READ | WRITE)]
    return elf(xlen, loads, sections)
