"""Scores: a model, or the results of any program, compared with targets."""
