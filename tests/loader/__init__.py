"""The ELF loader."""
