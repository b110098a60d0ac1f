"""The sub-commands: each parses, calls the Python function of its name, and prints."""
