"""The bundled checkpoint and the script that trained it."""
