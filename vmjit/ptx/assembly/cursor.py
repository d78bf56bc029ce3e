"""A place in a token list, and what every part of the parser does with it."""

from __future__ import annotations

import struct

from vmjit.ptx.assembly.lexer import Token, tokenize
from vmjit.ptx.assembly.syntax import FloatLiteral, IntegerLiteral
from vmjit.ptx.errors import PtxError, PtxUnsupported


class Cursor:
    """The tokens of one text. Every error it makes names the line, and the text where there are several."""

    def __init__(self, text: str, source: str = "") -> None:
        self.source = source
        try:
            self._tokens = tokenize(text)
        except PtxError as error:
            raise PtxError(f"{source}, {error.message}", **error.details) if source else error from None
        self._position = 0

    @property
    def token(self) -> Token:
        return self._tokens[self._position]

    @property
    def following(self) -> Token:
        """The token after this one; the end token has itself behind it."""
        return self._tokens[min(self._position + 1, len(self._tokens) - 1)]

    @property
    def line(self) -> int:
        return self.token.line

    def error(self, message: str, line: int | None = None) -> PtxError:
        return PtxError(self._located(message, line), line=line or self.line)

    def unsupported(self, message: str, line: int | None = None) -> PtxUnsupported:
        return PtxUnsupported(self._located(message, line), line=line or self.line)

    def _located(self, message: str, line: int | None) -> str:
        prefix = f"{self.source}, " if self.source else ""
        return f"{prefix}line {line or self.line}: {message}"

    def at(self, text: str) -> bool:
        return self.token.text == text and self.token.kind != "string"

    def take(self) -> Token:
        token = self.token
        if token.kind == "end":
            raise self.error("the text ends here, in the middle of a declaration or function")
        self._position += 1
        return token

    def accept(self, text: str) -> bool:
        if self.at(text):
            self._position += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise self.error(f"expected {text!r}, found {self.token.text or 'the end of the text'!r}")

    def take_name(self) -> str:
        if self.token.kind != "name":
            raise self.error(f"expected a name, found {self.token.text or 'the end of the text'!r}")
        return self.take().text

    def take_directives(self) -> list[str]:
        """All directives that follow, without their dots."""
        found = []
        while self.token.kind == "directive":
            found.append(self.take().text[1:])
        return found

    def skip_past(self, text: str) -> None:
        while self.take().text != text:
            pass

    def take_names(self) -> list[str]:
        """Names separated by commas, up to and with the semicolon."""
        names = [self.take_name()]
        while not self.accept(";"):
            self.expect(",")
            names.append(self.take_name())
        return names

    def take_number(self) -> IntegerLiteral | FloatLiteral:
        """A literal with its sign (PTX ISA, "Constants")."""
        negative = self.accept("-")
        if self.token.kind != "number":
            raise self.error(f"expected a number, found {self.token.text!r}")
        value = self._number(self.take().text)
        if not negative:
            return value
        if isinstance(value, IntegerLiteral):
            return IntegerLiteral(-value.value)
        return FloatLiteral(-value.value, value.bits)

    def take_integer(self) -> int:
        value = self.take_number()
        if not isinstance(value, IntegerLiteral):
            raise self.error("expected an integer")
        return value.value

    def take_offset(self) -> int:
        """The sum of the `+ n` and `- n` that follow."""
        total = 0
        while self.at("+") or (self.at("-") and self.following.kind == "number"):
            sign = 1 if self.take().text == "+" else -1
            total += sign * self.take_integer()
        return total

    def _number(self, text: str) -> IntegerLiteral | FloatLiteral:
        prefix = text[:2].lower()
        if prefix == "0f":
            return FloatLiteral(struct.unpack(">f", bytes.fromhex(text[2:]))[0], 32)
        if prefix == "0d":
            return FloatLiteral(struct.unpack(">d", bytes.fromhex(text[2:]))[0], 64)
        if "." in text:
            return FloatLiteral(float(text), 64)
        digits = text.rstrip("U")
        octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
        try:
            return IntegerLiteral(int(digits, 8 if octal else 0))
        except ValueError:
            raise self.error(f"{text!r} is no number") from None
