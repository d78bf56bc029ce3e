"""What is listed is the code that runs, and each line belongs to the guest instruction that it says."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.explain.regions import ISAS, explained, subject_of
from vmjit.cache import CodeCache, DiskCache
from vmjit.explain.listings import assembly_lines, llvm_lines
from vmjit.explain.targets import TARGETS, Listing, Subject
from vmjit.translators import hip
from vmjit.translators.compile_quickly import emit_quick_region
from vmjit.translators.compile_region import REGION_SYMBOL, emit_region
from vmjit.translators.cpu import Effort, cpu_target
from vmjit.translators.cuda import PtxTarget
from vmjit.translators.guest_locations import GuestLocations
from vmjit.translators.lane_forms import assumed_forms
from vmjit.translators.simd_region import emit_simd_region
from vmjit.translators.vector_unit import vector_unit

GPU_FUNCTION = "vmjit_region"


def codes(listing: Listing) -> list[str]:
    return [re.sub(r"\s*(#|;|//) \S+ (Folded )?(Spill|Reload)$", "", line.text).strip() for line in listing.lines]


def unlocated(subject: Subject, name: str) -> list[str]:
    """The lines of a target's code as it is compiled to run, without debug locations."""
    locations = subject.locations
    cpu = cpu_target()
    if name in ("llvm", "scalar", "quick"):
        emit = emit_quick_region if name == "quick" else emit_region
        text = emit(subject.region, subject.registers, subject.windows).ir
        if name == "llvm":
            return [line.text.strip() for line in llvm_lines(cpu.optimised_ir(text), REGION_SYMBOL, locations)]
        assembly = cpu.assembly(text, Effort.QUICK if name == "quick" else Effort.FULL)
        return [line.text.strip() for line in assembly_lines(assembly, REGION_SYMBOL, locations, cpu.triple)]
    if name in ("simd", "masked"):
        forms = assumed_forms(subject.registers, subject.assumed.uniform, 0) if name == "simd" else None
        unit = vector_unit()
        made = emit_simd_region(subject.group_region, subject.registers, subject.windows, unit, forms)
        return [line.text.strip() for line in assembly_lines(cpu.assembly(made.ir), made.symbol, locations, cpu.triple)]
    if name == "ptx":
        target = PtxTarget("sm_90")
        text = target.compile_region(subject.region, subject.registers, subject.device_windows, GPU_FUNCTION).decode()
        body = text.partition(f"{GPU_FUNCTION}(")[2].partition("{\n")[2].partition("\n}")[0]
        return [line.strip().replace("\t", " ") for line in body.splitlines() if re.match(r"\s*[^.\s/{}()]", line)]
    assert name == "amdgcn"
    amd = hip.HipTarget("gfx942")
    image = amd.compile_region(subject.region, subject.registers, subject.device_windows, GPU_FUNCTION)
    return [
        line.text.strip() for line in assembly_lines(amd.function_assembly(image), GPU_FUNCTION, locations, hip.TRIPLE)
    ]


def without_numbers(lines: list[str]) -> list[str]:
    """Names of values and labels, which a debug location may renumber, in the order of their first use."""
    names: dict[str, str] = {}
    pattern = re.compile(r"(?:\$L__BB|\.LBB|%[a-zA-Z_.]*)\d[\w.]*")
    return [pattern.sub(lambda found: names.setdefault(found[0], f"#{len(names)}"), line) for line in lines]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["llvm", "scalar", "quick", "simd", "masked", "ptx", "amdgcn"])
def test_what_is_listed_is_what_runs(name: str, isa: str) -> None:
    subject = subject_of("crc32", isa, "update")
    listed = without_numbers(codes(TARGETS[name].make(subject)))
    wanted = [line for line in unlocated(subject, name) if not line.startswith("$L__tmp")]
    assert listed
    assert listed == without_numbers(wanted)


@pytest.mark.parametrize("isa", ISAS)
def test_each_line_belongs_to_its_instruction(isa: str) -> None:
    """By what only one instruction can have become."""
    explanation = explained("crc32", isa, "update", ["ir", "emitted", "llvm", "scalar", "simd", "ptx", "amdgcn"])
    text = {line.pc: line.text for line in explanation.guest}
    signs = {
        "emitted": (" xor i", ("xor",)),
        "llvm": (" xor i", ("xor",)),
        "scalar": ("xor", ("xor",)),
        "simd": ("vpxor", ("xor",)),
        "ptx": ("xor.b", ("xor",)),
        "amdgcn": ("v_xor_b32", ("xor",)),
    }
    for name, listing in explanation.listings.items():
        pcs = {line.pc for line in listing.lines if line.pc is not None}
        assert pcs <= text.keys()
        by = listing.by_instruction()
        assert sum(by.values()) + sum(line.pc is None and line.instruction for line in listing.lines) == (
            listing.instructions
        )
        if name == "ir":
            assert pcs == text.keys()
            continue
        sign, wanted = signs[name]
        # xorl of a register with itself is a zero, of anybody.
        of = [line for line in listing.lines if sign in line.text and not re.search(r"(%\w+), \1$", line.text)]
        owners = {text[line.pc].removeprefix("c.").split()[0] for line in of if line.pc is not None}
        assert of, name
        assert owners <= {*wanted, "andi", "srliw", "srli", "lw", "lbu"}, (name, owners)
        assert "xor" in owners, name


def test_facts() -> None:
    explanation = explained("json", "rv64imac", "guest_main", ["scalar", "simd", "amdgcn"])
    scalar, simd, amd = (explanation.listings[name].facts for name in ("scalar", "simd", "amdgcn"))
    assert isinstance(scalar["spills"], int)
    assert scalar["spills"] > 0
    assert "x2" in str(simd["the same in all lanes"]).split()
    if "general registers" in scalar:
        assert 8 <= int(scalar["general registers"]) <= 16
    assert 0 < int(amd["VGPRs"]) <= 512
    assert 0 < int(amd["SGPRs"]) <= 112


def test_locations_of_a_region_of_one_instruction() -> None:
    subject = subject_of("crc32", "rv64imac", "update")
    locations = GuestLocations(subject.region)
    assert locations.pcs == sorted(locations.pcs)
    first = locations.pc_of(1 << 20)
    assert first == locations.pcs[0]
    assert locations.pc_of(5) is None
    assert locations.pc_of((1 << 20) + len(locations.pcs)) is None


def test_sass() -> None:
    pytest.importorskip("cuda.pathfinder")
    explanation = explained("crc32", "rv64imac", "update", ["sass"])
    if "sass" in explanation.missing:
        pytest.skip(explanation.missing["sass"])
    listing = explanation.listings["sass"]
    text = {line.pc: line.text for line in explanation.guest}
    loads = {text[line.pc].split()[0] for line in listing.lines if "LDG" in line.text and line.pc is not None}
    assert {"lbu", "c.lw"} <= loads
    assert 16 <= int(listing.facts["registers"]) <= 255
    assert listing.facts["spill stores, bytes"] == 0


def test_listings_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache = CodeCache(DiskCache(tmp_path))
    monkeypatch.setattr("vmjit.explain.kept.process_cache", lambda: cache)
    made = explained("crc32", "rv64imac", "update", ["ir", "scalar", "ptx"])

    def never(*_: object) -> Listing:
        raise AssertionError("it was made before")

    for name in ("scalar", "ptx"):
        monkeypatch.setitem(TARGETS, name, replace(TARGETS[name], make=never))
    assert explained("crc32", "rv64imac", "update", ["ir", "scalar", "ptx"]).listings == made.listings
    with pytest.raises(AssertionError, match="made before"):
        explained("crc32", "rv64imac", "guest_main", ["scalar"])


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_other_processes_make_the_same(cores: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache = CodeCache(DiskCache(tmp_path))
    monkeypatch.setattr("vmjit.explain.kept.process_cache", lambda: cache)
    monkeypatch.setattr("vmjit.explain.worker.core_count", lambda: cores)
    monkeypatch.setattr("vmjit.explain.worker._SMALL", 1)
    names = ["ir", "ptx", "amdgcn"]
    found = explained("crc32", "rv64imac", "update", names).listings
    assert list(found) == names
    subject = subject_of("crc32", "rv64imac", "update")
    for name in names:
        assert found[name].lines == TARGETS[name].make(subject).lines, name


def test_what_another_process_cannot_make_is_made_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache = CodeCache(DiskCache(tmp_path))
    monkeypatch.setattr("vmjit.explain.kept.process_cache", lambda: cache)
    monkeypatch.setattr("vmjit.explain.worker.core_count", lambda: 2)
    monkeypatch.setattr("vmjit.explain.worker._SMALL", 1)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    found = explained("crc32", "rv64imac", "update", ["ir", "amdgcn"])
    assert list(found.listings) == ["ir", "amdgcn"]
