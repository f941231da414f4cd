"""Exact inference forms: the kernel algebra, what can be folded, and `fold` itself."""
