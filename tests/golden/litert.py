"""Writes litert.tflite and litert.npz beside it, for tests without the converter: python tests/golden/litert.py

It runs where hybridvit[litert] is installed, with tests/ on PYTHONPATH. The images of the answers are `images()`.
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from conftest import trained_like
from torch import nn

import hybridvit
from hybridvit.export.pipeline import export

FILE = Path(__file__).with_name("litert.tflite")
ANSWERS = Path(__file__).with_name("litert.npz")
NAMES = ('<b>"kräftig"</b>', "二", "c & d", "d", "e")


def images() -> np.ndarray:
    """Three images of 32 x 32 pixels as the model takes them, of such contrast that their logits differ."""
    return np.random.default_rng(0).standard_normal((3, 3, 32, 32), dtype=np.float32) * np.float32(20)


def model() -> nn.Module:
    """The model in the file."""
    torch.manual_seed(0)
    made = trained_like(hybridvit.create_model("fastvit_debug", num_classes=len(NAMES)))
    with torch.no_grad():
        made.head.fc.weight.normal_()
    made.card = dataclasses.replace(made.card, class_names=NAMES)
    return made


if __name__ == "__main__":
    source = model()
    print(export(source, FILE, to="litert"))
    with torch.no_grad():
        answers = source(torch.from_numpy(images())).numpy()
    np.savez(ANSWERS, logits=answers)
    print(answers)
