"""Files of this computer and objects in buckets: what a URL is, and fetching, storing and listing objects."""
