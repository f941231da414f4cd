"""What the commands answer: lists and facts of models, predictions, evaluations, folds."""

import json
from pathlib import Path

import pytest
import torch
from fresh import output_of
from PIL import Image
from two_classes import dark_and_light

import hybridvit
from hybridvit.checkpoints import save_upstream
from hybridvit.cli import main
from hybridvit.data.imagenet import in_words
from hybridvit.export.pipeline import export


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, its export, and images of two classes."""
    root = tmp_path_factory.mktemp("cli")
    model = dark_and_light(root)
    export(model, root / "m.onnx")
    return root


def test_list_shows_published_figures_and_the_licence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    row = next(line for line in text.splitlines() if line.startswith("fastvit_sa12"))
    assert row.split() == ["fastvit_sa12", "256", "10.9", "1.9", "80.9", "81.9", "1.6", "2.5", "-", "-"]
    assert "Licence:" in text
    assert main(["list", "--json", "--pattern", "*t8"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["name"] == "fastvit_t8"


def test_info_of_a_name_has_counts_and_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "fastvit_t8"]) == 0
    text = capsys.readouterr().out
    for fact in ("4,026,232 in training, 3,992,392 folded", "ICCV 2023", "iPhone 12 Pro", "Licence", "apple_dist_in1k"):
        assert fact in text


@pytest.mark.parametrize(("name", "runtime"), [("m.safetensors", "torch"), ("m.onnx", "onnxruntime")])
def test_info_of_a_file_tells_what_is_inside(
    folder: Path, name: str, runtime: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(folder / name)]) == 0
    text = capsys.readouterr().out
    for fact in ("fastvit_debug", runtime, "32x32 px", "2: dark, light"):
        assert fact in text


def test_both_files_give_the_same_answers_one_json_line_per_image(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = []
    for name in ("m.safetensors", "m.onnx"):
        assert main(["predict", str(folder / name), str(folder / "images"), "--json", "--batch", "4"]) == 0
        answers.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert len(answers[0]) == 6
    for ours, exported in zip(*answers, strict=True):
        assert ours["image"] == exported["image"]
        for left, right in zip(ours["predictions"], exported["predictions"], strict=True):
            assert left["class"] == right["class"]
            assert left["probability"] == pytest.approx(right["probability"], abs=2e-6)
        assert sum(each["probability"] for each in ours["predictions"]) == pytest.approx(1, abs=1e-5)


def test_an_exported_model_predicts_without_torch(folder: Path) -> None:
    output_of("commands_without_torch", json.dumps([["predict", str(folder / "m.onnx"), str(folder / "images")]]))


def test_a_bad_image_is_reported_and_the_others_go_on(folder: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "a.jpg").write_text("<!DOCTYPE html><html></html>")
    good = folder / "images/dark/0.png"
    assert main(["predict", str(folder / "m.onnx"), str(tmp_path / "a.jpg"), str(good), "--json"]) == 3
    captured = capsys.readouterr()
    bad, answered = (json.loads(line) for line in captured.out.splitlines())
    assert "a.jpg" in bad["error"]
    assert answered["image"] == str(good)
    assert "1 of 2 images could not be decoded" in captured.err


def test_evaluate_counts_and_says_what_it_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(folder / "m.safetensors"), str(folder / "images")]
    assert main([*words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["num_images"] == 6
    assert record["num_skipped"] == 0
    assert main(words) == 0
    right = round(6 * record["top1"] / 100)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["Top-1", "Top-5", "Loss", "Skipped", "Time"]
    assert lines[1].split(maxsplit=1)[1] == f"{record['top1']:.2f} %, {right} of 6 right"


def test_evaluate_finds_in_an_exported_file_what_it_finds_in_the_checkpoint(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = []
    for name in ("m.safetensors", "m.onnx"):
        assert main(["evaluate", str(folder / name), str(folder / "images"), "--batch", "4", "--json"]) == 0
        records.append(json.loads(capsys.readouterr().out))
    weights, exported = records
    for key in ("top1", "top5", "num_images", "num_skipped"):
        assert exported[key] == weights[key], key
    assert exported["loss"] == pytest.approx(weights["loss"], rel=1e-4)
    assert main(["evaluate", str(folder / "m.onnx"), str(folder / "images")]) == 0
    assert "(onnxruntime)" in capsys.readouterr().out.splitlines()[0]


def test_evaluate_refuses_classes_that_the_model_does_not_know(folder: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "grey").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "grey/0.png")
    assert main(["evaluate", str(folder / "m.safetensors"), str(tmp_path)]) == 3
    assert "'grey'" in capsys.readouterr().err


def test_fold_writes_a_checkpoint_and_its_largest_difference(folder: Path, tmp_path: Path, capsys) -> None:
    target = tmp_path / "folded.safetensors"
    assert main(["fold", str(folder / "m.safetensors"), "--output", str(target)]) == 0
    text = capsys.readouterr().out
    assert "Largest difference" in text
    assert "of the largest output" in text
    assert hybridvit.load(target).card.form == "folded"
    assert main(["fold", str(target)]) == 2
    assert "folded already" in capsys.readouterr().err
    assert main(["fold", str(folder / "m.safetensors"), "--output", str(folder / "m.safetensors")]) == 2
    assert "is the checkpoint itself" in capsys.readouterr().err
    assert main(["fold", str(tmp_path / "gone.safetensors"), "--output", str(target)]) == 5
    assert "gone.safetensors does not exist" in capsys.readouterr().err


def test_print_config_trains_nothing(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits", "--seed", "7", "--print_config"]) == 0
    assert "\nseed: 7\n" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_predict_and_info_say_imagenet_classes_in_words(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "published.pth"
    model = hybridvit.create_model("fastvit_debug").eval()
    torch.nn.init.zeros_(model.head.fc.weight)
    torch.nn.init.zeros_(model.head.fc.bias).data[207] = 5.0
    save_upstream(model, weights, "apple")
    assert main(["predict", str(weights), str(folder / "images/dark/0.png"), "--top", "1"]) == 0
    assert "%  golden retriever\n" in capsys.readouterr().out
    assert main(["info", str(weights)]) == 0
    assert "1000: tench, Tinca tinca, goldfish" in capsys.readouterr().out


def test_other_class_names_are_left_as_they_are() -> None:
    assert in_words(("n0", "cat")) == ("n0", "cat")
    assert in_words(("n02099601", "n99999999")) == ("golden retriever", "n99999999")


def test_list_shows_models_of_which_nothing_is_published(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--pattern", "*debug"]) == 0
    header, row, *_ = capsys.readouterr().out.splitlines()
    assert "iPhone" not in header
    assert row.split() == ["fastvit_debug", "32", "-", "-", "-", "-"]
