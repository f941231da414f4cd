"""Pictures of more than 8 bits: what they use is found and said, and the levels of a training are followed later."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hybridvit
from hybridvit.card import Preprocessing
from hybridvit.cli.main import main
from hybridvit.recipe.file import load_recipe
from hybridvit.tasks.classify.task import Classify
from hybridvit.training.train import train

DARK = (
    r"Pictures of 16 bits use the levels [\d,]+ to 4,0\d\d alone \(\d+ (was|were) looked at\).*"
    r"--data.levels '\[0,4095\]'"
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures in bytes/ and, 16 times as bright in 16 bits, as a camera of 12 bits stores them, in deep/."""
    root, chance = tmp_path_factory.mktemp("levels"), np.random.default_rng(0)
    for number in range(16):
        levels = chance.integers(0, 256, (32, 32), dtype=np.uint8)
        levels[0, 0] = 255
        for folder, values in (("bytes", levels), ("deep", levels.astype(np.uint16) * 16)):
            path = root / folder / "ab"[number % 2] / f"{number:02d}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    return root


def settings(photos: Path, **more: object) -> dict[str, object]:
    keys = {
        "model": "fastvit_debug", "output": str(photos / "run"), "data.root": str(photos / "deep"), "data.train": ".",
        "data.val_share": 0.25, "data.image_size": 32, "data.total_batch": 4, "data.workers": 0, "schedule.epochs": 1,
        "schedule.warmup_epochs": 0, "accelerator": "cpu",
    }  # fmt: skip
    return keys | more


def test_a_dark_set_is_found_before_the_first_step_and_its_range_is_named(photos: Path) -> None:
    opened = Classify().open(load_recipe("folder", settings(photos)))
    assert len(opened.train.remarks) == 1
    assert re.search(DARK, opened.train.remarks[0])
    for more in ({"data.levels": "[0,4080]"}, {"data.root": str(photos / "bytes")}):
        assert Classify().open(load_recipe("folder", settings(photos, **more))).train.remarks == []


def test_predict_says_it_of_a_dark_picture_once(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    hybridvit.save_checkpoint(hybridvit.create_model("fastvit_debug").eval(), tmp_path / "m.safetensors")
    assert main(["predict", str(tmp_path / "m.safetensors"), str(photos / "deep")]) == 0
    assert len(caplog.messages) == 1
    assert "nearly black" in caplog.messages[0]


def test_later_commands_follow_the_levels_of_the_training(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe("folder", settings(photos, **{"data.levels": "[0,4080]"}))
    model = train(recipe, progress=False).model
    assert hybridvit.load(model).card.preprocessing.levels == (0, 4080)
    capsys.readouterr()
    answers = []
    for folder in ("deep", "bytes"):
        assert main(["evaluate", str(model), str(photos / folder), "--json"]) == 0
        assert main(["predict", str(model), str(photos / folder), "--json"]) == 0
        first, *rest = map(json.loads, capsys.readouterr().out.splitlines())
        answers.append((first["loss"], [each["predictions"] for each in rest]))
    assert answers[0] == answers[1]
    assert main(["info", str(model)]) == 0
    assert "black and white at 0 and 4080" in capsys.readouterr().out


def test_a_card_without_levels_means_the_whole_range() -> None:
    values = dataclasses.asdict(Preprocessing(levels=(-1000, 400.5)))
    assert Preprocessing.from_dict(json.loads(json.dumps(values))).levels == (-1000, 400.5)
    del values["levels"]
    assert Preprocessing.from_dict(values).levels is None
    for bad in ([1], [3, 3], "dark", [0, True]):
        with pytest.raises(ValueError, match="levels cannot be"):
            Preprocessing.from_dict({**values, "levels": bad})


def test_levels_that_are_none_are_refused(photos: Path) -> None:
    for text in ("[5]", "[5,5]", "[1,2,3]"):
        with pytest.raises(
            ValueError, match=r"'data\.levels' is .*two numbers that differ\. Write --data\.levels '\[0,4095\]'"
        ):
            load_recipe("folder", settings(photos, **{"data.levels": text}))
