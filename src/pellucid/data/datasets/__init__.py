"""One file for each published data set. A new file is a new data set: `registry` finds its functions."""
