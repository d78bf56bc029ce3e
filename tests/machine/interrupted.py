"""A run under many Ctrl-C: `python -m tests.machine.interrupted TIER`, from the repository's root.

Prints what became of it as JSON. A process of its own, since where this goes wrong it may never end; then the
stacks of all threads go to standard error after a while, and the status is 1.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import subprocess
import sys

from tests.differential.oracles import machine, program
from tests.machine.harness import A0, A2, A7, DATA, S0, S1, ZERO, Assembly
from vmjit import Machine, RunResult

COUNT = 2000
LANES = 2
PRESSES = 200
SECONDS = 20


def writer(count: int, call: int = 64) -> Assembly:
    """Writes the low byte of a counter with a system call of its own, `count` times; then exits with 7. `call` is another
    call's number to make instead.

    2 instructions at the start, 8 for each byte, 3 at the end.
    """
    a = Assembly(64)
    a.li(S0, count)
    a.label("loop")
    a.put("sb", 0, S1, S0)
    a.put("addi", A0, ZERO, imm=1)
    a.put("add", 11, ZERO, S1)
    a.put("addi", A2, ZERO, imm=1)
    a.put("addi", A7, ZERO, imm=call)
    a.put("ecall")
    a.put("addi", S0, S0, imm=-1)
    a.put("bne", rs1=S0, to="loop")
    a.put("addi", A0, ZERO, imm=7)
    a.put("addi", A7, ZERO, imm=93)
    a.put("ecall")
    return a


def new_writer(count: int, tier: str) -> Machine:
    m = machine(program("rv64imac", writer(count).code, data=(DATA, 64)), LANES, tier)
    m.registers["s1"] = DATA
    return m


# From another process, since a signal from a thread of this one comes only when that thread has the GIL. One for each
# run, some time after its start: a second one during the same run would be meant to break it off.
_PRESS = """
import os, sys, time
for k in range({presses}):
    if not sys.stdin.buffer.read(1):
        break
    time.sleep(0.0003 + 0.00017 * (k % 17))
    os.kill({process}, {signal})
"""


class Finger:
    def __init__(self) -> None:
        text = _PRESS.format(presses=PRESSES, process=os.getpid(), signal=int(signal.SIGINT))
        self._process = subprocess.Popen([sys.executable, "-S", "-c", text], stdin=-1, bufsize=0)
        self.pressed = 0

    def press_soon(self) -> None:
        if self.pressed < PRESSES and self._process.stdin is not None:
            self.pressed += 1
            self._process.stdin.write(b"x")

    def end(self) -> None:
        self._process.communicate()


def run_to_the_end(m: Machine, finger: Finger) -> tuple[RunResult, int]:
    """The last result, and how many runs were interrupted."""
    interrupted = 0
    while True:
        try:
            finger.press_soon()
            result = m.run()
            interrupted += result.interrupted
            if set(result.stops()) == {"EXIT"}:
                return result, interrupted
            if not result.interrupted:
                raise RuntimeError(f"an uninterrupted run ended with {result.stops()}")
        except KeyboardInterrupt:
            pass  # it came outside of the run proper


def main() -> None:
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    m = new_writer(COUNT, sys.argv[1])
    m.run(100)
    finger = Finger()
    result, interrupted = run_to_the_end(m, finger)
    with contextlib.suppress(KeyboardInterrupt):
        finger.end()
    found = {
        "interrupted": interrupted,
        "exit codes": result.exit_code.tolist(),
        "retired": m.retired.tolist(),
        "outputs": [result.output(lane).hex() for lane in range(LANES)],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
