"""Ordinary programs with a C library, on Linux: output and exit status as recorded, and as QEMU's user mode has them."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import vmjit
from tests.differential.oracles import have_qemu
from tests.linux.build import FOLDER, path_of
from vmjit import Stop

XLENS = pytest.mark.parametrize("xlen", [32, 64])


@dataclass(frozen=True)
class Case:
    """`status` is what a shell would see; that of QEMU is the same unless `ours_alone`."""

    program: str
    arguments: tuple[str, ...] = ()
    stdin: bytes = b""
    status: int = 0
    ours_alone: bool = False

    @property
    def name(self) -> str:
        return "-".join((self.program, *self.arguments)).replace("/", "_")

    @property
    def signal(self) -> int:
        return {"abort": 6, "raise": 15, "fault": 11}.get("".join(self.arguments[:1]), 0)

    @property
    def output(self) -> bytes:
        return (FOLDER / "expected" / f"{self.name}.txt").read_bytes()


TEXT = b"the quick 12 brown 0x10\nfox jumps over\n-7 lazy dogs"
SCRIPT = b"""
n = 20; first = 0; second = 1;
while 0 < n { print first; sum = first + second; first = second; second = sum; n = n - 1; }
i = 1; while i < 40 { root = sqrt(i) - sin(i ^ 0.5) / (i + 1); i = i * 3; print root; print -floor(root) * 2 ^ 0.5; }
print i / (i - i);
"""
CASES = [
    Case("text", ("one", "two words"), TEXT, 11),
    Case("compress", ("data/words.txt", "data/corpus.txt")),
    Case("script", (), SCRIPT, 1),
    Case("workload", ("4",), status=62),
    Case("numbers"),
    Case("memory"),
    Case("polling", ("data/words.txt",), b"some input, and more of it"),
    Case("files", ours_alone=True),  # QEMU does not confine a program to a folder
    Case("ending", ("exit",), status=51),
    Case("ending", ("quick",), status=9),
    Case("ending", ("abort",), status=134),
    Case("ending", ("raise",), status=143),
    Case("ending", ("fault",), status=139),
    Case("ending", ("unknown",), status=4, ours_alone=True),  # there is no second process
]
by_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)


def corpus() -> bytes:
    """4,000 words, some of them often."""
    state, words = 5, []
    for _ in range(4000):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        words.append(b"%o" % ((state >> 16) ** 2 >> (state >> 8 & 31)))
    return b" ".join(words)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files, links inside it, one that leads out, and one that leads nowhere."""
    folder = tmp_path_factory.mktemp("root")
    (folder / "data").mkdir()
    (folder / "data" / "words.txt").write_bytes(b"first line\nsecond\nthe last one\n")
    (folder / "data" / "corpus.txt").write_bytes(corpus())
    (folder / "data" / "link.txt").symlink_to("words.txt")
    (folder / "data" / "loop").symlink_to("loop")
    (folder / "escape").symlink_to("/etc")
    return folder


def machine(case: Case, xlen: int, lanes: int, root: Path, **options: object) -> vmjit.Machine:
    program = vmjit.load(path_of(case.program, xlen))
    assert program.linux
    given: dict[str, object] = {"device": "cpu", "variables": {"NAME": "a value"}, "root": root, **options}
    m = vmjit.Machine(program, lanes, arguments=[case.program, *case.arguments], **given)  # type: ignore[arg-type]
    m.set_input(case.stdin)
    return m


def status_of(result: vmjit.RunResult, lane: int) -> int:
    """As a shell has it."""
    if result.stop[lane] == Stop.FAULT:
        return 139
    assert result.stop[lane] == Stop.EXIT
    return int(result.exit_code[lane])


@by_case
@XLENS
@pytest.mark.parametrize("tier", ["interpreter", "auto"])
def test_output_and_status(case: Case, xlen: int, tier: str, root: Path) -> None:
    m = machine(case, xlen, 3, root, tier=tier)
    for run in range(2):
        if run:
            m.reset()
        result = m.run(200_000_000)
        for lane in range(3):
            assert result.output(lane) == case.output
            assert status_of(result, lane) == case.status
        assert result.signal.tolist() == [case.signal] * 3
    expected = {220: 3} if case.arguments == ("unknown",) else {}
    assert {n: c for n, c in result.unknown_calls.items() if n not in (435,)} == expected


# Compiling all of a program before it runs takes long: one is enough for every day.
WHOLE = ("compress", "files", "memory", "numbers", "polling", "script", "text", "workload")
LONG = {("cpu", "scalar"): WHOLE, ("cpu", "simd"): (), ("host", "auto"): ("memory",)}
ELSEWHERE = [
    pytest.param(
        case, device, tier, id=f"{case.name}-{device}-{tier}", marks=[pytest.mark.slow] * (case.program in long)
    )
    for (device, tier), long in LONG.items()
    for case in CASES
]


@pytest.mark.parametrize(("case", "device", "tier"), ELSEWHERE)
@XLENS
def test_every_tier_and_device_has_it(case: Case, xlen: int, device: str, tier: str, root: Path) -> None:
    lanes = 9 if device == "cpu" else 2
    m = machine(case, xlen, lanes, root, device=device, tier=tier, fallback=False)
    result = m.run(400_000_000)
    assert result.device == device
    assert [result.output(lane) for lane in range(lanes)] == [case.output] * lanes
    assert [status_of(result, lane) for lane in range(lanes)] == [case.status] * lanes
    assert result.signal.tolist() == [case.signal] * lanes


@pytest.mark.parametrize("case", [case for case in CASES if case.program == "ending"], ids=lambda c: c.name)
@XLENS
def test_the_machine_for_ptx_has_it(case: Case, xlen: int, root: Path) -> None:
    m = machine(case, xlen, 2, root, device="ptx", tier="interpreter", memory="256KiB", fallback=False)
    result = m.run()
    assert result.device == "ptx"
    assert [result.output(lane) for lane in range(2)] == [case.output] * 2
    assert [status_of(result, lane) for lane in range(2)] == [case.status] * 2
    assert result.signal.tolist() == [case.signal] * 2


@pytest.mark.parametrize("case", [case for case in CASES if not case.ours_alone], ids=lambda c: c.name)
@XLENS
def test_recorded_output_is_qemus(case: Case, xlen: int, root: Path, tmp_path: Path) -> None:
    if not have_qemu(xlen):
        pytest.skip(f"qemu-riscv{xlen} is not installed")
    command = [f"qemu-riscv{xlen}", "-0", case.program, str(path_of(case.program, xlen)), *case.arguments]
    environment = {"PATH": os.environ["PATH"], "NAME": "a value"}
    (tmp_path / "stdin").write_bytes(case.stdin)  # input is a regular file, as for lanes
    with (tmp_path / "stdin").open("rb") as stdin:
        done = subprocess.run(
            command, stdin=stdin, capture_output=True, timeout=60, env=environment, cwd=root, check=False
        )
    assert done.stdout == case.output
    # QEMU ends by the guest's signal; a shell adds 128.
    assert (done.returncode if done.returncode >= 0 else 128 - done.returncode) == case.status


@XLENS
def test_a_path_may_be_the_last_thing_in_memory(xlen: int, root: Path) -> None:
    """Arguments are the last bytes of the stack."""
    program = vmjit.load(path_of("compress", xlen))
    for size in (1, 15, 16, 17, 255, 256, 257, 300):
        name = "./" * size + "data/words.txt"
        m = vmjit.Machine(program, 1, "cpu", arguments=["compress", name, "x" * size], root=root)
        result = m.run(100_000_000)
        assert result.output(0) == b"31 bytes in 2723 bits, a2b5b588, same\n"
        assert result.error_output(0) == b"x" * size + b": " + (
            b"No such file or directory\n" if size <= 255 else b"Filename too long\n"
        )


@XLENS
def test_lanes_have_inputs_and_random_bytes_of_their_own(xlen: int, root: Path) -> None:
    case = CASES[0]
    m = machine(case, xlen, 40, root)
    m.set_input([b"word " * (lane % 7) + b"%d" % lane for lane in range(40)])
    result = m.run()
    for lane in range(40):
        assert result.exit_code[lane] == lane % 7 + 1
        assert result.error_output(lane) == b"%d words\n" % (lane % 7 + 1)
        assert f"{lane} {lane:#x} ".encode() in result.output(lane) or lane == 0
    place = m.environment.stack_top - 4096
    stacks = m.memory.read(place, 4096)
    assert len(np.unique(stacks, axis=0)) > 1  # AT_RANDOM, at least


def test_a_seed_gives_the_same_random_numbers(root: Path) -> None:
    def stacks(seed: int) -> np.ndarray:
        m = machine(CASES[0], 64, 4, root, seed=seed)
        return m.memory.read(m.environment.stack_top - 1024, 1024)

    first, again, other = stacks(1), stacks(1), stacks(2)
    assert (first == again).all()
    assert (first != other).any()
    assert len(np.unique(first, axis=0)) == 4


GLIBC = {
    "hello.c": r"""
#include <stdio.h>
#include <stdlib.h>
#include <math.h>
static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
int main(int argc, char **argv) {
    int values[1000]; unsigned state = argc;
    for (int i = 0; i < 1000; i++) { state = state * 1103515245 + 12345; values[i] = state >> 8; }
    qsort(values, 1000, sizeof *values, compare);
    printf("%s %d %d %.17g\n", argv[argc - 1], values[0], values[999], pow(values[500], 0.3));
    return 7;
}
""",
    "exceptions.cpp": r"""
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
struct Noisy { std::string name; ~Noisy() { std::cout << "gone: " << name << "\n"; } };
static int deep(int n) { Noisy noisy{"level " + std::to_string(n)}; if (!n) throw std::out_of_range("bottom"); return deep(n - 1) + 1; }
int main() {
    std::map<std::string, double> sums;
    for (int i = 0; i < 50; i++) sums["key" + std::to_string(i % 7)] += i / 3.0;
    for (auto &[key, value] : sums) std::cout << key << " " << value << "\n";
    try { deep(3); } catch (const std::exception &e) { std::cout << "caught " << e.what() << std::endl; }
    throw 5;
}
""",
}


@pytest.mark.parametrize("source", GLIBC)
def test_glibc(source: str, tmp_path: Path) -> None:
    compiler = "riscv64-linux-gnu-g++" if source.endswith("cpp") else "riscv64-linux-gnu-gcc"
    if shutil.which(compiler) is None or not have_qemu(64):
        pytest.skip(f"{compiler} or QEMU is not installed")
    (tmp_path / source).write_text(GLIBC[source])
    program = tmp_path / "program"
    subprocess.run([compiler, "-static", "-O2", source, "-o", "program", "-lm"], cwd=tmp_path, check=True)
    done = subprocess.run(["qemu-riscv64", program, "x"], capture_output=True, timeout=60, check=False)
    m = vmjit.Machine(vmjit.load(program), 2, "cpu", arguments=["program", "x"])
    result = m.run(100_000_000)
    assert result.stops() == {"EXIT": 2}
    assert result.output(1) == done.stdout
    assert status_of(result, 1) == (done.returncode if done.returncode >= 0 else 128 - done.returncode)
