"""Miniatures of robustness suites in their official layouts: one small picture under many names."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from hybridvit.evaluate.suites.labels import subset_synsets, synsets


def one_picture(folder: Path) -> Path:
    """A JPEG of 32 px, the same each time."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "picture.jpeg"
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def class_tree(root: Path, picture: Path, names: Iterable[str], *, files: Iterable[str] = ("one.jpeg",)) -> Path:
    """root/<name>/<file>, each a link to the picture."""
    files = list(files)
    for name in names:
        (root / name).mkdir(parents=True)
        for file in files:
            os.link(picture, root / name / file)
    return root


def subset(root: Path, picture: Path, which: str) -> Path:
    """ImageNet-A or -R, with a README beside the classes."""
    class_tree(root, picture, subset_synsets(which))
    (root / "README.txt").write_text("how it was made", encoding="utf-8")
    return root


def validation(root: Path, picture: Path) -> Path:
    """ImageNet's validation images: one of each class under a number of its own, the first being 1."""
    for number, name in enumerate(synsets(), start=1):
        class_tree(root, picture, [name], files=[f"ILSVRC2012_val_{number:08d}.JPEG"])
    return root


def corrupted(
    root: Path, clean: Path, names: Iterable[str], *, group: str = "", severities: Iterable[str] = "12345"
) -> Path:
    """root/<group>/<name>/<severity>: links to the clean images."""
    severities = list(severities)
    for name in names:
        (root / group / name).mkdir(parents=True, exist_ok=True)
        for severity in severities:
            (root / group / name / severity).symlink_to(clean, target_is_directory=True)
    return root
