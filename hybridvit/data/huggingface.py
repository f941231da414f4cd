"""A data set of the Hugging Face `datasets` library as a data set of ours: its bytes, our decoder."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from hybridvit.data.columns import Column, Names, matched
from hybridvit.data.encoded import EncodedImages, ImageOptions
from hybridvit.data.listing import tell_single
from hybridvit.data.samples import Opened
from hybridvit.data.scan import Say, quiet
from hybridvit.data.seeding import derive_seed
from hybridvit.errors import DatasetError, SourceFault, UsageError, nearest, one_line

if TYPE_CHECKING:
    from hybridvit.recipe.groups import DataConfig


class HuggingFaceImages(EncodedImages):
    """The rows of `dataset`, a `datasets.Dataset` as `load_split` gives it.

    The image and the label column are found by type; where several would do, `image_column` and `label_column` name
    them. `class_names` is the map of the training set, for evaluation. Raises `DatasetError` for columns that are
    absent or ambiguous, and for classes that `class_names` has not.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        source: str,
        class_names: Sequence[str] | None = None,
        image_column: str = "",
        label_column: str = "",
        **options: Unpack[ImageOptions],
    ) -> None:
        from datasets import Image

        self.source = source
        self._image_column = image_column or _only(dataset, source, "image", _of_kind(dataset, Image))
        self._label_column = label_column or _label_column(dataset, source)
        for column in (self._image_column, self._label_column):
            if column not in dataset.features:
                raise DatasetError(
                    f"{source} has no column '{column}'. {nearest(column, dataset.features)}. Name it with "
                    "--data.image_column or --data.label_column."
                )
        labels, names = _labels(dataset, source, self._label_column)
        if class_names is not None:
            labels, names = matched(labels, names, class_names, source), tuple(class_names)
        super().__init__(
            paths=Names(len(dataset), partial(_row, source)),
            labels=labels,
            class_names=names,
            fingerprint=fingerprint_of(dataset),
            **options,
        )
        self._dataset = undecoded(dataset, [self._image_column])

    def encoded(self, epoch: int, index: int) -> str | bytes:
        return cell_of(self._dataset, index, self._image_column, name=self.paths[index])


def cell_of(dataset: Any, index: int, column: str, *, name: str) -> str | bytes:
    """The file, or its bytes, in a column of undecoded images; b"", which is no image, where the cell is empty.

    Raises `SourceFault` for a row that cannot be read.
    """
    try:
        cell = dataset[index][column]
    except Exception as error:  # Arrow raises its own kinds for files that are damaged or gone
        raise SourceFault(f"{name} cannot be read: {one_line(error)}. Fetch the data set again.") from error
    if cell is None or (cell["bytes"] is None and cell["path"] is None):
        return b""
    return cell["bytes"] if cell["bytes"] is not None else cell["path"]


def undecoded(dataset: Any, columns: Sequence[str]) -> Any:
    """The data set with these columns alone, of images as `cell_of` takes them."""
    from datasets import Image

    dataset = dataset.select_columns(list(columns))
    for column in columns:
        dataset = dataset.cast_column(column, Image(decode=False))
    return dataset


def fingerprint_of(dataset: Any) -> str:
    """Changes when the data set does."""
    return f"huggingface-{dataset._fingerprint}"  # the library has no public name for it


def _row(source: str, number: int) -> str:
    return f"{source}[{number}]"


def open_splits(data: "DataConfig", train: ImageOptions, validation: ImageOptions) -> Opened:
    """Two splits of the data set data.root, or one and a part of it. Raises as `load_split` and `HuggingFaceImages`."""
    remarks: list[str] = []
    rows = load_split(data.root, data.train)
    if data.val_share:
        rows, held_out = hold_out(rows, data.val_share, data.root, data.label_column, say=remarks.append)
        remarks += remarks_on_unused(data)
    else:
        held_out = load_split(data.root, data.val)
    open_rows = partial(HuggingFaceImages, image_column=data.image_column, label_column=data.label_column)
    images = open_rows(rows, source=f"{data.root}/{data.train}", **train)
    images.remarks = remarks
    source = f"{data.root}/{data.train if data.val_share else data.val}"
    return images, open_rows(held_out, source=source, class_names=images.class_names, **validation)


def remarks_on_unused(data: "DataConfig") -> list[str]:
    """What is said of a split that was named to validate on, where part of the training split is held out."""
    if not data.val_share or data.val == type(data).val:
        return []
    return [
        f"data.val_share is {data.val_share}, so that part of the split '{data.train}' is validated on, and the split "
        f"'{data.val}' is not used. Leave val_share out to validate on it."
    ]


def load_split(root: str, split: str) -> Any:
    """One split of a data set on the hub, in a folder (`save_to_disk`, or files that `load_dataset` reads), or in a
    Parquet file, which is the split train.

    Raises `UsageError` without the package, `DatasetError` where there is no such set or split, or no network.
    """
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            'data.source huggingface needs the package datasets. Run: pip install "hybridvit[huggingface]".'
        ) from error
    folder = Path(root).expanduser()
    try:
        if folder.suffix == ".parquet" and folder.is_file():
            return datasets.load_dataset("parquet", data_files={"train": str(folder)}, split=split)
        if not folder.is_dir():
            return datasets.load_dataset(root, split=split)
        if (folder / "dataset_dict.json").is_file():
            return datasets.load_from_disk(str(folder))[split]
        if (folder / split / "state.json").is_file():
            return datasets.load_from_disk(str(folder / split))
        return datasets.load_dataset(str(folder), split=split)
    except KeyError as error:
        known = nearest(split, datasets.load_from_disk(str(folder)))
        raise DatasetError(f"{root} has no split '{split}'. {known}. Name it: --data.train, --data.val.") from error
    except Exception as error:  # the library, its file systems and its parsers raise many kinds
        raise DatasetError(
            f"The split '{split}' of the Hugging Face data set '{root}' could not be loaded: {one_line(error)}. Check "
            "the name, the split (--data.train, --data.val) and the network; or load it where there is one, save it "
            "with save_to_disk(FOLDER), and give the folder as data.root."
        ) from error


def hold_out(dataset: Any, share: float, source: str, label_column: str = "", *, say: Say = quiet) -> tuple[Any, Any]:
    """The rest, and about `share` of every class, at least one row; the row number alone decides.

    `say` is told of the classes with one row, which is kept in the rest. Raises `DatasetError` if no class has more.
    """
    column = label_column or _label_column(dataset, source)
    found, names = _labels(dataset, source, column)
    labels = np.asarray(found)
    held_out: list[int] = []
    single: list[str] = []
    for label in np.unique(labels).tolist():
        rows = sorted(np.flatnonzero(labels == label).tolist(), key=lambda row: derive_seed("held out", row))
        if len(rows) == 1:
            single.append(names[label])
        else:
            held_out += rows[: max(1, round(share * len(rows)))]
    tell_single(single, source, say)
    if not held_out:
        raise DatasetError(
            f"No class of {source} has more than one image, so none can be held out. Add images, or name a split to "
            "validate on: --data.val."
        )
    return dataset.select(np.setdiff1d(np.arange(len(labels)), held_out)), dataset.select(sorted(held_out))


def _labels(dataset: Any, source: str, column: str) -> tuple[Column, tuple[str, ...]]:
    feature = dataset.features[column]
    values = dataset.with_format("numpy").select_columns([column])[:][column]
    if values.dtype.kind not in "iu":
        raise DatasetError(
            f"The column '{column}' of {source} holds {feature}, but labels are class numbers without gaps. Turn it "
            f"into a ClassLabel first: dataset.class_encode_column('{column}')."
        )
    names = getattr(feature, "names", None) or [str(label) for label in range(int(values.max(initial=-1)) + 1)]
    return Column(values.astype(np.int32)), tuple(names)


def _only(dataset: Any, source: str, what: str, found: list[str]) -> str:
    """The one column that was found."""
    if len(found) == 1:
        return found[0]
    fault = f"has no {what} column; its columns are {', '.join(dataset.features)}"
    if found:
        fault = f"has {len(found)} columns that could be the {what}: {', '.join(found)}"
    raise DatasetError(f"{source} {fault}. Name it: --data.{what}_column COLUMN.")


def _label_column(dataset: Any, source: str) -> str:
    """A ClassLabel goes before integers."""
    from datasets import ClassLabel, Value

    integers = [name for name in _of_kind(dataset, Value) if dataset.features[name].dtype.startswith(("int", "uint"))]
    return _only(dataset, source, "label", _of_kind(dataset, ClassLabel) or integers)


def _of_kind(dataset: Any, kind: type) -> list[str]:
    return [name for name, feature in dataset.features.items() if isinstance(feature, kind)]
