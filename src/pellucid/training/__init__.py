"""Training a recipe: batches, steps, checkpoints, metrics."""
