"""Rendered hands lie in FreiHAND's layout, and are where their labels say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hybridvit.card import Preprocessing
from hybridvit.cli.main import main
from hybridvit.data.check import check_images
from hybridvit.errors import DatasetError, UsageError
from hybridvit.task import Splits
from hybridvit.tasks.hand.config import HandAugmentConfig, HandData
from hybridvit.tasks.hand.data import contents, open_splits
from hybridvit.tasks.hand.drawn.raster import rasterise
from hybridvit.tasks.hand.mano.generated_hand import generated_hand
from hybridvit.tasks.hand.mano.hand_assets import HandAssets
from hybridvit.tasks.hand.mano.layer import HandLayer
from hybridvit.tasks.hand.mano.rotation import from_axis_angle
from hybridvit.tasks.hand.scene_draws import Variety
from hybridvit.tasks.hand.scenes import HandScenes, hands, write_scenes

FEW = HandScenes(train=3, evaluation=2, size=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hands to train on, two to evaluate on."""
    path = tmp_path_factory.mktemp("scenes") / "hands"
    told: list[tuple[int, int]] = []
    assert write_scenes(path, generated_hand(), FEW, lambda done, of: told.append((done, of)))
    assert told == [(number, 5) for number in range(1, 6)]
    return path


def labels(folder: Path, split: str) -> dict[str, np.ndarray]:
    names = ("K", "scale", "xyz", "verts", "mano")
    return {name: np.array(json.loads((folder / f"{split}_{name}.json").read_text())) for name in names}


def test_the_layout_is_freihands(folder: Path) -> None:
    assert sorted(path.name for path in (folder / "training/rgb").iterdir()) == [f"{n:08d}.jpg" for n in range(12)]
    assert sorted(path.name for path in (folder / "training/mask").iterdir()) == [f"{n:08d}.jpg" for n in range(3)]
    assert sorted(path.name for path in (folder / "evaluation/rgb").iterdir()) == [f"{n:08d}.jpg" for n in range(2)]
    for split, count in (("training", 3), ("evaluation", 2)):
        shapes = {name: values.shape for name, values in labels(folder, split).items()}
        assert shapes == {"K": (count, 3, 3), "scale": (count,), "xyz": (count, 21, 3), "verts": (count, 778, 3),
                          "mano": (count, 1, 61)}  # fmt: skip
    with Image.open(folder / "training/rgb/00000000.jpg") as picture:
        assert (picture.size, picture.mode) == ((64, 64), "RGB")


def test_labels_agree_with_each_other_by_freihands_definitions(folder: Path) -> None:
    assets, found = generated_hand(), labels(folder, "training")
    np.testing.assert_allclose(
        found["scale"], np.linalg.norm(found["xyz"][:, 9] - found["xyz"][:, 10], axis=1), atol=1e-7
    )
    pose, shape = found["mano"][:, 0, :48].copy(), found["mano"][:, 0, 48:58]
    pose[:, 3:] += assets.pose_mean
    with torch.no_grad():
        hand = HandLayer(assets).double()(
            from_axis_angle(torch.from_numpy(pose.reshape(3, 16, 3))), torch.from_numpy(shape)
        )
    u, v, scale = found["mano"][:, 0, 58:].T
    camera = found["K"]
    anchor = np.stack(((u - camera[:, 0, 2]) / scale, (v - camera[:, 1, 2]) / scale, camera[:, 0, 0] / scale), 1)
    shift = anchor[:, None] - hand.keypoints[:, 9:10].numpy()
    np.testing.assert_allclose(hand.vertices.numpy() + shift, found["verts"], atol=1e-6)
    np.testing.assert_allclose(hand.keypoints.numpy() + shift, found["xyz"], atol=1e-6)


def test_a_hand_is_seen_where_its_camera_puts_it_before_four_grounds(folder: Path) -> None:
    found = labels(folder, "training")
    for number in range(3):
        seen = found["verts"][number] @ found["K"][number].T
        points = seen[:, :2] / seen[:, 2:] + 0.5
        mask = rasterise(points, found["verts"][number][:, 2], generated_hand().faces, (64, 64)).mask
        with Image.open(folder / f"training/mask/{number:08d}.jpg") as picture:
            written = np.asarray(picture) > 127
        assert (written != mask).mean() < 0.02
        assert 0.05 < mask.mean() < 0.5
        versions = [
            np.asarray(Image.open(folder / f"training/rgb/{number + 3 * version:08d}.jpg"), float)
            for version in range(4)
        ]
        apart = np.abs(versions[0] - versions[1]).mean(2)
        well_inside = mask & np.roll(mask, 3, 0) & np.roll(mask, -3, 0) & np.roll(mask, 3, 1) & np.roll(mask, -3, 1)
        assert apart[well_inside].mean() < 6 < apart[~mask].mean()


def test_a_hand_is_that_of_its_number_and_seed() -> None:
    assets = generated_hand()
    (one, other), (again, *_) = (
        [hand for _, hand in hands("training", count, assets, FEW)] for count in (2, 1)
    )  # fmt: skip
    np.testing.assert_array_equal(one.picture, again.picture)
    assert not np.array_equal(one.vertices, other.vertices)
    for split, seed in (("evaluation", 0), ("training", 1)):
        ((_, different),) = hands(split, 1, assets, HandScenes(size=64, seed=seed))
        assert not np.array_equal(one.vertices, different.vertices)


def test_the_palm_is_seen_unless_backs_are_asked_for() -> None:
    assets = generated_hand()
    for share, sign in ((0.0, 1), (1.0, -1)):
        scenes = HandScenes(size=64, variety=Variety(back_share=share))
        for _, hand in hands("training", 4, assets, scenes):
            index, little = hand.keypoints[5], hand.keypoints[17]
            assert sign * (index[0] - little[0]) > 0, "the index finger of a right hand is right of its palm"


def test_a_finished_folder_is_kept_and_another_one_refused(folder: Path, tmp_path: Path) -> None:
    before = (folder / "training/rgb/00000000.jpg").stat().st_mtime_ns
    assert not write_scenes(folder, generated_hand(), FEW)
    assert (folder / "training/rgb/00000000.jpg").stat().st_mtime_ns == before
    with pytest.raises(DatasetError, match=r"rendered otherwise: size 64 instead of 96\. Choose another folder"):
        write_scenes(folder, generated_hand(), HandScenes(train=3, evaluation=2, size=96))
    (tmp_path / "mine").mkdir()
    with pytest.raises(DatasetError, match=r"was not rendered by this command: it has no rendered\.json"):
        write_scenes(tmp_path / "mine", generated_hand(), FEW)


def test_nothing_is_left_of_a_folder_that_was_not_finished(tmp_path: Path) -> None:
    def stop(done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "hands", generated_hand(), FEW, stop)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"Cannot write .*: Not a directory\. Choose another folder"):
        write_scenes(tmp_path / "file/hands", generated_hand(), FEW)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 0}, "0 hands to train on and 500 to evaluate on were asked for. Render at least one of each"),
        ({"size": 16}, "a side of 16 pixels were asked for. Choose 32 to 1024; FreiHAND's have 224"),
    ],
)
def test_numbers_that_no_data_set_has_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        HandScenes(**options)


def test_the_assets_are_told_of(folder: Path) -> None:
    found = json.loads((folder / "rendered.json").read_text())
    assets: HandAssets = generated_hand()
    assert (found["hand"], found["licence"], found["sha256"]) == ("generated", "Apache-2.0", assets.sha256)


def test_the_command_renders_once_and_names_what_it_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["hand", "render", str(tmp_path / "few"), "--train", "2", "--eval", "1", "--size", "32"]
    for verb in ("Rendered", "Kept"):
        assert main(words) == 0
        wanted = f"{verb} {tmp_path / 'few'}: 8 pictures to train on and 1 to evaluate on, of the generated hand.\n"
        assert capsys.readouterr().out == wanted
    assert main(["hand", "rendr"]) == 2
    assert "`hybridvit hand` has no command 'rendr'. Nearest: 'render'" in capsys.readouterr().err


def opened(root: Path) -> Splits:
    data, prepared = HandData(root=str(root), source="rendered"), Preprocessing(image_size=(32, 32))
    return open_splits(data, HandAugmentConfig(), prepared, seed=7, assets="generated", rotations=False)


def test_rendered_hands_are_a_sound_data_set(tmp_path: Path) -> None:
    root = tmp_path / "rendered"
    write_scenes(root, generated_hand(), HandScenes(train=2, evaluation=1, size=32))
    splits = opened(root)
    assert [len(splits.train), len(splits.validation)] == [8, 1]
    assert splits.train.remarks == []
    found = contents(str(root))
    assert found is not None
    assert check_images(found, workers=0).findings == ()


def test_hands_of_an_older_renderer_are_not_taken_for_new_ones(tmp_path: Path) -> None:
    root = tmp_path / "rendered"
    write_scenes(root, generated_hand(), HandScenes(train=2, evaluation=1, size=32))
    marker = json.loads((root / "rendered.json").read_text())
    (root / "rendered.json").write_text(json.dumps(marker | {"pictures": marker["pictures"] - 1}))
    with pytest.raises(DatasetError, match=r"rendered has hands that an older version rendered otherwise\. Remove it,"):
        opened(root)
    (root / "rendered.json").unlink()
    with pytest.raises(DatasetError, match=r"was not rendered by this command: it has no rendered\.json"):
        opened(root)
