"""Test cases of one file: instructions or a program, the state before, and what comes of it."""
