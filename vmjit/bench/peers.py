"""Who can be compared with vmjit: a table, and what of it takes part."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from vmjit.bench.contestants import Peer
from vmjit.bench.emulators import Icicle, Unicorn
from vmjit.bench.guests import BenchGuest
from vmjit.bench.native_build import build, bundled_command, source_command
from vmjit.bench.processes import AllRecords, EachAProcess
from vmjit.bench.remote import RemoteContestant
from vmjit.errors import ArgumentError
from vmjit.memory_layout import parse_size

NONE = "none"

_SAMPLE = 16
"""How many instances are run where each takes a process, or its turn, of its own."""


@dataclass(frozen=True)
class Surroundings:
    """What contestants are made with. scratch: a folder for what is built. memory: heap and stack; None: 1 MiB."""

    cores: Sequence[int]
    scratch: Path
    memory: str | None


@dataclass(frozen=True)
class PeerKind:
    """One sort of peer.

    absent: why it is not there, empty if it is. unable: why it cannot run a guest. make: the contestant, by guest and
    surroundings. one_by_one: whether each instance takes its turn, so that of many only a sample is run.
    """

    name: str
    what: str
    absent: Callable[[], str]
    unable: Callable[[BenchGuest], str]
    make: Callable[[BenchGuest, Surroundings], Peer]
    one_by_one: bool

    def every(self, guest: BenchGuest, lanes: int) -> int:
        """Each so-manieth instance is run."""
        one_by_one = self.one_by_one or not guest.bundled
        return max(1, lanes // _SAMPLE) if one_by_one else 1


def qemu_of(xlen: int) -> str:
    return f"qemu-riscv{xlen}"


def _native(guest: BenchGuest, where: Surroundings) -> Peer:
    output = where.scratch / f"{guest.name}.{guest.isa}"
    if guest.bundled:
        assert guest.source is not None
        command = bundled_command(guest.source, output)
        build(command)
        return AllRecords("native", output, partial(build, command))
    command = source_command(Path(guest.source or ""), output)
    build(command)
    return EachAProcess("native", [str(output), *guest.arguments], partial(build, command))


def _qemu(guest: BenchGuest, where: Surroundings) -> Peer:
    return EachAProcess("qemu", [qemu_of(guest.xlen), str(guest.elf), *guest.arguments])


def _emulator(kind: type[Unicorn] | type[Icicle], name: str, guest: BenchGuest, where: Surroundings) -> Peer:
    arguments = (name, str(guest.elf), parse_size(where.memory or "1MiB"), guest.asked_isa)
    return RemoteContestant(where.cores[:1], kind, *arguments)


def _not_a_package(package: str, name: str) -> str:
    return "" if find_spec(package) is not None else f"not installed; install it with: pip install {name}"


def _bare_metal_only(guest: BenchGuest) -> str:
    return "runs bare-metal programs only" if guest.linux or guest.arguments else ""


def _tool(name: str) -> str:
    return "" if shutil.which(name) else f"{name} is not installed"


def _qemu_there() -> str:
    return (
        "" if any(shutil.which(qemu_of(xlen)) for xlen in (32, 64)) else "qemu-riscv64 and qemu-riscv32 are not there"
    )


KINDS: dict[str, PeerKind] = {
    kind.name: kind
    for kind in (
        PeerKind(
            "native",
            "the same C, gcc -O2 -march=native; bundled guests: all instances in one process",
            lambda: _tool("gcc"),
            lambda guest: "" if guest.source is not None else "needs the program's C: --source FILE.c",
            _native,
            one_by_one=False,
        ),
        PeerKind(
            "qemu",
            "QEMU's user mode, a process for each instance",
            _qemu_there,
            lambda guest: _tool(qemu_of(guest.xlen)),
            _qemu,
            one_by_one=True,
        ),
        PeerKind(
            "unicorn",
            "Unicorn, one instance after the other",
            lambda: _not_a_package("unicorn", "unicorn"),
            _bare_metal_only,
            partial(_emulator, Unicorn, "unicorn"),
            one_by_one=True,
        ),
        PeerKind(
            "icicle",
            "icicle-emu, one instance after the other",
            lambda: _not_a_package("icicle", "icicle-emu"),
            _bare_metal_only,
            partial(_emulator, Icicle, "icicle"),
            one_by_one=True,
        ),
    )
}


def command_kind(text: str) -> PeerKind:
    """A peer that is given as NAME=COMMAND; `{elf}` stands for the guest's file. Raises `ArgumentError`."""
    name, equals, line = text.partition("=")
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise ArgumentError(f"cannot read the command of {text!r}: {error}") from None
    if not equals or not name or not words:
        raise ArgumentError(f"no peer {text!r}; there are {', '.join(KINDS)}, {NONE}, or NAME=COMMAND")
    if name in KINDS or name.startswith("vmjit"):
        raise ArgumentError(f"a command cannot be called {name!r}: that is another contestant's name")

    def make(guest: BenchGuest, where: Surroundings) -> Peer:
        return EachAProcess(name, [word.replace("{elf}", str(guest.elf)) for word in words])

    def absent() -> str:
        program = words[0].replace("{elf}", "")
        return "" if not program or shutil.which(program) else f"{program} is not there, or no program"

    return PeerKind(name, f"{line}, a process for each instance", absent, lambda guest: "", make, one_by_one=True)


def chosen_peers(asked: Sequence[str]) -> tuple[list[PeerKind], dict[str, str]]:
    """The peers that take part, and why the others do not. Without being asked, all that are there.

    Raises `ArgumentError` for one that is asked for and not there.
    """
    if not asked:
        absent = {name: kind.absent() for name, kind in KINDS.items()}
        return [KINDS[name] for name, why in absent.items() if not why], {n: why for n, why in absent.items() if why}
    found: dict[str, PeerKind] = {}
    for text in asked:
        if text == NONE:
            continue
        kind = KINDS.get(text) or command_kind(text)
        if why := kind.absent():
            raise ArgumentError(f"peer {kind.name}: {why}")
        if kind.name in found:
            raise ArgumentError(f"two peers are called {kind.name!r}")
        found[kind.name] = kind
    if NONE in asked and found:
        raise ArgumentError(f"--peer {NONE} stands alone")
    return list(found.values()), {}
