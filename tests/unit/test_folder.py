"""A folder of images becomes the same data set everywhere, or an error that names the path."""

import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hybridvit.card import Preprocessing
from hybridvit.data.augment_config import AugmentConfig
from hybridvit.data.digits import write_digits
from hybridvit.data.folder import ImageFolder
from hybridvit.data.generated import GeneratedImages
from hybridvit.data.listing import Listing, scan_folder
from hybridvit.data.scan import find_images
from hybridvit.data.transforms import EvalTransform, TrainTransform
from hybridvit.errors import DatasetError, ImageDecodeError, UsageError

SMALL = Preprocessing(image_size=(16, 16), crop_fraction=1.0)


def paint(path: Path, colour: tuple[int, int, int] = (9, 99, 200), side: int = 12) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), colour).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("dog/b.png", "dog/a.PNG", "cat/deep/er/c.jpg", "cat/a.bmp", "Zebra/z.png"):
        paint(tmp_path / "train" / name)
    (tmp_path / "train/cat/notes.txt").write_text("no image")
    (tmp_path / "train/.hidden").mkdir()
    (tmp_path / "train/dog/.thumb.png").write_bytes(b"")
    return tmp_path / "train"


def open_folder(root: Path | Listing, **options: object) -> ImageFolder:
    return ImageFolder(root, transform=EvalTransform(SMALL), **options)


def test_classes_are_the_folders_sorted_by_bytes(root):
    images = open_folder(root)
    assert images.class_names == ("Zebra", "cat", "dog")
    assert [os.path.relpath(path, root) for path in images.paths] == [
        "Zebra/z.png", "cat/a.bmp", "cat/deep/er/c.jpg", "dog/a.PNG", "dog/b.png",
    ]  # fmt: skip
    assert images.labels == (0, 1, 1, 2, 2)
    image, label = images[4]
    assert image.shape == (3, 16, 16)
    assert image.dtype == torch.float32
    assert label == 2


def test_a_given_class_map_is_kept(root):
    images = open_folder(root, class_names=("dog", "bee", "cat", "Zebra"))
    assert images.class_names == ("dog", "bee", "cat", "Zebra")
    assert images.labels == (0, 0, 2, 2, 3)
    assert [os.path.basename(path) for path in images.paths] == ["a.PNG", "b.png", "a.bmp", "c.jpg", "z.png"]


def test_the_fingerprint_changes_with_names_and_sizes_only(root, tmp_path):
    first = scan_folder(root).fingerprint
    os.rename(root, tmp_path / "moved")
    assert scan_folder(tmp_path / "moved").fingerprint == first
    os.rename(tmp_path / "moved/dog/b.png", tmp_path / "moved/dog/c.png")
    second = scan_folder(tmp_path / "moved").fingerprint
    paint(tmp_path / "moved/dog/c.png", side=50)
    assert len({first, second, scan_folder(tmp_path / "moved").fingerprint}) == 3


def test_a_class_unknown_to_training_is_an_error(root):
    with pytest.raises(DatasetError, match=r"1 class that the 2 known ones do not include: 'Zebra'.*remove or"):
        scan_folder(root, ("cat", "dog"))


def test_an_empty_class_is_an_error(root):
    (root / "bee").mkdir()
    with pytest.raises(DatasetError, match=r"class 'bee' has no images in .*train: no file there ends in .*\.jpg.*Add"):
        scan_folder(root)
    with pytest.raises(DatasetError, match=r"class 'bee' has no images"):
        scan_folder(root, ("Zebra", "bee", "cat", "dog"))


def test_missing_and_empty_folders_are_errors(tmp_path):
    with pytest.raises(DatasetError, match=r"Cannot read the folder .*gone: No such file.*Check the path"):
        scan_folder(tmp_path / "gone")
    with pytest.raises(DatasetError, match=r"is empty: it has neither class folders nor images.*one folder per class"):
        scan_folder(tmp_path)


def test_images_without_class_folders_are_an_error(tmp_path):
    paint(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=r"has 1 image but no class folders.*one folder per class"):
        scan_folder(tmp_path)


def test_a_folder_of_splits_is_not_taken_for_classes(root):
    with pytest.raises(DatasetError, match=r"holds splits \('train'\), not classes.*such as .*train"):
        scan_folder(root.parent)


def test_links_are_followed_but_never_in_a_circle(root, tmp_path):
    paint(tmp_path / "elsewhere/linked.png")
    (root / "cat/more").symlink_to(tmp_path / "elsewhere")
    (root / "cat/deep/loop").symlink_to(root / "cat")
    (root / "cat/itself").symlink_to(root / "cat/itself")
    names = [os.path.basename(path) for path in scan_folder(root).paths]
    assert names == ["z.png", "a.bmp", "c.jpg", "linked.png", "a.PNG", "b.png"]


def test_a_link_to_nothing_is_named(root, tmp_path):
    (root / "cat/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(DatasetError, match=r"gone\.jpg \(a link to nothing\).*Restore the file"):
        scan_folder(root)


def test_a_folder_without_permission_is_named(root, monkeypatch):
    scandir = os.scandir

    def refuse(path):  # a mode of 000 would not stop root, as which tests may run
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DatasetError, match=r"Cannot read the folder .*deep: Permission denied"):
        scan_folder(root)


def test_a_bad_image_is_an_error_by_default(root):
    (root / "dog/b.png").write_text("not a picture")
    images = open_folder(root)
    with pytest.raises(ImageDecodeError, match=r"b\.png.*text, beginning 'not a picture'"):
        images[4]
    assert images.draw(0, 4).image is None


def test_evaluation_never_shows_another_image_in_place_of_a_bad_one(root):
    (root / "dog/b.png").write_bytes(b"")
    sample = open_folder(root, on_bad_image="skip").draw(0, 4)
    assert sample.image is None
    assert sample.number == 4
    assert [bad.path for bad in sample.bad] == [str(root / "dog/b.png")]


def test_training_replaces_a_bad_image_by_seed_epoch_and_sample(root):
    (root / "dog/b.png").write_bytes(b"")

    def numbers(seed: int) -> list[int]:
        images = open_folder(root, on_bad_image="skip", training=True, seed=seed)
        samples = [images.draw(epoch, 4) for epoch in range(12)]
        assert all(sample.target == images.labels[sample.number] and sample.image is not None for sample in samples)
        return [sample.number for sample in samples]

    assert numbers(0) == numbers(0) != numbers(1)
    assert set(numbers(0)) <= {0, 1, 2, 3}
    assert len(set(numbers(0))) > 1


def test_augmentation_depends_on_seed_epoch_and_sample_alone(root):
    augment = AugmentConfig(scale=(0.3, 1.0))
    noisy = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for number in range(2):
        Image.fromarray(noisy).save(root / f"cat/noise{number}.png")

    def draw(seed: int, epoch: int, sample: int) -> torch.Tensor:
        images = ImageFolder(root, transform=TrainTransform(augment, SMALL), training=True, seed=seed)
        torch.rand(3)  # the caller's own use of the generators must not matter
        np.random.rand()
        image = images.draw(epoch, sample).image
        assert image is not None
        return image

    one, two = (scan_folder(root).paths.index(str(root / f"cat/noise{number}.png")) for number in range(2))
    torch.testing.assert_close(draw(0, 3, one), draw(0, 3, one), rtol=0, atol=0)
    others = [draw(1, 3, one), draw(0, 4, one), draw(0, 3, two)]
    assert not any(torch.equal(draw(0, 3, one), other) for other in others)


def test_drawing_leaves_the_callers_generators_alone(root):
    images = ImageFolder(root, transform=TrainTransform(AugmentConfig(), SMALL), training=True)
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(2), np.random.rand(2)
    torch.manual_seed(5)
    np.random.seed(5)
    images.draw(0, 0)
    assert torch.equal(torch.rand(2), expected[0])
    np.testing.assert_array_equal(np.random.rand(2), expected[1])


def test_find_images_takes_files_folders_and_patterns_once_each(root):
    def found(*patterns: str) -> list[str]:
        return [path.relative_to(root).as_posix() for path in find_images([f"{root}/{p}" for p in patterns])]

    assert found("dog/b.png", "dog") == ["dog/b.png", "dog/a.PNG"]
    assert found("cat") == ["cat/a.bmp", "cat/deep/er/c.jpg"]
    assert found("dog/*.png", "*/a.*") == ["dog/b.png", "cat/a.bmp", "dog/a.PNG"]
    assert found("**/*.jpg") == ["cat/deep/er/c.jpg"]
    assert found("d*") == ["dog/a.PNG", "dog/b.png"]
    assert found("cat/notes.txt") == ["cat/notes.txt"]  # named on purpose: the decoder says what it is


@pytest.mark.parametrize(
    ("pattern", "words"),
    [("none/*.png", "matches no image"), ("gone.jpg", "does not exist"), ("void", "has no file that ends in .*jpg")],
)
def test_find_images_names_what_matches_nothing(root, pattern, words):
    (root / "void").mkdir()
    with pytest.raises(DatasetError, match=f"{pattern[:4]}.*{words}.*Give image files"):
        find_images([root, f"{root}/{pattern}"])


def test_generated_images_are_fixed_by_their_seed_and_tell_classes_apart():
    images = GeneratedImages(length=40, image_size=(8, 6), num_classes=4)
    image, label = images[5]
    assert image.shape == (3, 8, 6)
    assert label == 1
    assert torch.equal(image, GeneratedImages(length=40, image_size=(8, 6), num_classes=4)[5][0])
    assert not torch.equal(image, GeneratedImages(length=40, image_size=(8, 6), num_classes=4, seed=1)[5][0])
    means = torch.stack([images[number][0].mean((1, 2)) for number in range(40)])  # 40 c
    centres = torch.stack([means[label::4].mean(0) for label in range(4)])  # 4 c
    assert torch.cdist(means, centres).argmin(1).tolist() == list(images.labels)
    with pytest.raises(UsageError, match=r"3 generated images cannot show 4 classes"):
        GeneratedImages(length=3, num_classes=4)


def test_digits_are_written_whole_once_and_as_they_ship(tmp_path, caplog):
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    folder = tmp_path / "digits"
    caplog.set_level(logging.WARNING)
    assert "Wrote 1,437 training and 360 test images" in write_digits(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
    test, train = scan_folder(folder / "test"), scan_folder(folder / "train")
    assert train.class_names == test.class_names == tuple("0123456789")
    assert (len(train.paths), len(test.paths)) == (1437, 360)
    assert [test.labels.count(label) for label in range(10)] == [36] * 10
    numbers = {Path(path).name for path in (*train.paths, *test.paths)}
    assert len(numbers) == 1797
    shipped = load_digits()
    for path, label in list(zip(test.paths, test.labels, strict=True))[::20]:
        with Image.open(path) as image:
            levels = np.asarray(image)
        number = int(Path(path).stem)
        np.testing.assert_array_equal(np.rint(levels * (16 / 255)), shipped.images[number])
        assert label == shipped.target[number]
    before = (folder / "test/0").stat().st_mtime_ns
    assert "already" in write_digits(folder)
    assert (folder / "test/0").stat().st_mtime_ns == before
    next((folder / "test/0").iterdir()).unlink()
    with pytest.raises(DatasetError, match=r"digits exists, but holds 1796 files that are not the 1,797 digits"):
        write_digits(folder)


def test_digits_without_scikit_learn_name_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UsageError, match=r'ships with scikit-learn.*pip install "hybridvit\[digits\]"'):
        write_digits(tmp_path / "digits")


def test_an_interrupted_writing_of_digits_leaves_nothing(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")

    def fail(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(ValueError, match=r"The disk is full.*Nothing was written"):
        write_digits(tmp_path / "digits")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def many(tmp_path: Path) -> Path:
    for number in range(8):
        paint(tmp_path / "many/cat" / f"{number}.png")
        paint(tmp_path / "many/dog" / "deep" / f"{number // 2}.png")
    return tmp_path / "many"


def test_a_share_of_every_class_is_held_out_by_path_alone(many: Path, tmp_path: Path) -> None:
    listing = scan_folder(many)
    rest, held_out = listing.split(0.25)
    assert sorted(rest.paths + held_out.paths) == sorted(listing.paths)
    assert not set(rest.paths) & set(held_out.paths)
    assert rest.class_names == held_out.class_names == ("cat", "dog")
    assert [held_out.labels.count(0), held_out.labels.count(1)] == [2, 1]
    assert len({part.fingerprint for part in (listing, rest, held_out, listing.split(0.5)[1])}) == 4
    names = [os.path.relpath(path, many) for path in held_out.paths]
    moved = many.rename(tmp_path / "moved")
    assert [os.path.relpath(path, moved) for path in scan_folder(moved).split(0.25)[1].paths] == names
    (moved / "cat/new.png").write_bytes((moved / "cat/0.png").read_bytes())
    assert sum(os.path.relpath(path, moved) in names for path in scan_folder(moved).split(0.25)[1].paths) >= 2
    images = open_folder(scan_folder(moved).split(0.25)[1])
    assert len(images) == 3
    assert images[0][1] == 0


def test_classes_with_one_image_are_trained_on_and_all_named(many: Path) -> None:
    before = scan_folder(many).split(0.25)[1].paths
    for name in ("ant", "emu"):
        paint(many / name / "0.png")
    said: list[str] = []
    rest, held_out = scan_folder(many).split(0.25, say=said.append)
    assert held_out.paths == before
    assert {rest.class_names[label] for label in rest.labels} == {"ant", "cat", "dog", "emu"}
    assert held_out.class_names == rest.class_names
    assert said == [
        f"2 classes have one image each ('ant', 'emu') in {many}: it is trained on, and none is held out, so the "
        "accuracy says nothing of it."
    ]


def test_a_set_of_single_images_cannot_be_split(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        paint(tmp_path / name / "0.png")
    with pytest.raises(DatasetError, match=r"No class in .* has more than one image, so none can be held out\. Add"):
        scan_folder(tmp_path).split(0.25)


def test_what_is_left_out_is_said_by_ending_and_reason(root: Path) -> None:
    for name in ("cat/a.xyz", "cat/b.XYZ", "dog/plain", "readme.md"):
        (root / name).write_bytes(b"")
    paint(root / "stray.png")
    said: list[str] = []
    scan_folder(root, say=said.append)
    assert said == [
        f"Left out of {root}: 5 files without the ending of an image (.xyz 2, .md 1, .txt 1, none 1); 1 picture "
        "outside of the class folders, without a label."
    ]
    said.clear()
    find_images([root / "cat", f"{root}/dog/*", root / "dog/b.png", root / "Zebra"], say=said.append)
    assert said == [
        f"Left out of {root}/cat: 3 files without the ending of an image (.xyz 2, .txt 1).",
        f"Left out of {root}/dog/*: 1 file without the ending of an image (none 1).",
    ]


def test_folders_and_files_of_the_system_are_no_data(root: Path) -> None:
    before = scan_folder(root)
    for name in ("__MACOSX/x.png", "@eaDir/x.png", "cat/@eaDir/a.bmp/SYNOPHOTO_THUMB_M.jpg", "$RECYCLE.BIN/x.png"):
        paint(root / name)
    for name in ("Thumbs.db", "cat/desktop.ini"):
        (root / name).write_bytes(b"")
    said: list[str] = []
    assert scan_folder(root, say=said.append) == before
    assert said == [f"Left out of {root}: 1 file without the ending of an image (.txt 1)."]
