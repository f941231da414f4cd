"""How fast, how large, and on which machine: numbers that can be compared because they were taken alike."""
