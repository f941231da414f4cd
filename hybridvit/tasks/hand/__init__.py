"""Hands: the mesh of a hand in metres from one picture."""
