"""The tasks: a folder each, with the same file names. See `hybridvit.task`."""
