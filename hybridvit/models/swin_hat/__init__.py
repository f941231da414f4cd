"""Swin with hierarchical attention in place of shifted windows."""
