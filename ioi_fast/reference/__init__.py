"""The definition of every call, plain and slow; everything fast is held against it."""
