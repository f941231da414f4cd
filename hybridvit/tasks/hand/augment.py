"""What training does to a picture: the view of it is drawn, and the picture is resampled once."""

import math
import random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from hybridvit.tasks.hand.config import HandAugmentConfig
from hybridvit.tasks.hand.freihand.camera import View, turned_view

_WIDEST = 2.0  # standard deviations of the angle


def drawn_view(augment: HandAugmentConfig, picture_size: tuple[int, int], size: tuple[int, int]) -> View:
    """A random view of a picture (height, width) in a crop of `size`, from the global generator of Python."""
    angle = 0.0
    if random.random() < augment.rotation_share:
        angle = math.radians(_clipped(random.gauss(0.0, 1.0), _WIDEST) * augment.rotation_deg)
    part = 1.0 + _clipped(random.gauss(0.0, 1.0), 1.0) * augment.scale
    shift = (random.uniform(-augment.shift, augment.shift), random.uniform(-augment.shift, augment.shift))
    return turned_view(picture_size, size, angle=angle, part=part, shift=shift)


def drawn_gains(augment: HandAugmentConfig) -> tuple[float, float, float]:
    """A random factor for each channel, from the global generator of Python."""
    low, high = 1 - augment.channel_gain, 1 + augment.channel_gain
    return random.uniform(low, high), random.uniform(low, high), random.uniform(low, high)


def resampled(picture: Image.Image, view: View, gains: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> torch.Tensor:
    """The bytes (c h w) of an RGB picture as the view shows it, bilinear; beyond the border it is mirrored.

    Black there would tell how far the picture was turned. Where pixels become fewer, each is the mean of several.
    """
    height, width = view.size
    fine = max(1, round(1 / view.scale))  # samples of a pixel, in both directions
    theta = _from_edges(picture.height, picture.width) @ np.linalg.inv(_from_edges(height, width) @ view.matrix)
    return _sampled(picture, theta, (height, width), fine, gains)


def _sampled(
    picture: Image.Image, theta: np.ndarray, size: tuple[int, int], fine: int, gains: tuple[float, float, float]
) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()  # h w c -> b c h w
    shape = [1, 3, size[0] * fine, size[1] * fine]
    grid = F.affine_grid(torch.from_numpy(theta[None, :2]).float(), shape, align_corners=False)
    shown = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    if fine > 1:
        shown = F.avg_pool2d(shown, fine)
    shown = shown * torch.tensor(gains)[:, None, None]
    return shown[0].round_().clamp_(0, 255).to(torch.uint8)


def _from_edges(height: int, width: int) -> np.ndarray:
    """From plane coordinates to -1 at the left and upper edge, 1 at the others."""
    return np.array([[2 / width, 0.0, -1.0], [0.0, 2 / height, -1.0], [0.0, 0.0, 1.0]])


def _clipped(value: float, most: float) -> float:
    return max(-most, min(most, value))
