"""Exporting a network to the formats of other runtimes."""
