"""Data sets of the Hugging Face library: their bytes, our decoder and our checks."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from shard_sets import SMALL, png, write_folder

from hybridvit.data.augment_config import AugmentConfig
from hybridvit.data.folder import ImageFolder
from hybridvit.data.huggingface import HuggingFaceImages, hold_out, load_split
from hybridvit.data.loader import make_train_loader
from hybridvit.data.transforms import EvalTransform, TrainTransform
from hybridvit.errors import DatasetError, ImageDecodeError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # the library leaves files to the garbage collector


@pytest.fixture(autouse=True)
def _quiet_and_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")
    datasets.disable_progress_bars()


def rows(images: list[bytes | None], labels: list[Any], label: Any = None) -> Dataset:
    label = label or ClassLabel(names=["bee", "cat", "dog"])
    cells = [None if image is None else {"bytes": image, "path": None} for image in images]
    return Dataset.from_dict({"photo": cells, "kind": labels}, features=Features({"photo": Image(), "kind": label}))


def open_rows(dataset: Dataset, **options: Any) -> HuggingFaceImages:
    return HuggingFaceImages(dataset, source="some/set", **{"transform": EvalTransform(SMALL), **options})


def test_rows_give_the_tensors_of_the_same_files_in_a_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", per_class=2)
    options = {"transform": TrainTransform(AugmentConfig(), SMALL), "training": True, "seed": 3}
    files = ImageFolder(folder, **options)
    images = open_rows(rows([Path(path).read_bytes() for path in files.paths], list(files.labels)), **options)
    assert images.class_names == files.class_names
    for index in range(len(files)):
        assert torch.equal(images.draw(2, index).image, files.draw(2, index).image)
        assert images.labels[index] == files.labels[index]
    assert images.paths[4] == "some/set[4]"


def test_a_saved_set_is_loaded_by_folder_and_split_with_workers(tmp_path: Path) -> None:
    train, val = rows([png(number) for number in range(6)], [0, 1, 2] * 2), rows([png(9)], [1])
    DatasetDict(train=train, validation=val).save_to_disk(str(tmp_path / "set"))
    images = open_rows(load_split(str(tmp_path / "set"), "train"), training=True)
    assert images.fingerprint == open_rows(load_split(str(tmp_path / "set"), "train")).fingerprint
    assert images.fingerprint != open_rows(load_split(str(tmp_path / "set"), "validation")).fingerprint
    loader = make_train_loader(images, batch_size=6, num_steps=1, workers=2)
    batch = next(iter(loader))
    loader.close()
    assert sorted(batch.samples.tolist()) == list(range(6))
    with pytest.raises(DatasetError, match=r"has no split 'val'\. There are .*'validation'.*--data\.val"):
        load_split(str(tmp_path / "set"), "val")


def test_a_folder_of_parquet_files_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    rows([png(1), png(2)], [2, 0]).to_parquet(str(tmp_path / "set/train-00000.parquet"))
    images = open_rows(load_split(str(tmp_path / "set"), "train"))
    assert images.class_names == ("bee", "cat", "dog")
    assert list(images.labels) == [2, 0]
    assert images.encoded(0, 1) == png(2)


def test_columns_are_found_by_type_and_named_where_that_is_not_enough() -> None:
    two = rows([png(1), png(2)], [0, 1]).add_column("weight", [5, 6])
    assert list(open_rows(two).labels) == [0, 1]  # a ClassLabel goes before numbers
    twice = Dataset.from_dict(
        {"a": [{"bytes": png(1), "path": None}], "b": [{"bytes": png(2), "path": None}], "kind": [0], "fine": [1]},
        features=Features(
            {"a": Image(), "b": Image(), "kind": ClassLabel(names=["x", "y"]), "fine": ClassLabel(names=["u", "v"])}
        ),
    )
    with pytest.raises(DatasetError, match=r"2 columns that could be the image: a, b\. Name it: --data\.image_column"):
        open_rows(twice)
    with pytest.raises(DatasetError, match=r"2 columns that could be the label: kind, fine.*--data\.label_column"):
        open_rows(twice, image_column="b")
    images = open_rows(twice, image_column="b", label_column="fine")
    assert (images.encoded(0, 0), images.labels[0], images.class_names) == (png(2), 1, ("u", "v"))
    with pytest.raises(DatasetError, match=r"no column 'bb'"):
        open_rows(twice, image_column="bb", label_column="fine")
    with pytest.raises(DatasetError, match=r"has no image column; its columns are kind"):
        open_rows(twice.select_columns(["kind"]))


def test_labels_without_names_are_numbers_and_text_is_refused() -> None:
    assert open_rows(rows([png(1), png(2)], [3, 0], Value("int64"))).class_names == ("0", "1", "2", "3")
    with pytest.raises(DatasetError, match=r"'kind' of some/set holds .*string.*class_encode_column\('kind'\)"):
        open_rows(rows([png(1)], ["dog"], Value("string")), label_column="kind")


def test_validation_is_matched_by_name() -> None:
    val = rows([png(1), png(2)], [0, 1], ClassLabel(names=["dog", "bee"]))
    assert list(open_rows(val, class_names=("bee", "cat", "dog")).labels) == [2, 0]
    with pytest.raises(DatasetError, match=r"some/set has 1 class that the 2 known ones do not include: 'dog'"):
        open_rows(val, class_names=("bee", "cat"))


def test_bad_and_absent_images_follow_the_policy_of_all_sources() -> None:
    dataset = rows([png(1), b"no image", None, png(4)], [0, 1, 2, 0])
    with pytest.raises(ImageDecodeError, match=r"some/set\[1\], image given as 8 bytes: this is no image.*'no image'"):
        open_rows(dataset)[1]
    with pytest.raises(ImageDecodeError, match=r"some/set\[2\], .*the file is empty"):
        open_rows(dataset)[2]
    sample = open_rows(dataset, training=True, on_bad_image="skip").draw(0, 2)
    assert sample.image is not None
    assert sample.number in (0, 3)


def test_a_share_of_every_class_is_held_out_by_row_number() -> None:
    dataset = rows([png(number) for number in range(20)], [0] * 10 + [1] * 8 + [2] * 2)
    train, val = hold_out(dataset, 0.2, "some/set")
    assert Counter(val["kind"]) == {0: 2, 1: 2, 2: 1}
    assert len(train) + len(val) == 20
    assert hold_out(dataset, 0.2, "some/set")[1]["kind"] == val["kind"]
    assert open_rows(train).fingerprint != open_rows(val).fingerprint


def test_a_class_with_one_row_is_trained_on_and_named() -> None:
    dataset = rows([png(number) for number in range(12)], [0] * 10 + [1, 2])
    said: list[str] = []
    train, val = hold_out(dataset, 0.2, "some/set", say=said.append)
    assert (Counter(train["kind"]), Counter(val["kind"])) == ({0: 8, 1: 1, 2: 1}, {0: 2})
    assert said == [
        "2 classes have one image each ('cat', 'dog') in some/set: it is trained on, and none is held out, so the "
        "accuracy says nothing of it."
    ]
    with pytest.raises(DatasetError, match=r"No class of some/set has more than one image.*--data\.val"):
        hold_out(dataset.select([0, 10, 11]), 0.2, "some/set")


def test_without_the_package_or_the_network_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'some/set' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", no_network)
    with pytest.raises(DatasetError, match=r"data set 'some/set' could not be loaded: Couldn't reach.*save_to_disk"):
        load_split("some/set", "train")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r'pip install "hybridvit\[huggingface\]"'):
        load_split("some/set", "train")
