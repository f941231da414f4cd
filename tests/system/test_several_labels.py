"""Several labels per image through the commands that know no task: a table in, labels out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hybridvit
from hybridvit.cli.main import main
from hybridvit.errors import DatasetError, UsageError
from hybridvit.export.graph import DeployedModel
from hybridvit.export.options import ExportOptions
from hybridvit.export.spec import GraphSpec
from hybridvit.export.targets.coreml_model import class_names
from hybridvit.measure.candidate import Candidate
from hybridvit.measure.prepare import write
from hybridvit.measure.subject import find_subject
from hybridvit.recipe.file import load_recipe
from hybridvit.tasks.multilabel.data import open_splits
from hybridvit.training.train import RunResult, train

NAMES = ("blue", "green", "red")
RUN = {
    "model": "fastvit_debug",
    "model_options": "{}",
    "pretrained": False,
    "reset_head": False,
    "data.image_size": 32,
    "data.total_batch": 8,
    "data.workers": 0,
    "data.label_separator": "|",
    "data.val_share": 0.25,
    "schedule.epochs": 2,
    "ema.decay": 0.0,
    "accelerator": "cpu",
}


def labels_of(number: int) -> list[str]:
    return [name for place, name in enumerate(NAMES) if number >> place & 1]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pictures whose bright channels are their labels, in one table, and with two that are lost in another."""
    folder, dice = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    rows = ["path,labels"]
    for number in range(48):
        labels = labels_of(number)
        levels = np.array([200 if name in labels else 20 for name in ("red", "green", "blue")])
        Image.fromarray((levels + dice.integers(0, 56, (36, 40, 3))).astype(np.uint8)).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{'|'.join(labels)}")
    (folder / "all.csv").write_text("\n".join(rows) + "\n")
    (folder / "worn.csv").write_text("\n".join([*rows, "gone.png,red|violet", "lost.png,"]) + "\n")
    return folder


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("run") / "run"
    keys = RUN | {"data.root": str(photos / "all.csv"), "output": str(output)}
    return train(load_recipe("multilabel", keys), progress=False)


def test_a_run_is_judged_and_told_by_the_commands(
    run: RunResult, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.headline.name == "map"
    assert "Classes, the lowest AP first" in run.report.read_text(encoding="utf-8")
    table = str(photos / "all.csv")
    expected = hybridvit.evaluate(run.model, table).scores
    assert main(["evaluate", str(run.model), table, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["map"], found["num_images"]) == (pytest.approx(expected.values["map"]), 48)
    assert found["classes"] == expected.details["classes"]
    assert [(each["name"], each["num_images"]) for each in found["classes"]] == [(name, 24) for name in NAMES]
    assert main(["evaluate", str(run.model), table]) == 0
    assert f"Mean AP   {expected.values['map']:.2f} %, average precision" in capsys.readouterr().out
    shown = [photos / "0.png", photos / "5.png"]
    answers = hybridvit.predict(run.model, shown)
    assert main(["predict", str(run.model), *map(str, shown)]) == 0
    assert capsys.readouterr().out == "".join(
        f"{path}\n" + "".join(f"{line}\n" for line in answer.lines()) for path, answer in answers.items()
    )
    assert main(["predict", str(run.model), str(shown[1]), "--json", "--top", "2"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["predictions"] == answers[shown[1]].to_dict()["predictions"]
    assert len(answer["top"]) == 2


def test_what_is_exported_or_timed_is_the_logits_of_labels(run: RunResult, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError,
        match=r"top_k is 2, but the file is to return label_logits, and top_k ranks classes of which one is true",
    ):
        hybridvit.export(run.model, tmp_path / "m.onnx", options=ExportOptions(top_k=2))
    subject = find_subject(str(run.model))
    file = tmp_path / "timed.onnx"
    write(
        Candidate(
            subject=subject,
            form="folded",
            runtime="onnxruntime",
            precision="fp32",
            batch=1,
            image_size=(32, 32),
            threads=1,
            device="cpu",
            file=str(file),
        )
    )
    assert list(hybridvit.load(file)(np.zeros((1, 3, 32, 32), np.float32))) == ["label_logits"]
    model = hybridvit.load(run.model)
    for answers, named in ((("label_logits",), False), (("logits",), True)):  # Core ML's labels are one of several
        spec = GraphSpec(image_size=(32, 32), batch=1, answers=answers)
        assert bool(class_names(DeployedModel(model, spec))) is named


def test_a_table_is_checked_as_it_will_be_read(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["check-data", str(photos / "worn.csv"), "--recipe", "multilabel", "--workers", "0"]
    assert main(words) == 3  # whatever stands between labels
    assert "between labels, but 'blue|green' has '|'" in capsys.readouterr().err
    report = tmp_path / "report.json"
    assert main([*words, "--keys", "data.label_separator=|", "--json", str(report)]) == 3
    out = capsys.readouterr().out
    assert "50 images (" in out
    assert "  50 images in 4 classes, 1 to 25 in a class, 1.48 labels an image; 2 bad\n" in out
    assert "  Pictures without a label: 7\n    0.png\n" in out
    found = json.loads(report.read_text())
    kinds = {each["kind"]: each for each in found["findings"]}
    assert kinds["undecodable"]["examples"] == ["gone.png", "lost.png"]
    assert kinds["no-good-image"]["examples"] == ["violet"]
    assert found["splits"][0]["classes"] == {"blue": 24, "green": 24, "red": 25, "violet": 1}
    assert main(["check-data", str(photos), "--recipe", "folder"]) == 2
    assert "is no table, and the recipe's data.source is 'folder'" in capsys.readouterr().err


def test_two_tables_are_compared_and_one_label_each_is_checked_too(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, rows in (("train", ["1.png,blue", "2.png,green"]), ("val", ["1.png,green", "4.png,red"])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,label", *(f"{photos}/{row}" for row in rows)]) + "\n")
    assert main(["check-data", str(tmp_path), "--keys", "data.source=table", "--workers", "0"]) == 3
    out = capsys.readouterr().out
    assert "  train: 2 images in 2 classes, 1 to 1 in a class; 0 bad\n" in out
    assert "Classes in val that train does not have: 1\n    red\n" in out
    assert "Classes of train that val does not have: 1\n    blue\n" in out
    assert "Pictures whose copies have other labels (equal files): 1\n" in out


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["0.png,", "1.png,"], r"None of the 2 images of data\.train has a label"),
        (["0.png,red", "1.png,red"], r"All 2 training images have the same labels \('red'\), so every answer"),
    ],
)
def test_images_that_nothing_can_be_learnt_from_are_refused(photos: Path, rows: list[str], words: str) -> None:
    for name in ("train", "val"):
        (photos / f"{name}.csv").write_text("\n".join(["path,labels", *rows]) + "\n")
    keys = RUN | {"data.root": str(photos), "data.label_separator": ";", "data.val_share": 0.0}
    with pytest.raises(DatasetError, match=words):
        open_splits(load_recipe("multilabel", keys))  # type: ignore[arg-type]


def test_a_class_without_an_image_is_named(photos: Path) -> None:
    (photos / "marks.csv").write_text("path,red,violet\n0.png,0,0\n1.png,1,0\n4.png,1,0\n5.png,1,0\n2.png,0,0\n")
    keys = RUN | {"data.root": str(photos / "marks.csv"), "data.label_separator": ";"}
    splits = open_splits(load_recipe("multilabel", keys))  # type: ignore[arg-type]
    assert splits.train.class_names == ("red", "violet")
    assert splits.train.remarks[-1] == "No training image is of 'violet': the model learns never to say so."
