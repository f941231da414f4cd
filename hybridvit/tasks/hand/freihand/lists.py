"""FreiHAND's layout: lists of labels beside numbered pictures, for training hands in four versions."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hybridvit.errors import DatasetError
from hybridvit.tasks.hand.config import VERSIONS
from hybridvit.tasks.hand.freihand.label_lists import Stored, cached, numbers, stored
from hybridvit.tasks.hand.mano.hand_assets import HandAssets

SPLITS = ("training", "evaluation")
NUM_VERTICES = 778
SHAPES = {"K": (3, 3), "xyz": (21, 3), "verts": (NUM_VERTICES, 3), "mano": (1, 61)}
ANCHOR = 9  # the keypoint that mano.json gives the place of, and from which scale.json measures a bone to the next
_AT_ONCE = 64  # hands that the layer moves together


@dataclass(frozen=True, kw_only=True)
class Lists:
    """The lists of a split, as long as they are in their files."""

    root: Path
    split: str
    arrays: Mapping[str, Stored]  # by the names of SHAPES: those that are there
    scale: np.ndarray | None  # m, of bone 9-10
    pictures: frozenset[str]  # names of the .jpg files in rgb/

    def path(self, name: str) -> Path:
        """The file of a list."""
        return list_path(self.root, self.split, name)

    @property
    def folder(self) -> Path:
        """Where the pictures are."""
        return self.root / self.split / "rgb"

    @property
    def lengths(self) -> dict[str, int]:
        """How many entries each list has, by the name of its file."""
        found = {self.path(name).name: len(array) for name, array in self.arrays.items()}
        return found if self.scale is None else found | {self.path("scale").name: len(self.scale)}

    def __len__(self) -> int:
        return len(self.arrays["K"])

    @property
    def versions(self) -> int:
        """How many pictures of each hand there are: all of FreiHAND's versions, or the first alone."""
        return len(VERSIONS) if len(self.pictures) > 2 * len(self) else 1

    def missing(self) -> list[str]:
        """The names of pictures that should be there."""
        return [name for name in self.wanted() if name not in self.pictures]

    def wanted(self) -> list[str]:
        """The names of all pictures, version after version."""
        return [picture_name(number) for number in range(len(self) * self.versions)]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What is true of the hands of a split, or of some of them: in metres, in the axes of the camera."""

    source: str  # for messages
    cameras: Stored  # n 3 3: pixels, 0 in the centre of the first
    keypoints: Stored  # n 21 3
    vertices: Stored  # n v 3
    parameters: Stored | None  # n 1 61: pose 48, shape 10, place of the root in pixels, scale
    pictures: tuple[tuple[str, ...], ...]  # the files of each version

    def __len__(self) -> int:
        return len(self.cameras)

    def part(self, rows: slice) -> "Labels":
        """Some of the hands, with all their versions."""
        return replace(
            self,
            cameras=self.cameras.of(rows),
            keypoints=self.keypoints.of(rows),
            vertices=self.vertices.of(rows),
            parameters=self.parameters and self.parameters.of(rows),
            pictures=tuple(files[rows] for files in self.pictures),
        )

    @property
    def fingerprint(self) -> str:
        """Changes with the labels, wherever the folder is."""
        digest = hashlib.sha256(repr((len(self), len(self.pictures))).encode())
        for array in (self.cameras, self.keypoints):
            digest.update(array[:].tobytes())
        return digest.hexdigest()


def picture_name(number: int) -> str:
    """The name of a picture's file."""
    return f"{number:08d}.jpg"


def list_path(root: Path, split: str, name: str) -> Path:
    """The file of a list: K, xyz, verts, mano or scale."""
    return root / f"{split}_{name}.json"


def is_freihand(root: str | Path) -> bool:
    """Whether a folder has lists as FreiHAND names them."""
    return any(list_path(Path(root), split, "K").is_file() for split in SPLITS)


def has_labels(root: Path, split: str) -> bool:
    """Whether it is said where the hands of a split are; the first release of FreiHAND did not for the evaluation."""
    return any(list_path(root, split, name).is_file() for name in ("xyz", "mano"))


def read_lists(root: str | Path, split: str) -> Lists:
    """The lists of a split, converted to arrays if they are not yet. Raises DatasetError for what is no such split."""
    root = Path(root).expanduser()
    if not list_path(root, split, "K").is_file():
        raise DatasetError(
            f"{root} has no {split}_K.json, which tells how the cameras saw the hands. Give the folder that "
            f"FreiHAND_pub_v2.zip was unpacked to, in which {SPLITS[0]}_K.json is."
        )
    if not has_labels(root, split):
        raise DatasetError(
            f"{root} has no {split}_xyz.json, which tells where the hands are. Those of the evaluation came later: "
            "unpack FreiHAND_pub_v2_eval.zip there, or hold out training samples: --data.val_share 0.02."
        )
    folder = root / split / "rgb"
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not there, but {split}_K.json is. Unpack the pictures of FreiHAND there.")
    scale = list_path(root, split, "scale")
    return Lists(
        root=root,
        split=split,
        arrays={
            name: stored(path, shape)
            for name, shape in SHAPES.items()
            if (path := list_path(root, split, name)).is_file()
        },
        scale=numbers(scale) if scale.is_file() else None,
        pictures=frozenset(name for name in os.listdir(folder) if name.endswith(".jpg")),
    )


def labels_of(lists: Lists, find: Callable[[], HandAssets], versions: tuple[str, ...] = VERSIONS) -> Labels:
    """What the lists say of each hand; what they leave out is computed from mano.json with the hand that `find` gives.

    Raises DatasetError where neither is there, UsageError where there is no hand for it. The lists have to be sound.
    """
    arrays = dict(lists.arrays)
    if "verts" not in arrays and "mano" not in arrays:
        raise DatasetError(
            f"{lists.root} has neither {lists.path('verts').name} nor {lists.path('mano').name}: meshes cannot be "
            "learnt from keypoints alone. Unpack all of FreiHAND_pub_v2.zip."
        )
    if "verts" not in arrays or "xyz" not in arrays:
        arrays = _from_parameters(lists, find()) | arrays
    names = lists.wanted()
    kept = [VERSIONS.index(each) for each in VERSIONS if each in versions] if lists.versions > 1 else [0]
    files = [os.path.join(lists.folder, name) for name in names]
    return Labels(
        source=f"{lists.root} ({lists.split})",
        cameras=arrays["K"],
        keypoints=arrays["xyz"],
        vertices=arrays["verts"],
        parameters=arrays.get("mano"),
        pictures=tuple(tuple(files[each * len(lists) : (each + 1) * len(lists)]) for each in kept),
    )


def _from_parameters(lists: Lists, assets: HandAssets) -> dict[str, Stored]:
    """Keypoints and vertices, kept beside the lists for as long as parameters, cameras and hand are the same."""
    parameters, cameras = lists.arrays["mano"], lists.arrays["K"]
    key = "-".join((assets.sha256[:16], parameters.path.stem.split("-", 1)[1], cameras.path.stem.split("-", 1)[1]))

    def rows(part: int) -> Iterator[np.ndarray]:
        for start in range(0, len(lists), _AT_ONCE):
            chosen = slice(start, start + _AT_ONCE)
            yield from posed(assets, parameters[chosen], cameras[chosen])[part]

    return {
        name: cached(lists.path(f"{name}_of_mano"), key, SHAPES[name], lambda part=part: rows(part))  # type: ignore[misc]
        for part, name in enumerate(("verts", "xyz"))
    }


def posed(assets: HandAssets, parameters: np.ndarray, cameras: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and keypoints (n v 3, n 21 3; metres, float64) of entries of mano.json (n 1 61) under cameras (n 3 3).

    Poses are relative to the mean pose of the hand, as FreiHAND's are; keypoint 9 lies where the entry says.
    """
    import torch

    from hybridvit.tasks.hand.mano.layer import HandLayer
    from hybridvit.tasks.hand.mano.pose import from_mano

    values = torch.from_numpy(parameters[:, 0].astype(np.float64))
    with torch.no_grad():
        hand = HandLayer(assets).double()(from_mano(values[:, :48], assets), values[:, 48:58])
    place = _place(parameters[:, 0, 58:].astype(np.float64), cameras.astype(np.float64))
    moved = place - hand.keypoints[:, ANCHOR].numpy()
    return hand.vertices.numpy() + moved[:, None], hand.keypoints.numpy() + moved[:, None]


def _place(values: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    """Where keypoint 9 is (n 3), from its pixel and the scale of a hand (u, v, pixels per metre)."""
    u, v, scale = values.T
    focal = (cameras[:, 0, 0] + cameras[:, 1, 1]) / 2
    return np.stack([(u - cameras[:, 0, 2]) / scale, (v - cameras[:, 1, 2]) / scale, focal / scale], 1)
