"""Weight files: ours, the authors', and those that ship, which lie here."""
