"""What the machine gives: files, memory, processes, packages that may be missing."""
