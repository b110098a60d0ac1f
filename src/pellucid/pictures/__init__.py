"""Pictures and camera RAW: samples, colors, metadata and file formats."""

import os

# Before libvips is loaded: it would print its warnings about damaged files, which the notes of a picture contain.
os.environ.setdefault("VIPS_WARNING", "0")
