"""Pictures with objects: from lists to samples and batches."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hybridvit.batch import Batch, Frame, Sample
from hybridvit.card import ModelCard, Preprocessing
from hybridvit.data.check_contents import Contents
from hybridvit.data.check_report import remarks_or_refusal
from hybridvit.data.decode import Facts, ImageSource
from hybridvit.data.decode import turned as turned_size
from hybridvit.data.encoded import EncodedSamples, OnBadImage
from hybridvit.data.listing import Listing
from hybridvit.data.loader import padded_images
from hybridvit.data.pixels import Normalisation, Pixels
from hybridvit.data.preprocess import channels, cut, frame_of, opened
from hybridvit.data.samples import Samples
from hybridvit.data.scenes import DEFAULT_FOLDER, write_detection
from hybridvit.data.seeding import side_of_step
from hybridvit.errors import DatasetError, ImageDecodeError, some
from hybridvit.starting import preparation_of
from hybridvit.task import Splits
from hybridvit.tasks.detect.categories import categories_of
from hybridvit.tasks.detect.config import SOURCES, DetectAugmentConfig, DetectData, DetectRecipe
from hybridvit.tasks.detect.data_find import Layout, find_layout, layout_of
from hybridvit.tasks.detect.data_findings import contents_of, findings_before_training, usable
from hybridvit.tasks.detect.data_lists import Category, Listed, Split
from hybridvit.tasks.detect.data_masks import RLE, coco_package, decode, encode, of_box, turned, turned_boxes
from hybridvit.tasks.detect.data_transforms import Objects, TrainGeometry, as_tensor, resized_objects


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is true of a picture, in its own pixels: what detections are judged by."""

    size: tuple[int, int]  # height, width
    boxes: np.ndarray  # n 4 float64: left, top, right, bottom
    labels: np.ndarray  # n int64
    crowd: np.ndarray  # n bool
    areas: np.ndarray  # n float64
    masks: tuple[RLE, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class DrawnAs:
    """How pictures become samples: as the recipe has it in training, as the card has it in evaluation."""

    preprocessing: Preprocessing
    geometry: TrainGeometry | None = None  # None: evaluation
    sizes: tuple[int, ...] = ()  # shorter sides, of which each step takes one
    seed: int = 0
    on_bad_image: OnBadImage = "error"
    min_area: float = 0.0
    max_instances: int = 0


class DetectionSamples(Samples):
    """Pictures with objects. `categories` are the classes as the data set numbers them."""

    sizes_differ = True
    categories: tuple[Category, ...]
    has_masks: bool
    """Whether each object has a mask."""


class DetectionFiles(EncodedSamples, DetectionSamples):
    """The picture files of a split.

    A target of training has "boxes", "labels", "ignored" and, where there are masks, "masks"; one of evaluation has
    "truth" besides, and no masks but those. Raises ImageDecodeError from `draw` for a file of another size than listed.
    """

    def __init__(self, split: Split, drawn: DrawnAs) -> None:
        super().__init__(
            paths=[each.path for each in split.pictures],
            fingerprint=split.fingerprint,
            training=drawn.geometry is not None,
            on_bad_image=drawn.on_bad_image,
            seed=drawn.seed,
        )
        self.categories, self.has_masks = split.categories, split.has_masks
        self.class_names = tuple(category.name for category in split.categories)
        self.pictures, self._drawn = split.pictures, drawn
        self._normalisation = Normalisation(mean=drawn.preprocessing.mean, std=drawn.preprocessing.std)

    def encoded(self, epoch: int, index: int) -> str:
        return self.paths[index]

    def prepared(self, source: ImageSource, index: int, step: int) -> tuple[Tensor, dict[str, Any], Frame | None]:
        drawn, listed = self._drawn, self.pictures[index]
        preprocessing = drawn.preprocessing
        picture, facts = opened(source, preprocessing, max_pixels=self._max_pixels)
        truth = upright(listed, facts, self.has_masks)
        if drawn.geometry is None:
            frame = frame_of(picture.size, preprocessing)
            values = torch.from_numpy(channels(cut(picture, preprocessing), preprocessing)).permute(2, 0, 1)
            objects = resized_objects(_to_find(truth, 0.0, 0, None), truth.size, frame.input_size)
            return self._normalisation.of(Pixels(values)), _target(objects, frame.input_size) | {"truth": truth}, frame
        masks = None if truth.masks is None else _decoded(truth)
        side = side_of_step(drawn.sizes, drawn.seed, step) or preprocessing.image_size[0]
        found = _to_find(truth, drawn.min_area, drawn.max_instances, masks)
        shown, objects = drawn.geometry(picture, found, side)
        image = self._normalisation.of(Pixels(as_tensor(shown)))
        return image, _target(objects, (image.shape[1], image.shape[2])), None


def upright(listed: Listed, facts: Facts, has_masks: bool) -> Truth:
    """What is true of the upright picture. Boxes drawn on the picture as it is stored are turned with it (EXIF).

    Where masks are asked for, an object without one counts as a crowd that fills its box.

    Raises ImageDecodeError for a file of another size than listed.
    """
    width, height = facts.size
    boxes, crowd, masks = listed.boxes, listed.crowd, None
    stored = turned_size(facts.size, facts.orientation)
    if listed.size not in (None, facts.size, stored):
        raise ImageDecodeError(
            f"{listed.path}: the picture has {width}x{height} pixels, but is listed with {listed.size[0]}x"
            f"{listed.size[1]}, so its boxes lie elsewhere. Restore the file that was annotated, or annotate this one."
        )
    if has_masks:
        given = listed.masks or (None,) * len(boxes)
        crowd = crowd | np.array([mask is None for mask in given], bool)
        masks = tuple(
            of_box(box, listed.size or facts.size) if mask is None else mask
            for mask, box in zip(given, boxes, strict=True)
        )
    if listed.size == stored != facts.size:
        boxes = turned_boxes(boxes, stored, facts.orientation)
        if masks:
            masks = tuple(encode(turned(each, facts.orientation)) for each in decode(masks))
    return Truth(size=(height, width), boxes=boxes, labels=listed.labels, crowd=crowd, areas=listed.areas, masks=masks)


def _decoded(truth: Truth) -> Tensor:
    masks = decode(truth.masks) if truth.masks else np.empty((0, *truth.size), np.uint8)
    return torch.from_numpy(np.ascontiguousarray(masks))


def _to_find(truth: Truth, min_area: float, max_instances: int, masks: Tensor | None) -> Objects:
    """The objects to find, and those that count neither way: crowds, small ones, and those beyond the most."""
    find = ~truth.crowd & (truth.areas >= min_area)
    if max_instances and find.sum() > max_instances:
        largest = np.argsort(-np.where(find, truth.areas, -1.0), kind="stable")[:max_instances]
        find = find & np.isin(np.arange(len(find)), largest)
    boxes = torch.from_numpy(truth.boxes.astype(np.float32)).reshape(-1, 4)
    chosen = torch.from_numpy(find)
    return Objects(
        boxes[chosen], torch.from_numpy(truth.labels)[chosen], boxes[~chosen], None if masks is None else masks[chosen]
    )


def _target(objects: Objects, size: tuple[int, int]) -> dict[str, Any]:
    target = {
        "boxes": objects.boxes,
        "labels": objects.labels,
        "ignored": objects.ignored,
        "size": torch.tensor(size, dtype=torch.long),
    }
    return target if objects.masks is None else target | {"masks": objects.masks}


def batched(samples: Sequence[Sample]) -> Batch:
    """Pictures of their own sizes, padded to one; a target is a dict for each."""
    return Batch(
        padded_images([sample.image for sample in samples if sample.image is not None]),
        [sample.target for sample in samples],
        torch.tensor([sample.number for sample in samples], dtype=torch.long),
        tuple(sample.frame for sample in samples),
    )


def prepared(recipe: DetectRecipe) -> Preprocessing:
    """How pictures are prepared for the recipe's model outside of training."""
    return dataclasses.replace(preparation_of(recipe), fit_px=(recipe.data.image_size, recipe.data.max_size))


def open_splits(recipe: DetectRecipe) -> Splits:
    """The recipe's pictures. The categories are the training set's.

    Raises DatasetError where they cannot be used, UsageError without the package that will judge the answers.
    """
    coco_package()
    preprocessing, data = prepared(recipe), recipe.data
    training = DrawnAs(
        preprocessing=preprocessing,
        geometry=geometry_of(recipe.augment, data),
        sizes=data.train_sizes,
        seed=recipe.seed,
        on_bad_image=data.on_bad_image,
        min_area=data.min_area,
        max_instances=data.max_instances,
    )
    validation = DrawnAs(preprocessing=preprocessing, on_bad_image=data.on_bad_image)
    train, val = SOURCES[data.source].load()(data, training, validation)
    return Splits(train=train, validation=val, preprocessing=preprocessing)


def geometry_of(augment: DetectAugmentConfig, data: DetectData) -> TrainGeometry:
    """What training does to pictures."""
    return TrainGeometry(augment=augment, max_size=data.max_size, interpolation=data.interpolation)


def open_files(data: DetectData, train: DrawnAs, validation: DrawnAs) -> tuple[DetectionFiles, DetectionFiles]:
    """The pictures in data.root, however they are listed. Raises DatasetError for faults that no training can use."""
    first, second = splits_of(data)
    findings = {"train": findings_before_training(first), "val": findings_before_training(second)}
    remarks = list(first.remarks)
    for name, split in (("train", first), ("val", second)):
        remarks += remarks_or_refusal(findings[name], f"{split.source} ({name})")
    first, second = usable(first), usable(second)
    check_split(first, "data.train")
    check_split(second, "data.val")
    remarks += _absent(first)
    images = DetectionFiles(first, train)
    images.remarks = list(dict.fromkeys(remarks))
    return images, DetectionFiles(second, validation)


def open_scenes(data: DetectData, train: DrawnAs, validation: DrawnAs) -> tuple[DetectionFiles, DetectionFiles]:
    """The scenes in data.root, written if they are not there. Raises as `write_detection`."""
    folder = Path(data.root or DEFAULT_FOLDER).expanduser()
    write_detection(folder)
    return open_files(dataclasses.replace(data, root=str(folder), source="files"), train, validation)


def splits_of(data: DetectData) -> tuple[Split, Split]:
    """To train on, and to validate on. Raises DatasetError where one is not there."""
    layout = layout_of(data.root, data)
    read = layout.named(data.train) or (layout.splits.get("all") if len(layout.splits) == 1 else None)
    if read is None and len(layout.splits) == 1:
        read = next(iter(layout.splits.values()))
    if read is None:
        raise _no_split(layout, "train", data.train)
    train = read(None)
    if data.val_share or data.fold:
        return _held_out(train, data)
    other = layout.named(data.val)
    if other is None:
        raise _no_split(layout, "val", data.val)
    return train, other(train.categories)


def _no_split(layout: Layout, key: str, name: str) -> DatasetError:
    there = ", ".join(f"'{each}'" for each in layout.splits)
    hold_out = " Or hold out a part of the training pictures: --data.val_share 0.1." if key == "val" else ""
    return DatasetError(
        f"{layout.root} ({layout.kind}) has no split '{name}' (data.{key}); its splits are: {there}. Name one with "
        f"--data.{key}.{hold_out}"
    )


def _held_out(split: Split, data: DetectData) -> tuple[Split, Split]:
    """A part of the pictures to validate on, by their paths alone, about equally many of each class."""
    labels = tuple(tuple(sorted({int(label) for label in each.labels if label >= 0})) for each in split.pictures)
    listing = Listing(
        root=split.root,
        paths=tuple(each.path for each in split.pictures),
        labels=labels,
        class_names=tuple(category.name for category in split.categories),
        fingerprint="",
    )
    if data.val_share:
        parts = listing.split(data.val_share)
    else:
        part, count = map(int, data.fold.split("/"))
        parts = listing.fold(part, count)
    by_path = {each.path: each for each in split.pictures}
    train, val = (dataclasses.replace(split, pictures=tuple(by_path[path] for path in part.paths)) for part in parts)
    return train, dataclasses.replace(val, findings=(), remarks=())


def check_split(split: Split, key: str) -> None:
    """Raise DatasetError for pictures of which nothing can be learnt, or that can judge nothing."""
    if not split.pictures:
        raise DatasetError(f"{split.source} lists no pictures ({key}). Name another list, or add pictures.")
    if not any((~each.crowd).any() for each in split.pictures):
        raise DatasetError(
            f"None of the {len(split.pictures):,} pictures of {split.source} ({key}) has an object to find. Add some."
        )


def _absent(split: Split) -> list[str]:
    """Which categories no object is of."""
    present = {int(label) for each in split.pictures for label in each.labels[~each.crowd]}
    absent = [each.name for label, each in enumerate(split.categories) if label not in present]
    return (
        [f"No training object is of {some(absent, quoted=True)}: the model learns never to say so."] if absent else []
    )


def open_labelled(root: str, card: ModelCard, *, on_bad_image: OnBadImage = "error") -> DetectionFiles:
    """The pictures of a list, or the validation split of a data set, prepared as the card says, in its categories.

    Raises DatasetError for what is no such data set, one with categories that the model does not have, and one without
    objects; UsageError without the package that will judge the answers.
    """
    coco_package()
    data = DetectData(root=root)
    layout = layout_of(root, data)
    read = next(iter(layout.splits.values())) if len(layout.splits) == 1 else layout.named("val")
    if read is None:
        raise _no_split(layout, "val", "val")
    split = read(categories_of(card))
    remarks = remarks_or_refusal(findings_before_training(split), split.source, "evaluated on")
    split = usable(split)
    check_split(split, root)
    images = DetectionFiles(split, DrawnAs(preprocessing=card.preprocessing, on_bad_image=on_bad_image))
    images.remarks = remarks
    return images


def contents(root: str, data: DetectData | None = None) -> Contents | None:
    """All splits of a data set for `check-data`; None where `root` is none, unless `data` says that it is.

    Raises DatasetError for lists that cannot be read.
    """
    layout = find_layout(root) if data is None else layout_of(root, data)
    if layout is None:
        return None
    order = sorted(layout.splits, key=lambda name: (not name.startswith("train"), name))
    splits: dict[str, Split] = {}
    for name in order:
        first = next(iter(splits.values()), None)
        splits[name] = layout.splits[name](None if first is None else first.categories)
    return contents_of(str(layout.root), splits)
