"""The background thread of the process that compiles while lanes run."""

from __future__ import annotations

import atexit
import itertools
import logging
import queue
import threading
from collections.abc import Callable
from enum import IntEnum

from vmjit.code_space import CodeSpaceFullError

log = logging.getLogger("vmjit")

Job = Callable[[], None]


class Urgency(IntEnum):
    """What is compiled before what: all else is built on code for single lanes, what has code already can wait, and
    code for some of a group's lanes takes longest and is needed least."""

    SCALAR = 0
    AGAIN = 1
    WHOLE = 2
    MASKED = 3
    NONE = 4


class CompileThread:
    """Does jobs by their urgency, and those of the same one in the order of their coming. It ends with the process,
    after the compilation under way."""

    def __init__(self) -> None:
        self._jobs: queue.PriorityQueue[tuple[Urgency, int, Job | None]] = queue.PriorityQueue()
        self._count = itertools.count()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._pending = 0
        self._idle = threading.Condition()

    def submit(self, job: Job, urgency: Urgency = Urgency.SCALAR) -> None:
        with self._idle:
            self._pending += 1
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="vmjit compiler", daemon=True)
                self._thread.start()
                atexit.register(self.close)
        self._jobs.put((urgency, next(self._count), job))

    def _run(self) -> None:
        while (job := self._jobs.get()[2]) is not None:
            try:
                job()
            except CodeSpaceFullError:
                pass  # the next miss makes room
            except Exception:
                log.exception("compiling in the background failed; the lanes stay with the interpreter")
            finally:
                with self._idle:
                    self._pending -= 1
                    self._idle.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Until nothing is to be compiled; False after `timeout` seconds."""
        with self._idle:
            return self._idle.wait_for(lambda: self._pending == 0, timeout)

    def close(self) -> None:
        thread = self._thread
        if thread is not None and thread.is_alive():
            while True:  # what has not begun is not needed any more
                try:
                    self._jobs.get_nowait()
                except queue.Empty:
                    break
            self._jobs.put((Urgency.NONE, next(self._count), None))
            thread.join(timeout=10)


COMPILE_THREAD = CompileThread()
