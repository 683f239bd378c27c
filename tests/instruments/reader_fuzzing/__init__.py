"""Every reader of files against files that were changed at random: refused by name, soon, or read.

`PYTHONPATH=tests/instruments .venv/bin/python -m reader_fuzzing --help` says how to try more.
"""
