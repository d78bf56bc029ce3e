"""Ctrl-C during a run: noted at once, acted on where the lanes' state is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray


class DeferredInterrupt:
    """While this is entered, the first Ctrl-C sets `raised` and the kernels' attention flag instead of raising.

    A KeyboardInterrupt between two stores of a system call would leave its lane half served. The second Ctrl-C raises,
    for the case that something does not come to its end. Python delivers signals to the main thread only, and a handler
    that is not Python's own belongs to somebody who has plans for it: elsewhere this does nothing.
    """

    def __init__(self, attention: NDArray[np.int32]) -> None:
        self.raised = False
        self._attention = attention
        self._installed = False

    def __enter__(self) -> DeferredInterrupt:
        if threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGINT, self._note)
            self._installed = before is signal.default_int_handler
            if not self._installed:
                signal.signal(signal.SIGINT, before)
        return self

    def _note(self, number: int, frame: FrameType | None) -> Any:
        if self.raised:
            signal.default_int_handler(number, frame)
        self.raised = True
        self._attention[0] = 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._installed = False
