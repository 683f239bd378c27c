"""Every reader of files against files that were changed at random: refused by name, soon, or read.

`PYTHONPATH=tests .venv/bin/python -m reader_fuzzing --inputs 100000 --seed 1` tries as many.
"""
