"""Tests of F, D and Zfh."""
