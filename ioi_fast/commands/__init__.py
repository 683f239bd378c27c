"""The commands of `ioi-fast`, one file each."""
