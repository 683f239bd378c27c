"""What a call takes at its peak: the engine's steps in its order, with sizes instead of tensors.

Pure Python, no torch. Each function stands for the one of the engine that it names, and takes and
gives back what that does; tests hold their sum against the tensors of real calls.
"""
