"""FreiHAND: its lists, its cameras, its measures and its submissions."""
