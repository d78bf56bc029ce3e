"""Packets of GDB's remote protocol on a socket (GDB manual, "Remote Serial Protocol", Overview)."""

from __future__ import annotations

import re
import select
import socket

_ESCAPED = re.compile(rb"[#$}*]")
INTERRUPT = "\x03"


class Disconnected(Exception):
    """The other side has gone."""


class Packets:
    """What one side sends the other. Text is Latin-1, so that any byte can be in it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._received = b""
        self.acknowledges = True

    def receive(self) -> str:
        """The next packet, or INTERRUPT."""
        while True:
            packet = self._next()
            if packet is not None:
                return packet
            self._read()

    def is_interrupted(self) -> bool:
        """Whether the other side has asked for an end, or gone; does not wait."""
        ready, _, _ = select.select([self._socket], [], [], 0)
        if ready:
            self._read()
        found = self._received.startswith(INTERRUPT.encode())
        if found:
            self._received = self._received[1:]
        return found

    def _read(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except OSError as error:
            raise Disconnected from error
        if not data:
            raise Disconnected
        self._received += data

    def _next(self) -> str | None:
        self._received = self._received.lstrip(b"+-")
        if self._received.startswith(INTERRUPT.encode()):
            self._received = self._received[1:]
            return INTERRUPT
        begin, end = self._received.find(b"$"), self._received.find(b"#")
        if begin < 0 or end < begin or len(self._received) < end + 3:
            return None
        body, given = self._received[begin + 1 : end], self._received[end + 1 : end + 3]
        self._received = self._received[end + 3 :]
        if not self.acknowledges:
            return _unescaped(body)
        good = given.lower() == b"%02x" % (sum(body) & 0xFF)
        self._send(b"+" if good else b"-")
        return _unescaped(body) if good else None

    def send(self, text: str) -> None:
        body = _ESCAPED.sub(lambda match: b"}" + bytes([match[0][0] ^ 0x20]), text.encode("latin-1"))
        self._send(b"$" + body + b"#%02x" % (sum(body) & 0xFF))

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise Disconnected from error


def _unescaped(body: bytes) -> str:
    return re.sub(rb"\}(.)", lambda match: bytes([match[1][0] ^ 0x20]), body, flags=re.DOTALL).decode("latin-1")
