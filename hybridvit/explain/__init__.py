"""Why does a model answer as it does? Numbers and pictures of its attention, positions, fields, classes and kernels."""
