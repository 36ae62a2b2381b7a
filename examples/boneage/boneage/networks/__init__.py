"""The networks: where to look, and how old."""
