"""Hands for tests: the generated one, moved, and what a model would say of it."""

from typing import Any

import numpy as np
import torch

from hybridvit.batch import Frame
from hybridvit.tasks.hand.mano.generated_hand import generated_hand
from hybridvit.tasks.hand.mano.layer import HandLayer
from hybridvit.tasks.hand.result import HandResult
from hybridvit.tasks.hand.scene_draws import Variety, drawn_look

SIDE = 120  # px, of the crop


def answer(count: int = 1, seed: int = 0, scale: float = 6.0) -> dict[str, np.ndarray]:
    """What a model says of `count` hands whose palms are seen."""
    assets = generated_hand()
    looks = [drawn_look(np.random.default_rng([seed, each]), assets, Variety(), SIDE) for each in range(count)]
    rotations, shape = np.stack([look.rotations for look in looks]), np.stack([look.shape for look in looks])
    with torch.no_grad():
        hand = HandLayer(assets).double()(torch.from_numpy(rotations), torch.from_numpy(shape))
    root = hand.keypoints[:, :1]
    return {
        "vertices": (hand.vertices - root).numpy(),
        "keypoints": (hand.keypoints - root).numpy(),
        "camera": np.tile((scale, 0.02, 0.5), (count, 1)),
        "rotations": rotations,
        "shape": shape,
    }


def frame(left: float = 0.0, top: float = 0.0, size: tuple[int, int] = (SIDE, SIDE)) -> Frame:
    """A crop of 120 pixels in a picture of (height, width)."""
    return Frame(picture_size=size, crop=(left, top, float(SIDE), float(SIDE)), input_size=(64, 64))


def result(**changes: Any) -> HandResult:
    """A single result."""
    found: dict[str, Any] = {name: values[0] for name, values in answer().items()}
    return HandResult(**{"assets": generated_hand(), "frame": frame(), **found, **changes})
