"""What degrades clean pictures, so that networks learn to undo it."""
