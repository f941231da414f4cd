"""The folders of suites: every class gets its number, and every fault its name, before an image is decoded."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from suite_folders import class_tree, corrupted, one_picture, subset, validation

from hybridvit.errors import DatasetError, ImageDecodeError, UsageError
from hybridvit.evaluate.corruptions.names import COMMON
from hybridvit.evaluate.suites.labels import real_labels, subset_synsets, synsets
from hybridvit.evaluate.suites.layout import Choice, open_suite
from hybridvit.evaluate.suites.suites import SUITES, Suite, named_suites


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    return one_picture(tmp_path_factory.mktemp("picture"))


@pytest.fixture(scope="module")
def clean(tmp_path_factory, picture):
    return validation(tmp_path_factory.mktemp("clean") / "val", picture)


def opened(name, folder, **choice):
    said = []
    return open_suite(SUITES[name], folder, (), Choice(**choice), say=said.append), said


def test_wordnet_folders_get_the_index_of_their_class(clean):
    (part,), said = opened("imagenet", clean)
    assert [name.split("/")[0] for name in part.identities] == list(synsets())
    assert part.right[:, 0].tolist() == list(range(1000))
    assert said == ["imagenet: 1,000 images, but 50,000 were published."]


@pytest.mark.parametrize("width", [1, 4], ids=["7", "0007"])
def test_numbers_of_v2_are_indices_and_not_places_in_the_alphabet(tmp_path, picture, width):
    names = [f"{number:0{width}d}" for number in range(1000)]
    (part,), said = opened("v2-matched", class_tree(tmp_path / "v2", picture, names))
    assert all(int(name.split("/")[0]) == index for name, index in zip(part.identities, part.right[:, 0], strict=True))
    assert any("in 1,000 classes the number of images is not 10 " in each for each in said)


def test_a_and_r_are_numbered_among_their_own_200(tmp_path, picture):
    for which in ("a", "r"):
        (part,), _ = opened(which, subset(tmp_path / which, picture, which))
        names = subset_synsets(which)
        assert [names[index] for index in part.right[:, 0]] == [name.split("/")[0] for name in part.identities]


@pytest.mark.parametrize("flat", [False, True])
def test_real_counts_files_from_one_and_leaves_empty_entries_out(tmp_path, clean, picture, flat):
    real = real_labels()
    folder = clean
    if flat:
        folder = tmp_path / "val"
        folder.mkdir()
        for number in (1, 2, 50_000, 1 + next(place for place, labels in enumerate(real) if not labels)):
            shutil.copy(picture, folder / f"ILSVRC2012_val_{number:08d}.JPEG")
    (part,), said = opened("real", folder)
    for name, right in zip(part.identities, part.right, strict=True):
        number = int(name.split("_")[-1].split(".")[0])
        assert tuple(right[right >= 0]) == real[number - 1]
    assert any("have no right answer" in each for each in said)


def test_corruptions_are_found_with_and_without_the_level_of_the_archives(tmp_path, clean):
    flat = corrupted(tmp_path / "flat", clean, ["fog", "snow"])
    grouped = corrupted(tmp_path / "grouped", clean, ["fog", "snow"], group="weather")
    parts, _ = opened("c", flat, partial=True, images_per_class=1)
    others, _ = opened("c", grouped, only=("fog", "snow"))
    assert [part.title for part in parts] == [f"c/{name}/{level}" for name in ("snow", "fog") for level in range(1, 6)]
    assert [part.title for part in parts] == [part.title for part in others]
    assert {part.identities for part in parts} == {others[0].identities}


def test_the_size_of_a_part_is_that_of_an_image_that_can_be_decoded(tmp_path, picture):
    folder = subset(tmp_path / "a", picture, "a")
    (whole,), _ = opened("a", folder)
    assert whole.side_px() == (32, 32)
    first, *others = map(Path, whole.listing.paths)
    first.unlink()
    first.write_bytes(picture.read_bytes()[:200])
    with pytest.raises(ImageDecodeError, match=re.escape(str(first))):
        whole.side_px()
    (skipping,), _ = opened("a", folder, on_bad_image="skip")
    assert skipping.side_px() == (32, 32)
    for other in others:
        other.unlink()
        os.link(first, other)
    with pytest.raises(DatasetError, match="No image of a can be decoded"):
        skipping.side_px()


def test_sketch_is_numbered_by_wordnet_ids(tmp_path, picture):
    files = ["sketch_0.JPEG", "sketch_1.JPEG"]
    (part,), said = opened("sketch", class_tree(tmp_path / "sketch", picture, synsets(), files=files))
    assert [name.split("/")[0] for name in part.identities] == [name for name in synsets() for _ in files]
    assert part.right[:, 0].tolist() == [index for index in range(1000) for _ in files]
    assert (part.subset, said) == (None, ["sketch: 2,000 images, but 50,889 were published."])


def test_c_bar_has_ten_corruptions_under_their_official_names(tmp_path, clean):
    names = [
        *("blue_noise_sample", "brownish_noise", "caustic_refraction", "checkerboard_cutout", "cocentric_sine_waves"),
        *("inverse_sparkles", "perlin_noise", "plasma_noise", "single_frequency_greyscale", "sparkles"),
    ]
    folder = corrupted(tmp_path / "imagenet-c-bar", clean, names)
    parts, _ = opened("c-bar", folder, only=("plasma_noise",))
    assert [part.title for part in parts] == [f"c-bar/plasma_noise/{severity}" for severity in range(1, 6)]
    assert all(part.right[:, 0].tolist() == list(range(1000)) for part in parts)
    shutil.rmtree(folder / "sparkles")
    assert "lacks 1 of the 10 corruptions of 'c-bar': sparkles" in fault("c-bar", folder)


def test_c_bar_as_its_generator_writes_it_has_strengths_for_severities(tmp_path, clean):
    folder = tmp_path / "ImageNet-C-Bar"
    for strength in ("2.35", "3.20", "4.90", "6.60", "9.15"):
        corrupted(folder, clean, ["caustic_refraction"], severities=[strength])
    for strength in ("1.00", "2.00", "4.00", "9.00", "10.00"):  # the last is the first of the alphabet but one
        corrupted(folder, clean, ["inverse_sparkles"], severities=[strength])
    parts, _ = opened("c-bar", folder, partial=True)
    assert [(part.title, Path(part.listing.root).name) for part in parts[:5]] == [
        (f"c-bar/caustic_refraction/{severity}", name)
        for severity, name in enumerate(("2.35", "3.20", "4.90", "6.60", "9.15"), 1)
    ]
    assert [Path(part.listing.root).name for part in parts[5:]] == ["1.00", "2.00", "4.00", "9.00", "10.00"]
    (folder / "caustic_refraction" / "3.20").rename(folder / "caustic_refraction" / "3.25")
    assert "no severity: '3.25'. Those are named 1 to 5 or 2.35 to 9.15" in fault("c-bar", folder, partial=True)


def test_3dcc_takes_its_corruptions_as_they_are_found(tmp_path, clean):
    folder = corrupted(tmp_path / "imagenet-3dcc", clean, ["fog_3d", "xy_motion_blur", "bit_error"])
    parts, said = opened("3dcc", folder)
    names = ("bit_error", "fog_3d", "xy_motion_blur")
    assert [part.title for part in parts] == [f"3dcc/{name}/{level}" for name in names for level in range(1, 6)]
    assert all(part.right[:, 0].tolist() == list(range(1000)) for part in parts)
    assert said == ["3dcc: 15 parts of 1,000 images."]
    (folder / "bit_error" / "2").unlink()
    assert "lacks the severities 2" in fault("3dcc", folder)


@pytest.mark.nightly
def test_all_of_c_with_its_extra_corruptions(tmp_path, clean):
    parts, _ = opened("c", corrupted(tmp_path / "c", clean, [*COMMON, "spatter"]))
    assert len(parts) == 16 * 5


def test_a_share_is_the_same_images_everywhere_and_the_same_each_time(tmp_path, clean):
    parts, _ = opened("c", corrupted(tmp_path / "c", clean, ["fog"]), only=("fog",), share=0.1)
    assert {len(part.identities) for part in parts} == {100}
    assert len({part.identities for part in parts}) == 1
    assert parts[0].listing == opened("c", tmp_path / "c", only=("fog",), share=0.1)[0][0].listing


def fault(name, folder, **choice):
    with pytest.raises(DatasetError) as caught:
        opened(name, folder, **choice)
    return str(caught.value)


def test_faults_of_class_folders_are_named(tmp_path, picture, clean):
    a = subset(tmp_path / "imagenet-a", picture, "a")
    assert "its 200 classes are those of ImageNet-A: 114 are not in 'r'" in fault("r", a)
    assert f"Did you mean {a}?" in fault("a", tmp_path)
    assert f"Did you mean {a}?" in fault("a", a / "n01498041")
    shutil.rmtree(a / "n01498041")
    assert "lacks 1 of the 200 classes of 'a': 'n01498041'" in fault("a", a)
    (a / "n01498041").mkdir()
    assert "has 1 class without images" in fault("a", a)
    assert "without images: 'n01498041'" in fault("a", a)
    (a / "kitten").mkdir()
    assert "1 folder named like no class of 'a': 'kitten'" in fault("a", a)
    assert "is no folder" in fault("a", tmp_path / "nowhere")


def test_faults_of_numbers_are_named(tmp_path, picture):
    mixed = class_tree(tmp_path / "mixed", picture, ["0", "1", "n01440764"])
    assert "mixes 2 folders named by a number (0, 1) with 1 that are not (n01440764)" in fault("v2-top", mixed)
    twice = class_tree(tmp_path / "twice", picture, [*map(str, range(1000)), "0007"])
    assert "1 class under two names: 0007 and 7" in fault("v2-top", twice)
    few = class_tree(tmp_path / "few", picture, ["0", "1000"])
    assert "1 folder named like no class of 'v2-top': '1000'" in fault("v2-top", few)


def test_faults_of_corruptions_are_named(tmp_path, clean):
    c = corrupted(tmp_path / "c", clean, ["fog", "snow"])
    assert "lacks 13 of the 15 corruptions of 'c': gaussian_noise, shot_noise, impulse_noise" in fault("c", c)
    assert "--only names 'frost'" in fault("c", c, only=("frost",))
    assert f"Did you mean {c}?" in fault("c", tmp_path)
    (c / "fog" / "3").unlink()
    assert "lacks the severities 3" in fault("c", c, only=("fog",))
    (c / "fog" / "6").symlink_to(clean, target_is_directory=True)
    assert "1 folder named like no severity: '6'" in fault("c", c, only=("fog",))
    (c / "fog" / "6").unlink()
    (c / "rain").mkdir()
    assert "1 folder named like no corruption of 'c': 'rain'" in fault("c", c, partial=True)


def test_a_version_that_is_missing_is_named(tmp_path, clean):
    c = corrupted(tmp_path / "c", clean, ["fog"])
    (c / "fog" / "4").unlink()
    shutil.copytree(clean, c / "fog" / "4", copy_function=shutil.copy)
    extra = c / "fog" / "4" / "n01440764"
    next(extra.iterdir()).rename(extra / "other.jpeg")
    assert "other files in c/fog/4 than in c/fog/1: 2 are in one alone" in fault("c", c, only=("fog",))


def test_real_refuses_other_names(tmp_path, picture):
    folder = class_tree(tmp_path / "val", picture, ["n01440764"], files=["a.jpeg", "ILSVRC2012_val_00050001.JPEG"])
    assert "2 of 2 images" in fault("real", folder)


def test_suites_are_found_by_name_and_below_a_root(tmp_path):
    (tmp_path / "imagenet-a").mkdir()
    (tmp_path / "val").mkdir()
    assert [suite.name for suite, _ in named_suites((), tmp_path)] == ["imagenet", "a", "real"]
    (own, place), (real, beside) = named_suites(["imagenet=x", "real"], None)
    assert (own.name, str(place), real.name, beside) == ("imagenet", "x", "real", place)
    assert named_suites(["mine=there"], None)[0][0] == Suite(name="mine", title="mine", layout="classes")
    for words, message in (
        (["a"], "nothing says where it lies"),
        (["immagenet"], "Nearest: 'imagenet'"),
        (["a=1", "a=2"], "names 'a' twice"),
        (["a="], "a suite is NAME=FOLDER"),
    ):
        with pytest.raises(UsageError, match=message):
            named_suites(words, None)


def test_right_answers_are_padded_with_what_no_answer_equals(clean):
    (part,), _ = opened("real", clean)
    assert part.right.dtype == np.int64
    assert part.right.shape[1] > 1
    assert part.right.min() == -1
