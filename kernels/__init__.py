"""The operations of the engine: the reference (the definition) and one form per device."""
