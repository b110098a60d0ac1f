"""Work on several computers: Ray starts processes there, which work through keys."""
