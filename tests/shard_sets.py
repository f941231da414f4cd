"""Small image folders and shards for tests."""

import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from hybridvit.card import Preprocessing
from hybridvit.data.listing import scan_folder
from hybridvit.data.shards.write import write_shards

SMALL = Preprocessing(image_size=(16, 16), crop_fraction=1.0)


def png(number: int, side: int = 12) -> bytes:
    """An image of noise that no other number has."""
    file = BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_folder(root: Path, *, classes: tuple[str, ...] = ("bee", "cat", "dog"), per_class: int = 8) -> Path:
    """root/<class>/<number>.png, all different."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            (root / name / f"{number}.png").write_bytes(png(1000 * label + number))
    return root


def pack(folder: Path, output: Path, *, shard_bytes: int = 8_000) -> Path:
    """The folder as shards of about four images."""
    write_shards({"": scan_folder(folder)}, output, shard_bytes=shard_bytes)
    return output


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """A tar file as others write them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
    return path
