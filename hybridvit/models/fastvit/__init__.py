"""FastViT."""
