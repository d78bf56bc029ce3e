"""Tests of Linux user mode."""
