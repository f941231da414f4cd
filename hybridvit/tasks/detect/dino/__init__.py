"""DINO (Zhang et al., ICLR 2023, arXiv 2203.03605): a detection head on maps of strides 8, 16 and 32."""
