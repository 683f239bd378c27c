"""Indirect Object Identification: its prompts, and later its circuit and experiments."""
