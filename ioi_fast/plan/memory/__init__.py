"""What a call takes at its peak: bounds on what each phase of a block holds, in pure Python."""
