"""The device "ptx": the CUDA back end with a PTX virtual machine in the driver's place.

The same kernels, the same PTX and the same launches as on a GPU, executed on this computer with every access checked:
for testing and debugging CUDA translations where there is no GPU. `ptx:sm_75` and the like choose the architecture
that is compiled for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vmjit.devices.cuda import CudaDevice
from vmjit.devices.ptx_driver import PtxCounts, PtxDriver
from vmjit.errors import ArgumentError

if TYPE_CHECKING:
    from vmjit.translators.cuda import PtxTarget

DEFAULT_ARCHITECTURE = "sm_90"
COPY_KERNELS = ("vmjit_gather", "vmjit_scatter", "vmjit_fill")


class PtxDevice(CudaDevice):
    """`engine` is the PTX machine's: "thread" is fast for few lanes, "simt" starts at once."""

    kind = "ptx"
    driver: PtxDriver

    def __init__(self, name: str = "ptx", *, engine: str = "auto") -> None:
        self.name = name
        self.architecture = name.partition(":")[2] or DEFAULT_ARCHITECTURE
        if not re.fullmatch(r"sm_[0-9]{2,3}", self.architecture):
            raise ArgumentError(f"no architecture {self.architecture!r}; there are sm_75, sm_80, sm_90, …")
        number = int(self.architecture.removeprefix("sm_"))
        self._set_up(PtxDriver(divmod(number, 10), engine, at_once=COPY_KERNELS), self._make_target)

    def _make_target(self) -> PtxTarget:
        from vmjit.translators.cuda import PtxTarget

        return PtxTarget(self.architecture)

    @property
    def engine(self) -> str:
        """The PTX machine's engine for the lanes' kernels; may be set."""
        return self.driver.engine

    @engine.setter
    def engine(self, engine: str) -> None:
        self.driver.engine = engine

    @property
    def counts(self) -> PtxCounts:
        """What the lanes' kernels executed so far; copies are counted in `driver.counts` only."""
        total = PtxCounts()
        for name, counts in self.driver.counts.items():
            if name not in COPY_KERNELS:
                total.launches += counts.launches
                total.thread_instructions += counts.thread_instructions
        return total
