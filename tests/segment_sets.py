"""Small sets of pictures and masks, in every layout, for tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (40, 48)  # height, width
NAMES = ("a", "b", "c")
ORIENTATION = 0x0112
COLOURS = ((0, 0, 0), (200, 0, 0), (0, 200, 0))


def labels_of(number: int, classes: int = 3) -> np.ndarray:
    """A mask of `classes` equal stripes, and a block that moves with the number."""
    labels = np.repeat(np.arange(classes, dtype=np.uint8), -(-SIZE[0] // classes))[: SIZE[0]]
    mask = np.repeat(labels[:, None], SIZE[1], 1)
    mask[:6, number : number + 6] = number % classes
    return mask


def picture(number: int) -> Image.Image:
    """Noise on the colours of the mask."""
    dice = np.random.default_rng(number)
    colours = np.array(COLOURS)[labels_of(number) % 3] + dice.integers(0, 40, (*SIZE, 3))
    return Image.fromarray(colours.astype(np.uint8))


def save_picture(path: Path, number: int, *, orientation: int = 1) -> None:
    """As JPEG with an EXIF orientation: of 6, the upright picture lies on its side in the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = picture(number)
    image = image.transpose(Image.Transpose.ROTATE_90) if orientation == 6 else image
    image.save(path, quality=95, exif=exif)


def save_mask(path: Path, mask: np.ndarray, mode: str = "L", palette: Sequence[Sequence[int]] = COLOURS) -> None:
    """In a mode of Pillow; P with a palette, RGB and RGBA in its colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "P":
        image = Image.fromarray(mask)
        image.putpalette([level for colour in palette for level in colour])
    elif mode in ("RGB", "RGBA"):
        image = Image.fromarray(np.array(palette, np.uint8)[mask]).convert(mode)
    elif mode == "I;16":
        image = Image.fromarray(mask.astype(np.uint16))
    elif mode == "1":
        image = Image.fromarray(mask.astype(bool))
    else:
        image = Image.fromarray(mask).convert(mode)
    assert image.mode == mode
    image.save(path)


PLACES: Mapping[str, tuple[str, str]] = {
    "ADE20K": ("images/{ing}/{name}.jpg", "annotations/{ing}/{name}.png"),
    "plain": ("images/{split}/{name}.jpg", "masks/{split}/{name}.png"),
    "plain with suffix": ("images/{split}/{name}.jpg", "masks/{split}/{name}_mask.png"),
    "split first": ("{split}/images/{name}.jpg", "{split}/masks/{name}.png"),
    "Pascal VOC": ("JPEGImages/{name}.jpg", "SegmentationClass/{name}.png"),
    "Cityscapes": (
        "leftImg8bit/{split}/ulm/{name}_leftImg8bit.png",
        "gtFine/{split}/ulm/{name}_gtFine_labelTrainIds.png",
    ),
}


def write_set(root: Path, layout: str = "plain", *, mode: str = "L", **options: Any) -> Path:
    """Three pictures to train on (a, b, c) and two to validate on (d, e), with masks of three classes."""
    picture_place, mask_place = PLACES[layout]
    for number, name in enumerate("abcde"):
        split = "train" if name in "abc" else "val"
        words = {"split": split, "ing": {"train": "training", "val": "validation"}[split], "name": name}
        save_picture(root / picture_place.format(**words), number)
        save_mask(root / mask_place.format(**words), labels_of(number), mode, **options)
        if layout == "Pascal VOC":
            names = root / "ImageSets/Segmentation" / f"{split}.txt"
            names.parent.mkdir(parents=True, exist_ok=True)
            with names.open("a", encoding="utf-8") as file:
                file.write(f"{name}\n")
    return root
