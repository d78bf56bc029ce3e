"""The tests of vmjit."""
