"""Reading PTX: errors with their lines, scopes, declarations, initial values."""

from __future__ import annotations

import pytest

from tests.ptx.kernels import HEADER
from tests.ptx.running import run_u64
from vmjit.ptx import Module, PtxError, PtxUnsupported
from vmjit.ptx.assembly.lexer import tokenize
from vmjit.ptx.assembly.parser import parse

BEFORE = HEADER.count("\n")  # lines before the text proper


def kernel(*lines: str) -> str:
    """A kernel of these lines; the first one is the text's line BEFORE + 3."""
    return "\n".join([HEADER + ".visible .entry k(.param .u64 p)", "{", *lines, "ret;", "}"])


BAD_TEXTS = {
    "character": (HEADER + ".global .u32 x;\n.global .u32 § y;", BEFORE + 2, "cannot read"),
    "directive": (HEADER + "\n.wrong x;", BEFORE + 2, r"'\.wrong' in the module's scope"),
    "version only": (".version", 1, "the text ends here"),
    "no closing brace": (kernel("add.u32").removesuffix("}"), BEFORE + 5, "'ret' is not declared|ends here|expected"),
    "ends in a function": (
        HEADER + ".entry k()\n{\nret;\n",
        BEFORE + 4,
        "expected a name, found 'the end of the text'",
    ),
    "unterminated pragma": (HEADER + '.pragma "x"', BEFORE + 1, "the text ends here"),
    "no semicolon": (kernel(".reg .b32 %a;", "mov.u32 %a, 1", "mov.u32 %a, 2;"), BEFORE + 5, "expected ','"),
    "unknown register": (kernel("", "", "mov.u32 %r1, %r2;"), BEFORE + 5, "%r1 is not declared"),
    "unknown symbol": (kernel(".reg .b64 %a;", "mov.u64 %a, there;"), BEFORE + 4, "there is not declared"),
    "beyond a range": (kernel(".reg .b32 %r<4>;", "mov.u32 %r4, 1;"), BEFORE + 4, "%r4 is not declared"),
    "register of a closed scope": (kernel("{ .reg .b32 %a; }", "mov.u32 %a, 1;"), BEFORE + 4, "%a is not declared"),
    "unknown label": (kernel("bra NOWHERE;"), BEFORE + 3, "no label NOWHERE in k"),
    "unknown table": (kernel(".reg .b32 %a;", "brx.idx %a, T;"), BEFORE + 4, "no branch targets T"),
    "unknown label in a table": (kernel("T: .branchtargets A;"), BEFORE + 3, "no label A"),
    "label twice": (kernel("A: A: ret;"), BEFORE + 3, "label A is there already"),
    "guard": (kernel(".reg .b32 %a;", "@%a ret;"), BEFORE + 4, "%a is no predicate"),
    "operand": (kernel("add.u32 ];"), BEFORE + 3, "no operand"),
    "literal": (kernel(".reg .b32 %a;", "mov.u32 %a, 099;"), BEFORE + 4, "'099' is no number"),
    "register type": (kernel(".reg .v4 .f32 %a;"), BEFORE + 3, "registers of type v4 f32"),
    "texture": (kernel(".reg .b32 %a;", "ld.global.u32 %a, [%a, {%a}];"), BEFORE + 4, "textures"),
    "no type": (HEADER + ".global x;", BEFORE + 1, "a declaration without a type"),
    "declaration": (HEADER + ".global .wrong .u32 x;", BEFORE + 1, r"\.wrong in a declaration"),
    "defined twice": (HEADER + ".global .u32 x;\n.global .u32 x;", BEFORE + 2, f"defined on line {BEFORE + 1} already"),
    "function twice": (HEADER + ".func f() { ret; }\n.func f() { ret; }", BEFORE + 2, "f is defined on line"),
    "too many values": (HEADER + ".global .u32 x[2] = {1, 2, 3};", BEFORE + 1, "2 elements and 3 initial values"),
    "address of 32 bits": (".version 7.0\n.target sm_70\n.address_size 32", 3, "other than 64 bits"),
    "parameter": (HEADER + ".entry k(.global .u64 p) { ret; }", BEFORE + 1, "parameter '.global'"),
    "in a function": (kernel(".entry f() {}"), BEFORE + 3, r"\.entry in a function"),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_errors_name_the_line(name: str) -> None:
    text, line, message = BAD_TEXTS[name]
    with pytest.raises(PtxError, match=message) as caught:
        Module(text)
    assert caught.value.line == line
    assert f"line {line}: " in str(caught.value)


def test_errors_name_the_text_where_there_are_several() -> None:
    good = HEADER + ".func f() { ret; }"
    with pytest.raises(PtxError, match=f"text 2, line {BEFORE + 2}: "):
        Module([good, HEADER + "\n.wrong"])
    with pytest.raises(PtxError, match=f"text 2, line {BEFORE + 1}: cannot read"):
        Module([good, HEADER + "§"])


@pytest.mark.parametrize("engine", ["simt", "thread"])
def test_unknown_instructions_are_found_when_needed(engine: str) -> None:
    module = Module(kernel(".reg .b32 %a;", "frobnicate.u32 %a, %a;"))
    with pytest.raises(PtxUnsupported, match=rf"line {BEFORE + 4}: frobnicate\.u32 .*(?i:{engine}) engine") as caught:
        module.launch("k", 1, 1, [0], engine=engine)
    assert caught.value.line == BEFORE + 4


@pytest.mark.parametrize(
    "instruction",
    ["cvt.rn.f16x2.f32 %a, %f, %f;", "cvt.rna.tf32.f32 %a, %f;", "cvt.pack.sat.u8.s32.b32 %a, %a, %a, %a;"],
)
@pytest.mark.parametrize("engine", ["simt", "thread"])
def test_forms_not_done_are_refused(instruction: str, engine: str) -> None:
    module = Module(kernel(".reg .b32 %a; .reg .f32 %f;", instruction))
    with pytest.raises(PtxUnsupported, match=f"line {BEFORE + 4}: cvt"):
        module.launch("k", 1, 1, [0], engine=engine)


@pytest.mark.parametrize("engine", ["simt", "thread"])
def test_special_registers_not_there(engine: str) -> None:
    module = Module(kernel(".reg .b32 %a;", "mov.u32 %a, %cluster_ctarank;"))
    with pytest.raises(PtxUnsupported, match=f"line {BEFORE + 4}: %cluster_ctarank") as caught:
        module.launch("k", 1, 1, [0], engine=engine)
    assert caught.value.line == BEFORE + 4


def test_what_debuggers_read_is_dropped() -> None:
    text = kernel(
        '.file 1 "http://x.cu"',
        ".loc 1 2 3, function_name $L, inlined_at 1 4 5",
        '.pragma "nounroll // no comment";',
        "/* a comment;\n over lines */ // another",
    )
    module = Module(text + "\n.section .debug_abbrev\n{\n.b8 1\n}\n")
    module.launch("k", 1, 1, [0])


def test_tokens_have_lines() -> None:
    tokens = tokenize('a.b // c\n/* \n */ 0x1F "x y"\n%r1;')
    assert [(t.kind, t.text, t.line) for t in tokens] == [
        ("name", "a.b", 1),
        ("number", "0x1F", 3),
        ("string", '"x y"', 3),
        ("name", "%r1", 4),
        ("mark", ";", 4),
        ("end", "", 4),
    ]


def test_inner_scopes_hide_outer_names() -> None:
    """A range in an inner scope hides registers of the same names around it, also those used before."""
    found = run_u64(
        ".reg .b64 %v<3>; mov.u64 %v1, 10;"
        "{ .reg .b64 %v<2>; mov.u64 %v1, 20; { .reg .b64 %v1; mov.u64 %v1, 30; } add.u64 %v1, %v1, 1; }"
        "mov.u64 %out, %v1;"
    )
    assert found == [10]


def test_labels_of_scopes_are_their_own() -> None:
    part = (
        "{ .reg .pred %p; setp.ge.u64 %p, %out, 5; @%p bra DONE; add.u64 %out, %out, 3; DONE: add.u64 %out, %out, 1; }"
    )
    assert run_u64(f"mov.u64 %out, 0; {part} {part} {part}") == [9]


INITIAL_VALUES = {
    ".global .align 4 .u32 x[2][3] = {{1, 2}, {3}};": [1, 2, 0, 3, 0, 0],
    ".global .align 4 .u32 x[6] = {1, 2, 3};": [1, 2, 3, 0, 0, 0],
    ".global .align 4 .u32 x[] = {1, -1, 0x10, 0b11, 017, 5U};": [1, 2**32 - 1, 16, 3, 15, 5],
    ".global .align 4 .f32 x[6] = {0f3F800000, 1.5, -0f3F800000, 2, 0, 0.25};": [
        0x3F800000,
        0x3FC00000,
        0xBF800000,
        0x40000000,
        0,
        0x3E800000,
    ],
    ".global .align 8 .b64 x[3] = {0d3FF0000000000000, 1, 2};": [0, 0x3FF00000, 1, 0, 2, 0],
    ".global .align 16 .v4 .u32 x[] = {1, 2, 3, 4};": [1, 2, 3, 4],
    ".global .align 4 .u32 x = 7 + 3 - 1;": [9],
}


@pytest.mark.parametrize("declaration", INITIAL_VALUES)
def test_initial_values(declaration: str) -> None:
    module = Module(HEADER + declaration)
    assert module.variable("x").view("u4").tolist() == INITIAL_VALUES[declaration]


def test_addresses_as_initial_values() -> None:
    module = Module(
        HEADER
        + ".global .u64 x[4] = {generic(y)+8, y, f, y-4};\n.global .align 8 .b8 y[16];\n.func f() { ret; }\n"
        + ".global .b8 z[2] = {0xFF00(generic(y)), 0xFF(y+1)};"
    )
    y, f = module.address_of("y"), module.address_of("f")
    assert module.variable("x").view("u8").tolist() == [y + 8, y, f, y - 4]
    assert module.variable("z").tolist() == [y >> 8 & 255, (y + 1) & 255]


def test_alignment_of_a_pointee_is_not_the_parameters() -> None:
    unit = parse(HEADER + ".entry k(.param .u32 a, .param .u64 .ptr .global .align 16 b, .param .u8 c) { ret; }")
    assert [(p.offset, p.size) for p in unit.functions["k"].parameters] == [(0, 4), (8, 8), (16, 1)]


def test_names_that_belong_to_parameterized_registers() -> None:
    unit = parse(kernel(".reg .b32 %r<3>, %x, %rd<2>;", "mov.u32 %r2, %x;", "mov.u32 %rd1, 0;"))
    assert [r.name for r in unit.functions["k"].registers] == ["%x", "%r2", "%rd1"]
