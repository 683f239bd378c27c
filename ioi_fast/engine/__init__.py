"""The fast path: both clean runs, the wave, what follows receivers, the read-out, by operations."""
