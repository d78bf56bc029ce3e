"""ELF files to programs (System V ABI; RISC-V psABI). Everything unexpected is one `ProgramError`."""

from __future__ import annotations

import io
import zlib
from itertools import pairwise
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from vmjit.checks import shown
from vmjit.decoders.riscv.isa import Isa, default_isa, parse_isa
from vmjit.errors import ProgramError
from vmjit.kernels.layout import PERMISSION_EXECUTE, PERMISSION_READ, PERMISSION_WRITE
from vmjit.loader.riscv_attributes import arch_attribute
from vmjit.program import Program, ProgramHeaders, Segment

_EF_RISCV_RVC = 1
_SHF_COMPRESSED = 0x800
_PF = ((4, PERMISSION_READ), (2, PERMISSION_WRITE | PERMISSION_READ), (1, PERMISSION_EXECUTE))
_PAGE = 4096
_MACHINE_NAMES = {"EM_NONE": "no machine", "EM_386": "x86", "EM_PPC": "PowerPC", "EM_PPC64": "64-bit PowerPC",
                  "EM_ARM": "Arm", "EM_X86_64": "x86-64", "EM_LOONGARCH": "LoongArch"}  # fmt: skip


def read_elf(data: bytes, path: str, isa: str | None = None) -> Program:
    """A static bare-metal ELF executable as a program.

    `isa` overrides what the file says of itself. Raises `ProgramError` for what is not a RISC-V little-endian
    executable, and for segments that are truncated, overlap or leave the address space.
    """
    if data[:4] != b"\x7fELF":
        raise ProgramError(f"{path}: not an ELF file", path=path)
    try:
        elf = ELFFile(io.BytesIO(data))
        return _read(elf, data, path, isa)
    except ProgramError:
        raise
    except (ELFError, AssertionError, KeyError, ValueError, IndexError, OverflowError, TypeError, AttributeError,
            UnicodeError, MemoryError, RecursionError, zlib.error) as error:  # fmt: skip
        # pyelftools answers damage with whatever its parser stumbles over.
        what = shown(str(error))
        raise ProgramError(f"{path}: damaged ELF file ({type(error).__name__}: {what})", path=path) from error


def _read(elf: Any, data: bytes, path: str, isa: str | None) -> Program:
    header = elf.header
    if header["e_machine"] != "EM_RISCV":
        machine = header["e_machine"]
        name = f"machine {machine}" if isinstance(machine, int) else machine.removeprefix("EM_")
        name = _MACHINE_NAMES.get(machine, name)
        raise ProgramError(f"{path}: built for {name}, not for RISC-V", path=path)
    if not elf.little_endian:
        raise ProgramError(f"{path}: big-endian RISC-V is not supported", path=path)
    if header["e_type"] != "ET_EXEC":
        kind = {"ET_REL": "an object file", "ET_DYN": "position-independent or a shared library"}
        what = kind.get(header["e_type"], str(header["e_type"]))
        raise ProgramError(f"{path}: not a static executable ({what}); link with -static -no-pie", path=path)
    xlen = elf.elfclass
    loaded = [s for s in elf.iter_segments() if s["p_type"] == "PT_LOAD" and s["p_memsz"]]
    _check_overlaps(loaded, path)
    segments = [_segment(s, data, path, xlen) for s in loaded]
    if any(s["p_type"] == "PT_INTERP" for s in elf.iter_segments()):
        raise ProgramError(f"{path}: dynamically linked; link with -static", path=path)
    return Program(
        segments=tuple(segments),
        entry=header["e_entry"],
        isa=_isa(elf, xlen, isa, path),
        symbols=(symbols := _symbols(elf)),
        name=path,
        linux=_is_for_linux(elf, symbols),
        program_headers=_program_headers(elf, loaded),
        relro_end=_relro_end(elf),
    )


def _is_for_linux(elf: Any, symbols: dict[str, int]) -> bool:
    """By the file's ABI, the C library's start, the note that glibc puts into programs, or a segment that linkers make
    for C libraries of systems: program headers that the program can read, thread-local data, data that is read-only
    once relocated."""
    if elf.header["e_ident"]["EI_OSABI"] in ("ELFOSABI_LINUX", 3) or "__libc_start_main" in symbols:
        return True
    return any(s["p_type"] in ("PT_PHDR", "PT_TLS", "PT_GNU_RELRO") for s in elf.iter_segments()) or any(
        s.name == ".note.ABI-tag" for s in elf.iter_sections()
    )


def _relro_end(elf: Any) -> int:
    """C libraries protect the whole pages of it."""
    ends = [s["p_vaddr"] + s["p_memsz"] for s in elf.iter_segments() if s["p_type"] == "PT_GNU_RELRO"]
    return max(ends, default=0) & -_PAGE


def _program_headers(elf: Any, loaded: list[Any]) -> ProgramHeaders:
    header = elf.header
    offset, size, count = header["e_phoff"], header["e_phentsize"], header["e_phnum"]
    for segment in loaded:
        start = segment["p_offset"]
        if start <= offset and offset + size * count <= start + segment["p_filesz"]:
            return ProgramHeaders(segment["p_vaddr"] + offset - start, size, count)
    return ProgramHeaders(0, size, count)


def _check_overlaps(segments: list[Any], path: str) -> None:
    """Before anything is copied: a small file may name one large piece of itself a thousand times."""
    ranges = sorted((s["p_vaddr"], s["p_vaddr"] + s["p_memsz"]) for s in segments)
    for (start, end), (following, _) in pairwise(ranges):
        if end > following:
            raise ProgramError(f"{path}: segments overlap: {start:#x}..{end:#x} and {following:#x}", path=path)


def _segment(segment: Any, data: bytes, path: str, xlen: int) -> Segment:
    offset, filesz = segment["p_offset"], segment["p_filesz"]
    address, memsz = segment["p_vaddr"], segment["p_memsz"]
    if filesz > memsz:
        raise ProgramError(f"{path}: segment at {address:#x} has more bytes in the file than in memory", path=path)
    if offset + filesz > len(data):
        raise ProgramError(f"{path}: truncated: the segment at {address:#x} ends behind the file", path=path)
    if address + memsz > 1 << xlen:
        raise ProgramError(f"{path}: segment at {address:#x} of {memsz:#x} bytes leaves the address space", path=path)
    permissions = 0
    for flag, permission in _PF:
        if segment["p_flags"] & flag:
            permissions |= permission
    return Segment(address, memsz, data[offset : offset + filesz], permissions)


def _isa(elf: Any, xlen: int, given: str | None, path: str) -> Isa:
    if given is not None:
        isa = parse_isa(given)
        if isa.xlen != xlen:
            raise ProgramError(f"{path}: is a {xlen}-bit program, the ISA asked for is {given}", path=path)
        return isa
    flags = elf.header["e_flags"]
    for section in elf.iter_sections():
        if section["sh_type"] in ("SHT_RISCV_ATTRIBUTES", 0x70000003) or section.name == ".riscv.attributes":
            if section["sh_flags"] & _SHF_COMPRESSED:
                continue  # nobody compresses a few bytes, and unpacking them could take any amount of memory
            arch = arch_attribute(section.data())
            if arch:
                try:
                    isa = parse_isa(arch)
                except ProgramError as error:
                    raise ProgramError(f"{path}: {error}", path=path) from error
                if isa.xlen != xlen:
                    raise ProgramError(f"{path}: a {xlen}-bit ELF whose attributes say {arch}", path=path)
                if flags & _EF_RISCV_RVC and not isa.compressed:
                    isa = parse_isa(isa.name + "_zca")
                return isa
    return default_isa(xlen, bool(flags & _EF_RISCV_RVC))


def _symbols(elf: Any) -> dict[str, int]:
    symbols: dict[str, int] = {}
    for section in elf.iter_sections():
        if not isinstance(section, SymbolTableSection):
            continue
        for symbol in section.iter_symbols():
            # Mapping symbols ($x, $d) and file names are no places a user would name.
            if symbol.name and not symbol.name.startswith("$") and symbol["st_info"]["type"] != "STT_FILE":
                if symbol["st_shndx"] == "SHN_UNDEF":
                    continue
                symbols.setdefault(symbol.name, int(symbol["st_value"]))
    return symbols
