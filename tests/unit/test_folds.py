"""Cross-validation: each image is held out once, and always in the same part."""

from pathlib import Path

import pytest
from PIL import Image

from hybridvit.data.folder import list_images
from hybridvit.errors import DatasetError, UsageError
from hybridvit.tasks.classify.config import ClassifyData

COUNT = 5


def parts(root: Path) -> list[set[str]]:
    listings = [list_images(ClassifyData(root=str(root), train=".", fold=f"{i}/{COUNT}")) for i in range(1, COUNT + 1)]
    assert len({held_out.fingerprint for _, held_out in listings}) == COUNT
    for train, held_out in listings:
        assert train.class_names == held_out.class_names == ("a", "b")
        assert not set(train.paths) & set(held_out.paths)
    return [set(held_out.paths) for _, held_out in listings]


def test_every_image_is_held_out_in_one_part_and_stays_there_when_others_come(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(30):
            Image.new("RGB", (32, 32)).save(tmp_path / name / f"{number}.png")
    before = parts(tmp_path)
    assert sum(map(len, before)) == len(set().union(*before)) == 60
    assert min(map(len, before)) >= 5
    for number in range(100, 120):
        Image.new("RGB", (32, 32)).save(tmp_path / "a" / f"{number}.png")
    for earlier, later in zip(before, parts(tmp_path), strict=True):
        assert earlier <= later


def test_a_class_that_a_part_takes_whole_is_named(tmp_path: Path) -> None:
    for name, count in (("a", 1), ("b", 30)):
        (tmp_path / name).mkdir()
        for number in range(count):
            Image.new("RGB", (32, 32)).save(tmp_path / name / f"{number}.png")
    said = []
    for i in range(1, COUNT + 1):
        try:
            list_images(ClassifyData(root=str(tmp_path), train=".", fold=f"{i}/{COUNT}"))
        except DatasetError as error:
            said.append(str(error))
    assert len(said) == 1
    assert "all images of 'a' are held out, and none is left to train on" in said[0]


@pytest.mark.parametrize("fold", ["0/5", "6/5", "1", "1/1", "a/b", "1/5/2"])
def test_a_fold_is_one_part_of_several(fold: str) -> None:
    with pytest.raises(UsageError, match=r"must be i/k, part i of k"):
        ClassifyData(root="photos", fold=fold)


def test_images_are_held_out_in_one_way() -> None:
    with pytest.raises(UsageError, match="both hold images out"):
        ClassifyData(root="photos", fold="1/5", val_share=0.2)
    with pytest.raises(
        UsageError, match=r"'data.fold' is for data.source folder and table, but data.source is 'digits'"
    ):
        ClassifyData(source="digits", fold="1/5")
