"""Random kernels with nested branches, loops, tables, calls and guards: both engines store and count the same."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest

from tests.ptx.running import launch, text_of
from vmjit.ptx import Module

PROGRAMS = int(os.environ.get("PTX_RANDOM_PROGRAMS", "25"))
FIRST = int(os.environ.get("PTX_SEED", "7")) * 1_000_000

VALUES = [f"%v{k}" for k in range(6)]
PREDICATES = [f"%p{k}" for k in range(3)]
MEMORY_WORDS = 64

FUNCTIONS = """.func (.param .u64 r) twice(.param .u64 x, .param .u64 n) { .reg .u64 %x, %n; .reg .pred %p;
ld.param.u64 %x, [x]; ld.param.u64 %n, [n]; and.b64 %n, %n, 3; L: mad.lo.u64 %x, %x, 3, %n; setp.eq.u64 %p, %n, 0;
@%p bra E; sub.u64 %n, %n, 1; bra L; E: st.param.u64 [r], %x; ret; }
.func (.param .u64 r) choose(.param .u64 x, .param .u64 n) { .reg .u64 %x, %n, %a; .reg .pred %p;
ld.param.u64 %x, [x]; ld.param.u64 %n, [n]; setp.lt.u64 %p, %x, %n; @%p bra A; st.param.u64 [r], %n; bra.uni B;
A: { .param .u64 a; .param .u64 b; .param .u64 c; st.param.u64 [a], %n; st.param.u64 [b], %x; call (c), twice, (a, b);
ld.param.u64 %a, [c]; } st.param.u64 [r], %a; @%p ret; B: ret; }
.global .u64 functions[2] = {twice, choose};"""


class Writer:
    """Statements at random. Every loop ends; memory is each thread's own."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines: list[str] = []
        self.labels = 0

    def value(self) -> str:
        return self.random.choice([*VALUES, *VALUES, str(self.random.randrange(20)), str(self.random.getrandbits(64))])

    def guard(self) -> str:
        if self.random.random() < 0.7:
            return ""
        return f"@{self.random.choice(['', '!'])}{self.random.choice(PREDICATES)} "

    def label(self) -> str:
        self.labels += 1
        return f"L{self.labels}"

    def statements(self, depth: int) -> None:
        for _ in range(self.random.randrange(1, 6)):
            kinds = [self.arithmetic] * 5 + [self.compare] * 3 + [self.memory] * 2 + [self.call] * 1
            if depth:
                kinds += [self.branch] * 3 + [self.loop] * 2 + [self.table] * 1 + [self.leave] * 1
            kind = self.random.choice(kinds)
            if kind in (self.branch, self.loop, self.table):
                kind(depth)  # type: ignore[call-arg]
            else:
                kind()  # type: ignore[call-arg]

    def arithmetic(self) -> None:
        target, a, b = self.random.choice(VALUES), self.value(), self.value()
        forms = [
            *(f"{op}.u64 {{}}, {a}, {b};" for op in ("add", "sub", "mul.lo", "mul.hi", "div", "rem", "min")),
            *(f"{op}.b64 {{}}, {a}, {b};" for op in ("and", "or", "xor")),
            f"mad.lo.u64 {{}}, {a}, {b}, {self.value()};",
            f"selp.u64 {{}}, {a}, {b}, {self.random.choice(PREDICATES)};",
            f"mov.u64 {{}}, {a};",
            f"cvt.s64.s32 {{}}, {self.random.choice(VALUES)};".replace("cvt.s64.s32", "bfe.s64").replace(
                ";", ", 3, 17;"
            ),
        ]
        self.lines.append(self.guard() + self.random.choice(forms).format(target))

    def compare(self) -> None:
        relation = self.random.choice(["lt", "le", "eq", "ne", "gt"])
        p, q = self.random.sample(PREDICATES, 2)
        a, b = self.value(), self.value()
        form = self.random.choice(
            [
                f"setp.{relation}.u64 {p}, {a}, {b};",
                f"setp.{relation}.s64 {p}|{q}, {a}, {b};",
                f"setp.{relation}.and.u64 {p}, {a}, {b}, {q};",
                f"and.pred {p}, {p}, {q};",
            ]
        )
        self.lines.append(self.guard() + form)

    def memory(self) -> None:
        value, word = self.random.choice(VALUES), self.random.randrange(MEMORY_WORDS)
        form = self.random.choice(
            [
                f"ld.global.u64 {value}, [%mine+{8 * word}];",
                f"st.global.u64 [%mine+{8 * word}], {value};",
                f"ld.s32 {value}, [%mine+{8 * word + 4}];",
                f"st.local.u64 [own+{8 * (word % 8)}], {value};",
                f"ld.local.u16 {value}, [own+{8 * (word % 8) + 2}];",
                f"atom.global.add.u64 {value}, [%mine+{8 * word}], {self.random.choice(VALUES)};",
            ]
        )
        self.lines.append(self.guard() + form)

    def call(self) -> None:
        guard, result = self.guard(), self.random.choice(VALUES)
        function = self.random.choice(["twice", "choose", "%f"])
        prepare = ""
        if function == "%f":
            prepare = f"and.b64 %f, {self.random.choice(VALUES)}, 1; shl.b64 %f, %f, 3; add.u64 %f, %f, %functions; ld.u64 %f, [%f];"
        self.labels += 1
        prototype = f"P{self.labels}: .callprototype (.param .u64 _) _ (.param .u64 _, .param .u64 _);"
        self.lines.append(
            f"{{ .param .u64 a; .param .u64 b; .param .u64 c; {prepare} {prototype} st.param.u64 [a], {self.value()};"
            f" st.param.u64 [b], {self.value()}; {guard}call (c), {function}, (a, b)"
            f"{f', P{self.labels}' if function == '%f' else ''}; {guard}ld.param.u64 {result}, [c]; }}"
        )

    def branch(self, depth: int) -> None:
        otherwise, end = self.label(), self.label()
        self.lines.append(f"@{self.random.choice(['', '!'])}{self.random.choice(PREDICATES)} bra {otherwise};")
        self.statements(depth - 1)
        self.lines.append(f"bra {end}; {otherwise}:")
        self.statements(depth - 1)
        self.lines.append(f"{end}:")

    def loop(self, depth: int) -> None:
        """As often as some bits of a value say."""
        again, end, count = self.label(), self.label(), f"%c{depth}"
        self.lines.append(f"and.b64 {count}, {self.random.choice(VALUES)}, 3; {again}: setp.eq.u64 %pl, {count}, 0;")
        self.lines.append(f"@%pl bra {end}; sub.u64 {count}, {count}, 1;")
        self.statements(depth - 1)
        self.lines.append(f"bra {again}; {end}:")

    def table(self, depth: int) -> None:
        table, end = self.label(), self.label()
        cases = [self.label() for _ in range(3)]
        order = [self.random.choice(cases) for _ in range(4)]
        self.lines.append(f"{table}: .branchtargets {', '.join(order)}; and.b64 %f, {self.random.choice(VALUES)}, 3;")
        self.lines.append(f"cvt.u32.u64 %index, %f; brx.idx %index, {table};")
        for case in cases:
            self.lines.append(f"{case}:")
            self.statements(depth - 1)
            self.lines.append(f"bra {end};")
        self.lines.append(f"{end}:")

    def leave(self) -> None:
        if self.random.random() < 0.2:
            self.lines.append(f"setp.eq.u64 %pl, {self.random.choice(VALUES)}, 7; @%pl ret;")


def program(seed: int) -> str:
    writer = Writer(seed)
    writer.statements(4)
    start = " ".join(f"mad.lo.u64 {v}, %own, {k + 1}, {7 * k};" for k, v in enumerate(VALUES))
    end = " ".join(f"mad.lo.u64 %out, %out, 31, {v};" for v in VALUES)
    body = f"""{{ .reg .u64 %v<6>, %c<5>, %f, %functions, %mine; .reg .pred %p<3>, %pl; .reg .u32 %index;
    .local .align 8 .b8 own[64];
    mov.u64 %functions, functions; ld.param.u64 %mine, [other]; mad.wide.u32 %mine, %thread, {8 * MEMORY_WORDS}, %mine;
    cvt.u64.u32 %own, %thread; {start} setp.lt.u32 %p0, %thread, 20; setp.lt.u32 %p1, %thread, 9; setp.eq.u32 %p2, %thread, 3;
    """
    body += "\n".join(writer.lines)
    body += f"\nmov.u64 %out, 0; {end} mul.wide.u32 %own, %thread, 8; add.u64 %own, %own, %results; }}"
    return text_of(body, FUNCTIONS)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + PROGRAMS))
def test_engines_agree(seed: int) -> None:
    text = program(seed)
    module = Module(text, jit_opt=seed % 2)
    found = {}
    for engine in ("simt", "thread"):
        memory = np.arange(37 * MEMORY_WORDS, dtype=np.uint64)
        results, statistics = launch("", engine, module=module, block=37, other=memory, budget=10**8)
        found[engine] = (results.tolist(), memory.tolist(), statistics.thread_instructions)
    assert found["simt"] == found["thread"], text
