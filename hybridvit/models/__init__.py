"""The model families; `registry.py` is the table of all models."""
