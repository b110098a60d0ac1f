"""Metadata in files: for each format, where it is and how it is put into a finished file."""
