"""The structures that many formats are made of: boxes, chunks and tagged directories."""
