"""The hand itself: assets, the layer that moves them, rotations, and the reader of MANO's file."""
