"""Hands as pictures, mesh files and pages."""
