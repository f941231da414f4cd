"""`hybridvit check-data` knows a robustness suite by its layout, and says what evaluation would refuse of it."""

import json
import os
import shutil

import pytest
from suite_folders import class_tree, corrupted, one_picture, subset, validation

from hybridvit.cli.main import main
from hybridvit.errors import DatasetError
from hybridvit.evaluate.corruptions.names import COMMON
from hybridvit.evaluate.suites.contents import contents_of_suite, recognised
from hybridvit.evaluate.suites.suites import SUITES


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    return one_picture(tmp_path_factory.mktemp("picture"))


@pytest.fixture(scope="module")
def clean(tmp_path_factory, picture):
    return validation(tmp_path_factory.mktemp("clean") / "val", picture)


def refused(capsys, *words):
    """What check-data says of what it refuses before it decodes."""
    assert main(["check-data", *map(str, words)]) == DatasetError.exit_code
    said = capsys.readouterr()
    assert said.out == ""  # no report, so nothing was decoded
    return said.err


OFFICIAL = [(name, folder) for name, suite in SUITES.items() for folder in suite.folders]


@pytest.mark.parametrize(("name", "folder"), OFFICIAL)
def test_a_suite_is_known_by_the_official_name_of_its_folder(tmp_path, name, folder):
    (tmp_path / folder).mkdir()
    assert recognised(tmp_path / folder) is (None if folder in ("val", "sketch") else SUITES[name])


def test_a_suite_is_known_by_its_layout_under_any_name(tmp_path, clean, picture):
    assert recognised(subset(tmp_path / "one", picture, "a")) is SUITES["a"]
    assert recognised(subset(tmp_path / "two", picture, "r")) is SUITES["r"]
    assert recognised(class_tree(tmp_path / "three", picture, map(str, range(1000)))) is SUITES["v2-matched"]
    assert recognised(corrupted(tmp_path / "four", clean, ["snow"], group="weather")) is SUITES["c"]
    assert recognised(corrupted(tmp_path / "five", clean, ["sparkles"])) is SUITES["c-bar"]
    assert recognised(corrupted(tmp_path / "six", clean, ["fog_3d"])) is SUITES["3dcc"]
    flat = tmp_path / "seven"
    flat.mkdir()
    os.link(picture, flat / "ILSVRC2012_val_00000001.JPEG")
    assert recognised(flat) is SUITES["real"]


def test_data_sets_to_train_on_are_no_suites(tmp_path, clean, picture):
    assert recognised(clean) is None
    assert recognised(class_tree(tmp_path / "digits", picture, map(str, range(10)))) is None
    assert recognised(class_tree(tmp_path / "weather", picture, ["fog", "snow"])) is None
    assert recognised(class_tree(tmp_path / "sketch", picture, ["cat", "dog"])) is None


def test_the_trap_of_v2_is_said(tmp_path, picture, capsys):
    names = [*map(str, range(1000)), "0007"]
    folder = class_tree(tmp_path / "imagenetv2-top-images-format-val", picture, names)
    assert "1 class under two names: 0007 and 7" in refused(capsys, folder)


def test_the_numbering_of_real_is_said(tmp_path, picture, capsys):
    folder = class_tree(tmp_path / "val", picture, ["n01440764"], files=["ILSVRC2012_val_00000000.JPEG", "a.jpeg"])
    said = refused(capsys, folder, "--suite", "real")
    assert "ILSVRC2012_val_00000001.JPEG to 00050000" in said
    assert "2 of 2 images" in said


def test_a_given_as_r_is_said(tmp_path, picture, capsys):
    folder = subset(tmp_path / "imagenet-r", picture, "a")
    said = refused(capsys, folder)
    assert "114 are not in 'r'" in said
    assert "It is the suite 'a'" in said


def test_another_level_of_the_folder_is_proposed(tmp_path, clean, picture, capsys):
    a = subset(tmp_path / "imagenet-a" / "imagenet-a", picture, "a")
    assert f"Did you mean {a}?" in refused(capsys, a.parent)
    c = corrupted(tmp_path / "c", clean, ["fog", "snow"])
    assert f"Did you mean {c}?" in refused(capsys, c / "fog")
    other = corrupted(tmp_path / "imagenet-3dcc" / "inside", clean, ["fog_3d"])
    assert f"Did you mean {other}?" in refused(capsys, other / "fog_3d")
    assert f"Did you mean {other}?" in refused(capsys, other.parent)
    assert "holds robustness suites ('imagenet-a', 'imagenet-3dcc')" in refused(capsys, tmp_path)


def test_what_is_missing_is_said(tmp_path, clean, picture, capsys):
    c = corrupted(tmp_path / "imagenet-c", clean, [name for name in COMMON if name != "frost"])
    assert "lacks 1 of the 15 corruptions of 'c': frost" in refused(capsys, c)
    corrupted(c, clean, ["frost"])
    (c / COMMON[0] / "4").unlink()
    assert "lacks the severities 4" in refused(capsys, c)
    sketch = class_tree(tmp_path / "drawings", picture, ["n01440764"])
    assert "lacks 999 of the 1000 classes of 'sketch'" in refused(capsys, sketch, "--suite", "sketch")
    assert "is no folder" in refused(capsys, tmp_path / "nowhere", "--suite", "a")


def test_a_sound_suite_is_looked_at_part_by_part(tmp_path, picture, capsys):
    folder = subset(tmp_path / "imagenet-a", picture, "a")
    shutil.rmtree(folder / "n01498041")
    (folder / "n01498041").mkdir()
    (folder / "n01498041" / "broken.jpeg").write_bytes(picture.read_bytes()[:300])
    report = tmp_path / "report.json"
    assert main(["check-data", str(folder), "--workers", "0", "--json", str(report)]) == DatasetError.exit_code
    found = json.loads(report.read_text(encoding="utf-8"))
    assert (found["num_images"], found["num_bad"], found["to_train"]) == (200, 1, False)
    kinds = {each["kind"]: each for each in found["findings"]}
    assert kinds["unusual-suite"]["examples"][-1] == "a: 200 images, but 7,500 were published."
    assert kinds["suite"]["examples"] == ["a"]
    assert kinds["no-good-image"]["examples"] == ["n01498041"]
    assert "single-image-class" not in kinds


def test_parts_of_corruptions_are_splits_and_may_be_missing(tmp_path, clean):
    folder = corrupted(tmp_path / "c", clean, ["fog"])
    contents = contents_of_suite(SUITES["c"], folder, partial=True)
    assert list(contents.splits) == [f"c/fog/{severity}" for severity in range(1, 6)]
    assert all(len(classes) == 1000 for classes in contents.splits.values())
    assert len(list(contents.rows)) == 5000


def test_images_of_several_right_answers_keep_them(clean):
    contents = contents_of_suite(SUITES["real"], clean)
    assert max(map(len, contents.sets)) > 1
    assert all(contents.sets)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suite", "sketsh"], "Nearest: 'sketch'"),
        (["--suite", "a", "--recipe", "digits"], "which has no recipe"),
        (["--partial"], "is laid out as none"),
    ],
)
def test_options_of_suites_that_do_nothing_are_refused(tmp_path, capsys, words, message):
    (tmp_path / "cat").mkdir()
    assert main(["check-data", str(tmp_path), *words]) == 2
    assert message in capsys.readouterr().err
