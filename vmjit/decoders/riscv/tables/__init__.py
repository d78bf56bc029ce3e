"""The instruction tables, one module per group of extensions. `ALL_ROWS` is what the decoder reads."""

from vmjit.decoders.riscv.row import Row
from vmjit.decoders.riscv.tables import atomic, base, bitmanip, compressed, csr, floats, multiply

FLOAT_ROWS: frozenset[Row] = frozenset(floats.TABLE.rows)
"""Rows that need float registers, or their status."""

ALL_ROWS: tuple[Row, ...] = (
    *base.TABLE.rows,
    *multiply.TABLE.rows,
    *atomic.TABLE.rows,
    *floats.TABLE.rows,
    *csr.TABLE.rows,
    *bitmanip.TABLE.rows,
    *compressed.TABLE.rows,
)
