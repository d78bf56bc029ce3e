"""RISC-V: RV32 and RV64 with I, M, A, C, Zicsr (user counters), Zifencei, Zba, Zbb, Zbs, Zbc, Zicond, Zcb."""

from vmjit.decoders.riscv.decoder import Decoder, Instruction
from vmjit.decoders.riscv.isa import Isa, parse_isa
from vmjit.decoders.riscv.registers import REGISTERS

__all__ = ["REGISTERS", "Decoder", "Instruction", "Isa", "parse_isa"]
