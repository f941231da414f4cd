"""Every command that reads a folder of images says what it leaves out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hybridvit
from hybridvit.cli import main
from hybridvit.errors import ExportError

LEFT_OUT = "2 files without the ending of an image (.xyz 2)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and photos/{train,val}/{dark,light} with two strange files and a stray picture in train."""
    root = tmp_path_factory.mktemp("left-out")
    hybridvit.save_checkpoint(hybridvit.create_model("fastvit_debug", num_classes=2).eval(), root / "m.safetensors")
    for split in ("train", "val"):
        for name, low in (("dark", 0), ("light", 128)):
            (root / "photos" / split / name).mkdir(parents=True)
            for number in range(4):
                pixels = np.random.default_rng(number).integers(low, low + 128, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / "photos" / split / name / f"{number}.png")
    for name in ("a.xyz", "b.XYZ"):
        (root / "photos/train/dark" / name).write_bytes(b"")
    shutil.copy(root / "photos/train/dark/0.png", root / "photos/train/stray.png")
    return root


@pytest.fixture
def told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Each command that reads folders, as typed; those that would convert end before that."""

    def ended(*_: object, **__: object) -> None:
        raise ExportError("The test ends here.")

    monkeypatch.setattr("hybridvit.cli.export.run_apart", ended)
    monkeypatch.setattr("hybridvit.measure.choose.choose", ended)
    model, train = str(folder / "m.safetensors"), str(folder / "photos/train")
    int8 = ["export", model, "--to", "onnx", "--precision", "int8", "--calibration"]
    trained = ["train", "folder", "--model", "fastvit_debug", "--data.root", str(folder / "photos"), "--dry_run"]
    return {
        "predict": ["predict", model, train],
        "evaluate": ["evaluate", model, train],
        "export --images": ["export", model, "--images", train],
        "export --calibration": [*int8, train],
        "export --labelled": [*int8, str(folder / "photos/val"), "--labelled", train],
        "choose": ["choose", "--models", model, "--data", train],
        "shard": ["shard", train, str(tmp_path / "shards")],
        "train --dry_run": [*trained, "--data.total_batch", "4", "--data.image_size", "32", "--data.workers", "0"],
    }


COMMANDS = (
    "predict", "evaluate", "export --images", "export --calibration", "export --labelled", "choose", "shard",
    "train --dry_run",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_leaves_out(
    told: dict[str, list[str]], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(told[command])
    streams = capsys.readouterr()
    assert LEFT_OUT in streams.err + (streams.out if "train" in command else "")
    if command in ("evaluate", "shard", "train --dry_run"):
        assert "1 picture outside of the class folders" in streams.err + streams.out


def test_the_answers_of_evaluate_stay_alone_on_stdout(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(folder / "m.safetensors"), str(folder / "photos/train"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_images"] == 8


def test_a_run_tells_and_records_what_it_leaves_out_and_does_not_use(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {
        "model": "fastvit_debug",
        "output": tmp_path / "run",
        "data.root": folder / "photos",
        "data.val_share": 0.25,
        "data.image_size": 32,
        "data.total_batch": 4,
        "data.workers": 0,
        "schedule.epochs": 1,
        "schedule.warmup_epochs": 0,
        "accelerator": "cpu",
    }
    assert main(["train", "folder", *(f"--{key}={value}" for key, value in words.items())]) == 0
    said = capsys.readouterr().err
    events = [json.loads(line)["text"] for line in (tmp_path / "run/events.jsonl").read_text().splitlines()]
    for text in (LEFT_OUT, f"the images in {folder / 'photos/val'} are not used. Leave val_share out"):
        assert text in said
        assert any(text in event for event in events)
