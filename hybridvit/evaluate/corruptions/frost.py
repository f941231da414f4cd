"""The frost of ImageNet-C: one of its first five textures, of six that the package has."""

from importlib.resources import files

import numpy as np
from PIL import Image

TEXTURES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
STRENGTHS = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
"""What remains of the picture, and what comes of the texture, by severity."""
MARGIN = 1.1  # by which a texture that is too small is made larger than the picture, so that there is a part to choose


def frost(pixels: np.ndarray, severity: int, generator: np.random.RandomState) -> np.ndarray:
    """Add a random part of a picture of ice to another: h w 3 uint8 -> the same.

    A texture that is smaller than the picture is enlarged. Hendrycks and Dietterich (2019), appendix B.
    """
    kept, added = STRENGTHS[severity - 1]
    height, width = pixels.shape[:2]
    name = TEXTURES[generator.randint(len(TEXTURES))]
    with (files("imagecorruptions") / "frost" / name).open("rb") as file, Image.open(file) as opened:
        texture = opened.convert("RGB")
    scale = max(height / texture.height, width / texture.width)
    if scale >= 1:
        size = (int(np.ceil(texture.width * scale * MARGIN)), int(np.ceil(texture.height * scale * MARGIN)))
        texture = texture.resize(size, Image.Resampling.BICUBIC)
    top = generator.randint(texture.height - height)
    left = generator.randint(texture.width - width)
    ice = np.asarray(texture, np.float64)[top : top + height, left : left + width]
    return np.clip(kept * pixels + added * ice, 0, 255).astype(np.uint8)
