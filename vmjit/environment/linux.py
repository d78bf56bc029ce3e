"""Linux user mode: the system calls of static programs, for all waiting lanes at once.

A guest reaches nothing of the host: it reads its standard input and, if a root folder was named, files below that; what
it writes to its outputs is kept. Time is virtual as on bare metal, random numbers follow from a seed and the lane's
number, ids and names are constants. Calls that are not there give -ENOSYS and are counted.
"""

from __future__ import annotations

from vmjit.environment.linux_files import FILE_CALLS
from vmjit.environment.linux_memory import MEMORY_CALLS
from vmjit.environment.linux_polling import POLL_CALLS
from vmjit.environment.linux_process import PROCESS_CALLS
from vmjit.environment.linux_state import LinuxState


class Linux(LinuxState):
    """Serves one machine's lanes as RISC-V Linux would."""

    has_signals = True
    gathers_outputs = True
    calls = {**FILE_CALLS, **MEMORY_CALLS, **POLL_CALLS, **PROCESS_CALLS}
