"""Corrupted data sets: the same pixels in any process, ImageNet-C's layout on a disk, and what models lose on them."""

import builtins
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segment_sets import write_set
from two_classes import dark_and_light

import hybridvit
from hybridvit.api import evaluate_corrupted
from hybridvit.cli import main
from hybridvit.data.decode import decode_image
from hybridvit.data.folder import ImageFolder
from hybridvit.data.loader import make_eval_loader
from hybridvit.data.preprocess import cut
from hybridvit.data.samples import Samples
from hybridvit.data.scenes import CLASSES, write_detection
from hybridvit.data.transforms import EvalTransform
from hybridvit.evaluate.corruptions import corrupt as corrupt_module
from hybridvit.evaluate.corruptions.corrupt import Corruption, corrupt
from hybridvit.evaluate.corruptions.names import ALL
from hybridvit.evaluate.corruptions.run import CorruptedScores
from hybridvit.evaluate.corruptions.stored import OFFICIAL
from hybridvit.quantity import Quantity
from hybridvit.task import find_task

REASON = "the extra 'robustness' is not installed, or the system lacks the libGL.so.1 that its OpenCV needs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two classes, and images of them."""
    pytest.importorskip("imagecorruptions", reason=REASON, exc_type=ImportError)
    root = tmp_path_factory.mktemp("corruptions")
    dark_and_light(root)
    return root


def tree(root: Path) -> dict[str, bytes]:
    """The content of all files, by their path inside."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", ["impulse_noise", "frost", "elastic_transform"])
def test_pixels_are_equal_with_and_without_workers_and_in_any_order(folder: Path, name: str) -> None:
    card = hybridvit.load(folder / "m.safetensors").card
    samples = ImageFolder(folder / "images", transform=EvalTransform(card.preprocessing))
    samples.change = Corruption(name, 3, root=str(folder / "images"))
    found = []
    for workers in (0, 2):
        loader = make_eval_loader(samples, batch_size=2, workers=workers)
        found.append(torch.cat([batch.inputs for batch in loader]))
        loader.close()
    shuffled = [3, 0, 5, 1, 4, 2]
    one_by_one = torch.stack([samples[index][0] for index in shuffled])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0][shuffled], one_by_one)


def test_corrupt_writes_imagenet_cs_layout_and_goes_on_after_an_interruption(folder: Path, tmp_path: Path) -> None:
    images, here, there = str(folder / "images"), tmp_path / "here", tmp_path / "there"
    words = ["--corruptions", "frost", "shot_noise", "--severities", "1", "5"]
    assert main(["corrupt", images, str(here), *words]) == 0
    whole = tree(here)
    pictures = {path for path in whole if not path.startswith(".")}
    assert pictures == {
        f"{name}/{severity}/{label}/{number}.jpg"
        for name in ("shot_noise", "frost")
        for severity in (1, 5)
        for label in ("dark", "light")
        for number in range(3)
    }
    with Image.open(here / "frost/5/dark/0.jpg") as picture:
        assert (picture.format, picture.size, picture.mode) == ("JPEG", (224, 224), "RGB")
    assert main(["corrupt", images, str(there), "--workers", "2", *words]) == 0
    assert tree(there) == whole
    for path in sorted(pictures)[::3]:
        (there / path).unlink()
    assert main(["corrupt", images, str(there), *words]) == 0
    assert tree(there) == whole


def test_corrupt_counts_what_was_there_in_json(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["corrupt", str(folder / "images"), str(tmp_path / "c"), "--corruptions", "contrast", "--json"]
    counts = []
    for _ in range(2):
        assert main(command) == 0
        answer = json.loads(capsys.readouterr().out)
        counts.append((answer["num_written"], answer["num_there"]))
    assert counts == [(30, 0), (0, 30)]


def test_raw_files_keep_every_pixel_that_jpeg_changes(folder: Path, tmp_path: Path) -> None:
    images = str(folder / "images")
    command = ["--corruptions", "gaussian_noise", "--severities", "2"]
    assert main(["corrupt", images, str(tmp_path / "raw"), "--stored", "raw", *command]) == 0
    assert main(["corrupt", images, str(tmp_path / "jpeg"), *command]) == 0
    raw, jpeg = (
        np.asarray(Image.open(tmp_path / name), float)
        for name in ("raw/gaussian_noise/2/dark/0.png", "jpeg/gaussian_noise/2/dark/0.jpg")
    )
    assert 1 < np.abs(raw - jpeg).mean() < 30


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["--seed", "1"], "was begun with other options (seed was 0, and is 1)"),
        (["--stored", "raw"], "was begun with other options (stored was jpeg, and is raw)"),
    ],
)
def test_corrupt_mixes_no_other_options(
    folder: Path, tmp_path: Path, changes: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["corrupt", str(folder / "images"), str(tmp_path / "c"), "--corruptions", "contrast", "--severities", "1"]
    assert main(command) == 0
    before = tree(tmp_path)
    assert main([*command, *changes]) == 2
    assert told in capsys.readouterr().err
    assert tree(tmp_path) == before


def test_corrupt_writes_into_no_folder_of_others_and_not_among_what_it_reads(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").touch()
    assert main(["corrupt", str(folder / "images"), str(tmp_path)]) == 2
    assert "has other contents (mine.txt)" in capsys.readouterr().err
    assert main(["corrupt", str(folder / "images"), str(folder / "images" / "c")]) == 2
    assert "whose folders are its classes" in capsys.readouterr().err
    assert not (folder / "images" / "c").exists()


def test_evaluate_tells_what_is_lost_by_corruption_and_severity(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "evaluate",
        str(folder / "m.safetensors"),
        str(folder / "images"),
        "--corruptions",
        "fog",
        "contrast",
        "saturate",
    ]
    assert main([*command, "--severities", "1", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["corruptions"]) == ["fog", "contrast", "saturate"]
    common = [value for name, each in found["corruptions"].items() if name != "saturate" for value in each.values()]
    assert found["mean_corrupted"] == pytest.approx(sum(common) / 4, abs=1e-5)
    assert found["drop"] == pytest.approx(found["clean"] - found["mean_corrupted"], abs=1e-5)
    clean = hybridvit.evaluate(folder / "m.safetensors", folder / "images")
    assert found["clean"] == pytest.approx(clean.scores.values[found["quantity"]], abs=1e-5)
    assert main([*command, "--severities", "1"]) == 0
    text = capsys.readouterr().out
    assert "saturate (not in the mean)" in text
    assert "mean of 2" in text


def test_evaluate_on_written_copies_equals_on_the_fly_where_nothing_is_lost_between(
    folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "c"
    words = ["--corruptions", "fog", "--severities", "4", "--stored", "raw"]
    assert main(["corrupt", str(folder / "images"), str(output), *words]) == 0
    written = np.asarray(Image.open(output / "fog/4/light/1.png"))
    picture = cut(decode_image(folder / "images/light/1.png"), OFFICIAL)
    assert np.array_equal(np.asarray(corrupt(picture, "fog", 4, "light/1.png")), written)


def test_a_segmentation_set_is_corrupted_and_its_masks_are_not(folder: Path, tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "classes.txt").write_text("sky\nsea\nsand\n", encoding="utf-8")
    head = {"pyramid_channels": 8, "channels": 8}
    model = hybridvit.create_model("fastvit_debug", task="segment", head_options=head, num_classes=3).eval()
    model.card = replace(model.card, class_names=("sky", "sea", "sand"))
    found = evaluate_corrupted(model, tmp_path, ["contrast"], severities=[5])
    assert (found.quantity.name, found.num_images) == ("miou", 2)
    assert set(found.values) == {"contrast"}
    targets_stay(find_task("segment").labelled(str(tmp_path), model.card), tmp_path)


def test_a_detection_set_is_corrupted_and_its_boxes_are_not(folder: Path, tmp_path: Path) -> None:
    tmp_path = tmp_path / "scenes"
    write_detection(tmp_path, train=12, val=2)
    model = hybridvit.create_model("fastvit_debug", task="detect", num_classes=len(CLASSES)).eval()
    model.card = replace(model.card, class_names=CLASSES)
    found = evaluate_corrupted(model, tmp_path, ["contrast"], severities=[5])
    assert (found.quantity.unit, found.num_images) == ("%", 2)
    targets_stay(find_task("detect").labelled(str(tmp_path), model.card), tmp_path)


def targets_stay(samples: Samples, root: Path) -> None:
    """Under a corruption pictures change, of the same size, and what is true of them does not."""
    clean = [samples[index] for index in range(len(samples))]
    samples.change = Corruption("contrast", 5, root=str(root))
    for (picture, target), (other, same) in zip(clean, map(samples.__getitem__, range(len(samples))), strict=True):
        assert other.shape == picture.shape
        assert other.std() < 0.5 * picture.std()
        torch.testing.assert_close(target["boxes"] if isinstance(target, dict) else target,
                                   same["boxes"] if isinstance(same, dict) else same, rtol=0, atol=0)  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--severities", "3"], "--severities and --corruption_seed need --corruptions"),
        (["--corruptions", "fogg"], "There is no corruption 'fogg'. Nearest: 'fog'"),
        (["--corruptions", "fog", "--severities", "6"], "--severities has 6"),
        (["--corruptions", "fog", "--tile", "64"], "--tile does not go with --corruptions"),
    ],
)
def test_wrong_words_are_one_error(
    folder: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(folder / "m.safetensors"), str(folder / "images"), *words]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ModuleNotFoundError("No module named 'imagecorruptions'"), 'pip install "hybridvit[robustness]"'),
        (ImportError("libGL.so.1: cannot open shared object file"), "apt-get install libgl1"),
    ],
)
def test_a_missing_package_or_library_says_what_to_install(
    tmp_path: Path, error: ImportError, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dark_and_light(tmp_path)
    normal = builtins.__import__

    def refusing(name, *rest, **options):
        if name in ("cv2", "imagecorruptions"):
            raise error
        return normal(name, *rest, **options)

    corrupt_module.opened_package.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refusing)
    assert main(["evaluate", str(tmp_path / "m.safetensors"), str(tmp_path / "images"), "--corruptions", "fog"]) == 2
    assert told in capsys.readouterr().err
    assert main(["corrupt", str(tmp_path / "images"), str(tmp_path / "c")]) == 2
    assert told in capsys.readouterr().err
    assert not os.path.exists(tmp_path / "c")


def test_the_mean_leaves_the_extra_corruptions_out_and_an_error_rises() -> None:
    error = Quantity(name="error", title="error", unit="mm", higher_is_better=False)
    values = {"fog": {1: 4.0, 2: 6.0}, "frost": {1: 8.0, 2: 10.0}, "saturate": {1: 100.0, 2: 100.0}}
    scores = CorruptedScores(quantity=error, clean=3.0, values=values, num_images=5, num_skipped=0, seed=0, seconds=1.0)
    assert (scores.mean, scores.drop) == (7.0, 4.0)
    assert set(values) < set(ALL)
