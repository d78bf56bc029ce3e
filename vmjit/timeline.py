"""What an engine did when, for Perfetto and Chrome's tracing: passes over the lanes, service of calls, compilations and
stops ("Trace Event Format", JSON). Where nobody records, a pass costs a comparison more."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Arguments = dict[str, Any]

# The numbers that stand for processes: of this one's threads, and of lanes.
_ENGINE, _LANES = 1, 2

_ACTIVE: list[Timeline] = []
_NOTHING: contextlib.nullcontext[Arguments | None] = contextlib.nullcontext(None)


class Timeline:
    """Events of this process while it is recorded (`recording`)."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._lock = threading.Lock()
        self._threads: dict[int, str] = {}
        self.events: list[dict[str, Any]] = []

    def _add(self, kind: str, name: str, at: float, arguments: Arguments, **more: object) -> None:
        thread = threading.get_ident()
        with self._lock:
            self._threads.setdefault(thread, threading.current_thread().name)
        self._note(kind, name, at, arguments, pid=_ENGINE, tid=thread, **more)

    def _note(self, kind: str, name: str, at: float, arguments: Arguments, **more: object) -> None:
        event = {"ph": kind, "name": name, "ts": (at - self._started) * 1e6, "args": arguments, **more}
        with self._lock:
            self.events.append(event)

    def lane_event(self, lane: int, name: str, **arguments: Any) -> None:
        """Something that a lane has done, on a line of its own."""
        self._note("i", name, time.perf_counter(), arguments, pid=_LANES, tid=lane, s="t")

    @contextlib.contextmanager
    def _span(self, name: str, arguments: Arguments) -> Iterator[Arguments]:
        started = time.perf_counter()
        try:
            yield arguments
        finally:
            self._add("X", name, started, arguments, dur=(time.perf_counter() - started) * 1e6)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the events so far as a file that Perfetto (ui.perfetto.dev) and chrome://tracing open."""
        with self._lock:
            lanes = sorted({event["tid"] for event in self.events if event["pid"] == _LANES})
            names = [_named("process", _ENGINE, 0, "vmjit")]
            names += [_named("thread", _ENGINE, thread, name) for thread, name in self._threads.items()]
            if lanes:
                names.append(_named("process", _LANES, 0, "lanes"))
                names += [_named("thread", _LANES, lane, f"lane {lane}") for lane in lanes]
            text = json.dumps({"traceEvents": [*names, *self.events], "displayTimeUnit": "ms"})
        Path(path).write_text(text, encoding="utf-8")


def _named(what: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": f"{what}_name", "pid": process, "tid": thread, "args": {"name": name}}


@contextlib.contextmanager
def recording() -> Iterator[Timeline]:
    """Record what all machines of the process do meanwhile."""
    timeline = Timeline()
    _ACTIVE.append(timeline)
    try:
        yield timeline
    finally:
        _ACTIVE.remove(timeline)


def span(name: str, **arguments: Any) -> contextlib.AbstractContextManager[Arguments | None]:
    """Something that takes time. Gives the event's arguments, for what is known at its end; None: nobody records."""
    return _ACTIVE[-1]._span(name, arguments) if _ACTIVE else _NOTHING


def instant(name: str, **arguments: Any) -> None:
    """Something that has happened."""
    if _ACTIVE:
        _ACTIVE[-1]._add("i", name, time.perf_counter(), arguments, s="t")
