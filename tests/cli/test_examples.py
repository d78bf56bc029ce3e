"""Every example that a command's `--help` gives works as it stands there, on a program that has what it names."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

import vmjit.cpu_engine
from tests.cli.conftest import Cli
from vmjit.cache import CodeCache, DiskCache
from vmjit.cli.main import COMMANDS
from vmjit.decoders.riscv.registers import REGISTERS
from vmjit.interpreter import interpreter_for
from vmjit.translators import lowering

GCC = shutil.which("riscv64-linux-gnu-gcc")

# What `list.c` does at line 120 is the loop's body.
_SOURCE_HEAD = """\
#include <stdio.h>
#include <string.h>
volatile int results[64];
__attribute__((noinline)) static int step(int i) { return i * 7 + 3; }
"""
_SOURCE_MAIN = """\
int main(int count, char **words) {
    int sum = count > 1 ? (int)strlen(words[1]) : 0;
    for (int i = 0; i < 64; i++) {
        results[i] = step(i) + sum;
    }
    char line[80];
    if (fgets(line, sizeof line, stdin)) sum += line[0];
    printf("%d %d\\n", results[63], sum);
    return 0;
}
"""

_CASE = """\
# Fails where xor is lowered wrongly.
test: run
isa: rv64i
at: 0x10000

code:
  13 45 15 00   ; xori a0, a0, 1
  93 05 10 00   ; addi a1, zero, 1
  73 00 10 00   ; ebreak

before:
  a0=3
after:
  a0=2, a1=1, pc=0x10008, stop=ebreak, retired=2
"""

# Commands whose examples measure for long are tested where they are.
_ELSEWHERE = ("bench",)


def examples() -> list[str]:
    found = []
    for name, command in COMMANDS.items():
        if name not in _ELSEWHERE:
            module = __import__(command.module, fromlist=["parser"])
            text = module.parser().format_help().split("example")[-1]
            found += [line.strip() for line in text.splitlines() if line.startswith(f"  vmjit {name}")]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`guest.elf` of `list.c`, and the inputs that examples name."""
    if GCC is None:
        pytest.skip("no riscv64-linux-gnu-gcc")
    made = tmp_path_factory.mktemp("examples")
    lines = _SOURCE_HEAD.splitlines()
    body = _SOURCE_MAIN.splitlines()
    lines += [""] * (119 - len(lines) - next(i for i, line in enumerate(body) if "step(i)" in line)) + body
    assert "step(i)" in lines[119]
    (made / "list.c").write_text("\n".join(lines) + "\n")
    subprocess.run(
        [GCC, "-static", "-g", "-O1", "-march=rv64gc", "-mabi=lp64d", "-o", "guest.elf", "list.c"], cwd=made, check=True
    )
    (made / "corpus").mkdir()
    (made / "corpus" / "seed").write_text("seed\n")
    (made / "corpus" / "other").write_text("other\n")
    (made / "found.test").write_text(_CASE)
    return made


def needs(words: list[str]) -> str | None:
    """What is missing for an example, or None."""
    modules = {"unicorn": "unicorn", "--plot": "matplotlib", "ptx": "numba_cuda"}
    return next((module for word, module in modules.items() if word in words and not find_spec(module)), None)


def _plant(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A wrong lowering, which no other machine may find in the cache."""
    interpreter_for(REGISTERS[64, False])
    cache = CodeCache(DiskCache(folder))
    monkeypatch.setattr(vmjit.cpu_engine, "process_cache", lambda: cache)
    monkeypatch.setitem(lowering.LOWERINGS, "xor", lowering.LOWERINGS["or"])


@pytest.mark.parametrize("line", examples())
def test_example(line: str, folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command, *_ = line.removeprefix("vmjit ").split(" > ")  # what the shell does with the output is its own
    words = shlex.split(command)
    if (missing := needs(words)) is not None:
        pytest.skip(f"{missing} is not installed")
    monkeypatch.chdir(folder)
    if words[0] == "cache":
        monkeypatch.setenv("VMJIT_CACHE_DIR", str(tmp_path))
    if words[0] == "reduce":
        _plant(monkeypatch, tmp_path)
    before = set(os.listdir(folder))
    ended = cli(*words, stdin=b"")
    assert ended.status == 0, ended
    if "-o" not in words and not {"--html", "--case", "cache"} & set(words):
        assert ended.out
    named = [word for flag, word in pairwise(words) if flag in ("-o", "--html", "--speedscope", "--plot")]
    assert all((folder / name).stat().st_size for name in named), named
    for name in set(os.listdir(folder)) - before:
        (folder / name).unlink()
