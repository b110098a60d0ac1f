"""Weight files of other frameworks: one module for each format, found by the file system."""
