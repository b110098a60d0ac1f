"""Restoring pictures with a trained network: one picture, files and folders."""
