"""Pictures and camera RAW: samples, colors, metadata and file formats."""
