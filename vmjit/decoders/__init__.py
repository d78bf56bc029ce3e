"""Decoders: guest bytes to instructions to IR, one package per ISA."""
