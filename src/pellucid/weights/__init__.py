"""Weight files: ours, those of other code bases, and the ones that ship, in `shipped`."""
