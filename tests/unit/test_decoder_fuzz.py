"""Random bytes as code and random text as ISA strings: nothing raises what it should not."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vmjit.decoders.riscv import Decoder, Isa, parse_isa
from vmjit.decoders.riscv.decoder import MAX_BLOCK_INSTRUCTIONS, Instruction
from vmjit.decoders.riscv.isa import IMPLEMENTED, default_isa
from vmjit.errors import IsaError
from vmjit.ir import Const, Terminator, format_block, parse_block, verify_block

EXTENSIONS = ("", "m", "a", "c", "mac", "c_zcb", "mc_zcb_zba_zbb", "macb_zbc_zicond_zcb_zicntr_zifencei", "g", "gcv")
DECODERS = [Decoder(parse_isa(f"rv{xlen}i{e}")) for xlen in (32, 64) for e in EXTENSIONS]
FULL = [Decoder(default_isa(xlen, compressed=True)) for xlen in (32, 64)]

decoders = st.sampled_from(DECODERS)


def addresses(decoder: Decoder) -> st.SearchStrategy[int]:
    top = 1 << decoder.isa.xlen
    step = 2 if decoder.isa.compressed else 4
    anywhere = st.integers(0, top - 1)
    edges = st.sampled_from((0, 0x1000, top // 2, top - 8, top - 4, top - 2))
    return st.one_of(anywhere, edges).map(lambda pc: pc // step * step)


def check_instruction(decoder: Decoder, data: bytes, pc: int) -> Instruction:
    """Decode and lift what is at the start of `data`; whatever it is, it must be a proper value."""
    instruction = decoder.decode(lambda address, size: data[address - pc :][:size], pc)
    assert instruction.pc == pc
    assert instruction.size in (2, 4)
    wanted = 4 if len(data) > 1 and data[0] & 3 == 3 else 2
    assert instruction.missing == max((wanted if len(data) > 1 else 4) - len(data), 0)
    assert instruction.missing or instruction.size == wanted
    assert instruction.raw == int.from_bytes(data[: min(instruction.size, len(data))], "little")
    assert 0 <= instruction.target < 1 << decoder.isa.xlen
    text = decoder.text(instruction)
    assert text
    assert text.isprintable()
    assert text.isascii()
    assert ";" not in text
    guest, terminator = decoder.lift(instruction)
    assert (guest.pc, guest.size, guest.text) == (pc, instruction.size, text)
    if not decoder.has_meaning(instruction):
        assert terminator is not None
        assert terminator.name == ("trap" if instruction.missing else "unsupported")
        assert guest.ops == []
    return instruction


@given(decoders, st.binary(min_size=1, max_size=6), st.data())
@settings(max_examples=300)
def test_any_bytes_decode(decoder: Decoder, data: bytes, draw: st.DataObject) -> None:
    check_instruction(decoder, data, draw.draw(addresses(decoder)))


@given(decoders, st.integers(0, (1 << 32) - 1))
@settings(max_examples=300)
def test_any_word_decodes(decoder: Decoder, word: int) -> None:
    """Words of four bytes are rare among random ones."""
    check_instruction(decoder, (word | 3).to_bytes(4, "little"), 0x1000)


@pytest.mark.parametrize("decoder", FULL, ids=lambda d: d.isa.xlen)
def test_all_compressed_words_decode(decoder: Decoder) -> None:
    """All of them; those that are nothing say so with their bytes."""
    unknown = 0
    for word in range(1 << 16):
        if word & 3 == 3:
            continue
        data = word.to_bytes(2, "little")
        instruction = decoder.decode(lambda pc, n, data=data: data[:n], 0x1000)
        assert (instruction.size, instruction.raw) == (2, word)
        text = decoder.text(instruction)
        if instruction.matched is None:
            unknown += 1
            assert text == f".2byte {word:#x}"
        else:
            assert text.startswith("c.")
    assert 1000 < unknown < 20000


@given(decoders, st.integers(0, (1 << 32) - 1))
def test_what_is_cut_off_is_missing(decoder: Decoder, word: int) -> None:
    data = word.to_bytes(4, "little")
    for count in range(4):
        size = 4 if count < 2 or data[0] & 3 == 3 else 2
        instruction = decoder.decode(lambda pc, n, count=count: data[:count][:n], 0x1000)
        if count >= size:
            assert instruction.missing == 0
            continue
        assert instruction.missing == size - count
        assert instruction.matched is None
        guest, terminator = decoder.lift(instruction)
        assert guest.ops == []
        # An instruction is fetched by halves; the fault is at the first that is not there as a whole.
        address = Const(0x1000 + count // 2 * 2, decoder.registers.type)
        assert terminator == Terminator("trap", (address,), (), "fetch")


@given(decoders, st.binary(min_size=1, max_size=200), st.data())
@settings(max_examples=200)
def test_blocks_of_any_bytes_verify_and_round_trip(decoder: Decoder, data: bytes, draw: st.DataObject) -> None:
    pc = draw.draw(addresses(decoder))
    pc = min(pc, (1 << decoder.isa.xlen) - len(data)) & ~3
    block = decoder.block(lambda address, size: data[address - pc :][:size] if address >= pc else b"", pc)
    assert 1 <= len(block.instructions) <= MAX_BLOCK_INSTRUCTIONS
    assert block.pc == pc
    verify_block(block)
    assert parse_block(format_block(block)) == block


@pytest.mark.parametrize("decoder", [d for d in DECODERS if d.isa.name in ("rv32i", "rv64i")], ids=lambda d: d.isa.name)
def test_a_block_across_the_top_of_the_address_space(decoder: Decoder) -> None:
    """Execution goes on at address 0 behind the last word, if there is code."""
    nop = bytes.fromhex("13000000")
    pc = (1 << decoder.isa.xlen) - 8
    block = decoder.block(lambda address, size: (nop * 2)[:size], pc, 4)
    assert [i.pc for i in block.instructions] == [pc, pc + 4, 0, 4]
    verify_block(block)


@given(decoders, st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1))
def test_decoding_depends_on_the_word_alone(decoder: Decoder, word: int, pc: int) -> None:
    """The same word has the same row and operands everywhere; what the decoder remembers does not change it."""
    data = word.to_bytes(4, "little")
    found = decoder.decode(lambda p, n: data[:n], pc & ~3).matched
    again = Decoder(decoder.isa).decode(lambda p, n: data[:n], 0x1000).matched
    assert found == again


# -- ISA strings


def check_isa(text: str) -> Isa | None:
    """`parse_isa` gives an ISA whose name gives the same ISA, or raises `IsaError` and nothing else."""
    try:
        isa = parse_isa(text)
    except IsaError as error:
        assert str(error)
        return None
    assert isa.xlen in (32, 64)
    again = parse_isa(isa.name)
    assert again == isa, isa.name
    assert again.name == isa.name == str(isa)
    assert isa.name == isa.name.lower().strip()
    return isa


@given(st.text(max_size=20))
@settings(max_examples=200)
def test_any_text_is_an_isa_or_an_error(text: str) -> None:
    check_isa(text)


@given(st.text(alphabet="imafdqcbvhgzsxeprw0123456789_ ", max_size=16), st.sampled_from(("rv32", "rv64", "RV64", "rv")))
@settings(max_examples=300)
@example("i2p1_m2p0_zmmul1p0", "rv64")
@example("i_zvl128b1p0", "rv64")
@example("i__m", "rv64")
@example("i_", "rv32")
@example("2p0", "rv32")
def test_text_like_an_isa(text: str, start: str) -> None:
    check_isa(start + text)


@st.composite
def good_isas(draw: st.DrawFn) -> tuple[str, set[str]]:
    """ISA strings of known extensions in any order, with and without versions and capital letters."""
    extensions = draw(st.lists(st.sampled_from(sorted(IMPLEMENTED - {"i"})), unique=True))
    version = st.sampled_from(("", "", "2", "2p0", "1p13"))
    singles = [e for e in extensions if len(e) == 1]
    words = "".join(e + draw(version) for e in ("i", *singles))
    for name in (e for e in extensions if len(e) > 1):
        words += f"_{name}{draw(version)}"
    text = f"rv{draw(st.sampled_from((32, 64)))}{words}"
    return (text.upper() if draw(st.booleans()) else text), {"i", *extensions}


@given(good_isas())
def test_known_extensions_in_any_spelling(case: tuple[str, set[str]]) -> None:
    text, extensions = case
    isa = check_isa(text)
    assert isa is not None
    assert extensions <= isa.extensions
    assert isa.xlen == int(text[2:4])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rv32i", "rv32i"),
        ("RV64IMAC", "rv64imac"),
        ("  rv64i\n", "rv64i"),
        ("rv64gc", "rv64imafdc_zicsr_zifencei"),
        ("rv64i2p1_m2p0_a2p1_c2p0_zicsr2p0_zmmul1p0_zaamo1p0_zalrsc1p0_zca1p0", "rv64imac_zicsr"),
        ("rv32i2p0", "rv32i_zicsr_zifencei"),
        ("rv32imac_zbb_zba", "rv32imac_zba_zbb"),
        ("rv64i_m_a", "rv64ima"),
        ("rv64izba", "rv64i_zba"),
        ("rv64ib", "rv64ib_zba_zbb_zbs"),
        ("rv64i_zvl128b", "rv64i_zvl128b"),
        ("rv64i_zve32x1p0", "rv64i_zve32x"),
    ],
)
def test_names_of_isas(text: str, name: str) -> None:
    assert parse_isa(text).name == name


@pytest.mark.parametrize(
    "text",
    [
        *("", "rv", "rv32", "rv64", "rv64_", "rv16i", "rv128i", "riscv64", "x86-64", "rv64m", "rv32e", "rv64i_"),
        *("rv64ik", "rv64i_zfoo", "rv64i__m", "rv64i zba", "rv64i-zba", "rv64i,m", "rv64i_zba_", "rv64i2p"),
        *("rv64i_xfoo", "rv64i_svinval", "rv64i_0", "rv64i²", "rv64\u0131"),
    ],
)
def test_bad_isas(text: str) -> None:
    with pytest.raises(IsaError):
        parse_isa(text)


@pytest.mark.parametrize("value", [None, 64, b"rv64i", ["rv64i"], {"isa": "rv64i"}, ("rv64i",)])
def test_what_is_no_text_is_no_isa(value: object) -> None:
    with pytest.raises(IsaError):
        parse_isa(value)  # type: ignore[arg-type]


def test_extensions_imply_others() -> None:
    isa = parse_isa("rv64imac_zcb")
    assert {"zmmul", "zaamo", "zalrsc", "zca"} <= isa.extensions
    assert isa.has("zcb+zmmul")
    assert not isa.has("zcb+zbb")
    assert isa.has("!zba")
    assert not isa.has("!zca")
    assert isa.compressed
    assert not parse_isa("rv64ima").compressed
    assert {isa: 1}[parse_isa("rv64imac_zcb")] == 1
