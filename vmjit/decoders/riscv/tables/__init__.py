"""The instruction tables, one module per group of extensions. `ALL_ROWS` is what the decoder reads."""

from vmjit.decoders.riscv.row import Row
from vmjit.decoders.riscv.tables import atomic, base, bitmanip, compressed, csr, multiply

ALL_ROWS: tuple[Row, ...] = (
    *base.TABLE.rows,
    *multiply.TABLE.rows,
    *atomic.TABLE.rows,
    *csr.TABLE.rows,
    *bitmanip.TABLE.rows,
    *compressed.TABLE.rows,
)
