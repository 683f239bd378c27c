"""What a call gives back, and where it came from."""
