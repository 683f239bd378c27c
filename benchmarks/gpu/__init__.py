"""Everything that a GPU can tell of the engine, in parts that can't take each other down.

`ioi-fast bench --backend triton` (or `make gpu`) runs `program.py`. Every part is a process of its
own (`worker.py`) that writes each of its rows to the part's JSON file as soon as it has it.
"""
