"""The jobs J1 to J6 on the engine: what they are, their truth, and their rows."""
