"""The EXIF switch of a recipe goes into the checkpoint, and evaluation and prediction follow it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hybridvit
from hybridvit.card import Preprocessing
from hybridvit.cli.main import main
from hybridvit.data.scan import find_images
from hybridvit.recipe.file import load_recipe
from hybridvit.training.train import train


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """turned/ holds the photos of plain/ with an EXIF block that says: turn by 90 degrees."""
    chance = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(16):
        picture = Image.fromarray(chance.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        for folder, options in (("plain", {}), ("turned", {"exif": exif})):
            path = tmp_path / folder / "ab"[number % 2] / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path, **options)
    return tmp_path


@pytest.mark.parametrize("upright", [True, False])
def test_evaluate_and_predict_follow_what_training_was_told(
    photos: Path, upright: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {
        "model": "fastvit_debug",
        "output": str(photos / "run"),
        "data.root": str(photos / "turned"),
        "data.train": ".",
        "data.val_share": 0.25,
        "data.image_size": 32,
        "data.total_batch": 4,
        "data.workers": 0,
        "data.exif_orientation": upright,
        "schedule.epochs": 1,
        "schedule.warmup_epochs": 0,
        "accelerator": "cpu",
    }
    result = train(load_recipe("folder", settings), progress=False)
    assert hybridvit.load(result.model).card.preprocessing.exif_orientation is upright
    capsys.readouterr()
    answers: dict[str, list[float]] = {}
    for folder in ("plain", "turned"):
        assert main(["evaluate", str(result.model), str(photos / folder), "--json"]) == 0
        answers[folder] = [json.loads(capsys.readouterr().out)["loss"]]
        assert main(["predict", str(result.model), *map(str, find_images([photos / folder])), "--json"]) == 0
        for line in capsys.readouterr().out.splitlines():
            best = json.loads(line)["predictions"][0]
            answers[folder].append(best["probability"] if best["index"] else 1 - best["probability"])
    assert len(answers["plain"]) == 17
    if upright:
        assert max(abs(a - b) for a, b in zip(answers["plain"], answers["turned"], strict=True)) > 1e-4
    else:
        assert answers["plain"] == answers["turned"]


def test_a_card_without_the_key_turns_photos_upright() -> None:
    values = dataclasses.asdict(Preprocessing(exif_orientation=False))
    assert Preprocessing.from_dict(values).exif_orientation is False
    del values["exif_orientation"]
    assert Preprocessing.from_dict(values).exif_orientation is True
    with pytest.raises(ValueError, match="exif_orientation cannot be sideways"):
        Preprocessing.from_dict({**values, "exif_orientation": "sideways"})
