"""This machine: its facts, memory, limits, threads and installed packages."""
