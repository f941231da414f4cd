"""FasterViT."""
