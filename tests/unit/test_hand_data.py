"""Hands in FreiHAND's layout: lists become arrays bit by bit, pictures become samples, and what is wrong is named."""

import json
import os
import pickle
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from freihand_sets import SIDE, write_freihand, write_list
from PIL import Image

import hybridvit.tasks.hand.freihand.label_lists as label_lists
from hybridvit.card import ModelCard, Preprocessing
from hybridvit.data.check import check_images
from hybridvit.data.loader import make_train_loader, stacked
from hybridvit.errors import DatasetError, UsageError
from hybridvit.tasks.hand.config import HandAugmentConfig, HandData
from hybridvit.tasks.hand.data import contents, open_labelled, open_splits
from hybridvit.tasks.hand.freihand.label_lists import CACHE, stored
from hybridvit.tasks.hand.freihand.lists import labels_of, read_lists
from hybridvit.tasks.hand.generated import GeneratedHands, example
from hybridvit.tasks.hand.mano.generated_hand import generated_hand
from hybridvit.tasks.hand.mano.layer import HandLayer

HANDS = 4
PREPARED = Preprocessing(image_size=(32, 32), crop_fraction=1.0, interpolation="bilinear")
AUGMENT = HandAugmentConfig(shift=0.05)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("freihand")
    lists = write_freihand(root, hands=HANDS)
    write_freihand(root, hands=3, split="evaluation", versions=1)
    return root, lists


@pytest.fixture
def copied(made, tmp_path) -> tuple[Path, dict[str, Any]]:
    root = tmp_path / "set"
    shutil.copytree(made[0], root, ignore=shutil.ignore_patterns(CACHE))
    return root, json.loads(json.dumps(made[1]))


def splits(root: Path, assets: str = "generated", rotations: bool = False, **keys: Any) -> Any:
    data = HandData(root=str(root), **keys)
    return open_splits(data, AUGMENT, PREPARED, seed=7, assets=assets, rotations=rotations)


# ---- lists


@pytest.mark.parametrize("block", [1 << 22, 997])
def test_lists_become_arrays_bit_by_bit(copied, monkeypatch, block):
    root, lists = copied
    monkeypatch.setattr(label_lists, "_BLOCK_BYTES", block)
    for name, shape in (("K", (3, 3)), ("xyz", (21, 3)), ("verts", (778, 3)), ("mano", (1, 61))):
        array = stored(root / f"training_{name}.json", shape)
        np.testing.assert_array_equal(array[:], np.array(lists[name]).astype(np.float32))
        assert array.path.parent == root / CACHE


def test_memory_does_not_grow_with_the_list(tmp_path, monkeypatch):
    monkeypatch.setattr(label_lists, "_BLOCK_BYTES", 1 << 16)
    path = tmp_path / "training_xyz.json"
    entry = json.dumps(np.random.default_rng(0).normal(size=(21, 3)).tolist())
    path.write_text(f"[{', '.join([entry] * 2000)}]", encoding="utf-8")
    assert path.stat().st_size > 2_500_000
    tracemalloc.start()
    try:
        assert len(stored(path, (21, 3))) == 2000
        assert tracemalloc.get_traced_memory()[1] < 600_000
    finally:
        tracemalloc.stop()


def test_a_list_is_converted_once_until_it_changes(copied):
    root, lists = copied
    path = root / "training_xyz.json"
    first = stored(path, (21, 3)).path
    began = first.stat().st_mtime_ns
    assert stored(path, (21, 3)).path.stat().st_mtime_ns == began
    write_list(root, "xyz", lists["xyz"][:2])
    second = stored(path, (21, 3))
    assert len(second) == 2
    assert second.path != first
    assert not first.exists()


def test_rows_are_opened_by_each_process_for_itself(copied):
    root, lists = copied
    rows = stored(root / "training_verts.json", (778, 3)).of(slice(1, 3))
    assert len(rows) == 2
    sent = pickle.dumps(rows)
    assert len(sent) < 2000
    np.testing.assert_array_equal(pickle.loads(sent)[0], np.array(lists["verts"][1]).astype(np.float32))


def test_arrays_of_a_folder_that_takes_no_files_are_kept_in_the_users_cache(copied, tmp_path, monkeypatch):
    root, _ = copied
    (root / CACHE).write_text("in the way")  # a file of the user's; the same as a folder that is read-only
    monkeypatch.setenv("HYBRIDVIT_CACHE", str(tmp_path / "cache"))
    kept = stored(root / "training_K.json", (3, 3)).path
    assert tmp_path / "cache" / "freihand" in kept.parents


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}', "does not begin with a list"),
        ("[]", "has no entry"),
        ("[[[1, 2], [3, 4]], [[5, 6], [7,", "does not end, so the file is not whole"),
        ("[[[1, 2], [3, 4]], [[5, 6]]]", "entry 1: it has 1 x 2 numbers, but FreiHAND's have 2 x 2"),
        ("[[[1, 2], [3, 4]], [[5, 6], [7]]]", "entry 1: this is no list of numbers"),
        ('[[[1, 2], [3, "a"]]]', "entry 0: this is no list of numbers"),
        ("[[[1, 2], [3, 4]], null]", "entry 0: this is no list of numbers"),
    ],
)
def test_damaged_lists_are_refused_with_the_entry(tmp_path, text, message):
    path = tmp_path / "training_xyz.json"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message) as refused:
        stored(path, (2, 2))
    assert str(path) in str(refused.value)
    assert not list((tmp_path / CACHE).iterdir())


# ---- samples


def test_all_versions_of_a_hand_have_its_labels(made):
    root, lists = made
    train = splits(root).train
    assert len(train) == 4 * HANDS
    assert [os.path.basename(path) for path in train.paths[:: HANDS + 1]] == [f"{5 * k:08d}.jpg" for k in range(4)]
    still = open_splits(
        HandData(root=str(root), image_size=SIDE),
        HandAugmentConfig(rotation_share=0, scale=0, channel_gain=0),
        Preprocessing(image_size=(SIDE, SIDE), crop_fraction=1.0),
        seed=0,
        assets="generated",
    ).train
    for index in (1, 1 + 2 * HANDS):
        sample = still.draw(0, index)
        for key, name in (("keypoints", "xyz"), ("vertices", "verts")):
            np.testing.assert_array_equal(sample.target[key], np.array(lists[name][1]).astype(np.float32))
        np.testing.assert_array_equal(sample.image.permute(1, 2, 0), np.asarray(Image.open(still.paths[index])))
        pixels = np.array(lists["K"][1]) @ np.array(lists["xyz"][1]).T
        wanted = 2 * (pixels[:2] / pixels[2] + 0.5).T / SIDE - 1
        np.testing.assert_allclose(sample.target["points"], wanted, atol=1e-5)


def test_a_draw_is_a_function_of_seed_epoch_and_sample(made):
    train = splits(made[0]).train
    one, again, later = (train.draw(epoch, 3) for epoch in (0, 0, 1))
    assert torch.equal(one.image, again.image)
    assert all(torch.equal(one.target[name], again.target[name]) for name in one.target)
    assert not torch.equal(one.image, later.image)
    for sample in (one, later):
        rays = sample.target["keypoints"].double() @ sample.target["camera"].double().T
        points = 2 * (rays[:, :2] / rays[:, 2:]) / 32 - 1
        np.testing.assert_allclose(points, sample.target["points"], atol=1e-5)


def test_rotations_that_are_asked_for_turn_with_the_picture(copied):
    root, _ = copied
    opened = splits(root, rotations=True)
    assert "rotations" not in opened.validation.draw(0, 0).target
    wrists = []
    for epoch in range(4):
        target = opened.train.draw(epoch, 3).target
        shape = torch.from_numpy(opened.train.parameters[3][None, 0, 48:58].astype(np.float32))
        hand = HandLayer(generated_hand())(target["rotations"][None], shape)
        moved = hand.keypoints[0] - hand.keypoints[0, :1] - (target["keypoints"] - target["keypoints"][:1])
        assert moved.abs().max() < 1e-5
        wrists.append(target["rotations"][0])
    assert not torch.equal(wrists[0], wrists[1])
    (root / "training_mano.json").unlink()
    with pytest.raises(DatasetError, match=r"'loss\.rotations' is set, but .* has no parameters of its hands"):
        splits(root, rotations=True)


def test_samples_are_the_same_from_workers(made):
    train = splits(made[0]).train
    loader = make_train_loader(train, collate=stacked, batch_size=4, num_steps=1, workers=1, seed=0)
    try:
        batch = next(iter(loader))
    finally:
        loader.close()
    assert batch.inputs.shape == (4, 3, 32, 32)
    wanted = train.draw(0, int(batch.samples[0])).target
    for name, values in batch.targets.items():
        assert torch.equal(values[0], wanted[name])


def test_evaluation_shows_pictures_whole_with_their_frame(made):
    val = splits(made[0]).validation
    assert len(val) == 3
    sample = val.draw(0, 0)
    assert sample.frame.crop == (0.0, 0.0, SIDE, SIDE)
    labelled = open_labelled(str(made[0]), ModelCard(architecture="x", preprocessing=PREPARED), assets="generated")
    assert labelled.paths == val.paths
    assert torch.equal(labelled.draw(0, 0).target["points"], sample.target["points"])


def test_the_last_hands_are_held_out_with_all_their_versions(copied):
    root, _ = copied
    opened = splits(root, val_share=0.25)
    numbers = [[int(Path(path).stem) % HANDS for path in part.paths] for part in (opened.train, opened.validation)]
    assert numbers == [[0, 1, 2] * 4, [3] * 4]
    for path in root.glob("evaluation_*.json"):
        path.unlink()
    opened = splits(root)
    assert len(opened.validation) == 4
    assert "the last 2% of the training samples are held out" in opened.train.remarks[0]


def test_versions_can_be_chosen_and_pictures_without_versions_are_taken(copied):
    root, _ = copied
    numbers = [int(Path(path).stem) for path in splits(root, versions=("gs", "auto")).train.paths]
    assert numbers == [0, 1, 2, 3, 12, 13, 14, 15]
    for number in range(HANDS, 4 * HANDS):
        (root / "training" / "rgb" / f"{number:08d}.jpg").unlink()
    assert len(splits(root).train) == HANDS


def test_meshes_come_from_parameters_where_there_are_none(copied):
    root, lists = copied
    (root / "training_verts.json").unlink()
    (root / "training_xyz.json").unlink()
    lists_of_mano = read_lists(root, "training")
    labels = labels_of(lists_of_mano, generated_hand)
    np.testing.assert_allclose(labels.vertices[:], lists["verts"], atol=1e-6)
    np.testing.assert_allclose(labels.keypoints[:], lists["xyz"], atol=1e-6)
    (root / "training_mano.json").unlink()
    write_list(root, "xyz", lists["xyz"])
    with pytest.raises(DatasetError, match=r"neither training_verts\.json nor training_mano\.json"):
        labels_of(read_lists(root, "training"), generated_hand)


def test_a_model_without_a_hand_to_compute_meshes_with_is_refused(copied, monkeypatch, tmp_path):
    monkeypatch.setenv("HYBRIDVIT_CACHE", str(tmp_path / "empty"))
    root, _ = copied
    (root / "training_verts.json").unlink()
    with pytest.raises(UsageError, match="hybridvit mano convert"):
        splits(root, assets="")


def test_generated_hands_are_shown_where_their_points_are():
    hands = GeneratedHands(length=3, side=64, training=True)
    sample = hands.draw(0, 1)
    assert sample.image.shape == (3, 64, 64)
    assert sample.target["points"].abs().max() < 1
    across, down = ((sample.target["points"][0] + 1) * 32).long().tolist()
    assert sample.image[:, down, across].mean() > 0.5
    assert torch.equal(sample.image, hands.draw(0, 1).image)
    assert not torch.equal(sample.image, hands.draw(1, 1).image)
    batch = example(HandData(source="generated", image_size=32), 2)
    assert batch.targets["vertices"].shape == (2, 778, 3)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"versions": ("gs", "samples")}, "has 'samples', but FreiHAND has no such version. Nearest: 'sample'"),
        ({"versions": ()}, "at least one version, and each once"),
        ({"versions": ("gs", "gs")}, "at least one version, and each once"),
    ],
)
def test_versions_are_checked(keys, message):
    with pytest.raises(UsageError, match=message):
        HandData(**keys)


# ---- what is wrong


def spoil(name: str, place: tuple[int, ...], value: Any) -> Any:
    def change(root: Path, lists: dict[str, Any]) -> None:
        values = np.array(lists[name])
        values[place] = value
        write_list(root, name, values.tolist())

    return change


def in_millimetres(root: Path, lists: dict[str, Any]) -> None:
    for name in ("xyz", "verts", "scale"):
        write_list(root, name, (1000 * np.array(lists[name])).tolist())


def as_first_release(root: Path, lists: dict[str, Any]) -> None:
    mano = np.array(lists["mano"])
    mano[:, 0, 48:58] += 3
    write_list(root, "mano", mano.tolist())


def grey(root: Path, lists: dict[str, Any]) -> None:
    path = root / "training" / "rgb" / "00000005.jpg"
    Image.open(path).convert("L").save(path)


FAULTS = {
    "label-counts": (lambda root, lists: write_list(root, "K", lists["K"][:3]), "training_K.json: 3 entries"),
    "missing-image": (lambda root, _: (root / "training/rgb/00000006.jpg").unlink(), "training/rgb/00000006.jpg"),
    "surplus-image": (
        lambda root, _: shutil.copy(root / "training/rgb/00000001.jpg", root / "training/rgb/00000016.jpg"),
        "training/rgb/00000016.jpg",
    ),
    "not-finite": (spoil("xyz", (2, 8, 1), np.nan), "training_xyz.json, entry 2: index_tip is nan"),
    "millimetres": (in_millimetres, "training_xyz.json, entry 0: "),
    "behind-camera": (spoil("verts", (1, 30, 2), -0.5), "training_verts.json, entry 1: vertex 30 is at z = -0.5"),
    "bad-camera": (spoil("K", (3, 0, 0), 0), "training_K.json, entry 3: focal lengths 0 and"),
    "outside": (spoil("K", (0, 0, 2), 900), "training_xyz.json, entry 0: the wrist is at ("),
    "bone-length": (spoil("scale", (1,), 0.5), "training_scale.json, entry 1: 0.5 m, but 0."),
    "other-hand": (spoil("xyz", (1, 4), (0.0, 0.0, 0.6)), "training_verts.json, entry 1: "),
    "old-release": (as_first_release, "training_verts.json, entry 0: "),
    "grey": (grey, "00000005.jpg"),
}
LOOKED_PAST = ("outside", "bone-length", "other-hand", "old-release", "grey")


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_is_named_with_file_and_entry(copied, monkeypatch, tmp_path, kind):
    monkeypatch.setenv("HYBRIDVIT_CACHE", str(tmp_path / "empty"))
    root, lists = copied
    change, example_of_it = FAULTS[kind]
    change(root, lists)
    found = contents(str(root))
    assert found is not None
    findings = {each.kind: each for each in check_images(found, workers=0).findings}
    assert set(findings) == {kind, *(("old-release",) if kind == "outside" else ())}  # parameters go with cameras
    assert example_of_it in findings[kind].examples[0]
    assert findings[kind].fix
    assert findings[kind].severity == ("warning" if kind in LOOKED_PAST else "error")
    if kind in LOOKED_PAST:
        opened = splits(root)
        assert example_of_it in " ".join(opened.train.remarks)
        assert torch.isfinite(opened.train.draw(0, 5).target["points"]).all()
    else:
        with pytest.raises(DatasetError, match="cannot be trained on") as refused:
            splits(root)
        assert example_of_it in str(refused.value)


def test_meshes_of_a_hand_that_is_not_here_are_not_compared(copied, monkeypatch, tmp_path):
    monkeypatch.setenv("HYBRIDVIT_CACHE", str(tmp_path / "empty"))
    root, lists = copied
    write_list(root, "verts", (np.array(lists["verts"]) * [1.0, 1.1, 1.0]).tolist())
    (finding,) = check_images(contents(str(root)), workers=0).findings
    assert (finding.kind, finding.severity, finding.examples) == ("no-hand-to-compare", "note", ("training",))


def test_a_sound_set_has_nothing_to_say(made):
    found = contents(str(made[0]))
    report = check_images(found, workers=0)
    assert report.is_usable
    assert report.findings == ()
    assert report.num_images == 4 * HANDS + 3


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("training_K.json", "FreiHAND_pub_v2.zip was unpacked to"),
        ("training_xyz.json", "training_xyz.json, which tells where the hands are"),
        ("training/rgb", "Unpack the pictures"),
    ],
)
def test_parts_that_are_not_there_are_named(copied, file, message):
    root, _ = copied
    target = root / file
    (root / "training_mano.json").unlink()
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(DatasetError, match=message):
        splits(root)


def test_other_folders_are_no_hands(tmp_path):
    assert contents(str(tmp_path)) is None
