"""`pellucid serve`: a page and an HTTP API; pictures are read and restored in supervised processes."""
