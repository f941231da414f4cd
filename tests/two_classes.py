"""A small checkpoint and images of its two classes, for tests of the commands."""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from hybridvit.checkpoints import save_checkpoint
from hybridvit.create import create_model
from hybridvit.models.backbone import Backbone


def dark_and_light(root: Path, *, num_images: int = 3) -> Backbone:
    """A model of two classes, saved as m.safetensors in `root`, beside `images` of them that are easily told apart."""
    model = create_model("fastvit_debug", num_classes=2).eval()
    assert isinstance(model, Backbone)
    model.card = dataclasses.replace(model.card, class_names=("dark", "light"))
    save_checkpoint(model, root / "m.safetensors")
    for name, low in (("dark", 0), ("light", 128)):
        (root / "images" / name).mkdir(parents=True)
        for number in range(num_images):
            pixels = np.random.default_rng(number).integers(low, low + 128, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / name / f"{number}.png")
    return model
