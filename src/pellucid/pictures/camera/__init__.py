"""Camera RAW: mosaics, their metadata, damage and exposure."""
