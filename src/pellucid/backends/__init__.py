"""What runs a network, and what it is exported to."""
