"""Loaders: files to programs."""
