"""A contestant in a process of its own, so that cores, threads and compiled code of one cannot touch another's."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from vmjit.bench.contestants import Contestant, First, Inputs, Run


def _serve(connection: Connection, cores: Sequence[int], factory: Callable[..., Contestant], arguments: Any) -> None:
    """The process: build the contestant, then answer (method, inputs) until None comes."""
    try:
        # First of all: threads inherit it from the one that starts them.
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cores)
        contestant = factory(*arguments)
        connection.send((None, None))
        while (request := connection.recv()) is not None:
            method, inputs = request
            connection.send((None, getattr(contestant, method)(inputs)))
    except (EOFError, KeyboardInterrupt):
        pass
    except Exception:
        connection.send((traceback.format_exc(), None))


class ContestantError(RuntimeError):
    """A contestant failed; the text is its own traceback."""


class RemoteContestant:
    """Builds `factory(*arguments)` in a new process that may use `cores`; `arguments` start with the name."""

    def __init__(self, cores: Sequence[int], factory: Callable[..., Contestant], *arguments: Any) -> None:
        self.name: str = arguments[0]
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        serve_arguments = (theirs, list(cores), factory, arguments)
        self._process = context.Process(target=_serve, args=serve_arguments, daemon=True)
        self._process.start()
        theirs.close()
        self._receive()

    def _receive(self) -> Any:
        try:
            error, value = self._connection.recv()
        except EOFError:
            self._process.join()
            error, value = f"its process ended with code {self._process.exitcode}", None
        if error is not None:
            raise ContestantError(f"{self.name}: {error}")
        return value

    def ask(self, method: str, inputs: Inputs = ()) -> Any:
        """What a method of the contestant gives."""
        self._connection.send((method, list(inputs)))
        return self._receive()

    def first(self, inputs: Inputs) -> First:
        found: First = self.ask("first", inputs)
        return found

    def warm(self, inputs: Inputs) -> None:
        self.ask("warm", inputs)

    def measure(self, inputs: Inputs) -> Run:
        run: Run = self.ask("measure", inputs)
        return run

    def close(self) -> None:
        if self._process.is_alive():
            self._connection.send(None)
            self._process.join(timeout=10)
            if self._process.is_alive():
                self._process.terminate()
        self._connection.close()
