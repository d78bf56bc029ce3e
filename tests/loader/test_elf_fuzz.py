"""Damaged ELF files: whatever the bytes are, the answer is a program or a `ProgramError` of one line, and soon."""

from __future__ import annotations

import time
import tracemalloc
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cli.conftest import Cli, cli
from tests.loader.elves import attributes, complete
from tests.loader.test_elf import within
from vmjit import IsaError, Program, ProgramError
from vmjit.decoders.riscv.isa import parse_isa
from vmjit.loader.elf import read_elf
from vmjit.loader.riscv_attributes import arch_attribute

__all__ = ["cli"]  # a fixture

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 5.0
MEMORY = 64 << 20


@lru_cache(maxsize=8)
def seed(name: str) -> bytes:
    if name in ("32", "64"):
        return complete(int(name))
    return (ROOT / "tests" / "guests" / "bin" / name).read_bytes()


SEEDS = ("32", "64", "hello.rv32im.elf", "smc.rv64imac.elf")


def answer(data: bytes, *, measured: bool = True) -> Program | None:
    """Reads a file; None where it is refused, as it should be. Measuring memory takes most of the time."""
    started = time.perf_counter()
    if measured:
        tracemalloc.start()
    try:
        with within(4 * SECONDS):
            program = read_elf(data, "fuzz.elf")
    except ProgramError as error:
        text = str(error)
        assert text.startswith("fuzz.elf: "), text
        assert len(text.splitlines()) == 1, text
        assert len(text) < 1000, text
        program = None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        if measured:
            tracemalloc.stop()
    assert time.perf_counter() - started < SECONDS
    assert peak < MEMORY
    if program is not None:
        check(program)
    return program


def check(program: Program) -> None:
    """What a program promises holds for one that came from a damaged file, too."""
    assert program.segments
    place = 0
    for segment in program.segments:
        assert place <= segment.address < segment.end <= 1 << program.xlen
        assert len(segment.data) <= segment.size
        assert 0 <= segment.permissions < 8
        place = segment.end
    assert any(s.executable and s.address <= program.entry < s.end for s in program.segments)
    assert program.entry % 2 == 0
    assert parse_isa(program.isa) == program.isa_config
    assert all(isinstance(name, str) and value >= 0 for name, value in program.symbols.items())


@settings(max_examples=250)
@given(st.sampled_from(SEEDS), st.data())
def test_flipped_bytes(name: str, data: st.DataObject) -> None:
    """A few bytes of a good file become others; most of them in the headers and tables, where it matters."""
    whole = bytearray(seed(name))
    headers = st.integers(0, min(250, len(whole) - 1))
    tables = st.integers(max(len(whole) - 700, 0), len(whole) - 1)
    places = st.one_of(headers, headers, tables, tables, st.integers(0, len(whole) - 1))
    values = st.one_of(st.sampled_from([0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0xFE]), st.integers(0, 255))
    for place, value in data.draw(st.lists(st.tuples(places, values), min_size=1, max_size=6)):
        whole[place] = value
    answer(bytes(whole))


@settings(max_examples=120)
@given(st.sampled_from(SEEDS), st.data())
def test_large_numbers_in_fields(name: str, data: st.DataObject) -> None:
    """Whole fields of headers become large, small or those of others."""
    whole = bytearray(seed(name))
    for _ in range(data.draw(st.integers(1, 3))):
        size = data.draw(st.sampled_from([2, 4, 8]))
        place = data.draw(st.one_of(st.integers(16, 240), st.integers(len(whole) - 700, len(whole) - 9))) & ~1
        value = data.draw(
            st.one_of(
                st.sampled_from(
                    [0, 1, 0xFFFF, 0xFFFFFFFF, 1 << 31, 1 << 63, (1 << 64) - 1, 0x7FFFFFFFFFFFFFFF, len(whole)]
                ),
                st.integers(0, 4096),
            )
        )
        whole[place : place + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    answer(bytes(whole))


@settings(max_examples=150)
@given(st.sampled_from(SEEDS), st.data())
def test_pieces_cut_out_and_put_in(name: str, data: st.DataObject) -> None:
    whole = seed(name)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(whole)))
        end = min(start + data.draw(st.integers(0, 300)), len(whole))
        piece = data.draw(st.one_of(st.just(b""), st.binary(max_size=40), st.just(whole[start:end] * 2)))
        whole = whole[:start] + piece + whole[end:]
    answer(whole)


@settings(max_examples=150)
@given(st.binary(max_size=400), st.sampled_from([b"", b"\x7fELF", b"\x7fELF\x01\x01\x01", b"\x7fELF\x02\x01\x01"]))
def test_random_bytes(data: bytes, magic: bytes) -> None:
    answer(magic + data)


def test_every_byte_of_the_headers() -> None:
    """All headers of a small file, each byte set to two values."""
    for name in ("32", "64"):
        whole = seed(name)
        tables = len(whole) - 6 * (40 if name == "32" else 64)
        for place in [*range(180), *range(tables, len(whole))]:
            for value in (0, 0xFF):
                if whole[place] != value:
                    answer(whole[:place] + bytes([value]) + whole[place + 1 :], measured=False)


@settings(max_examples=300)
@given(st.data())
def test_attributes(data: st.DataObject) -> None:
    """The parser of `.riscv.attributes` takes any bytes: it gives a text or none, from bytes that are there."""
    good = bytearray(attributes("rv64i2p1_m2p0_zba1p0", before=b"\x04\x10\x07text\0"))
    kind = data.draw(st.sampled_from(["random", "flipped", "cut"]))
    if kind == "random":
        section = data.draw(st.sampled_from([b"", b"A"])) + data.draw(st.binary(max_size=80))
    elif kind == "cut":
        section = bytes(good[: data.draw(st.integers(0, len(good)))]) * data.draw(st.integers(1, 3))
    else:
        for place, value in data.draw(
            st.lists(st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255)), max_size=5)
        ):
            good[place] = value
        section = bytes(good)
    with within(SECONDS):
        found = arch_attribute(section)
    assert found is None or found.encode("latin-1") in section


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=30), st.text("rv3264imacfdqgbzsxp_0123 ", max_size=30).map(lambda t: "rv64i" + t)))
def test_isa_strings(text: str) -> None:
    """Any text is an ISA, whose name reads back as itself, or gets an `IsaError` of one line."""
    try:
        isa = parse_isa(text)
    except IsaError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert parse_isa(isa.name) == isa


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_files_on_the_command_line(cli: Cli, tmp_path: Path, name: str) -> None:
    """Some of the same through the command: a status, at most one line of complaint, never a traceback."""
    whole = seed(name)
    path = tmp_path / "fuzz.elf"
    for place in [*range(4, 64, 7), *range(len(whole) - 300, len(whole), 41)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xA5]) + whole[place + 1 :])
        ended = cli("disassemble", path, "--count", 2)
        assert ended.status in (0, 2)
        assert b"Traceback" not in ended.err
        if ended.status == 2:
            assert ended.complaint()
