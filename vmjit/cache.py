"""The code cache: machine code by content, on disk and loaded.

A key is a digest of everything the code depends on: the IR (or the sources that generate it), the target, the CPU's
features, the options, and the versions of vmjit, numba and llvmlite. A file that is damaged, of another key or of
another user is ignored with a warning and written anew. Files are written under a temporary name and moved into place,
so that several processes can share a cache.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import tempfile
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from vmjit import timeline
from vmjit.errors import CacheWarning, CompileForbiddenError

if TYPE_CHECKING:
    from vmjit.translators.cpu import LoadedCode

_MAGIC = b"vmjit object 1\n"
_DIGEST = 32

DEFAULT_MEMORY_LIMIT = 256 << 20
DEFAULT_DISK_LIMIT = 1 << 30


def default_directory() -> Path:
    """`$VMJIT_CACHE_DIR`, or `vmjit` in the user's cache folder."""
    if given := os.environ.get("VMJIT_CACHE_DIR"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "vmjit"


@lru_cache(maxsize=1)
def version_identity() -> tuple[str, ...]:
    """The versions that generated code depends on."""
    found = []
    for name in ("vmjit", "numba", "llvmlite"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} -")
    return tuple(found)


@lru_cache(maxsize=1)
def source_identity() -> str:
    """Digest of the sources that generate code: a changed lowering must never meet code of the old one."""
    package = Path(__file__).resolve().parent
    digest = hashlib.blake2b(digest_size=16)
    sources = [package / "stops.py"]
    for folder in ("ir", "decoders", "translators", "kernels"):
        sources += sorted((package / folder).rglob("*.py"))
    for path in sources:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def cache_key(kind: str, parts: Iterable[str]) -> str:
    """Digest of `parts`, the versions and the sources that generate code, as hex."""
    digest = hashlib.blake2b(digest_size=_DIGEST)
    for part in (kind, *version_identity(), source_identity(), *parts):
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


_compiling = 0
_collects = False
_compiling_lock = threading.Lock()


@contextlib.contextmanager
def collecting_later() -> Iterator[None]:
    """No garbage collection while something is compiled: an IR is a large graph of new objects that all stay until the
    end, and Python would walk it, and everything else, again and again."""
    global _compiling, _collects
    with _compiling_lock:
        _compiling += 1
        if _compiling == 1:
            _collects = gc.isenabled()
            gc.disable()
    try:
        yield
    finally:
        with _compiling_lock:
            _compiling -= 1
            if _compiling == 0 and _collects:
                gc.enable()


@dataclass
class CacheStatistics:
    """Counts since the cache was made.

    hits: code that was loaded already. disk_hits: images read from disk. misses: neither. evictions: loaded code that
    made room. bytes: size of the code loaded now. compiles, compile_seconds: what the misses cost.
    """

    hits: int = 0
    disk_hits: int = 0
    misses: int = 0
    evictions: int = 0
    bytes: int = 0
    compiles: int = 0
    compile_seconds: float = 0.0


_FORBID = "VMJIT_FORBID_COMPILE"
_forbidden = 0


def compiling_forbidden() -> bool:
    """Whether whatever is not in the cache is an error now."""
    return _forbidden > 0 or os.environ.get(_FORBID, "0") not in ("", "0")


@contextlib.contextmanager
def forbid_compiling() -> Iterator[None]:
    """Make every compilation a `CompileForbiddenError` while this is entered: proof that the cache is warm.

    The environment variable VMJIT_FORBID_COMPILE=1 does the same for a whole process.
    """
    global _forbidden
    _forbidden += 1
    try:
        yield
    finally:
        _forbidden -= 1


class DiskCache:
    """Images by key in a folder: object files, PTX, cubins, code objects, reports.

    Failing to write is no error: the code is compiled again next time.
    """

    def __init__(self, directory: Path | None = None, limit: int = DEFAULT_DISK_LIMIT) -> None:
        self.directory = directory or default_directory()
        self.limit = limit
        self._writes = 0

    def path(self, key: str) -> Path:
        return self.directory / key[:2] / f"{key}.o"

    def get(self, key: str) -> bytes | None:
        path = self.path(key)
        try:
            with open(path, "rb") as file:
                owner = os.fstat(file.fileno()).st_uid
                data = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._ignore(path, f"cannot be read ({error.strerror})")
            return None
        if hasattr(os, "getuid") and owner != os.getuid():
            self._ignore(path, "belongs to another user")
            return None
        header = len(_MAGIC) + 2 * _DIGEST
        payload = data[header:]
        if len(data) <= header or not data.startswith(_MAGIC):
            self._ignore(path, "is no object of this cache")
        elif data[len(_MAGIC) : len(_MAGIC) + _DIGEST].hex() != key:
            self._ignore(path, "was made for something else")
        elif data[len(_MAGIC) + _DIGEST : header] != hashlib.blake2b(payload, digest_size=_DIGEST).digest():
            self._ignore(path, "is damaged")
        else:
            return payload
        return None

    def _ignore(self, path: Path, why: str) -> None:
        warnings.warn(f"cache file {path} {why}; it is ignored and made anew", CacheWarning, stacklevel=4)

    def put(self, key: str, payload: bytes) -> None:
        path = self.path(key)
        check = hashlib.blake2b(payload, digest_size=_DIGEST).digest()
        name = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new")
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + bytes.fromhex(key) + check + payload)
            os.replace(name, path)
        except OSError:
            if name is not None:
                with contextlib.suppress(OSError):
                    os.unlink(name)
            return
        self._writes += 1
        if self._writes % 64 == 1:
            self._prune()

    def remove(self, key: str) -> None:
        """Forget what is kept under a key, if anything is."""
        with contextlib.suppress(OSError):
            self.path(key).unlink()

    def _prune(self) -> None:
        """Remove the files that were written longest ago until the folder is within its limit."""
        files = self.files()
        excess = sum(size for _, size, _ in files) - self.limit
        for _, size, path in sorted(files):
            if excess <= 0:
                return
            with contextlib.suppress(OSError):
                path.unlink()
                excess -= size

    def files(self) -> list[tuple[float, int, Path]]:
        """(time written, bytes, path) of every cached file."""
        found = []
        for path in self.directory.glob("??/*.o"):
            with contextlib.suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        return found

    def clear(self) -> None:
        for _, _, path in self.files():
            with contextlib.suppress(OSError):
                path.unlink()


class NoDiskCache(DiskCache):
    """Keeps nothing: for code that is of use to one process only."""

    def get(self, key: str) -> bytes | None:
        return None

    def put(self, key: str, payload: bytes) -> None:
        pass


class CodeCache:
    """Loaded code by key: least recently used first out at `memory_limit` bytes, backed by a `DiskCache`.

    Code that a machine still uses stays loaded after its eviction, for as long as the machine holds it.
    """

    def __init__(self, disk: DiskCache | None = None, memory_limit: int = DEFAULT_MEMORY_LIMIT) -> None:
        self.disk = disk or DiskCache()
        self.memory_limit = memory_limit
        self.statistics = CacheStatistics()
        self._loaded: OrderedDict[str, LoadedCode] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> LoadedCode | None:
        with self._lock:
            code = self._loaded.get(key)
            if code is not None:
                self._loaded.move_to_end(key)
                self.statistics.hits += 1
            return code

    def find_image(self, key: str) -> bytes | None:
        """The object file on disk, if there is a good one; that there is none is no miss."""
        image = self.disk.get(key)
        if image is not None:
            with self._lock:
                self.statistics.disk_hits += 1
        return image

    def load_image(self, key: str) -> bytes | None:
        """The object file on disk, if there is a good one."""
        image = self.find_image(key)
        if image is None:
            with self._lock:
                self.statistics.misses += 1
        return image

    def image(self, key: str, what: str, compile_image: Callable[[], bytes]) -> bytes:
        """What is on disk under `key`, else what `compile_image` makes, which is kept there.

        `what` names it in the `CompileForbiddenError` that is raised where nothing may be compiled.
        """
        image = self.load_image(key)
        if image is None:
            if compiling_forbidden():
                raise CompileForbiddenError(
                    f"{what} is not in the cache, and compiling is forbidden ({_FORBID} or forbid_compiling)", key=key
                )
            started = time.perf_counter()
            with collecting_later(), timeline.span(f"compile {what}"):
                image = compile_image()
            with self._lock:
                self.statistics.compiles += 1
                self.statistics.compile_seconds += time.perf_counter() - started
            self.disk.put(key, image)
        return image

    def put(self, key: str, code: LoadedCode) -> None:
        with self._lock:
            before = self._loaded.pop(key, None)
            self._loaded[key] = code
            self.statistics.bytes += code.size - (before.size if before is not None else 0)
            while self.statistics.bytes > self.memory_limit and len(self._loaded) > 1:
                _, old = self._loaded.popitem(last=False)
                self.statistics.bytes -= old.size
                self.statistics.evictions += 1


@lru_cache(maxsize=1)
def process_cache() -> CodeCache:
    """The cache that machines share unless they are given another."""
    return CodeCache()
