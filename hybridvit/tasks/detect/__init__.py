"""Detection: where things are, and what they are."""
