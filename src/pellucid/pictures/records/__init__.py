"""Metadata, one file for each kind: EXIF, XMP, IPTC, ICC profiles and others."""
