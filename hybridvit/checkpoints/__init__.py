"""Weights in and out: checkpoints of ours, Apple's, NVIDIA's and timm's files, published weights from the network."""

from hybridvit.checkpoints.checkpoint import LoadReport, load, load_weights, save_checkpoint, save_upstream
from hybridvit.checkpoints.files import WeightFile, read_tensors
from hybridvit.checkpoints.hub import fetch

__all__ = [
    "LoadReport",
    "WeightFile",
    "fetch",
    "load",
    "load_weights",
    "read_tensors",
    "save_checkpoint",
    "save_upstream",
]
