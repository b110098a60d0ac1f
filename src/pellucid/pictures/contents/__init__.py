"""What a file contains besides its picture."""
