"""What a call will do, in integers: rows, blocks, FLOPs and bytes, before any work is done."""
