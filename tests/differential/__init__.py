"""Whole programs against independent oracles."""
