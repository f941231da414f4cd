"""Pictures and masks in folders: found, looked at, and opened."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hybridvit.card import ModelCard
from hybridvit.data.check_contents import WHOLE, Contents, contents_of_listings
from hybridvit.data.check_report import Finding, Severity, finding, remarks_or_refusal
from hybridvit.data.encoded import OnBadImage
from hybridvit.data.folder import held_out
from hybridvit.data.listing import Labels, Listing
from hybridvit.data.scan import file_size, relative, subfolders
from hybridvit.data.scenes import DEFAULT_FOLDER, write_segmentation
from hybridvit.errors import DatasetError, UsageError, some
from hybridvit.tasks.segment.classes import ADE20K, Classes, Map, folders_of_classes, named_classes, raw_reading
from hybridvit.tasks.segment.columns import holds_columns, open_columns, open_labelled_columns
from hybridvit.tasks.segment.config import SegmentData
from hybridvit.tasks.segment.data import EncodedMasks, MaskedFiles, MaskedOptions
from hybridvit.tasks.segment.layouts import Layout, Pairs, find_layout
from hybridvit.tasks.segment.masks import Reading
from hybridvit.tasks.segment.result import names_of
from hybridvit.tasks.segment.survey import Part, Survey, look_at_all, survey
from hybridvit.tasks.segment.transforms import EvalPair

_LAYOUTS = (
    "images/train and masks/train (or annotations/training), train/images and train/masks, or those of Pascal VOC and "
    "Cityscapes"
)


@dataclass(frozen=True, kw_only=True)
class Looked:
    """A folder with all that is known of its masks."""

    layout: Layout
    pairs: Mapping[str, Pairs]  # by split, that to train on first
    parts: Sequence[Part]
    survey: Survey

    def listing(self, place: int) -> Listing[Labels]:
        """The pictures of a split, with the classes that each shows."""
        part, root = self.parts[place], self.layout.root
        pairs = self.pairs[part.name]
        index = {value: label for label, value in enumerate(self.survey.map.reading.values)}
        digest = hashlib.sha256()
        for path in (*pairs.images, *pairs.masks):
            digest.update(os.fsencode(relative(path, root)) + b"\0%d\0" % file_size(path))
        return Listing(
            root=root,
            paths=pairs.images,
            labels=tuple(tuple(sorted(index[each] for each in facts.counts if each in index)) for facts in part.facts),
            class_names=self.survey.map.names,
            fingerprint=digest.hexdigest(),
        )


def open_scenes(
    data: SegmentData, train: MaskedOptions, validation: MaskedOptions
) -> tuple[EncodedMasks, EncodedMasks]:
    """The scenes in data.root, written if they are not there. Raises as `write_segmentation`."""
    folder = Path(data.root or f"{DEFAULT_FOLDER}-segment").expanduser()
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_segmentation(folder)
    return open_folder(dataclasses.replace(data, root=str(folder)), train, validation)


def open_folder(
    data: SegmentData, train: MaskedOptions, validation: MaskedOptions
) -> tuple[EncodedMasks, EncodedMasks]:
    """The pictures and masks in data.root, as files or in columns. Raises DatasetError where they are not fit."""
    if find_layout(Path(data.root).expanduser()) is None and holds_columns(data.root):
        return open_columns(data, train, validation)
    looked = look_into(data)
    remarks = remarks_or_refusal(looked.survey.findings, looked.layout.root)
    listings = [looked.listing(place) for place in range(len(looked.parts))]
    there = looked.layout.split_named(data.val)
    unused = None if there is None else Path(looked.layout.splits[there][0])
    first, second = held_out(listings[0], data, unused=unused, say=remarks.append) or listings
    masks = {
        path: mask for pairs in looked.pairs.values() for path, mask in zip(pairs.images, pairs.masks, strict=True)
    }
    images, held = (
        MaskedFiles(listing, [masks[path] for path in listing.paths], looked.survey.map, **options)
        for listing, options in ((first, train), (second, validation))
    )
    images.remarks = remarks
    return images, held


def look_into(data: SegmentData) -> Looked:
    """The splits of data.root that `data` names, with what their masks hold.

    Raises DatasetError for a folder that is laid out otherwise, or lacks a split.
    """
    layout = found_layout(data.root)
    names = [_split(layout, data, "train")]
    if not (data.val_share or data.fold):
        names.append(_split(layout, data, "val"))
    return look_at_splits(layout, names, data)


def look_at_splits(layout: Layout, names: Sequence[str], data: SegmentData) -> Looked:
    """These splits with what their masks hold, that to train on first."""
    pairs = {name: layout.pairs(name) for name in names}
    masks = [mask for each in pairs.values() for mask in each.masks]
    classes = named_classes(folders_of_classes(layout.root, masks))
    parts = looked_at(layout.root, pairs, classes, data.workers)
    found = survey(parts, classes, data, kind=layout.kind)
    findings = [*unpaired(layout.root, pairs, data), *found.findings]
    return Looked(layout=layout, pairs=pairs, parts=parts, survey=dataclasses.replace(found, findings=findings))


def found_layout(root: str) -> Layout:
    """How the folder is laid out. Raises DatasetError for one that is none of the layouts."""
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DatasetError(f"data.root is {folder}, which is no folder. Check the path.")
    layout = find_layout(folder)
    if layout is None:
        there = some(subfolders(str(folder)), quoted=True) or "none"
        raise DatasetError(f"{folder} has no pictures with masks: its folders are {there}. Lay it out as {_LAYOUTS}.")
    return layout


def contents_of(root: str, data: SegmentData | None) -> Contents | None:
    """What a folder of pictures and masks holds, for `check-data`; None for one that is laid out otherwise."""
    layout = find_layout(root)
    if layout is None:
        return None
    data = data or SegmentData(root=root, reduce_zero_label=os.path.isfile(os.path.join(root, ADE20K)))
    first = layout.split_named(data.train)
    names = sorted(layout.splits, key=lambda name: (name != first, name))
    looked = look_at_splits(layout, names, data)
    learnt = {label for labels in looked.listing(0).labels for label in labels}  # the others have their finding
    listings = {}
    for place, name in enumerate(names):
        listing = looked.listing(place)
        labels = tuple(tuple(label for label in each if label in learnt) for each in listing.labels)
        listings[name] = dataclasses.replace(listing, labels=labels)
    contents = contents_of_listings(layout.root, listings)
    present = {looked.survey.map.names[label] for label in learnt}
    splits = {name: tuple(each for each in classes if each in present) for name, classes in contents.splits.items()}
    findings = [each for each in looked.survey.findings if each.kind != "class-not-judged"]  # said of the classes
    return dataclasses.replace(contents, splits=splits, findings=findings, of_pictures=False)


def _split(layout: Layout, data: SegmentData, key: str) -> str:
    name = getattr(data, key)
    found = layout.split_named(name)
    if found is not None:
        return found
    if key == "train" and set(layout.splits) == {WHOLE}:
        return WHOLE
    there = some([each for each in layout.splits if each], quoted=True) or "none"
    raise DatasetError(
        f"{layout.root} has no split '{name}'; its splits are: {there}. Name one with --data.{key}, or hold out a "
        "fifth of the other with --data.val_share 0.2."
    )


def looked_at(root: str, pairs: Mapping[str, Pairs], classes: Classes | None, workers: int) -> list[Part]:
    """What is in the masks of each split."""
    reading = raw_reading(classes)
    parts = []
    for name, each in pairs.items():
        facts = look_at_all(list(zip(each.images, each.masks, each.masks, strict=True)), reading, workers=workers)
        parts.append(Part(name, [relative(mask, root) for mask in each.masks], facts))
    return parts


def unpaired(root: str, pairs: Mapping[str, Pairs], data: SegmentData) -> list[Finding]:
    """Pictures and masks that have no partner."""
    severity: Severity = "warning" if data.allow_unpaired else "error"
    left_out = "They are left out." if data.allow_unpaired else "Or leave these out: --data.allow_unpaired true."
    images = [relative(path, root) for each in pairs.values() for path in each.without_mask]
    masks = [relative(path, root) for each in pairs.values() for path in each.without_image]
    return [
        *finding(severity, "no-mask", "Pictures without a mask", images, fix=f"Add the masks. {left_out}"),
        *finding(severity, "no-picture", "Masks without a picture", masks, fix=f"Add the pictures. {left_out}"),
    ]


def open_labelled(
    root: str,
    card: ModelCard,
    *,
    on_bad_image: OnBadImage = "error",
    image_column: str = "",
    label_column: str = "",
) -> EncodedMasks:
    """The pictures of a data set's validation split, or all where it has none, prepared and read as the card says.

    `label_column` is that of the masks. Raises DatasetError for a data set that is none of the layouts or names other
    classes, UsageError for columns of folders.
    """
    names, reading = names_of(card), Reading.of_facts(card.class_facts, card.options["num_classes"])
    found = Map(names=names, reading=reading, palette=card.class_facts.get("palette", ()))
    if find_layout(Path(root).expanduser()) is None and holds_columns(root):
        return open_labelled_columns(
            root, found, card, on_bad_image=on_bad_image, image_column=image_column, mask_column=label_column
        )
    if image_column or label_column:
        raise UsageError(
            f"image_column and label_column are for tables and Hugging Face data sets, but {root} is a folder of "
            "pictures and masks. Leave them out."
        )
    layout = found_layout(root)
    split = layout.split_named("val") or next(iter(layout.splits))
    pairs = layout.pairs(split)
    classes = named_classes(folders_of_classes(layout.root, pairs.masks))
    if classes is not None and card.class_names and not set(card.class_names) <= set(classes.names):
        raise DatasetError(
            f"{classes.source} names other classes ({some(classes.names, quoted=True)}) than the model has "
            f"({some(names, quoted=True)}). Give pictures of the model's classes."
        )
    listing = Listing(
        root=layout.root,
        paths=pairs.images,
        labels=tuple(() for _ in pairs.images),
        class_names=names,
        fingerprint=f"{layout.root} {split}",
    )
    samples = MaskedFiles(listing, pairs.masks, found, show=EvalPair(card.preprocessing), on_bad_image=on_bad_image)
    if not len(samples):
        raise DatasetError(f"{root} has no picture with a mask. Give a folder that has.")
    if split:
        samples.remarks = [f"Of {root} the split '{split}' is evaluated on: {len(samples):,} pictures."]
    return samples
