"""The model: what a GPT-2 is, its weights and where they come from."""
