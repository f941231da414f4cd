"""Generated pictures of ten shapes, hard enough for training methods to matter: 32 px, textures, noise, wrong labels.

Deterministic: every image is a function of (split, number). Used by benchmarks/methods.py.
"""

from pathlib import Path

import numpy as np
from PIL import Image

SHAPES, TEXTURES = ("triangle", "square", "star", "ring", "ellipse"), ("striped", "checked")
CLASSES = tuple(f"{texture}-{shape}" for texture in TEXTURES for shape in SHAPES)
SIDE_PX = 32
SPLITS = {"train": 5000, "test": 1000}
NOISE = 0.08  # standard deviation of every pixel, of 1
WRONG_LABELS = 0.2  # share of the training images that lie in another class's folder


def write_shapes(folder: Path) -> None:
    """Write folder/{train,test}/<class>/<number>.png; a complete folder is left as it is."""
    if (folder / "complete").exists():
        return
    for split, count in SPLITS.items():
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            dice = np.random.RandomState(number + (10_000_000 if split == "test" else 0))
            label = number % len(CLASSES)
            pixels = draw(label, dice)
            if split == "train" and dice.rand() < WRONG_LABELS:
                label = (label + dice.randint(1, len(CLASSES))) % len(CLASSES)
            Image.fromarray(pixels).save(folder / split / CLASSES[label] / f"{number:05d}.png")
    (folder / "complete").touch()


def draw(label: int, dice: np.random.RandomState) -> np.ndarray:
    """One image, (height, width, 3) bytes: a shape, turned, scaled and moved, on a ground of noise and one colour."""
    ticks = (np.arange(SIDE_PX) + 0.5) / SIDE_PX * 2 - 1
    across, down = np.meshgrid(ticks, ticks)
    angle, size = dice.uniform(0, 2 * np.pi), dice.uniform(0.6, 0.95)
    left, top = dice.uniform(-0.15, 0.15, 2)
    x = (np.cos(angle) * (across - left) + np.sin(angle) * (down - top)) / size
    y = (np.cos(angle) * (down - top) - np.sin(angle) * (across - left)) / size
    edge = _distance(SHAPES[label % len(SHAPES)], x, y) * size * SIDE_PX
    inside = 1 / (1 + np.exp(np.clip(-edge, -30, 30)))[..., None]  # smooth over about a pixel
    texture = _texture(TEXTURES[label // len(SHAPES)], x, y, dice)[..., None]
    colours = dice.uniform(0, 1, (2, 3))
    while np.abs(colours[0] - colours[1]).sum() < 0.6:
        colours = dice.uniform(0, 1, (2, 3))
    shape = colours[0] + 0.25 * texture * np.sign(dice.uniform(-1, 1, 3))
    image = inside * shape + (1 - inside) * colours[1] + dice.normal(0, NOISE, (SIDE_PX, SIDE_PX, 3))
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _distance(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Above 0 inside of the shape, which fills about the unit disc."""
    radius, turn = np.hypot(x, y), np.arctan2(y, x)
    if shape in ("triangle", "square"):
        wedge = 2 * np.pi / (3 if shape == "triangle" else 4)
        return np.cos(wedge / 2) - radius * np.cos(turn % wedge - wedge / 2)
    if shape == "star":
        return 0.68 + 0.32 * np.cos(5 * turn) - radius
    if shape == "ring":
        return np.minimum(0.95 - radius, radius - 0.5)
    return 1 - np.hypot(x, y / 0.55)


def _texture(name: str, x: np.ndarray, y: np.ndarray, dice: np.random.RandomState) -> np.ndarray:
    """Stripes or checks, at any angle and phase, -1 .. 1."""
    angle, frequency, phase = dice.uniform(0, np.pi), dice.uniform(7, 12), dice.uniform(0, 2 * np.pi)
    stripes = np.sin(frequency * (np.cos(angle) * x + np.sin(angle) * y) + phase)
    if name == "striped":
        return stripes
    return stripes * np.sin(frequency * (np.cos(angle) * y - np.sin(angle) * x) + phase)
