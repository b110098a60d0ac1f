"""Folders and published data sets, and the store that trainings read."""
