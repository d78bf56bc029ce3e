"""A client of GDB's remote protocol (GDB manual, appendix "GDB Remote Serial Protocol"), as far as it takes to step a
program in QEMU."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from time import monotonic, sleep

from vmjit.gdb.packets import Disconnected, Packets

# Bytes of memory in one packet.
_CHUNK = 1024
_PATIENCE = 30.0


class GdbError(Exception):
    """The other side is gone, or refuses."""


class GdbClient:
    """Connected to a stub behind a Unix socket; `numbers` are its registers by name."""

    def __init__(self, path: Path) -> None:
        self._socket = _connected(path)
        self._packets = Packets(self._socket)
        try:
            supported = self.ask("qSupported:swbreak+;xmlRegisters=riscv")
            if "QStartNoAckMode+" in supported and self.ask("QStartNoAckMode") == "OK":
                self._packets.acknowledges = False
            self.numbers = self._registers("target.xml", {})
        except GdbError:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def ask(self, text: str) -> str:
        """Send a packet; gives the answer."""
        try:
            self._packets.send(text)
            return self._packets.receive()
        except Disconnected as error:
            raise GdbError("it is gone") from error

    def _file(self, name: str) -> str:
        text = ""
        while True:
            answer = self.ask(f"qXfer:features:read:{name}:{len(text):x},ffb")
            if answer[:1] not in ("m", "l"):
                raise GdbError(f"it has no {name}")
            text += answer[1:]
            if answer[0] == "l":
                return text

    def _registers(self, name: str, found: dict[str, int]) -> dict[str, int]:
        """The numbers of registers by name, of a description and what it includes."""
        for tag, attributes in re.findall(r"<(xi:include|reg)\s([^>]*)", self._file(name)):
            given = dict(re.findall(r'(\w+)="([^"]*)"', attributes))
            if tag == "reg":
                found[given["name"]] = int(given.get("regnum", max(found.values(), default=-1) + 1))
            else:
                self._registers(given["href"], found)
        return found

    # -- what a stub does

    def register(self, number: int) -> int:
        answer = self.ask(f"p{number:x}")
        if not re.fullmatch(r"([0-9a-f]{2})+", answer) or answer.startswith("E"):
            raise GdbError(f"register {number} cannot be read: {answer}")
        return int.from_bytes(bytes.fromhex(answer), "little")

    def set_register(self, number: int, value: int, size: int) -> None:
        if self.ask(f"P{number:x}={value.to_bytes(size, 'little').hex()}") != "OK":
            raise GdbError(f"register {number} cannot be written")

    def core_registers(self) -> bytes:
        return bytes.fromhex(self.ask("g"))

    def set_core_registers(self, data: bytes) -> None:
        if self.ask(f"G{data.hex()}") != "OK":
            raise GdbError("registers cannot be written")

    def read(self, address: int, size: int) -> bytes:
        found = b""
        while len(found) < size:
            answer = self.ask(f"m{address + len(found):x},{min(size - len(found), _CHUNK):x}")
            if answer.startswith("E") or not answer:
                raise GdbError(f"memory at {address + len(found):#x} cannot be read")
            found += bytes.fromhex(answer)
        return found

    def write(self, address: int, data: bytes) -> None:
        for place in range(0, len(data), _CHUNK):
            part = data[place : place + _CHUNK]
            if self.ask(f"M{address + place:x},{len(part):x}:{part.hex()}") != "OK":
                raise GdbError(f"memory at {address + place:#x} cannot be written")

    def step(self) -> bool:
        """Execute one instruction; whether it ended as a step does, and not by a signal of its own."""
        return self.ask("s")[:3] in ("T05", "S05")


def _connected(path: Path) -> socket.socket:
    end = monotonic() + _PATIENCE
    while True:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.connect(str(path))
            made.settimeout(_PATIENCE)
            return made
        except OSError as error:
            made.close()
            if monotonic() > end:
                raise GdbError(f"nobody answers at {path}: {error}") from error
            sleep(0.01)
