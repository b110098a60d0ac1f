"""Supervised processes that read, show and restore pictures; they know nothing of HTTP."""
