"""The operations of the engine, one name each: reference (the definition) and one form per device."""
