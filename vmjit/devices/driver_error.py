"""What the drivers of GPUs raise; devices make vmjit's errors of it."""

from __future__ import annotations


class DriverError(Exception):
    """A call that a driver refused: the status by its name in its header, its text, and the log if it compiled."""

    def __init__(self, status: str, text: str, log: str = "") -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text
        self.log = log

    def told(self) -> str:
        """One line, with the first one of the log."""
        first_line = self.log.partition("\n")[0]
        return f"{self.status} ({self.text})" + (f": {first_line}" if first_line else "")
