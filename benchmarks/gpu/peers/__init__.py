"""What others do for the same jobs on the same device, from hooks to plain torch at its fastest."""
