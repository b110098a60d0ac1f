"""One file per export format; each defines FORMAT."""
