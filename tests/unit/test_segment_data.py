"""Pictures with masks: every layout is read, every fault is found once, and what is shown is what is there."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from segment_sets import COLOURS, PLACES, SIZE, labels_of, save_mask, save_picture, write_set

from hybridvit.card import ModelCard, Preprocessing
from hybridvit.cli.main import main
from hybridvit.errors import DatasetError, UsageError
from hybridvit.task import find_task
from hybridvit.tasks.segment.config import SegmentAugment, SegmentData, SegmentRecipe
from hybridvit.tasks.segment.data import MaskedFiles

TASK = find_task("segment")


def opened(root: Path, **keys: Any) -> Any:
    augment = keys.pop("augment", SegmentAugment())
    data = SegmentData(root=str(root), image_size=32, workers=0, **keys)
    return TASK.open(SegmentRecipe(task="segment", model="fastvit_debug", data=data, augment=augment))


def shown_labels(samples: MaskedFiles, index: int) -> np.ndarray:
    target = samples.draw(0, index).target
    assert target is not None, samples.draw(0, index).fault
    return target.numpy()


@pytest.mark.parametrize("layout", PLACES)
def test_every_layout_is_found_by_looking(layout: str, tmp_path: Path) -> None:
    splits = opened(write_set(tmp_path, layout))
    assert (len(splits.train), len(splits.validation)) == (3, 2)
    assert splits.train.class_names == ("class_0", "class_1", "class_2")
    for index, number in ((0, 3), (1, 4)):
        assert (shown_labels(splits.validation, index) == labels_of(number)).all()
    assert splits.train.fingerprint != splits.validation.fingerprint
    sample = splits.validation.draw(0, 0)
    assert sample.image.shape == (3, 32, 38)  # all of 40x48, the shorter side 32
    assert sample.frame.picture_size == SIZE


def test_a_folder_without_splits_is_held_out_in_part(tmp_path: Path) -> None:
    for number in range(12):
        save_picture(tmp_path / f"images/{number}.jpg", number)
        save_mask(tmp_path / f"masks/{number}.png", labels_of(number))
    with pytest.raises(DatasetError, match=r"has no split 'val'; its splits are: none. .*--data.val_share 0.2"):
        opened(tmp_path)
    splits = opened(tmp_path, val_share=0.25)
    assert len(splits.train) + len(splits.validation) == 12
    assert 0 < len(splits.validation) < 6
    assert not set(splits.train.paths) & set(splits.validation.paths)


def test_other_folders_are_refused_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    with pytest.raises(DatasetError, match=r"has no pictures with masks: its folders are 'cats'. Lay it out as"):
        opened(tmp_path)
    with pytest.raises(DatasetError, match=r"which is no folder. Check the path"):
        opened(tmp_path / "dogs")
    write_set(tmp_path / "city", "Cityscapes")
    for path in (tmp_path / "city").rglob("*TrainIds.png"):
        path.rename(path.with_name(path.name.replace("TrainIds", "Ids")))
    with pytest.raises(DatasetError, match=r"has no file that ends in _gtFine_labelTrainIds.png, .*csCreateTrain"):
        opened(tmp_path / "city")


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGB", "RGBA"])
def test_masks_of_every_mode_have_the_same_labels(mode: str, tmp_path: Path) -> None:
    write_set(tmp_path, mode=mode)
    if mode.startswith("RGB"):
        colours = dict(zip(("sky", "car", "tree"), COLOURS, strict=True))
        (tmp_path / "palette.json").write_text(json.dumps(colours))
    splits = opened(tmp_path)
    assert (shown_labels(splits.validation, 0) == labels_of(3)).all()
    facts = splits.train.class_facts
    assert (facts["palette"] == COLOURS) == (mode in ("P", "RGB", "RGBA"))
    assert splits.train.class_names[0] == ("sky" if mode.startswith("RGB") else "class_0")


def test_masks_of_two_values_may_be_of_one_or_few_bits(tmp_path: Path) -> None:
    for number in range(4):
        split = "train" if number < 2 else "val"
        save_picture(tmp_path / f"images/{split}/{number}.jpg", number)
        save_mask(tmp_path / f"masks/{split}/{number}.png", labels_of(number, 2), "1")
    assert (shown_labels(opened(tmp_path).validation, 0) == labels_of(2, 2)).all()
    for path in (tmp_path / "masks").rglob("*.png"):
        Image.fromarray(np.array(Image.open(path), np.uint8)).save(path, bits=2)
    assert (shown_labels(opened(tmp_path).validation, 0) == labels_of(2, 2)).all()


def test_classes_are_named_by_files_with_their_values(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "classes.txt").write_text("sky\ncar\ntree\n", encoding="utf-8")
    assert opened(tmp_path).train.class_names == ("sky", "car", "tree")
    listed = [{"name": "tree", "id": 2}, {"name": "car", "id": 1}, {"name": "void", "id": 0}]
    (tmp_path / "classes.json").write_text(json.dumps(listed))
    splits = opened(tmp_path, ignore_label=0)
    assert splits.train.class_names == ("tree", "car")
    expected = np.array([255, 1, 0])[labels_of(3)]
    assert (shown_labels(splits.validation, 0) == expected).all()
    for wrong, why in (
        ('{"sky": [0, 0]}', "not enough values"),
        ('[{"name": "sky", "id": 70000}]', "an id is not from 0 to 65535"),
        ('[{"name": "sky"}, {"name": "sky"}]', "two have the same name"),
        ("[]", "it is empty"),
    ):
        (tmp_path / "classes.json").write_text(wrong)
        with pytest.raises(DatasetError, match=rf'classes.json names no classes \(.*{why}.*\). Write \{{"name": \[r,'):
            opened(tmp_path)


def test_zero_may_stand_for_nothing(tmp_path: Path) -> None:
    splits = opened(write_set(tmp_path), reduce_zero_label=True)
    assert splits.train.class_names == ("class_0", "class_1")
    assert (shown_labels(splits.validation, 0) == np.array([255, 0, 1])[labels_of(3)]).all()
    assert splits.train.class_facts["values"] == (1, 2)
    assert splits.train.class_facts["ignored"] == (255, 0)


@pytest.mark.parametrize(("binary", "expected"), [("foreground", (0, 1)), ("ignore", (0, 255))])
def test_of_0_and_255_it_is_asked_what_is_meant(binary: str, expected: tuple[int, int], tmp_path: Path) -> None:
    write_set(tmp_path)
    for number, name in enumerate("abcde"):
        split = "train" if name in "abc" else "val"
        save_mask(tmp_path / f"masks/{split}/{name}.png", labels_of(number, 2) * np.uint8(255))
    with pytest.raises(DatasetError, match=r"0 and 255 alone, .*Set --data.binary to foreground if 255 is the second"):
        opened(tmp_path)
    if binary == "ignore":
        with pytest.raises(DatasetError, match=r"The masks have 1 class \('class_0'\): every answer would be right"):
            opened(tmp_path, binary=binary)
        return
    splits = opened(tmp_path, binary=binary)
    assert splits.train.class_names == ("background", "foreground")
    assert (shown_labels(splits.validation, 0) == np.array(expected)[labels_of(3, 2)]).all()


def test_masks_of_turned_pictures_are_upright_or_turned_with_them(tmp_path: Path) -> None:
    write_set(tmp_path)
    for name in "de":
        save_picture(tmp_path / f"images/val/{name}.jpg", "abcde".index(name), orientation=6)
    stored = np.rot90(labels_of(4))
    save_mask(tmp_path / "masks/val/e.png", stored)
    splits = opened(tmp_path)
    assert (shown_labels(splits.validation, 0) == labels_of(3)).all()
    assert (shown_labels(splits.validation, 1) == labels_of(4)).all()
    first = splits.validation[0][0].mean(0)
    assert first.shape == (32, 38)
    assert first[-4:].mean() > first[:4, 12:].mean()  # the picture is upright too: its stripes lie as the mask's


def plant(root: Path, fault: str) -> tuple[str, str, dict[str, Any]]:
    """A fault in a set: its kind, words of what is said, and keys under which it is found."""
    mask = root / "masks/train/b.png"
    keys: dict[str, Any] = {}
    if fault == "no-mask":
        mask.unlink()
        return fault, "images/train/b.jpg", keys
    if fault == "no-picture":
        (root / "images/train/b.jpg").unlink()
        return fault, "masks/train/b.png", keys
    if fault == "bad-mask":
        mask.write_bytes(mask.read_bytes()[:60])
        return fault, "b.png", keys
    if fault == "mask-size":
        save_mask(mask, labels_of(1)[:30])
        return fault, "masks/train/b.png: 48x30, its picture 48x40", keys
    if fault == "outside":
        (root / "classes.txt").write_text("sky\ncar\ntree\n", encoding="utf-8")
        save_mask(mask, np.where(labels_of(1) == 2, 7, labels_of(1)).astype(np.uint8))
        return fault, "masks/train/b.png: 7 (576 pixels)", keys
    if fault == "absent-class":
        (root / "classes.txt").write_text("sky\ncar\ntree\nboat\n", encoding="utf-8")
        return fault, "boat", keys
    if fault == "colours":
        save_mask(mask, labels_of(1), "RGB")
        return "bad-mask", "the mask is in colours, and nothing says which class has which", keys
    if fault == "unlisted-colour":
        colours = dict(zip(("sky", "car", "tree"), COLOURS, strict=True))
        (root / "palette.json").write_text(json.dumps(colours))
        save_mask(mask, labels_of(1), "RGB", palette=((0, 0, 0), (200, 0, 0), (10, 190, 0)))
        return fault, "b.png: 576 pixels of [10, 190, 0], nearest [0, 200, 0]", keys
    if fault == "mask-ambiguous":
        save_picture(root / "images/train/b.jpg", 1, orientation=3)
        return fault, "b.png: EXIF orientation 3", keys
    if fault == "leak":
        for kind in ("images/{}/{}.jpg", "masks/{}/{}.png"):
            shutil.copy(root / kind.format("train", "a"), root / kind.format("val", "d"))
        return fault, "images/train/a.jpg = images/val/d.jpg", keys
    assert fault == "mask-turned"
    save_picture(root / "images/train/b.jpg", 1, orientation=6)
    save_mask(mask, np.rot90(labels_of(1)))
    return fault, "b.png: EXIF orientation 6", keys


FAULTS = (
    *("no-mask", "no-picture", "bad-mask", "mask-size", "outside", "absent-class", "colours", "unlisted-colour"),
    *("mask-ambiguous", "mask-turned", "leak"),
)
SELF_EXPLAINED = ("bad-mask", "colours", "mask-turned", "leak")
HARMLESS = ("mask-ambiguous", "mask-turned", "leak")


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_once_and_before_the_first_step(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path)
    kind, words, keys = plant(tmp_path, fault)
    report = tmp_path / "report.json"
    code = main(["check-data", str(tmp_path), "--workers", "0", "--json", str(report)])
    findings = json.loads(report.read_text())["findings"]
    (found,) = [each for each in findings if each["kind"] == kind]
    assert any(words in example for example in found["examples"])
    assert found["number"] == 1
    assert found["fix"] or fault in SELF_EXPLAINED
    serious = [each["kind"] for each in findings if each["severity"] == "error"]
    if fault in HARMLESS:
        assert code == 0
        assert serious == []
        opened(tmp_path, **keys)
        return
    assert code == 3
    assert serious == [kind]
    with pytest.raises(DatasetError) as refusal:
        opened(tmp_path, **keys)
    assert words in str(refusal.value)
    assert "cannot be trained on" in str(refusal.value)


def test_a_set_without_faults_is_ready_and_its_values_are_shown_both_ways(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-data", str(write_set(tmp_path)), "--workers", "0"]) == 0
    out = capsys.readouterr().out
    assert "Ready to train on." in out
    assert "with --data.reduce_zero_label false: 3 classes, 0 to 2" in out
    assert "with --data.reduce_zero_label true: 2 classes, 1 to 2" in out
    assert "value 0: " in out
    assert "Errors" not in out
    assert "Warnings" not in out


def test_ade20k_without_the_reduction_is_found(tmp_path: Path) -> None:
    write_set(tmp_path, "ADE20K")
    rows = ("Idx\tRatio\tTrain\tVal\tName", "1\t0\t0\t0\tsky", "2\t0\t0\t0\tcar, auto")
    (tmp_path / "objectInfo150.txt").write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"values that are no class: the 2 classes .*--data.reduce_zero_label true"):
        opened(tmp_path)
    assert opened(tmp_path, reduce_zero_label=True).train.class_names == ("sky", "car, auto")
    assert main(["check-data", str(tmp_path), "--workers", "0"]) == 0


def test_what_is_allowed_is_left_out_or_noted(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "classes.txt").write_text("sky\ncar\ntree\nboat\n", encoding="utf-8")
    (tmp_path / "masks/train/b.png").unlink()
    splits = opened(tmp_path, allow_absent=True, allow_unpaired=True)
    assert len(splits.train) == 2
    assert any("Classes without a pixel in train: 1 (boat)" in remark for remark in splits.train.remarks)
    assert any("Pictures without a mask: 1 (images/train/b.jpg)" in remark for remark in splits.train.remarks)


def test_a_part_is_a_square_of_the_pictures_scale_with_its_labels(tmp_path: Path) -> None:
    write_set(tmp_path)
    images = opened(tmp_path, augment=SegmentAugment(distortion=0.0)).train
    shapes, ignored = set(), 0
    for epoch in range(12):
        sample = images.draw(epoch, 1)
        again = images.draw(epoch, 1)
        assert torch.equal(sample.image, again.image)
        assert torch.equal(sample.target, again.target)
        shapes.add((tuple(sample.image.shape), tuple(sample.target.shape)))
        padding = sample.target == 255
        ignored += int(padding.sum())
        mean = torch.tensor([124, 116, 104], dtype=torch.uint8)[:, None, None]
        assert (sample.image == mean).all(0)[padding].all()
        brightest = sample.image.argmax(0)
        for label, channel in ((1, 0), (2, 1)):
            inside = sample.target == label
            if inside.sum() > 60:
                assert (brightest[inside] == channel).float().mean() > 0.8
    assert shapes == {((3, 32, 32), (32, 32))}
    assert ignored


def test_no_class_has_more_of_a_part_than_is_allowed_where_there_is_a_choice(tmp_path: Path) -> None:
    write_set(tmp_path)
    shares = []
    for largest in (0.75, 1.0):
        augment = SegmentAugment(scale=(4.0, 4.0), largest_share=largest)
        images = opened(tmp_path, augment=augment).train
        found = [images.draw(epoch, 1).target for epoch in range(30)]
        shares.append([float((each[..., None] == torch.arange(3)).float().mean((0, 1)).max()) for each in found])
    assert max(shares[1]) > 0.9
    assert sum(share > 0.75 for share in shares[0]) < sum(share > 0.75 for share in shares[1]) / 2


def test_each_step_may_have_a_side_of_its_own(tmp_path: Path) -> None:
    images = opened(write_set(tmp_path), train_sizes=(32, 64, 96)).train
    sides = {images.draw(0, 1, step).image.shape[1:] for step in range(20)}
    assert sides == {(32, 32), (64, 64), (96, 96)}


def test_a_mask_that_changed_since_is_told_with_its_file(tmp_path: Path) -> None:
    images = opened(write_set(tmp_path)).train
    save_mask(tmp_path / "masks/train/b.png", np.full(SIZE, 9, np.uint8))
    assert "b.png: 1,920 pixels have values that are no class (9)" in images.draw(0, 1).fault
    save_mask(tmp_path / "masks/train/b.png", labels_of(1)[:30])
    assert "b.png: the mask is 48x30, but its picture" in images.draw(0, 1).fault


def test_masks_are_read_as_the_model_was_trained_with_them(tmp_path: Path) -> None:
    write_set(tmp_path)
    splits = opened(tmp_path, reduce_zero_label=True)
    recipe = SegmentRecipe(
        task="segment",
        model="fastvit_debug",
        head_options={"pyramid_channels": 8, "channels": 8},
        data=SegmentData(root=str(tmp_path), image_size=32),
    )
    model: Any = TASK.start(recipe, splits)
    samples: Any = TASK.labelled(str(tmp_path), model.card)
    assert samples.remarks == [f"Of {tmp_path} the split 'val' is evaluated on: 2 pictures."]
    assert (shown_labels(samples, 0) == np.array([255, 0, 1])[labels_of(3)]).all()
    with pytest.raises(UsageError, match=r"image_column and label_column are for tables"):
        TASK.labelled(str(tmp_path), model.card, label_column="mask")
    (tmp_path / "classes.txt").write_text("sky\ncar\ntree\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"classes.txt names other classes \('sky', 'car', 'tree'\) than the model"):
        TASK.labelled(str(tmp_path), dataclasses.replace(model.card, class_names=("dog", "cat")))


def in_columns(root: Path, mask_name: str = "annotation") -> Any:
    """A data set of two columns, whose pictures and masks are bytes, with the splits train and validation."""
    from datasets import Dataset, DatasetDict, Features, Image

    write_set(root)
    splits = {}
    for split, names in (("train", "abc"), ("val", "de")):
        cells: dict[str, list[Any]] = {"image": [], mask_name: []}
        for name in names:
            for column, path in (("image", f"images/{split}/{name}.jpg"), (mask_name, f"masks/{split}/{name}.png")):
                cells[column].append({"bytes": (root / path).read_bytes(), "path": None})
        features = Features({"image": Image(decode=False), mask_name: Image(decode=False)})
        splits["validation" if split == "val" else split] = Dataset.from_dict(cells, features=features)
    return DatasetDict(splits)


def test_columns_of_the_datasets_library_are_pictures_and_masks(tmp_path: Path) -> None:
    in_columns(tmp_path / "files").save_to_disk(str(tmp_path / "saved"))
    for source in ("huggingface", "folder"):  # found by looking, too
        splits = opened(tmp_path / "saved", source=source, val="validation")
        assert (len(splits.train), len(splits.validation)) == (3, 2)
        assert (shown_labels(splits.validation, 0) == labels_of(3)).all()
        assert splits.train.draw(1, 2).image.shape == (3, 32, 32)
        assert splits.validation.paths[1] == f"{tmp_path / 'saved'}/validation[1]"
    held_out = opened(tmp_path / "saved", source="huggingface", val_share=0.3, val="validation")
    assert (len(held_out.train), len(held_out.validation)) == (2, 1)
    assert "the split 'validation' is not used. Leave val_share out" in held_out.train.remarks[0]
    card = ModelCard(
        architecture="fastvit_debug",
        task="segment",
        options={"num_classes": 3},
        preprocessing=TASK.prepared(Preprocessing(), (32, 32)),
    )
    samples: Any = TASK.labelled(str(tmp_path / "saved"), card, label_column="annotation")
    assert samples.remarks == [f"Of {tmp_path / 'saved'} the split 'validation' is evaluated on: 2 pictures."]
    assert (shown_labels(samples, 1) == labels_of(4)).all()


def test_columns_in_parquet_may_have_any_name(tmp_path: Path) -> None:
    in_columns(tmp_path / "files", "painted")["train"].to_parquet(str(tmp_path / "all.parquet"))
    splits = opened(tmp_path / "all.parquet", val_share=0.3)
    assert (len(splits.train), len(splits.validation)) == (2, 1)
    with pytest.raises(DatasetError, match=r"The split 'val' of .* could not be loaded: "):
        opened(tmp_path / "all.parquet")  # it has one split, which is not to be judged on too
    (tmp_path / "damaged.parquet").write_bytes(b"no columns")
    with pytest.raises(DatasetError, match=r"damaged.parquet' could not be loaded: "):
        opened(tmp_path / "damaged.parquet", val_share=0.3)
    assert set(np.unique(shown_labels(splits.validation, 0))) == {0, 1, 2}
    with pytest.raises(DatasetError, match=r"has no column 'paint'. Nearest: 'painted'. Name it: --data.source"):
        opened(tmp_path / "all.parquet", source="huggingface", mask_column="paint", val_share=0.3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"could not be loaded: .*loading script, .* name a copy of it in Parquet"):
        opened(tmp_path / "empty", source="huggingface")
