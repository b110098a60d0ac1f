"""What is done to clean pictures, so that networks learn to undo it."""
