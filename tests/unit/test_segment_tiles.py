"""Segmentation of large pictures by tiles: the labels of each tile where it decides, the same in `evaluate`."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import trained_like
from PIL import Image

import hybridvit
from hybridvit.batch import Frame
from hybridvit.cli import main
from hybridvit.data.tiles import Tile, TilePart, Tiling
from hybridvit.tasks.segment.result import can_be_largest, joined, largest

SIZE = (40, 100)  # height, width


def test_a_pixel_has_the_label_of_the_tile_that_decides_it() -> None:
    truth = np.random.default_rng(0).integers(0, 3, SIZE)

    def part(tile: Tile) -> TilePart:
        """Right inside, wrong at the edges that another tile decides."""
        logits = np.zeros((1, 3, tile.height + 8, tile.width), np.float32)  # the last rows are padding
        seen = truth[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
        np.put_along_axis(logits[0, :, : tile.height], seen[None], 1.0, 0)
        left, top, right, bottom = tile.core
        inside = np.zeros(logits.shape[2:], bool)
        inside[top - tile.top : bottom - tile.top, left - tile.left : right - tile.left] = True
        logits[0, :, ~inside] = (9, 0, 0)
        size = (tile.height, tile.width)
        frame = Frame(picture_size=size, crop=(0.0, 0.0, float(size[1]), float(size[0])), input_size=size)
        return TilePart(tile, {"logits": logits}, frame)

    outputs = joined(map(part, Tiling(side=32).tiles(SIZE[::-1])), SIZE)
    assert outputs["labels"].dtype == np.uint8
    assert np.array_equal(outputs["labels"][0], truth)


@pytest.mark.parametrize("size", [(7, 9), (1, 5), (6, 1)])
def test_classes_that_are_left_out_are_the_largest_nowhere(size: tuple[int, int]) -> None:
    dice = np.random.default_rng(2)
    logits = dice.normal(size=(40, *size)).astype(np.float32)
    logits += 4 * dice.normal(size=(40, 1, 1)).astype(np.float32)
    kept = can_be_largest(logits)
    assert 1 <= len(kept) < 30
    for target in ((20, 31), size, (3, 4)):
        among_all = F.interpolate(torch.from_numpy(logits)[None], size=target, mode="bilinear")[0].argmax(0)
        assert np.array_equal(largest(logits, target), among_all.numpy())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkpoint of three classes, and two pictures with masks, one larger than a tile."""
    root = tmp_path_factory.mktemp("tiles")
    torch.manual_seed(0)
    model = trained_like(
        hybridvit.create_model(
            "fastvit_debug", task="segment", head_options={"pyramid_channels": 8, "channels": 8}, num_classes=3
        )
    )
    preprocessing = dataclasses.replace(model.card.preprocessing, image_size=(64, 64), fit_px=(64, 256))
    names = ("sky", "sea", "sand")
    facts = {**model.card.class_facts}
    model.card = dataclasses.replace(model.card, preprocessing=preprocessing, class_names=names, class_facts=facts)
    hybridvit.save_checkpoint(model, root / "m.safetensors")
    dice = np.random.default_rng(1)
    for name, size in (("images", (90, 150)), ("images", (50, 60))):
        (root / "data" / "images").mkdir(parents=True, exist_ok=True)
        (root / "data" / "masks").mkdir(exist_ok=True)
        Image.fromarray(dice.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / f"data/{name}/{size[0]}.png")
        Image.fromarray(dice.integers(0, 3, size, dtype=np.uint8)).save(root / f"data/masks/{size[0]}.png")
    (root / "data" / "classes.txt").write_text("\n".join(names), encoding="utf-8")
    return root


def test_evaluate_judges_what_predict_answers_by_tiles(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = folder / "m.safetensors", folder / "data"
    found = hybridvit.predict(model, data / "images", tile=64)
    right, total = 0, 0
    for path, answer in found.items():
        with Image.open(data / "masks" / path.name) as mask:
            truth = np.asarray(mask)
        assert answer.labels.shape == truth.shape
        right, total = right + int((answer.labels == truth).sum()), total + truth.size
    assert main(["evaluate", str(model), str(data), "--tile", "64", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["aacc"] == pytest.approx(100 * right / total, abs=1e-5)
    whole = hybridvit.predict(model, data / "images")
    differ = {path.name: not np.array_equal(answer.labels, found[path].labels) for path, answer in whole.items()}
    assert differ == {"90.png": True, "50.png": False}
