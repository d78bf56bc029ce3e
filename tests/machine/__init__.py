"""Machines and the embedding API: faults, budgets, memory, system calls, code that changes."""
