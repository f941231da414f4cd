"""Which mask belongs to which picture: the ways in which data sets lay out both in folders, found by looking.

ADE20K         images/{training,validation}/NAME.jpg            annotations/{training,validation}/NAME.png
plain          images/{train,val}/NAME.*                        masks/{train,val}/NAME.png
               {train,val}/images/NAME.*                        {train,val}/masks/NAME.png
               images/NAME.*                                    masks/NAME.png
Pascal VOC     JPEGImages/NAME.jpg, ImageSets/Segmentation/*.txt      SegmentationClass/NAME.png
Cityscapes     leftImg8bit/{train,val}/CITY/NAME_leftImg8bit.png      gtFine/.../NAME_gtFine_labelTrainIds.png
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hybridvit.data.check_contents import WHOLE
from hybridvit.data.scan import is_image, relative, subfolders, walk
from hybridvit.errors import DatasetError, some

IMAGES = ("images", "img", "imgs")
MASKS = ("annotations", "masks", "labels", "mask", "gt")  # beside a folder of images
SUFFIXES = ("_mask", "_masks", "_label", "_labels", "_gt", ".labels", "-mask", "-label")
SAME_SPLIT = (("train", "training"), ("val", "validation", "valid"))
_VOC = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")
_CITYSCAPES = ("leftImg8bit", "gtFine")
_CITY_IMAGE, _CITY_MASK = "_leftImg8bit", "_gtFine_labelTrainIds"


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The pictures of a split with their masks, sorted by path; and those that have no partner."""

    images: tuple[str, ...]
    masks: tuple[str, ...]
    without_mask: tuple[str, ...] = ()
    without_image: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A data set in folders. `splits` gives for each name where its pictures and masks lie, as `kind` has it."""

    root: str
    kind: str
    splits: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # folders; of VOC a list of names, and nothing

    def split_named(self, name: str) -> str | None:
        """The split of that name, or of another word for it; None where there is none."""
        words = next((words for words in SAME_SPLIT if name in words), ())
        return next((word for word in (name, *words) if word in self.splits), None)

    def pairs(self, split: str) -> Pairs:
        """Pictures and masks of a split. Raises DatasetError for one without."""
        images, masks = self.splits[split]
        if self.kind == "Pascal VOC":
            return _voc_pairs(self.root, images)
        if self.kind == "Cityscapes":
            return _city_pairs(images, masks)
        return pairs_of(walk(images), walk(masks), images, masks)


def find_layout(root: str | os.PathLike[str]) -> Layout | None:
    """How a folder is laid out; None for one that is none of these."""
    root = str(root)
    if not os.path.isdir(root):
        return None
    if all(os.path.isdir(os.path.join(root, part)) for part in _VOC):
        lists = sorted(Path(root, _VOC[2]).glob("*.txt"))
        return Layout(root=root, kind="Pascal VOC", splits={path.stem: (str(path), "") for path in lists})
    if all(os.path.isdir(os.path.join(root, part)) for part in _CITYSCAPES):
        images, masks = (os.path.join(root, part) for part in _CITYSCAPES)
        names = [name for name in subfolders(images) if os.path.isdir(os.path.join(masks, name))]
        return Layout(root=root, kind="Cityscapes", splits={name: _both(images, masks, name) for name in names})
    return _plain(root)


def _plain(root: str) -> Layout | None:
    if found := _image_and_mask_folders(root):
        images, masks = found
        names = [name for name in subfolders(images) if os.path.isdir(os.path.join(masks, name))]
        words = {word for both in SAME_SPLIT for word in (*both, "test")}
        if names and words.intersection(names):
            kind = "ADE20K" if os.path.basename(masks) == "annotations" else "images and masks"
            return Layout(root=root, kind=kind, splits={name: _both(images, masks, name) for name in names})
        return Layout(root=root, kind="images and masks", splits={WHOLE: found})
    inside = {name: _image_and_mask_folders(os.path.join(root, name)) for name in subfolders(root)}
    splits = {name: folders for name, folders in inside.items() if folders}
    return Layout(root=root, kind="images and masks", splits=splits) if splits else None


def _image_and_mask_folders(root: str) -> tuple[str, str] | None:
    there = {name.lower(): os.path.join(root, name) for name in subfolders(root)}
    images = next((there[name] for name in IMAGES if name in there), None)
    masks = next((there[name] for name in MASKS if name in there), None)
    if images is None or masks is None or not any(map(is_image, walk(masks))):  # boxes lie in such folders too
        return None
    return images, masks


def _both(images: str, masks: str, name: str) -> tuple[str, str]:
    return os.path.join(images, name), os.path.join(masks, name)


def pairs_of(images: Iterable[str], masks: Iterable[str], image_root: str, mask_root: str) -> Pairs:
    """By the path without its ending, inside the two folders, and then without what all masks end in."""
    by_name = {_stem(path, image_root): path for path in images if is_image(path)}
    found = {_stem(path, mask_root): path for path in masks if is_image(path)}
    if not by_name.keys() & found.keys():
        for suffix in SUFFIXES:
            if any(name.removesuffix(suffix) in by_name for name in found if name.endswith(suffix)):
                found = {name.removesuffix(suffix): path for name, path in found.items()}
                break
    return _paired(by_name, found)


def _stem(path: str, root: str) -> str:
    return os.path.splitext(relative(path, root))[0]


def _paired(images: Mapping[str, str], masks: Mapping[str, str]) -> Pairs:
    both = sorted(images.keys() & masks.keys(), key=os.fsencode)
    return Pairs(
        images=tuple(images[name] for name in both),
        masks=tuple(masks[name] for name in both),
        without_mask=tuple(images[name] for name in sorted(images.keys() - masks.keys(), key=os.fsencode)),
        without_image=tuple(masks[name] for name in sorted(masks.keys() - images.keys(), key=os.fsencode)),
    )


def _voc_pairs(root: str, names_file: str) -> Pairs:
    """Those whose names a list holds; pictures that are in no list have no mask, and are none of the set."""
    names = [line.split()[0] for line in Path(names_file).read_text(encoding="utf-8").splitlines() if line.strip()]
    listed = dict.fromkeys(names)
    images, masks = (
        {
            name: path
            for path in walk(os.path.join(root, part))
            if (name := _stem(path, os.path.join(root, part))) in listed
        }
        for part in _VOC[:2]
    )
    if absent := [name for name in listed if name not in images and name not in masks]:
        raise DatasetError(
            f"{names_file} names {len(absent):,} files that are neither in {_VOC[0]} nor in {_VOC[1]} "
            f"({some(absent, quoted=True)}). Take them from the list, or add them."
        )
    return _paired(images, masks)


def _city_pairs(images: str, masks: str) -> Pairs:
    pictures = {_stem(path, images).removesuffix(_CITY_IMAGE): path for path in walk(images) if is_image(path)}
    found = {
        name.removesuffix(_CITY_MASK): path for path in walk(masks) if (name := _stem(path, masks)).endswith(_CITY_MASK)
    }
    if not found:
        raise DatasetError(
            f"{masks} has no file that ends in {_CITY_MASK}.png, the labels that Cityscapes is trained with. Make them "
            "with csCreateTrainIdLabelImgs of the package cityscapesScripts."
        )
    return _paired(pictures, found)
