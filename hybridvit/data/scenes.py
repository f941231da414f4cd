"""Scenes to try segmentation and detection on: a few shapes on a textured ground, drawn by number and seed.

Colours and textures tell the classes apart only for the most part, so that shapes have to be looked at too. The sets
have on purpose what real ones have: pictures without objects, gaps between the numbers of the categories, a picture
that was taken with the camera turned, and a crowd.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageDraw

from hybridvit.data.written import write_pictures

CLASSES = ("disc", "square", "triangle", "star")
CATEGORY_IDS = (1, 2, 3, 5)  # of the classes, as data sets number theirs: with a gap
PALETTE = ((90, 90, 90), (220, 50, 40), (120, 190, 40), (40, 130, 220), (230, 60, 200))  # the ground, and each class
SIDE_PX = 96
NUM_TRAINING, NUM_VALIDATION = 600, 120
DEFAULT_FOLDER = "runs/data/scenes"

_HUES = (0.0, 0.30, 0.58, 0.83)  # of the classes
_ROTATED, _CROWDED = 3, 5  # the training pictures that lie on their side, and show a crowd
_NUM_EMPTY = 100  # one in so many shows nothing
_OWN_TEXTURE = 0.75  # share of the shapes with the texture of their class
_LEAST_SHARE, _LEAST_PX = 0.25, 40  # of a shape that is partly hidden, for it to count


class Instance(NamedTuple):
    """What can be seen of one shape."""

    category: int  # index into CLASSES
    mask: np.ndarray  # bool, h w


class Scene(NamedTuple):
    """A picture and what is on it."""

    pixels: np.ndarray  # bytes, h w 3
    instances: tuple[Instance, ...]

    @property
    def labels(self) -> np.ndarray:
        """The class of each pixel, h w: 0 is the ground, then CLASSES."""
        labels = np.zeros(self.pixels.shape[:2], np.uint8)
        for instance in self.instances:
            labels[instance.mask] = instance.category + 1
        return labels


def scene(number: int, seed: int = 0, side: int = SIDE_PX) -> Scene:
    """Scene `number` of a seed: 2 to 5 shapes, the later ones over the earlier; every hundredth has none."""
    dice = np.random.default_rng([seed, number])
    pixels = _ground(dice, side)
    shapes: list[tuple[int, np.ndarray]] = []
    for _ in range(0 if number % _NUM_EMPTY == _NUM_EMPTY - 1 else dice.integers(2, 6)):
        category = int(dice.integers(len(CLASSES)))
        mask = _shape(dice, category, side)
        pixels[mask] = _surface(dice, category, side)[mask]
        shapes.append((category, mask))
    pixels += dice.normal(0, 8, pixels.shape)
    return Scene(np.clip(pixels, 0, 255).astype(np.uint8), _visible(shapes))


def write_segmentation(folder: str | Path, *, train: int = NUM_TRAINING, val: int = NUM_VALIDATION) -> bool:
    """Scenes as ADE20K lays its pictures and masks out, the ground being class 0; False if they are there already.

    The folder appears complete or not at all. Raises `DatasetError` if it holds something else, `DiskFull`.
    """
    files: dict[str, np.ndarray | bytes] = {}
    for split, number, drawn in _both(train, val):
        name = f"{split}/scene_{number:05d}"
        files[f"images/{name}.jpg"] = _jpeg(drawn.pixels, turned=number == _ROTATED)
        files[f"annotations/{name}.png"] = _palette_png(drawn.labels)
    texts = {"classes.txt": "\n".join(("ground", *CLASSES)) + "\n"}
    return write_pictures(folder, files, "scenes with masks", texts)


def write_detection(folder: str | Path, *, train: int = NUM_TRAINING, val: int = NUM_VALIDATION) -> bool:
    """Scenes as COCO lays its pictures and annotations out, masks as run lengths; otherwise as `write_segmentation`."""
    files: dict[str, np.ndarray | bytes] = {}
    lists: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for split, number, drawn in _both(train, val):
        split = "val2017" if split == "validation" else "train2017"
        listed = lists.setdefault(split, _empty_list())
        name = f"scene_{number:05d}.jpg"
        files[f"{split}/{name}"] = _jpeg(drawn.pixels, turned=number == _ROTATED)
        height, width = drawn.pixels.shape[:2]
        listed["images"].append({"id": number, "file_name": name, "width": width, "height": height})
        for instance in drawn.instances:
            listed["annotations"].append(
                {"id": len(listed["annotations"]) + 1, "image_id": number, **_annotation(instance)}
            )
        if number == _CROWDED and drawn.instances:
            listed["annotations"][-1]["iscrowd"] = 1
    texts = {f"annotations/instances_{split}.json": json.dumps(listed) for split, listed in lists.items()}
    return write_pictures(folder, files, "scenes with boxes", texts)


def _both(train: int, val: int) -> list[tuple[str, int, Scene]]:
    numbered = [("training", number) for number in range(train)]
    numbered += [("validation", number) for number in range(train, train + val)]
    return [(split, number, scene(number)) for split, number in numbered]


def _visible(shapes: list[tuple[int, np.ndarray]]) -> tuple[Instance, ...]:
    hidden = np.zeros((), bool)
    found = []
    for category, mask in reversed(shapes):
        seen = mask & ~hidden
        hidden = hidden | mask
        if seen.sum() >= max(_LEAST_PX, _LEAST_SHARE * mask.sum()):
            found.append(Instance(category, seen))
    return tuple(reversed(found))


def _shape(dice: np.random.Generator, category: int, side: int) -> np.ndarray:
    radius = dice.uniform(0.12, 0.24) * side
    x, y = dice.uniform(0.1, 0.9, 2) * side
    turn = dice.uniform(0, 2 * np.pi)
    canvas = Image.new("1", (side, side))
    draw = ImageDraw.Draw(canvas)
    if CLASSES[category] == "disc":
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    else:
        corners = {"square": 4, "triangle": 3, "star": 10}[CLASSES[category]]
        reach = [radius * (0.45 if corners == 10 and corner % 2 else 1.0) for corner in range(corners)]
        angles = turn + 2 * np.pi * np.arange(corners) / corners
        draw.polygon(list(zip(x + reach * np.cos(angles), y + reach * np.sin(angles), strict=True)), fill=1)
    return np.array(canvas)


def _ground(dice: np.random.Generator, side: int) -> np.ndarray:
    dark, light = np.sort(dice.uniform(40, 215, 2))
    grey = dark + (light - dark) * _TEXTURES[dice.integers(len(_TEXTURES))](dice, side)
    return grey[..., None] + dice.uniform(-18, 18, 3)


def _surface(dice: np.random.Generator, category: int, side: int) -> np.ndarray:
    own = dice.random() < _OWN_TEXTURE
    texture = _TEXTURES[category if own else dice.integers(len(_TEXTURES))](dice, side)
    hue = (_HUES[category] + dice.normal(0, 0.05)) % 1
    saturation, value = dice.uniform(0.35, 0.9), dice.uniform(0.5, 1.0)
    hsv = np.empty((side, side, 3))
    hsv[..., 0], hsv[..., 1], hsv[..., 2] = hue, saturation, value * (0.6 + 0.4 * texture)
    return np.array(Image.fromarray((hsv * 255).astype(np.uint8), "HSV").convert("RGB"), float)


def _stripes(dice: np.random.Generator, side: int) -> np.ndarray:
    angle, period = dice.uniform(0, np.pi), dice.uniform(5, 10)
    y, x = np.mgrid[:side, :side]
    return (np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period) > 0).astype(float)


def _checks(dice: np.random.Generator, side: int) -> np.ndarray:
    period = dice.integers(4, 9)
    y, x = np.mgrid[:side, :side]
    return ((x // period + y // period) % 2).astype(float)


def _grain(dice: np.random.Generator, side: int) -> np.ndarray:
    return dice.random((side, side))


def _ramp(dice: np.random.Generator, side: int) -> np.ndarray:
    angle = dice.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:side, :side] / (side - 1) - 0.5
    return np.clip(0.5 + x * np.cos(angle) + y * np.sin(angle), 0, 1)


_TEXTURES: tuple[Callable[[np.random.Generator, int], np.ndarray], ...] = (_stripes, _checks, _grain, _ramp)
"""From 0 to 1; each class has the one of its place."""


def _jpeg(pixels: np.ndarray, *, turned: bool) -> bytes:
    """Encoded; `turned` as a camera on its side stores it, with the note that says how to turn it back."""
    exif = Image.Exif()
    if turned:
        exif[ExifTags.Base.Orientation] = 6  # to be turned clockwise
    file = io.BytesIO()
    Image.fromarray(np.rot90(pixels) if turned else pixels).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


def _palette_png(labels: np.ndarray) -> bytes:
    mask = Image.fromarray(labels)
    mask.putpalette([level for colour in PALETTE for level in colour])
    file = io.BytesIO()
    mask.save(file, "PNG")
    return file.getvalue()


def _empty_list() -> dict[str, list[dict[str, Any]]]:
    categories = [{"id": number, "name": name} for number, name in zip(CATEGORY_IDS, CLASSES, strict=True)]
    return {"images": [], "annotations": [], "categories": categories}


def _annotation(instance: Instance) -> dict[str, Any]:
    """Box as left, top, width, height; the mask as lengths of runs down the columns, the first one of zeros."""
    rows, columns = (np.flatnonzero(instance.mask.any(axis)) for axis in (1, 0))
    top, bottom, left, right = (int(each) for each in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    values = np.concatenate(([0], instance.mask.T.flatten().view(np.uint8)))
    counts = np.diff(np.concatenate(([0], np.flatnonzero(np.diff(values)), [instance.mask.size])))
    return {
        "category_id": CATEGORY_IDS[instance.category],
        "bbox": [left, top, right - left, bottom - top],
        "area": int(instance.mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": list(instance.mask.shape), "counts": counts.tolist()},
    }
