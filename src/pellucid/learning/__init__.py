"""The parts of a training: batches, steps, what is kept of them."""
