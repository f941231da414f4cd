"""Trying a recipe and a machine before time is spent on them."""
