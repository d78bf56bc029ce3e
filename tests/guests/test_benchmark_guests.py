"""The benchmark guests on every tier: the same C compiled for the host, and user-mode QEMU, give the same results."""

from __future__ import annotations

import importlib.util
import json
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import pytest

import vmjit
from tests.differential.oracles import TIERS, have_qemu, machine, settle

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / "guests"
EVERY_DAY = ("calls", "crc32", "json", "matmul", "montecarlo", "sha256", "sieve", "sort")
# What these add is other code to measure; that they are compiled correctly is tried when there is time.
OTHERS = ("adler32", "biquad", "bsearch", "bytecode", "chacha20", "collatz", "csv", "ising", "lz", "modes", "siphash")
FLOATS = ("ffilter", "fmatmul", "mandelbrot", "mcpi", "nbody", "spectral")
GUESTS = (*EVERY_DAY, *OTHERS)
ISAS = ("rv32im", "rv64imac")
FLOAT_ISAS = ("rv32gc", "rv64gc")

# Compiling all of the JSON parser takes seconds, on each tier and for each ISA: once is enough for every day.
SLOW = {("json", "rv32im", "scalar"), ("json", "rv32im", "auto"), ("json", "rv64imac", "auto")}
SLOW |= {(name, isa, tier) for name in OTHERS for isa in ISAS for tier in TIERS if tier != "interpreter"}
CASES = [
    pytest.param(name, isa, tier, marks=[pytest.mark.slow] if (name, isa, tier) in SLOW else [])
    for name in GUESTS
    for isa in ISAS
    for tier in TIERS
]
CASES += [
    pytest.param(name, isa, tier, marks=[pytest.mark.slow] if isa == "rv32gc" and tier == "auto" else [])
    for name in FLOATS
    for isa in FLOAT_ISAS
    for tier in TIERS
]
everywhere = pytest.mark.parametrize(("name", "isa", "tier"), CASES)


def inputs_of(name: str) -> list[bytes]:
    """One a lane: usual and extreme seeds, more than one repeat, no work, what is missing, payloads."""
    found = [struct.pack("<II", seed, repeat) for seed, repeat in ((0, 1), (1, 1), (12345, 2), (0xFFFFFFFF, 1), (7, 0))]
    found += [struct.pack("<I", 99), b"", b"\x01\x02"]
    if name == "json":
        texts = [
            b'{"a": [1, -2.5e+3, true, false, null, {}, []], "b\\n\\u00e9": "\\"x\\/"}',
            b'{"a": 1,}',
            b'"open',
            b"",
        ]
        texts += [b"[" * 25 + b"]" * 25, json.dumps(list(range(300))).encode()]
        found += [struct.pack("<II", 5, 2) + text for text in texts]
    if name == "csv":
        texts = [
            b'1,-2.50,"a ""quoted"" text",word\n\n,,\r\n',
            b'"not closed, 1\n2',
            b"-,1.2.3,--4,.,5.\n7",
            b'"x"y,"z"',
        ]
        found += [struct.pack("<II", 5, 2) + text for text in texts]
    return found


def elf(name: str, isa: str) -> Path:
    return FOLDER / "bin" / f"{name}.{isa}.elf"


def build_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_guests_build", FOLDER / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def natives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the guests compiled for this computer."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: nothing to compare with")
    folder = tmp_path_factory.mktemp("natives")
    build_script().build_native(folder, (*GUESTS, *FLOATS))
    return folder


def run_native(program: Path, inputs: list[bytes]) -> list[bytes]:
    stream = b"".join(struct.pack("<I", len(data)) + data for data in inputs)
    done = subprocess.run([str(program)], input=stream, capture_output=True, check=True, timeout=60)
    return [done.stdout[4 * k : 4 * k + 4] for k in range(len(inputs))]


@dataclass(frozen=True)
class Runs:
    """Outputs and retired counts of the lanes in each run; in the tier "auto", the last has what the others compiled."""

    outputs: list[list[bytes]]
    retired: list[list[int]]


_MOST_RUNS = 6


@lru_cache(maxsize=64)
def runs(name: str, isa: str, tier: str) -> Runs:
    inputs = inputs_of(name)
    lanes = range(len(inputs))
    m = machine(vmjit.load(elf(name, isa)), len(inputs), tier, memory="16KiB", threads=2)
    m.set_input(inputs)
    found = Runs([], [])
    # What becomes hot in the first run follows from when other threads have their turn: seldom is it little.
    for _ in range(_MOST_RUNS if tier == "auto" else 1):
        result = m.run()
        assert result.stops() == {"EXIT": len(inputs)}
        assert not result.exit_code.any()
        assert not any(result.error_output(k) for k in lanes)
        found.outputs.append([result.output(k) for k in lanes])
        found.retired.append(result.retired.tolist())
        share = result.tiers["scalar"] / result.instructions
        settle()
        m.reset()
        if len(found.outputs) > 1 and share > 0.5:
            break
    assert share == 0 if tier == "interpreter" else share > 0.5
    return found


@everywhere
def test_results_equal_the_native_program_s(name: str, isa: str, tier: str, natives: Path) -> None:
    wanted = run_native(natives / name, inputs_of(name))
    assert len(set(wanted[:4])) == 4, "other seeds are other data"
    for outputs in runs(name, isa, tier).outputs:
        assert outputs == wanted


@everywhere
def test_results_equal_qemu_s(name: str, isa: str, tier: str) -> None:
    """One seed, in the same file."""
    xlen = int(isa[2:4])
    if not have_qemu(xlen):
        pytest.skip(f"qemu-riscv{xlen} is not installed: nothing to compare with")
    for outputs in runs(name, isa, tier).outputs:
        assert outputs[2] == qemu_s(xlen, elf(name, isa), inputs_of(name)[2])


@lru_cache(maxsize=32)
def qemu_s(xlen: int, path: Path, data: bytes) -> bytes:
    done = subprocess.run([f"qemu-riscv{xlen}", str(path)], input=data, capture_output=True, timeout=60, check=True)
    return done.stdout


@everywhere
def test_retired_counts_are_those_of_every_tier(name: str, isa: str, tier: str) -> None:
    (wanted,) = runs(name, isa, "interpreter").retired
    assert min(wanted) > 50
    for retired in runs(name, isa, tier).retired:
        assert retired == wanted


@pytest.mark.parametrize("tier", ["interpreter", "auto"])
def test_interrupted_work_is_the_same_work(tier: str) -> None:
    """In pieces of odd sizes, a guest comes to the same end."""
    name, isa = "calls", "rv64imac"
    whole = runs(name, isa, "interpreter")
    lanes = len(inputs_of(name))
    m = machine(vmjit.load(elf(name, isa)), lanes, tier, memory="16KiB")
    m.set_input(inputs_of(name))
    result = m.run(1)
    pieces = 1
    while set(result.stops()) != {"EXIT"}:
        pieces += 1
        result = m.run(7919 * pieces)
    assert pieces > 3
    assert [result.output(k) for k in range(lanes)] == whole.outputs[0]
    assert m.retired.tolist() == whole.retired[0]
