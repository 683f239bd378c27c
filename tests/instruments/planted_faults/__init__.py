"""Faults planted in the engine, its kernels and its readers, drawn by seed.

`make mutants` shows that the tests see each.
"""
