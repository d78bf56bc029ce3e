"""The code cache: files that are good, files that are not, keys, limits, and several processes at once."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vmjit
import vmjit.cache
from tests.differential.asm import encode
from vmjit.cache import CacheStatistics, CodeCache, DiskCache, cache_key, default_directory, source_identity
from vmjit.decoders.riscv import REGISTERS
from vmjit.errors import CacheWarning
from vmjit.interpreter import interpreter_for
from vmjit.program import Program
from vmjit.tiering import CompileOptions
from vmjit.translators.compile_region import WindowPlan
from vmjit.translators.cpu import LoadedCode, cpu_target

KEY, OTHER_KEY = "0123456789abcdef" * 4, "fedcba9876543210" * 4
PAYLOAD = bytes(range(256)) * 4


@pytest.fixture
def disk(tmp_path: Path) -> DiskCache:
    return DiskCache(tmp_path / "cache")


def leftovers(disk: DiskCache) -> list[str]:
    """Files in the cache's folder that are no cached objects."""
    return [p.name for p in disk.directory.rglob("*") if p.is_file() and p.suffix != ".o"]


# -- files


def test_round_trip(disk: DiskCache) -> None:
    assert disk.get(KEY) is None
    disk.put(KEY, PAYLOAD)
    assert disk.get(KEY) == PAYLOAD
    assert disk.get(OTHER_KEY) is None
    assert DiskCache(disk.directory).get(KEY) == PAYLOAD
    assert leftovers(disk) == []


def test_a_second_write_replaces_the_first(disk: DiskCache) -> None:
    disk.put(KEY, PAYLOAD)
    disk.put(KEY, b"new")
    assert disk.get(KEY) == b"new"
    assert len(disk.files()) == 1


def test_clear(disk: DiskCache) -> None:
    disk.put(KEY, PAYLOAD)
    disk.put(OTHER_KEY, PAYLOAD)
    assert sorted(size for _, size, _ in disk.files()) == [disk.path(KEY).stat().st_size] * 2
    disk.clear()
    assert disk.files() == []
    assert disk.get(KEY) is None


def _truncated(data: bytes) -> bytes:
    return data[:-1]


def _header_only(data: bytes) -> bytes:
    return data[: -len(PAYLOAD)]


def _half_a_header(data: bytes) -> bytes:
    return data[:20]


def _longer(data: bytes) -> bytes:
    return data + b"\0"


def _flip(place: int) -> Callable[[bytes], bytes]:
    def flip(data: bytes) -> bytes:
        return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]

    return flip


def _empty(data: bytes) -> bytes:
    return b""


def _foreign(data: bytes) -> bytes:
    return b"\x7fELF" + bytes(1000)


def _old_version(data: bytes) -> bytes:
    return data.replace(b"object 1", b"object 0")


SPOILERS = {
    "truncated": (_truncated, "is damaged"),
    "longer": (_longer, "is damaged"),
    "bit of the code": (_flip(-5), "is damaged"),
    "first bit of the code": (_flip(-len(PAYLOAD)), "is damaged"),
    "bit of the digest": (_flip(-len(PAYLOAD) - 1), "is damaged"),
    "bit of the key": (_flip(20), "was made for something else"),
    "bit of the magic": (_flip(2), "is no object of this cache"),
    "header alone": (_header_only, "is no object of this cache"),
    "half a header": (_half_a_header, "is no object of this cache"),
    "empty": (_empty, "is no object of this cache"),
    "another file": (_foreign, "is no object of this cache"),
    "another version": (_old_version, "is no object of this cache"),
}


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_bad_file_is_ignored_and_written_anew(disk: DiskCache, spoil: str) -> None:
    change, words = SPOILERS[spoil]
    disk.put(KEY, PAYLOAD)
    path = disk.path(KEY)
    path.write_bytes(change(path.read_bytes()))
    for _ in range(2):
        with pytest.warns(CacheWarning, match=words) as caught:
            assert disk.get(KEY) is None
        assert len(caught) == 1
        assert str(path) in str(caught[0].message)
    disk.put(KEY, PAYLOAD)
    assert disk.get(KEY) == PAYLOAD


def test_every_flipped_bit_is_noticed(disk: DiskCache) -> None:
    disk.put(KEY, b"code")
    path = disk.path(KEY)
    good = path.read_bytes()
    for place in range(len(good)):
        for bit in range(8):
            path.write_bytes(good[:place] + bytes([good[place] ^ 1 << bit]) + good[place + 1 :])
            with pytest.warns(CacheWarning):
                assert disk.get(KEY) is None


def test_a_file_of_another_key_is_ignored(disk: DiskCache) -> None:
    disk.put(OTHER_KEY, PAYLOAD)
    disk.path(KEY).parent.mkdir()
    shutil.copy(disk.path(OTHER_KEY), disk.path(KEY))
    with pytest.warns(CacheWarning, match="was made for something else"):
        assert disk.get(KEY) is None
    assert disk.get(OTHER_KEY) == PAYLOAD


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have no owners here")
def test_a_file_of_another_user_is_ignored(disk: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold anything, and loading it would run it."""
    disk.put(KEY, PAYLOAD)
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with pytest.warns(CacheWarning, match="belongs to another user"):
        assert disk.get(KEY) is None
    monkeypatch.undo()
    assert disk.get(KEY) == PAYLOAD


def test_an_unreadable_file_is_ignored(disk: DiskCache) -> None:
    """A folder in its place cannot be read by anybody."""
    disk.path(KEY).mkdir(parents=True)
    with pytest.warns(CacheWarning, match="cannot be read"):
        assert disk.get(KEY) is None


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_ignored(disk: DiskCache) -> None:
    disk.put(KEY, PAYLOAD)
    disk.path(KEY).chmod(0)
    with pytest.warns(CacheWarning, match="cannot be read"):
        assert disk.get(KEY) is None
    disk.put(KEY, PAYLOAD)
    assert disk.get(KEY) == PAYLOAD


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="permissions are another matter here")
def test_the_cache_is_the_users_own(disk: DiskCache) -> None:
    disk.put(KEY, PAYLOAD)
    assert disk.path(KEY).stat().st_mode & 0o077 == 0
    assert disk.path(KEY).parent.stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    disk = DiskCache(tmp_path / "file" / "cache")
    disk.put(KEY, PAYLOAD)
    assert disk.files() == []
    disk.clear()
    with pytest.warns(CacheWarning, match="cannot be read"):
        assert disk.get(KEY) is None


def test_a_machine_runs_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    monkeypatch.setattr("vmjit.cpu_engine.process_cache", lambda: CodeCache(DiskCache(tmp_path / "file" / "cache")))
    with pytest.warns(CacheWarning, match="cannot be read"):
        _, value = run_loop()
    assert value == 3007


def test_a_write_that_fails_is_no_error_and_leaves_nothing(disk: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: there must not be more files after each attempt."""

    def no_space(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    for _ in range(3):
        disk.put(KEY, PAYLOAD)
    monkeypatch.undo()
    assert disk.get(KEY) is None
    assert leftovers(disk) == []


# -- the folder's limit


def test_the_files_written_longest_ago_go_first(disk: DiskCache) -> None:
    keys = [f"{i:02x}" * 32 for i in range(6)]
    for i, key in enumerate(keys):
        disk.put(key, PAYLOAD)
        os.utime(disk.path(key), (1000 + i, 1000 + i))
    size = disk.path(keys[0]).stat().st_size
    small = DiskCache(disk.directory, limit=3 * size)
    small.put(keys[1], PAYLOAD)  # the first write of a cache prunes; this file is new now
    assert {path.stem for _, _, path in small.files()} == {keys[1], keys[4], keys[5]}


def test_the_folder_is_pruned_again_and_again(tmp_path: Path) -> None:
    disk = DiskCache(tmp_path, limit=10 * (len(PAYLOAD) + 100))
    for i in range(200):
        disk.put(f"{i:02x}" * 32, PAYLOAD)
    assert len(disk.files()) <= 10 + 64
    assert disk.get(f"{199:02x}" * 32) == PAYLOAD


def test_pruning_meets_files_that_vanish(disk: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may prune the same folder."""
    for i in range(4):
        disk.put(f"{i:02x}" * 32, PAYLOAD)
    listed = disk.files()
    disk.clear()
    small = DiskCache(disk.directory, limit=0)
    monkeypatch.setattr(small, "files", lambda: listed)
    small.put(KEY, PAYLOAD)
    assert disk.get(KEY) == PAYLOAD


# -- where and under what name


def test_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VMJIT_CACHE_DIR", str(tmp_path / "given"))
    assert default_directory() == tmp_path / "given"
    assert DiskCache().directory == tmp_path / "given"
    monkeypatch.delenv("VMJIT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_directory() == tmp_path / "xdg" / "vmjit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_directory() == tmp_path / ".cache" / "vmjit"


def test_a_key_is_a_digest_of_every_part() -> None:
    keys = [
        cache_key("region", ("a", "b")),
        cache_key("interpreter", ("a", "b")),
        cache_key("region", ("a", "c")),
        cache_key("region", ("b", "a")),
        cache_key("region", ("ab",)),
        cache_key("region", ("ab", "")),
        cache_key("region", ("", "ab")),
        cache_key("region", ("a",)),
        cache_key("region", ()),
        cache_key("regiona", ("b",)),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(k) == 64 and int(k, 16) >= 0 for k in keys)
    assert cache_key("region", ("a", "b")) == keys[0]


@pytest.mark.parametrize("name", ["version_identity", "source_identity"])
def test_a_key_depends_on_versions_and_sources(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache_key("region", ("a",))
    value = ("vmjit 99",) if name == "version_identity" else "another"
    monkeypatch.setattr(vmjit.cache, name, lambda: value)
    assert cache_key("region", ("a",)) != before


def test_versions_are_those_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "numba":
            raise vmjit.cache.metadata.PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(vmjit.cache.metadata, "version", version)
    vmjit.cache.version_identity.cache_clear()
    try:
        assert vmjit.cache.version_identity() == ("vmjit 1.2.3", "numba -", "llvmlite 1.2.3")
    finally:
        vmjit.cache.version_identity.cache_clear()


def test_options_are_part_of_a_regions_key() -> None:
    options = CompileOptions(WindowPlan(0x1000, 64, 0x2000, 32, False))
    others = [
        replace(options, max_instructions=7),
        *(
            replace(options, windows=replace(options.windows, **change))
            for change in (
                {"private_lo": 0x1001},
                {"private_size": 65},
                {"shared_lo": 0x2001},
                {"shared_size": 33},
                {"more": True},
            )
        ),
    ]
    assert len({o.identity() for o in (options, *others)}) == 1 + len(others)


@pytest.fixture
def copied_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The sources of vmjit in another place, and `source_identity` looking there."""
    package = Path(vmjit.cache.__file__).parent
    copy = tmp_path / "vmjit"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__", "*.elf"))
    monkeypatch.setattr(vmjit.cache, "__file__", str(copy / "cache.py"))
    source_identity.cache_clear()
    yield copy
    source_identity.cache_clear()


@pytest.mark.parametrize(
    "name",
    [
        "ir/ops.py",
        "ir/builder.py",
        "decoders/riscv/decoder.py",
        "decoders/riscv/tables/base.py",
        "translators/lowering.py",
        "translators/cpu.py",
        "kernels/lanes.py",
        "stops.py",  # numbers that the interpreter's code holds
    ],
)
def test_the_sources_that_generate_code_are_part_of_the_key(copied_package: Path, name: str) -> None:
    before = source_identity()
    path = copied_package / name
    path.write_text(path.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    source_identity.cache_clear()
    assert source_identity() != before


def test_a_copy_of_the_sources_has_the_same_digest(copied_package: Path) -> None:
    copied = source_identity()
    before = copied_package / "ir" / "ops.py"
    before.rename(before.with_name("opcodes.py"))
    source_identity.cache_clear()
    renamed = source_identity()
    before.with_name("opcodes.py").rename(before)
    source_identity.cache_clear()
    assert copied == source_identity() != renamed


# -- loaded code


class Code(LoadedCode):
    """Code of a size that is no code."""

    def __init__(self, size: int) -> None:
        super().__init__(None, {}, size)


def test_loaded_code(disk: DiskCache) -> None:
    cache = CodeCache(disk)
    assert cache.get("a") is None
    assert cache.load_image(KEY) is None
    disk.put(KEY, PAYLOAD)
    assert cache.load_image(KEY) == PAYLOAD
    code = Code(10)
    cache.put("a", code)
    assert cache.get("a") is code
    assert cache.statistics == CacheStatistics(hits=1, disk_hits=1, misses=1, evictions=0, bytes=10)


def test_a_bad_file_is_a_miss(disk: DiskCache) -> None:
    cache = CodeCache(disk)
    disk.put(KEY, PAYLOAD)
    disk.path(KEY).write_bytes(b"")
    with pytest.warns(CacheWarning):
        assert cache.load_image(KEY) is None
    assert (cache.statistics.misses, cache.statistics.disk_hits) == (1, 0)


def test_the_least_recently_used_code_goes_first(disk: DiskCache) -> None:
    cache = CodeCache(disk, memory_limit=30)
    for name in "abc":
        cache.put(name, Code(10))
    assert cache.get("a") is not None
    cache.put("d", Code(10))
    assert [cache.get(name) is not None for name in "abcd"] == [True, False, True, True]
    cache.put("e", Code(25))
    assert [cache.get(name) is not None for name in "abcde"] == [False, False, False, False, True]
    assert (cache.statistics.evictions, cache.statistics.bytes) == (4, 25)


def test_the_limit_is_kept(disk: DiskCache) -> None:
    cache = CodeCache(disk, memory_limit=100)
    for i in range(50):
        cache.put(str(i), Code(7 + i % 13))
        assert cache.statistics.bytes <= 100
    assert cache.get("49") is not None
    assert cache.statistics.bytes == sum(c.size for c in cache._loaded.values())


def test_code_larger_than_the_limit_stays_alone(disk: DiskCache) -> None:
    """It is about to run, and the next one takes its place."""
    cache = CodeCache(disk, memory_limit=10)
    cache.put("a", Code(5))
    cache.put("b", Code(50))
    assert cache.get("a") is None
    assert cache.get("b") is not None
    cache.put("c", Code(5))
    assert cache.get("b") is None
    assert cache.statistics.bytes == 5


def test_the_same_key_again_counts_once(disk: DiskCache) -> None:
    """Two threads can compile the same region at the same time."""
    cache = CodeCache(disk, memory_limit=100)
    cache.put("a", Code(10))
    cache.put("a", Code(12))
    assert cache.statistics.bytes == 12
    cache.put("b", Code(85))
    assert cache.get("a") is not None
    assert cache.statistics.evictions == 0


def test_many_threads(disk: DiskCache) -> None:
    cache = CodeCache(disk, memory_limit=200)

    def work(number: int) -> None:
        for i in range(200):
            key = f"{number} {i % 17}"
            if cache.get(key) is None:
                cache.put(key, Code(1 + i % 7))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.statistics.bytes == sum(c.size for c in cache._loaded.values()) <= 200


# -- machines

LOOP = b"".join(
    (
        encode("addi", rd=10, rs1=10, imm=3),
        encode("addi", rd=5, rs1=5, imm=-1),
        encode("bne", rs1=5, rs2=0, imm=-8),
        encode("ebreak"),
    )
)


def run_loop(start: int = 7) -> tuple[vmjit.Machine, int]:
    """A small program, compiled before it runs, and its result: start + 3000."""
    machine = vmjit.Machine(Program.from_bytes(LOOP, "rv64i", writable=False), tier="scalar", memory=256)
    machine.registers[10] = start
    machine.registers[5] = 1000
    result = machine.run()
    assert result.stops() == {"EBREAK": 1}
    assert result.tiers["scalar"] > 2900
    return machine, int(machine.registers[10][0])


@pytest.fixture
def cache(disk: DiskCache, monkeypatch: pytest.MonkeyPatch) -> CodeCache:
    """A cache of its own for the regions of new machines."""
    made = CodeCache(disk)
    monkeypatch.setattr("vmjit.cpu_engine.process_cache", lambda: made)
    return made


def compiled_by(machine: vmjit.Machine) -> int:
    return machine._engine.compiler.statistics.compiled


def test_a_second_machine_compiles_nothing(cache: CodeCache) -> None:
    first, value = run_loop()
    assert value == 3007
    assert compiled_by(first) == cache.statistics.misses > 0
    second, value = run_loop(8)
    assert value == 3008
    assert compiled_by(second) == 0
    assert cache.statistics.hits == compiled_by(first)
    assert cache.statistics.disk_hits == 0


def test_code_is_loaded_from_disk(cache: CodeCache, disk: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = run_loop()
    fresh = CodeCache(disk)
    monkeypatch.setattr("vmjit.cpu_engine.process_cache", lambda: fresh)
    second, value = run_loop(8)
    assert value == 3008
    assert compiled_by(second) == 0
    assert (fresh.statistics.misses, fresh.statistics.disk_hits) == (0, compiled_by(first))


def test_damaged_code_is_compiled_again_and_never_loaded(
    cache: CodeCache, disk: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = run_loop()
    good = {path: path.read_bytes() for _, _, path in disk.files()}
    assert len(good) == compiled_by(first)
    for path, data in good.items():
        path.write_bytes(data[:-40] + bytes([data[-40] ^ 1]) + data[-39:])
    loaded: list[bytes] = []
    target = cpu_target()
    monkeypatch.setattr(target, "load", lambda image, symbols: loaded.append(image) or type(target).load(target, image, symbols))  # fmt: skip
    monkeypatch.setattr("vmjit.cpu_engine.process_cache", lambda: CodeCache(disk))
    with pytest.warns(CacheWarning, match="is damaged"):
        second, value = run_loop(8)
    assert value == 3008
    assert compiled_by(second) == compiled_by(first)
    payloads = {data[-len(image) :] for data in good.values() for image in loaded}
    assert set(loaded) <= payloads
    assert all(path.read_bytes()[: len(data) - 40] == data[:-40] for path, data in good.items())
    third, _ = run_loop(9)
    assert compiled_by(third) == 0


def test_code_of_a_machine_survives_its_eviction(disk: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    small = CodeCache(disk, memory_limit=1)
    monkeypatch.setattr("vmjit.cpu_engine.process_cache", lambda: small)
    machine, _ = run_loop()
    held = [weakref.ref(code) for space in machine._engine.spaces for e in space.compiled for code in e.code]
    others = []
    for imm in (4, 5):
        other = LOOP[:4] + encode("addi", rd=10, rs1=10, imm=imm) + LOOP[4:8] + encode("bne", rs1=5, rs2=0, imm=-12) + LOOP[12:]  # fmt: skip
        others.append(vmjit.Machine(Program.from_bytes(other, "rv64i", writable=False), tier="scalar", memory=256))
        others[-1].run(1000)
    assert small.statistics.evictions >= 2
    gc.collect()
    assert all(reference() is not None for reference in held)
    machine.reset()
    machine.registers[10] = 1
    machine.registers[5] = 1000
    result = machine.run()
    assert int(machine.registers[10][0]) == 3001
    assert result.tiers["scalar"] > 2900
    assert compiled_by(machine) == len(held)
    # And it goes when nobody holds it any more.
    del machine, result
    gc.collect()
    assert all(reference() is None for reference in held)


def test_loaded_code_stays_callable(disk: DiskCache) -> None:
    """Evicted code that somebody holds can still be called."""
    cache = CodeCache(disk, memory_limit=1)
    text = "define i64 @f(i64 %x) {\n %y = add i64 %x, ADD\n ret i64 %y\n}\n"
    target = cpu_target()
    held = target.load(target.compile(text.replace("ADD", "5")), ("f",))
    cache.put("a", held)
    cache.put("b", target.load(target.compile(text.replace("ADD", "6")), ("f",)))
    assert cache.get("a") is None
    assert ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)(held.addresses["f"])(37) == 42


# -- several processes

SCRIPT = """
import json, sys, time
import numpy as np
import vmjit
from vmjit.cache import process_cache
from vmjit.program import Program

code, folder, number = bytes.fromhex(sys.argv[1]), sys.argv[2], sys.argv[3]
from pathlib import Path
Path(folder, f"ready{number}").touch()
while not Path(folder, "go").exists():
    time.sleep(0.001)
values = []
compiled = 0
for lanes in (1, 3):
    machine = vmjit.Machine(Program.from_bytes(code, "rv64i", writable=False), lanes=lanes, tier="scalar", memory=256)
    machine.registers[10] = np.arange(lanes)
    machine.registers[5] = 1000
    machine.run()
    compiled += machine._engine.compiler.statistics.compiled
    values += machine.registers[10].tolist()
print(json.dumps({"values": values, "compiled": compiled, "misses": process_cache().statistics.misses}))
"""

# Functions that call each other's successors, so that there are many regions to compile.
FUNCTIONS = 12


def many_functions() -> bytes:
    """Calls of functions too large to be inlined, each of which adds its number many times; then a breakpoint."""
    size = 60
    calls = FUNCTIONS + 1
    main = b"".join(encode("jal", rd=1, imm=4 * (calls - i + size * i)) for i in range(FUNCTIONS)) + encode("ebreak")
    functions = b""
    for number in range(FUNCTIONS):
        functions += encode("addi", rd=10, rs1=10, imm=number + 1) * (size - 1) + encode("jalr", rs1=1)
    return main + functions


@pytest.fixture
def shared_folder(tmp_path: Path) -> Path:
    """A cache folder that holds the interpreter and nothing else."""
    interpreter_for(REGISTERS[64, False])
    key = cache_key("interpreter", (REGISTERS[64, False].name, *cpu_target().identity))
    image = DiskCache().get(key)
    assert image is not None
    DiskCache(tmp_path / "cache").put(key, image)
    return tmp_path / "cache"


def test_processes_share_a_folder(tmp_path: Path, shared_folder: Path, repository: Path) -> None:
    environment = {**os.environ, "VMJIT_CACHE_DIR": str(shared_folder), "PYTHONPATH": str(repository)}
    expected = [59 * sum(range(1, FUNCTIONS + 1)) + lane for lane in (0, 0, 1, 2)]

    def start(number: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", "-c", SCRIPT, many_functions().hex(), str(tmp_path), str(number)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(process: subprocess.Popen[str]) -> dict[str, object]:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert not errors
        found: dict[str, object] = json.loads(output)
        return found

    before = len(DiskCache(shared_folder).files())
    processes = [start(0), start(1)]
    deadline = time.monotonic() + 60
    while not all((tmp_path / f"ready{n}").exists() for n in (0, 1)):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    (tmp_path / "go").touch()
    both = [finish(p) for p in processes]
    assert [b["values"] for b in both] == [expected, expected]
    assert sum(int(str(b["compiled"])) for b in both) >= FUNCTIONS
    # Nothing was left out, nothing is damaged, and a third process has nothing to compile.
    disk = DiskCache(shared_folder)
    files = disk.files()
    assert len(files) - before >= FUNCTIONS
    assert all(disk.get(path.stem) for _, _, path in files)
    assert leftovers(disk) == []
    assert finish(start(2)) == {"values": expected, "compiled": 0, "misses": 0}
    assert disk.files() == files


def test_results_do_not_depend_on_the_cache(cache: CodeCache) -> None:
    """The same program with and without what was compiled before."""
    values = []
    for _ in range(2):
        machine = vmjit.Machine(
            Program.from_bytes(many_functions(), "rv64i", writable=False), tier="scalar", memory=256
        )
        machine.run()
        values.append(machine.registers.array())
    assert np.array_equal(values[0], values[1])
    assert int(values[0][10, 0]) == 59 * sum(range(1, FUNCTIONS + 1))
