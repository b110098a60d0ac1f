"""Formats that other libraries than libvips decode and encode, one file for each."""
