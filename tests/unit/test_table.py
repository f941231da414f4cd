"""Labels from a table give the data set that the same images in class folders give."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from hybridvit.card import ModelCard, Preprocessing
from hybridvit.data.folder import ImageFolder
from hybridvit.data.table import list_table
from hybridvit.data.transforms import EvalTransform
from hybridvit.errors import DatasetError, UsageError
from hybridvit.recipe.file import load_recipe
from hybridvit.task import Splits
from hybridvit.tasks.classify.data import open_labelled
from hybridvit.tasks.classify.task import Classify

SMALL = Preprocessing(image_size=(32, 32), crop_fraction=1.0)
NAMES = [f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(4)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 36), (30 * number, 99, 7)).save(tmp_path / name)
    return tmp_path


def write(path: Path, rows: list[tuple[str, str]], head: str = "path,label", comma: str = ",") -> Path:
    lines = [head.replace(",", comma), *(comma.join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return path


ROWS = [(name, name.split("/")[0]) for name in NAMES]


def test_a_table_gives_what_the_folders_give(photos: Path) -> None:
    folder = ImageFolder(photos, transform=EvalTransform(SMALL))
    table = ImageFolder(list_table(write(photos / "all.csv", ROWS)), transform=EvalTransform(SMALL))
    assert table.class_names == folder.class_names
    assert list(table.labels) == list(folder.labels)
    for one, other in zip(table, folder, strict=True):  # type: ignore[call-overload]
        assert torch.equal(one[0], other[0])


@pytest.mark.parametrize("kind", ["comma", "semicolon", "tab", "parquet", "other names"])
def test_every_kind_of_table_says_the_same(photos: Path, kind: str) -> None:
    expected = list_table(write(photos / "a.csv", ROWS))
    options = {}
    if kind == "parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        table = photos / "b.parquet"
        parquet.write_table(arrow.table({"path": [row[0] for row in ROWS], "label": [row[1] for row in ROWS]}), table)
    elif kind == "other names":
        table = write(photos / "b.csv", ROWS, head="scan id,diagnosis")
        options = {"image_column": "scan id", "label_column": "diagnosis"}
    else:
        comma = {"comma": ",", "semicolon": ";", "tab": "\t"}[kind]
        table = write(photos / ("b.tsv" if kind == "tab" else "b.csv"), ROWS, head="File_Name,Class", comma=comma)
    assert list_table(table, **options) == expected


def test_whole_numbers_are_classes_in_their_order(photos: Path) -> None:
    rows = [(name, str(label)) for name, label in zip(NAMES, (10, 2, 10, 2, 9, 9, 2, 10), strict=True)]
    listing = list_table(write(photos / "all.csv", rows))
    assert listing.class_names == ("2", "9", "10")
    assert listing.labels == (2, 0, 2, 0, 1, 1, 0, 2)
    assert list_table(photos / "all.csv", ("10", "9", "2", "1")).labels == (0, 2, 0, 2, 1, 1, 2, 0)


def opened(root: Path, **more: object) -> Splits:
    keys = {"model": "fastvit_debug", "data.source": "table", "data.root": str(root), "data.image_size": 32}
    return Classify().open(load_recipe("folder", keys | more))


def test_a_run_opens_two_tables_or_holds_out_a_part_of_one(photos: Path) -> None:
    write(photos / "train.csv", ROWS[:6])
    write(photos / "val.csv", ROWS[6:])
    two = opened(photos)
    assert (len(two.train), len(two.validation)) == (6, 2)
    assert two.train.class_names == two.validation.class_names == ("cat", "dog")
    one = opened(write(photos / "all.csv", ROWS), **{"data.val_share": 0.25})
    assert (len(one.train), len(one.validation)) == (6, 2)
    assert not set(one.train.paths) & set(one.validation.paths)
    assert one.train.fingerprint != two.train.fingerprint
    card = ModelCard(
        architecture="fastvit_debug", options={"num_classes": 2}, preprocessing=SMALL, class_names=("dog", "cat")
    )
    assert list(open_labelled(str(photos / "val.csv"), card).labels) == [0, 0]
    columns = {"image_column": "scan id", "label_column": "diagnosis"}
    table = write(photos / "other.csv", ROWS[2:6], head="scan id,diagnosis")
    assert list(open_labelled(str(table), card, **columns).labels) == [1, 1, 0, 0]
    for column, name in columns.items():
        with pytest.raises(
            UsageError, match=r"are for a table, but .* is no file that ends in \.csv, \.tsv, \.parquet\."
        ):
            open_labelled(str(photos), card, **{column: name})


@pytest.mark.parametrize(("key", "value"), [("val_share", 0.25), ("fold", "1/2")])
def test_a_part_is_held_out_and_a_table_that_is_not_used_is_named(photos: Path, key: str, value: object) -> None:
    write(photos / "train.csv", ROWS)
    held = opened(photos, **{f"data.{key}": value})
    assert held.train.remarks == []
    assert sorted([*held.train.paths, *held.validation.paths]) == sorted(str(photos / name) for name in NAMES)
    assert len(held.validation) > 0
    write(photos / "val.csv", ROWS[:2])
    (said,) = opened(photos, **{f"data.{key}": value}).train.remarks
    assert said.startswith(f"data.{key} is {value}, so that part of 'train' is validated on, and the images in ")
    assert said.endswith(f"{photos / 'val.csv'} are not used. Leave {key} out to validate on them.")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", r"has no column named like paths \(path, .*its columns are none\. Name it: --data\.image_column"),
        ("path,label\n", r"has no rows"),
        ("scan,label\nx,y\n", r"no column named like paths .*'scan', 'label'.*--image_column COLUMN for eval"),
        ("path,kind of\nx,y\n", r"no column named like labels"),
        ("path,label, label\ncat/0.png,cat,dog\n", r"The head of .* names 'label' twice\. Rename one"),
        ("path,label\ncat/\0.png,cat\n", r"has a NUL byte, so it names no file"),
        ("path,label\ncat/0.png,\n", r"Row 1 of .* has no label\. Fill it in"),
        ("path,label\ncat/0.png\n", r"Row 1 of .* has no label"),
        ("path,label\ngone.png,cat\n", r"Cannot read .*gone\.png: No such file.*Restore the file"),
        ("path,label\ncat/0.png,cat\ncat/0.png,dog\n", r"gives cat/0\.png two labels, 'cat' and 'dog'.*Keep one row"),
        ("path,label\ncat/0.png,\xff\n".encode("latin-1"), r"cannot be read as a table: .*Save it as CSV in UTF-8"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(photos: Path, content: str | bytes, words: str) -> None:
    (photos / "all.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DatasetError, match=words):
        list_table(photos / "all.csv")


def test_what_is_missing_or_unknown_is_named(photos: Path) -> None:
    table = write(photos / "train.csv", ROWS)
    with pytest.raises(DatasetError, match=r"has no table 'val'.*its tables are: 'train\.csv'.*--data\.val"):
        opened(photos)
    with pytest.raises(DatasetError, match=r"which leaves none to validate on.*--data\.val_share 0\.2"):
        opened(table)
    with pytest.raises(DatasetError, match=r"no column 'lable'. Nearest: 'label'.*--data\.label_column"):
        list_table(table, label_column="lable")
    with pytest.raises(DatasetError, match=r"1 class that the 1 known ones do not include: 'dog'"):
        list_table(table, ("cat",))
    with pytest.raises(UsageError, match=r"'data\.cache_gb' is for data\.source shards, but data\.source is 'table'"):
        opened(photos, **{"data.cache_gb": 3})
