"""Pictures and masks in two columns of a data set of the Hugging Face `datasets` library."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from hybridvit.data.check_report import remarks_or_refusal
from hybridvit.data.columns import Names
from hybridvit.data.decode import ImageSource
from hybridvit.data.huggingface import cell_of, fingerprint_of, load_split, remarks_on_unused, undecoded
from hybridvit.data.seeding import derive_seed
from hybridvit.errors import DatasetError, nearest, some
from hybridvit.tasks.segment.classes import Map, named_classes, raw_reading
from hybridvit.tasks.segment.config import SegmentData
from hybridvit.tasks.segment.data import EncodedMasks, MaskedOptions
from hybridvit.tasks.segment.survey import Part, look_at_all, survey

if TYPE_CHECKING:
    from hybridvit.card import ModelCard
    from hybridvit.data.encoded import OnBadImage

MASKS = ("annotation", "annotations", "mask", "masks", "label", "labels", "segmentation", "semantic_mask", "gt")
SPLITS = ("val", "validation", "test", "train")  # of which the first that there is is evaluated on
_SCRIPT = (
    "Where a data set is a loading script, as the original scene_parse_150 is, which datasets refuses from version 4 "
    "on, name a copy of it in Parquet."
)


class Rows(Sequence[tuple[ImageSource, ImageSource, str]]):
    """The pictures and masks of a `datasets.Dataset`, encoded, with the names of the masks.

    Raises DatasetError for columns that are absent, or that neither their type nor their name tells.
    """

    def __init__(self, dataset: Any, *, source: str, image_column: str = "", mask_column: str = "") -> None:
        from datasets import Image

        pictures = [name for name, feature in dataset.features.items() if isinstance(feature, Image)]
        known = [each for each in MASKS if each in dataset.features]
        others = [each for each in pictures if each != image_column]
        self.mask_column = mask_column or (known or others[1:] or [""])[0]
        remaining = [each for each in pictures if each != self.mask_column]
        self.image_column = image_column or ("image" if "image" in dataset.features else (remaining or [""])[0])
        for key, column in (("image", self.image_column), ("mask", self.mask_column)):
            if column not in dataset.features:
                fault = (
                    f"has no column '{column}'. {nearest(column, dataset.features)}"
                    if column
                    else (f"has no column of {key}s; its columns are {some(list(dataset.features), quoted=True)}")
                )
                raise DatasetError(f"{source} {fault}. Name it: --data.source huggingface --data.{key}_column COLUMN.")
        self.source, self.fingerprint = source, fingerprint_of(dataset)
        self._dataset = undecoded(dataset, [self.image_column, self.mask_column])

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: Any) -> Any:
        return self.cell(index, self.image_column), self.cell(index, self.mask_column), self.name(index)

    def name(self, index: int) -> str:
        """Of a row's mask."""
        return f"{self.source}[{index}]"

    def cell(self, index: int, column: str) -> str | bytes:
        """The file of a cell, or its bytes. Raises SourceFault if it cannot be read."""
        return cell_of(self._dataset, index, column, name=self.name(index))


class MaskedRows(EncodedMasks):
    """The rows of a data set."""

    def __init__(self, rows: Rows, classes: Map, **options: Unpack[MaskedOptions]) -> None:
        paths = Names(len(rows), partial(Rows.name, rows))
        super().__init__(paths=paths, fingerprint=rows.fingerprint, classes=classes, **options)
        self._rows = rows

    def encoded(self, epoch: int, index: int) -> str | bytes:
        return self._rows.cell(index, self._rows.image_column)

    def mask(self, index: int) -> tuple[ImageSource, str]:
        return self._rows.cell(index, self._rows.mask_column), f"{self._rows.name(index)} ({self._rows.mask_column})"


def holds_columns(root: str) -> bool:
    """Whether a place on this machine looks like a data set of columns."""
    folder = Path(root).expanduser()
    if folder.suffix == ".parquet":
        return folder.is_file()
    names = ("dataset_dict.json", "state.json", "*/state.json", "*.parquet", "data/*.parquet")
    return folder.is_dir() and any(any(folder.glob(name)) for name in names)


def open_columns(data: SegmentData, train: MaskedOptions, validation: MaskedOptions) -> tuple[MaskedRows, MaskedRows]:
    """Two splits of the data set data.root, or one and a part of it. Raises DatasetError where they are not fit."""
    rows = _load(data.root, data.train)
    if data.val_share:
        order = sorted(range(len(rows)), key=lambda row: derive_seed("held out", row))
        count = max(1, round(data.val_share * len(rows)))
        datasets = [rows.select(sorted(order[count:])), rows.select(sorted(order[:count]))]
    else:
        datasets = [rows, _load(data.root, data.val)]
    splits = [data.train, f"part of {data.train}" if data.val_share else data.val]
    opened = [
        Rows(each, source=f"{data.root}/{name}", image_column=data.image_column, mask_column=data.mask_column)
        for each, name in zip(datasets, splits, strict=True)
    ]
    classes = named_classes([data.root])
    parts = []
    for name, each in zip(splits, opened, strict=True):
        facts = look_at_all(each, raw_reading(classes), workers=data.workers)
        parts.append(Part(name, [each.name(row) for row in range(len(each))], facts))
    found = survey(parts, classes, data)
    images, held = (
        MaskedRows(each, found.map, **options) for each, options in zip(opened, (train, validation), strict=True)
    )
    images.remarks = [*remarks_on_unused(data), *remarks_or_refusal(found.findings, data.root)]
    return images, held


def open_labelled_columns(
    root: str, classes: Map, card: "ModelCard", *, on_bad_image: "OnBadImage", image_column: str, mask_column: str
) -> MaskedRows:
    """The validation split of a data set, or what there is instead. Raises DatasetError where there is none."""
    from hybridvit.tasks.segment.transforms import EvalPair

    for split in SPLITS:
        try:
            dataset = _load(root, split)
        except DatasetError:
            if split == SPLITS[-1]:
                raise
            continue
        rows = Rows(dataset, source=f"{root}/{split}", image_column=image_column, mask_column=mask_column)
        samples = MaskedRows(rows, classes, show=EvalPair(card.preprocessing), on_bad_image=on_bad_image)
        samples.remarks = [f"Of {root} the split '{split}' is evaluated on: {len(samples):,} pictures."]
        return samples
    raise AssertionError("the last split raises")


def _load(root: str, split: str) -> Any:
    try:
        return load_split(root, split)
    except DatasetError as error:
        raise DatasetError(f"{error} {_SCRIPT}") from error
