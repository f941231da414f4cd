"""The whole way once, on real images."""
