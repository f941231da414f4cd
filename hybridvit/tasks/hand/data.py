"""Pictures of hands with what is true of them: from lists to samples."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hybridvit.batch import Frame
from hybridvit.card import ModelCard, Preprocessing
from hybridvit.data.check_contents import Contents
from hybridvit.data.check_report import remarks_or_refusal
from hybridvit.data.decode import ImageSource
from hybridvit.data.encoded import EncodedSamples, OnBadImage
from hybridvit.data.pixels import Normalisation, Pixels
from hybridvit.data.preprocess import channels, cut, frame_of, num_channels, opened
from hybridvit.data.samples import Samples
from hybridvit.data.seeding import side_of_step
from hybridvit.errors import DatasetError
from hybridvit.task import Splits
from hybridvit.tasks.hand.augment import drawn_gains, drawn_view, resampled
from hybridvit.tasks.hand.config import SOURCES, VERSIONS, HandAugmentConfig, HandData
from hybridvit.tasks.hand.data_findings import contents_of, findings_before_training
from hybridvit.tasks.hand.freihand.camera import View, about_z, from_corner, normalised, projected, upright_view
from hybridvit.tasks.hand.freihand.label_lists import Stored
from hybridvit.tasks.hand.freihand.lists import (
    SPLITS,
    Labels,
    has_labels,
    is_freihand,
    labels_of,
    list_path,
    read_lists,
)
from hybridvit.tasks.hand.mano.assets import find_assets
from hybridvit.tasks.hand.mano.pose import from_mano
from hybridvit.tasks.hand.scenes import DEFAULT_FOLDER, HandScenes, check_rendered, write_scenes

HELD_OUT = 0.02  # of the training samples, where the evaluation has no labels


@dataclass(frozen=True, kw_only=True)
class DrawnAs:
    """How pictures become samples: as the recipe has it in training, as the card has it in evaluation."""

    preprocessing: Preprocessing
    augment: HandAugmentConfig | None = None  # None: evaluation
    sizes: tuple[int, ...] = ()  # sides, of which each step takes one
    seed: int = 0
    on_bad_image: OnBadImage = "error"
    rotations: bool = False  # whether a target has those of the joints, with the mean pose
    assets: str = ""  # the hand, as `find_assets` names it: for what labels leave out, and to look whether they fit it


class HandSamples(Samples):
    """Pictures of right hands. A target is what `target_of` gives."""

    parameters: Stored | None = None
    """Of each hand that is trained on (n 1 61): pose relative to the mean pose, shape, place; None where not known."""


def target_of(view: View, camera: np.ndarray, keypoints: np.ndarray, vertices: np.ndarray) -> dict[str, Tensor]:
    """What is true of a view of a picture, in float32.

    "keypoints" (21 3) and "vertices" (v 3), metres, in the axes of the camera turned with the picture; "camera" (3 3),
    for plane coordinates of the crop; "points" (21 2), the keypoints in the crop, -1 to 1. `camera` is for coordinates
    that are 0 in the centre of the first pixel, as FreiHAND's.
    """
    seen, shown = view.camera(from_corner(camera)), view.points(keypoints.astype(np.float64))
    values = {
        "vertices": view.points(vertices.astype(np.float64)),
        "keypoints": shown,
        "points": normalised(projected(seen, shown), view.size),
        "camera": seen,
    }
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in values.items()}


class HandFiles(EncodedSamples, HandSamples):
    """The picture files of a split; version after version, and in each sample after sample."""

    def __init__(self, labels: Labels, drawn: DrawnAs) -> None:
        super().__init__(
            paths=[path for files in labels.pictures for path in files],
            fingerprint=labels.fingerprint,
            training=drawn.augment is not None,
            on_bad_image=drawn.on_bad_image,
            seed=drawn.seed,
        )
        self.labels, self.parameters, self._drawn = labels, labels.parameters, drawn
        self._rotations = _rotations(labels, drawn.assets) if drawn.rotations else None
        preprocessing = drawn.preprocessing
        self.normalisation = Normalisation(mean=preprocessing.mean, std=preprocessing.std)

    def encoded(self, epoch: int, index: int) -> str:
        return self.paths[index]

    def prepared(self, source: ImageSource, index: int, step: int) -> tuple[Pixels, dict[str, Tensor], Frame | None]:
        drawn, preprocessing = self._drawn, self._drawn.preprocessing
        picture = opened(source, preprocessing, max_pixels=self._max_pixels).image
        if drawn.augment is None:
            frame = frame_of(picture.size, preprocessing)
            values = torch.from_numpy(channels(cut(picture, preprocessing), preprocessing)).permute(2, 0, 1)
            return Pixels(values), self._target(index, upright_view(frame)), frame
        side = side_of_step(drawn.sizes, drawn.seed, step)
        size = preprocessing.image_size if side is None else (side, side)
        view = drawn_view(drawn.augment, (picture.height, picture.width), size)
        if num_channels(preprocessing) == 1:
            picture = picture.convert("L").convert("RGB")
        values = resampled(picture, view, drawn_gains(drawn.augment))
        return Pixels(values[: num_channels(preprocessing)]), self._target(index, view), None

    def _target(self, index: int, view: View) -> dict[str, Tensor]:
        row = index % len(self.labels)
        labels = self.labels
        target = target_of(view, labels.cameras[row], labels.keypoints[row], labels.vertices[row])
        if self._rotations is None:
            return target
        rotations = self._rotations[row]
        turned = about_z(view.angle) @ rotations[:1]
        return target | {"rotations": torch.from_numpy(np.concatenate((turned, rotations[1:])).astype(np.float32))}


def open_splits(
    data: HandData,
    augment: HandAugmentConfig,
    preprocessing: Preprocessing,
    *,
    seed: int,
    assets: str,
    rotations: bool = False,
) -> Splits:
    """A recipe's pictures; `assets` names its hand, whose `rotations` may be in targets of training.

    Raises DatasetError where they cannot be used.
    """
    training = DrawnAs(
        preprocessing=preprocessing,
        augment=augment,
        sizes=data.train_sizes,
        seed=seed,
        on_bad_image=data.on_bad_image,
        rotations=rotations,
        assets=assets,
    )
    validation = DrawnAs(preprocessing=preprocessing, on_bad_image=data.on_bad_image, assets=assets)
    train, val = SOURCES[data.source].load()(data, training, validation)
    return Splits(train=train, validation=val, preprocessing=preprocessing)


def open_freihand(data: HandData, train: DrawnAs, validation: DrawnAs) -> tuple[HandFiles, HandFiles]:
    """The pictures in data.root, and those to validate on. Raises DatasetError for faults that no training can use."""
    remarks: list[str] = []
    root = Path(data.root).expanduser()
    labels = _checked(root, data.train, train.assets, remarks, data.versions)
    share = data.val_share
    if not share and not has_labels(root, data.val):
        share = HELD_OUT
        remarks.append(
            f"{root} has no labels of the split '{data.val}', so the last {HELD_OUT:.0%} of the training samples are "
            "held out to validate on."
        )
    if share:
        labels, held_out = held_out_of(labels, share)
    else:
        held_out = _checked(root, data.val, train.assets, remarks)
    images = HandFiles(labels, train)
    images.remarks = list(dict.fromkeys(remarks))
    return images, HandFiles(held_out, validation)


def open_rendered(data: HandData, train: DrawnAs, validation: DrawnAs) -> tuple[HandFiles, HandFiles]:
    """The rendered hands in data.root; if there are none, 4,500 are written in minutes. Raises as `write_scenes`."""
    folder = Path(data.root or DEFAULT_FOLDER).expanduser()
    if folder.exists():
        check_rendered(folder)
    else:
        write_scenes(folder, find_assets(train.assets), HandScenes(size=data.image_size))
    return open_freihand(replace(data, root=str(folder), source="freihand"), train, validation)


def held_out_of(labels: Labels, share: float) -> tuple[Labels, Labels]:
    """To train on, and the last samples, with all their versions. Raises DatasetError where nothing would be left."""
    count = max(1, math.floor(share * len(labels) + 0.5))
    if count >= len(labels):
        raise DatasetError(f"{labels.source} has {len(labels)} sample, which cannot be split in two. Add some.")
    return labels.part(slice(0, len(labels) - count)), labels.part(slice(len(labels) - count, len(labels)))


def open_labelled(root: str, card: ModelCard, *, assets: str = "", on_bad_image: OnBadImage = "error") -> HandFiles:
    """The evaluation pictures of a data set, or the training ones where there are no others, as the card prepares them.

    Raises DatasetError for what is no such data set.
    """
    folder, remarks, split = Path(root).expanduser(), list[str](), SPLITS[1]
    if not list_path(folder, split, "K").is_file() and has_labels(folder, SPLITS[0]):
        split = SPLITS[0]
        remarks.append(f"{folder} has no pictures to evaluate on: these are those to train on, all of their versions.")
    labels = _checked(folder, split, assets, remarks, use="evaluated on")
    images = HandFiles(labels, DrawnAs(preprocessing=card.preprocessing, on_bad_image=on_bad_image, assets=assets))
    images.remarks = remarks
    return images


def contents(root: str, data: HandData | None = None) -> Contents | None:
    """All splits of a data set for `check-data`; None where `root` is none, unless `data` says that it is.

    Raises DatasetError for lists that cannot be read.
    """
    if data is None and not is_freihand(root):
        return None
    names = (SPLITS[0], SPLITS[1]) if data is None else (data.train, data.val)
    folder = Path(root).expanduser()
    present = [name for name in names if has_labels(folder, name)] or [names[0]]
    return contents_of(folder, [read_lists(folder, name) for name in present])


def _rotations(labels: Labels, assets: str) -> np.ndarray:
    """Of the joints of all hands (n 16 3 3), at once: one by one they are a fifth of the work on a small picture.

    Raises DatasetError where the labels have no parameters.
    """
    if labels.parameters is None:
        raise DatasetError(
            f"Recipe key 'loss.rotations' is set, but {labels.source} has no parameters of its hands (mano.json). "
            "Leave it out, or add the list."
        )
    pose = torch.from_numpy(np.array(labels.parameters[:], np.float32)[:, 0, :48])
    return from_mano(pose, find_assets(assets)).numpy()


def _checked(
    root: Path,
    split: str,
    assets: str,
    remarks: list[str],
    versions: tuple[str, ...] = VERSIONS,
    use: str = "trained on",
) -> Labels:
    """The labels of a split, whose faults are refused or added to the remarks."""
    lists = read_lists(root, split)
    remarks += remarks_or_refusal(findings_before_training(lists, assets), f"{root} ({split})", use)
    return labels_of(lists, lambda: find_assets(assets), versions)
