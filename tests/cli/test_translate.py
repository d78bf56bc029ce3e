"""`vmjit translate`."""

from __future__ import annotations

from pathlib import Path

import pytest

import vmjit
from tests.cli.conftest import ISAS, Cli, guest
from vmjit.ir.text import format_block, parse_block


def translate(cli: Cli, isa: str, emit: str, *more: object) -> str:
    ended = cli("translate", guest("crc32", isa), "--at", "update", "--emit", emit, *more)
    assert (ended.status, ended.err) == (0, b"")
    return ended.text


@pytest.mark.parametrize("isa", ISAS)
def test_ir_round_trips(cli: Cli, isa: str) -> None:
    text = translate(cli, isa, "ir")
    head, *blocks = text.split("\n\n")
    start = vmjit.load(guest("crc32", isa)).symbols["update"]
    assert head.startswith(f"; region of {len(blocks)} blocks, ")
    assert f"entered at {start:#x}" in head
    parsed = [parse_block(block) for block in blocks]
    assert [format_block(block).strip() for block in parsed] == [block.strip() for block in blocks]
    assert start in [block.pc for block in parsed]
    assert "load.i32" in text


@pytest.mark.parametrize("isa", ISAS)
def test_llvm_ir_is_a_module(cli: Cli, isa: str) -> None:
    import llvmlite.binding as llvm

    module = llvm.parse_assembly(translate(cli, isa, "llvm"))
    module.verify()
    assert not module.get_function("region").is_declaration


@pytest.mark.parametrize("isa", ISAS)
def test_assembly(cli: Cli, isa: str) -> None:
    assert "\nregion:\n" in translate(cli, isa, "asm")


def test_an_address_is_as_good_as_a_symbol(cli: Cli) -> None:
    place = vmjit.load(guest("crc32")).symbols["update"]
    by_address = cli("translate", guest("crc32"), "--at", hex(place), "--emit", "ir", "--isa", "rv64imac")
    assert by_address.text == translate(cli, "rv64imac", "ir")


def test_the_memory_is_part_of_the_code(cli: Cli) -> None:
    words = ("translate", guest("crc32"), "--at", "memcpy", "--emit", "llvm")
    assert cli(*words, "--memory", "64KiB").text != cli(*words, "--memory", "1MiB").text == cli(*words).text


def test_to_a_file(cli: Cli, tmp_path: Path) -> None:
    text = translate(cli, "rv64imac", "ir")
    assert translate(cli, "rv64imac", "ir", "-o", tmp_path / "update.ir") == ""
    assert (tmp_path / "update.ir").read_text() == text
