"""One file for each published data set. `registry` finds them by the names of their functions."""
