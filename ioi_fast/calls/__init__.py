"""The public calls, a file each: every one validates, chooses a backend, runs and labels."""
