"""Robustness suites of ImageNet: ReaL, V2, A, R, Sketch, C and its kin, on any number of files at once."""
