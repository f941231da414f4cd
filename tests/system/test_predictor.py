"""Pictures in, answers out: in their order, with what could not be decoded in its place."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from conftest import trained_like
from PIL import Image

import hybridvit
from hybridvit.cli import main
from hybridvit.data.inputs import pictures
from hybridvit.errors import ImageDecodeError, UsageError
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import export
from hybridvit.machine.facts import usable_cores
from hybridvit.predictor import Predictor
from hybridvit.tasks.classify.result import ClassifyResult

NAMES = ("ant", "bee", "cat", "dog", "emu", "fox")


def picture(seed: int, *, width: int = 50, height: int = 40) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint and its exports: the logits, the two most probable classes, the features."""
    root = tmp_path_factory.mktemp("predictor")
    model = trained_like(hybridvit.create_model("fastvit_debug", num_classes=len(NAMES)))
    model.card = dataclasses.replace(model.card, class_names=NAMES)
    hybridvit.save_checkpoint(model, root / "m.safetensors")
    export(model, root / "m.onnx")
    export(model, root / "top2.onnx", options=ExportOptions(top_k=2))
    export(model, root / "features.onnx", options=ExportOptions(returns="features"))
    return root


@pytest.mark.parametrize("name", ["m.safetensors", "m.onnx"])
def test_results_and_failures_come_in_the_order_of_the_pictures(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "broken.png").write_bytes(picture(2)[:90])
    predictor = Predictor(folder / name)
    answers = predictor([b"no picture", tmp_path / "a.png", str(tmp_path / "broken.png"), picture(3)])
    assert [type(answer) for answer in answers] == [ImageDecodeError, ClassifyResult, ImageDecodeError, ClassifyResult]
    assert "broken.png" in str(answers[2])
    for answer, alone in ((answers[1], predictor([picture(1)])[0]), (answers[3], predictor([picture(3)])[0])):
        assert isinstance(answer, ClassifyResult)
        assert isinstance(alone, ClassifyResult)
        assert answer.agrees(alone)
        assert answer.probabilities == pytest.approx(alone.probabilities, rel=1e-4)
        assert answer.names == tuple(NAMES[index] for index in answer.indices)
        assert list(answer.probabilities) == sorted(answer.probabilities, reverse=True)


def test_where_no_picture_can_be_decoded_each_says_why(folder: Path) -> None:
    answers = Predictor(folder / "m.onnx")([b"", b"<html>"])
    assert [type(answer) for answer in answers] == [ImageDecodeError] * 2
    assert Predictor(folder / "m.onnx")([]) == []


def test_answers_have_as_many_classes_as_are_asked_for_and_the_file_gives(folder: Path) -> None:
    def classes(name: str, most: int | None) -> int:
        (answer,) = Predictor(folder / name)([picture(1)], most=most)
        assert isinstance(answer, ClassifyResult)
        return len(answer.indices)

    assert [classes("m.onnx", most) for most in (None, 1, 6, 9)] == [5, 1, 6, 6]
    assert [classes("top2.onnx", most) for most in (None, 1, 2)] == [2, 1, 2]
    with pytest.raises(UsageError, match=r"top2\.onnx gives the 2 most probable, but 3 answers are wanted\. Ask for 2"):
        Predictor(folder / "top2.onnx")([picture(1)], most=3)
    for most in (0, -1):
        with pytest.raises(UsageError, match=f"most is {most}, but it must be at least 1"):
            Predictor(folder / "m.onnx")([picture(1)], most=most)


def test_a_file_of_features_names_no_classes(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"features\.onnx gives features, so it names no classes\."):
        Predictor(folder / "features.onnx")([picture(1)])


@pytest.mark.parametrize(("name", "gives"), [("features.onnx", "features"), ("top2.onnx", "probabilities and indices")])
def test_evaluate_refuses_a_file_that_gives_no_logits(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, gives: str
) -> None:
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "a.png").write_bytes(picture(1))
    assert main(["evaluate", str(folder / name), str(tmp_path)]) == 2
    assert f"gives {gives}, but accuracy and loss are computed from logits. Export" in capsys.readouterr().err


def test_a_picture_is_prepared_with_the_frame_that_leads_back_to_it(folder: Path) -> None:
    predictor = Predictor(folder / "m.onnx")
    preprocessing = dataclasses.replace(predictor.card.preprocessing, crop_fraction=0.5)
    predictor.card = dataclasses.replace(predictor.card, preprocessing=preprocessing)
    prepared = predictor.prepare(picture(1, width=256, height=128))  # resized to 128 x 64 for the middle 32 x 32
    assert prepared.image.shape == (3, 32, 32)
    assert prepared.frame.picture_size == (128, 256)
    assert prepared.frame.crop == (96.0, 32.0, 64.0, 64.0)
    assert prepared.frame.input_size == (32, 32)


def test_pictures_are_answered_side_by_side_as_they_are_one_by_one(folder: Path, tmp_path: Path) -> None:
    shown = [tmp_path / f"{number:02}.png" for number in range(20)]
    for number, path in enumerate(shown):
        path.write_bytes(picture(number)[: 90 if number == 7 else None])
    alone, together = (Predictor(folder / "m.onnx", workers=workers) for workers in (1, 2))
    assert (alone.runner.callers, together.runner.callers) == (1, min(2, usable_cores()))
    answers = [list(predictor.stream(pictures(shown), batch=3)) for predictor in (alone, together)]
    for one, other, path in zip(*answers, shown, strict=True):
        assert one.shown.source == other.shown.source == path
        assert isinstance(one.result, ImageDecodeError) == (path == shown[7])
        if not isinstance(one.result, ImageDecodeError):
            assert isinstance(other.result, ClassifyResult)
            assert one.result.indices == other.result.indices
            assert other.result.probabilities == pytest.approx(one.result.probabilities, abs=1e-6)
    assert str(answers[0][7].result) == str(answers[1][7].result)


def test_threads_are_shared_by_those_who_call(folder: Path) -> None:
    assert Predictor(folder / "m.onnx", threads=1, workers=4).runner.callers == 1
    assert Predictor(folder / "m.onnx", workers=99).runner.callers == usable_cores()
    assert Predictor(folder / "m.safetensors", workers=4).runner.callers == 1  # PyTorch computes one after the other
    assert Predictor(folder / "m.onnx").runner.usual_batch == 16  # small pictures
