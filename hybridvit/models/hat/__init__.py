"""Hierarchical attention (HAT): windows that exchange information through carrier tokens; a part for any network."""
