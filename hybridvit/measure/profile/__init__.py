"""Where the time and the memory of a model go: by stage, by block, by operator."""
