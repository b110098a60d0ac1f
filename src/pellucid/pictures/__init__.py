"""Pictures and camera RAW: samples, colors, metadata, and the files that hold them."""
