"""A run as a value: its keys, and recipes as files."""
