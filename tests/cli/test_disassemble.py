"""`vmjit disassemble`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import vmjit
from tests.cli.conftest import ISAS, Cli, guest

LINE = re.compile(r"\s*([0-9a-f]+):\t([0-9a-f]{4}|[0-9a-f]{8}) *\t(\S.*)$")
GUESTS = ("hello", "fault", "smc", "crc32", "json")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", GUESTS)
def test_the_listing_has_every_byte_of_the_code(cli: Cli, name: str, isa: str) -> None:
    program = vmjit.load(guest(name, isa))
    found = {}
    for line in cli("disassemble", guest(name, isa)).text.splitlines():
        if match := LINE.match(line):
            found[int(match[1], 16)] = bytes.fromhex(match[2])[::-1]
    for segment in program.segments:
        if segment.executable:
            pc, code = segment.address, b""
            while pc in found:
                code += found[pc]
                pc += len(found[pc])
            assert code == segment.data


@pytest.mark.parametrize("isa", ISAS)
def test_the_listing_has_every_code_symbol(cli: Cli, isa: str) -> None:
    text = cli("disassemble", guest("smc", isa)).text
    for name in ("_start", "guest_start", "constant", "constant_patch", "product", "product_patch", "memcpy"):
        address = vmjit.load(guest("smc", isa)).symbols[name]
        assert f"{address:0{8 if isa == 'rv32im' else 16}x} <{name}>:\n" in text
    assert f"{guest('smc', isa)}: rv" in text


def test_the_style_is_objdumps(cli: Cli) -> None:
    program = vmjit.load(guest("smc"))
    place = program.symbols["constant"]
    lines = cli("disassemble", guest("smc"), "--at", "constant").text.splitlines()[2:]
    assert lines == [
        f"{place:016x} <constant>:",
        f"{place:016x} <constant_patch>:",
        f"{place:8x}:\t00100513\taddi\ta0, zero, 1",
        f"{place + 4:8x}:\t00008067\tjalr\tzero, 0(ra)",
    ]


def test_branches_name_their_target(cli: Cli) -> None:
    text = cli("disassemble", guest("smc"), "--at", "product_patch").text
    place = vmjit.load(guest("smc")).symbols["product_patch"]
    assert f"bne\ta1, zero, {place:#x} <product_patch>" in text


def test_a_part_of_the_code(cli: Cli) -> None:
    start = vmjit.load(guest("fault")).symbols["recurse"]
    whole = [line for line in cli("disassemble", guest("fault")).text.splitlines() if LINE.match(line)]
    counted = cli("disassemble", guest("fault"), "--at", f"{start + 2:#x}", "--count", 3).text.splitlines()
    assert f"{start + 2:016x} <recurse+0x2>:" in counted
    first = next(i for i, line in enumerate(whole) if line.strip().startswith(f"{start + 2:x}:"))
    assert [line for line in counted if LINE.match(line)] == whole[first : first + 3]
    head = cli("disassemble", guest("fault"), "--count", 5).text.splitlines()
    assert [line for line in head if LINE.match(line)] == whole[:5]
    symbol = cli("disassemble", guest("fault"), "--at", "recurse").text.splitlines()
    assert sum(bool(LINE.match(line)) for line in symbol) > 5


def test_unknown_words_and_zeros(cli: Cli, tmp_path: Path) -> None:
    code = Path(guest("smc")).read_bytes()
    program = vmjit.load(guest("smc"))
    segment = next(s for s in program.segments if s.executable)
    offset = code.index(segment.data)
    patched = bytearray(code)
    patched[offset : offset + 4] = b"\xff\xff\xff\xff"
    start = offset + program.symbols["guest_start"] - segment.address
    patched[start : start + 64] = bytes(64)
    (tmp_path / "odd.elf").write_bytes(patched)
    ended = cli("disassemble", tmp_path / "odd.elf")
    assert ended.status == 0
    assert re.search(r"\tffffffff\t\.\dbyte\t0xffffffff\n", ended.text)
    assert "<guest_start>:\n\t...\n" in ended.text
