"""Rendered pictures of a hand in FreiHAND's layout: what is true of them is known to the last digit."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from hybridvit.data.written import appearing
from hybridvit.errors import DatasetError, UsageError
from hybridvit.tasks.hand.config import VERSIONS
from hybridvit.tasks.hand.drawn.shading import SkinMap, over, rendered
from hybridvit.tasks.hand.freihand.lists import ANCHOR
from hybridvit.tasks.hand.mano.hand_assets import HandAssets
from hybridvit.tasks.hand.mano.layer import HandLayer
from hybridvit.tasks.hand.mano.rotation import to_axis_angle
from hybridvit.tasks.hand.scene_draws import Look, Variety, drawn_look

DEFAULT_FOLDER = "runs/data/hands"
PICTURES = 2  # raised when the same request gives other pictures, so that older folders are not taken for these
MARKER = "rendered.json"  # says that the folder is finished, and what was asked for
_AT_ONCE = 64  # hands that the layer moves together
_SEEDS = {"training": 0, "evaluation": 1}
_MIN_SIDE_PX, _MAX_SIDE_PX = 32, 1024


@dataclass(frozen=True, kw_only=True)
class HandScenes:
    """What is rendered. Raises UsageError for numbers that no data set has."""

    train: int = 4000  # hands to train on, each in four versions
    evaluation: int = 500
    size: int = 112  # px
    seed: int = 0
    variety: Variety = field(default_factory=Variety)

    def __post_init__(self) -> None:
        if min(self.train, self.evaluation) < 1:
            raise UsageError(
                f"{self.train} hands to train on and {self.evaluation} to evaluate on were asked for. Render at least "
                "one of each."
            )
        if not _MIN_SIDE_PX <= self.size <= _MAX_SIDE_PX:
            raise UsageError(
                f"Pictures with a side of {self.size} pixels were asked for. Choose {_MIN_SIDE_PX} to {_MAX_SIDE_PX}; "
                "FreiHAND's have 224."
            )


class Rendered(NamedTuple):
    """A hand in a picture, without background, and what is true of it."""

    picture: np.ndarray  # h w 4: see `rendered`
    camera: np.ndarray  # 3 3, pixels; 0 in the centre of the first
    keypoints: np.ndarray  # 21 3, metres, in the camera's frame
    vertices: np.ndarray  # v 3
    parameters: np.ndarray  # 1 61: pose 48, shape 10, place of the anchor in the picture, scale

    @property
    def mask(self) -> np.ndarray:
        """Where the hand is, h w."""
        return self.picture[..., 3] >= 0.5


def write_scenes(
    folder: str | Path, assets: HandAssets, scenes: HandScenes, step: Callable[[int, int], None] = lambda done, of: None
) -> bool:
    """Render pictures of a hand into FreiHAND's layout; False if the folder has these very pictures already.

    The folder appears complete or not at all. `step` is told after each hand how many are done, and of how many. Raises
    DatasetError if the folder holds something else, or cannot be written; DiskFull.
    """
    folder = Path(folder)
    wanted = {
        **asdict(scenes),
        "pictures": PICTURES,
        "hand": assets.kind,
        "sha256": assets.sha256,
        "licence": assets.licence,
    }
    if folder.exists():
        _check_same(folder, wanted)
        return False
    needed = scenes.train * len(VERSIONS) + scenes.evaluation
    with appearing(folder, needed_bytes=needed * (4096 + scenes.size**2 // 2)) as unfinished:
        total = scenes.train + scenes.evaluation
        for split, count, before in (("training", scenes.train, 0), ("evaluation", scenes.evaluation, scenes.train)):
            for number, _ in enumerate(_written(unfinished, split, count, assets, scenes)):
                step(before + number + 1, total)
        (unfinished / MARKER).write_text(json.dumps(wanted, indent=1), encoding="utf-8")
    return True


def hands(
    split: str, count: int, assets: HandAssets, scenes: HandScenes
) -> Iterator[tuple[np.random.Generator, Rendered]]:
    """The first hands of a split, each a function of its number and the seed, and the dice that their grounds take."""
    layer, skin = HandLayer(assets).double(), SkinMap(assets)
    for start in range(0, count, _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, count))
        dice = [np.random.default_rng([scenes.seed, _SEEDS[split], number]) for number in numbers]
        looks = [drawn_look(each, assets, scenes.variety, scenes.size) for each in dice]
        with torch.no_grad():
            moved = layer(
                torch.from_numpy(np.stack([look.rotations for look in looks])),
                torch.from_numpy(np.stack([look.shape for look in looks])),
            )
        for each, look, vertices, keypoints in zip(
            dice, looks, moved.vertices.numpy(), moved.keypoints.numpy(), strict=True
        ):
            yield each, _rendered(look, vertices, keypoints, assets, skin, scenes.size)


def ground(dice: np.random.Generator, size: int) -> np.ndarray:
    """Something behind a hand: patches of colour without edges (size size 3, bytes)."""
    cells = dice.integers(2, 10, 2)
    colours = dice.integers(0, 256, (*cells, 3)).astype(np.uint8)
    contrast, greyness = dice.uniform(0.3, 1), dice.uniform(0.2, 0.9)
    pixels = np.asarray(Image.fromarray(colours).resize((size, size), Image.Resampling.BICUBIC), float)
    pixels = dice.uniform(0, 255, 3) * (1 - contrast) + pixels * contrast
    return (pixels * (1 - greyness) + pixels.mean(2, keepdims=True) * greyness).astype(np.uint8)


def _rendered(
    look: Look, vertices: np.ndarray, keypoints: np.ndarray, assets: HandAssets, skin: SkinMap, size: int
) -> Rendered:
    shift = look.place - keypoints[ANCHOR]
    vertices, keypoints = vertices + shift, keypoints + shift
    centre = (size - 1) / 2
    camera = np.array(((look.focal_px, 0, centre), (0, look.focal_px, centre), (0, 0, 1)))
    seen = vertices @ camera.T
    points = seen[:, :2] / seen[:, 2:] + 0.5
    picture = rendered(vertices, points, assets.faces, skin, (size, size), colour=look.skin, light=look.light)
    turns = to_axis_angle(torch.from_numpy(look.rotations)).flatten().numpy()
    turns[3:] -= assets.pose_mean
    scale = look.focal_px / look.place[2]
    parameters = np.concatenate((turns, look.shape, scale * look.place[:2] + centre, [scale]))
    return Rendered(picture, camera, keypoints, vertices, parameters[None])


def _written(folder: Path, split: str, count: int, assets: HandAssets, scenes: HandScenes) -> Iterator[None]:
    """Write a split hand by hand."""
    trained = split == "training"
    for name in ("rgb", "mask") if trained else ("rgb",):
        (folder / split / name).mkdir(parents=True)
    with ExitStack() as stack:
        lists = {
            name: _List(stack.enter_context((folder / f"{split}_{name}.json").open("w", encoding="utf-8")))
            for name in ("K", "scale", "xyz", "verts", "mano")
        }
        for number, (dice, hand) in enumerate(hands(split, count, assets, scenes)):
            for version in range(len(VERSIONS) if trained else 1):
                pixels = over(ground(dice, scenes.size), hand.picture)
                _jpeg(folder / split / "rgb" / f"{number + version * count:08d}.jpg", pixels)
            if trained:
                _jpeg(folder / split / "mask" / f"{number:08d}.jpg", hand.mask.astype(np.uint8) * 255)
            bone = np.linalg.norm(hand.keypoints[ANCHOR] - hand.keypoints[ANCHOR + 1])
            found = (hand.camera, bone, hand.keypoints, hand.vertices, hand.parameters)
            for each, values in zip(lists.values(), found, strict=True):
                each.add(values)
            yield
        for each in lists.values():
            each.end()


class _List:
    """Writes a list of arrays of one shape as JSON, one after the other, with seven digits."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._format = file, ""

    def add(self, values: Any) -> None:
        values = np.asarray(values)
        self._file.write(", " if self._format else "[")
        self._format = self._format or _format_of(values.shape)
        self._file.write(self._format % tuple(values.ravel().tolist()))

    def end(self) -> None:
        self._file.write("]")


def _format_of(shape: tuple[int, ...]) -> str:
    return f"[{', '.join([_format_of(shape[1:])] * shape[0])}]" if shape else "%.7g"


def _jpeg(path: Path, pixels: np.ndarray) -> None:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    path.write_bytes(file.getvalue())


def check_rendered(folder: Path) -> None:
    """Raises DatasetError for a folder of hands that another version rendered otherwise, or that holds none."""
    if _marker(folder).get("pictures") != PICTURES:
        raise DatasetError(
            f"{folder} has hands that an older version rendered otherwise. Remove it, or choose another folder, and "
            "they are rendered again."
        )


def _marker(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise DatasetError(
            f"{folder} exists, but was not rendered by this command: it has no {MARKER}. Choose another folder."
        )
    return found


def _check_same(folder: Path, wanted: dict[str, Any]) -> None:
    found = _marker(folder)
    if found != json.loads(json.dumps(wanted)):
        names = [name for name in wanted if found.get(name) != json.loads(json.dumps(wanted[name]))]
        other = ", ".join(f"{name} {found.get(name)} instead of {wanted[name]}" for name in names)
        raise DatasetError(f"{folder} has hands that were rendered otherwise: {other}. Choose another folder.")
