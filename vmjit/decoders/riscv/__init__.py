"""RISC-V: RV32 and RV64 with I, M, A, F, D, C, Zfh, Zicsr, Zifencei, Zba, Zbb, Zbs, Zbc, Zicond and Zcb."""

from vmjit.decoders.riscv.decoder import Decoder, Instruction
from vmjit.decoders.riscv.isa import Isa, parse_isa
from vmjit.decoders.riscv.registers import REGISTERS, registers_of

__all__ = ["REGISTERS", "Decoder", "Instruction", "Isa", "parse_isa", "registers_of"]
