"""The `.riscv.attributes` section: the ISA string a RISC-V ELF was built for (psABI, chapter "Attributes")."""

from __future__ import annotations

_TAG_FILE = 1
_TAG_ARCH = 5


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def uleb(self) -> int:
        value = shift = 0
        while self.position < len(self.data):
            byte = self.data[self.position]
            self.position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80 or shift > 63:
                break
        return value

    def string(self) -> str:
        end = self.data.find(b"\0", self.position)
        end = len(self.data) if end < 0 else end
        text = self.data[self.position : end].decode("latin-1")
        self.position = end + 1
        return text

    def word(self) -> int:
        value = int.from_bytes(self.data[self.position : self.position + 4], "little")
        self.position += 4
        return value


def arch_attribute(section: bytes) -> str | None:
    """The value of Tag_RISCV_arch, or None if the section has none or cannot be read."""
    reader = _Reader(section)
    if section[:1] != b"A":
        return None
    reader.position = 1
    while reader.position + 4 <= len(section):
        start = reader.position
        length = reader.word()
        vendor = reader.string()
        end = min(start + length, len(section))
        if vendor == "riscv":
            found = _arch_in(_Reader(section[reader.position : end]))
            if found:
                return found
        if length < 5:
            return None
        reader.position = end
    return None


def _arch_in(reader: _Reader) -> str | None:
    while reader.position < len(reader.data):
        start = reader.position
        tag = reader.uleb()
        end = start + max(reader.word(), 5)
        if tag == _TAG_FILE:
            while reader.position < min(end, len(reader.data)):
                attribute = reader.uleb()
                # Odd tags hold strings, even ones numbers.
                value = reader.string() if attribute & 1 else reader.uleb()
                if attribute == _TAG_ARCH:
                    return str(value)
        reader.position = end
    return None
