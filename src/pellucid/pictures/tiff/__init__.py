"""TIFF: its pages, what their samples mean, and decoding what libvips does not."""
