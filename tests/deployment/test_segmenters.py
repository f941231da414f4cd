"""Segmenters as files: any size of picture in one of them, the class of each pixel alone, and integers."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import trained_like
from PIL import Image
from torch import nn

import hybridvit
from hybridvit.data.scenes import write_segmentation
from hybridvit.difference import relative_error
from hybridvit.errors import UsageError
from hybridvit.export import EXPORTERS, load_runner
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import ExportReport, export
from hybridvit.export.quantise.plan import plan_from_folder
from hybridvit.predictor import Predictor

SIZES = [(96, 128), (160, 96), (97, 131), (500, 333)]  # height, width
WIDTHS = {
    "semantic_fpn": {"pyramid_channels": 16, "channels": 16},
    "upernet": {"channels": 16, "auxiliary_channels": 8},
}


def made(name: str, head: str) -> nn.Module:
    torch.manual_seed(0)
    options = {"head_options": WIDTHS[head], "num_classes": 5, "image_size": 96}
    return trained_like(hybridvit.create_model(name, task="segment", head=head, **options))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((name, head, to), id=f"{name}-{head}-{to}", marks=marks)
        for name, head, to, marks in (
            ("fastvit_debug", "semantic_fpn", "onnx", ()),
            ("fastvit_debug", "upernet", "openvino", (pytest.mark.nightly,)),
            ("fastvit_debug", "upernet", "onnx", (pytest.mark.nightly,)),
            ("fastvit_debug", "semantic_fpn", "openvino", (pytest.mark.nightly,)),
            ("fastervit_debug", "semantic_fpn", "onnx", (pytest.mark.nightly,)),
            ("fastervit_debug", "upernet", "onnx", (pytest.mark.nightly,)),
            ("fastervit_debug", "semantic_fpn", "openvino", (pytest.mark.nightly,)),
            ("fastervit_debug", "upernet", "openvino", (pytest.mark.nightly,)),
        )
    ],
)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, ExportReport]:
    name, head, to = request.param
    model = made(name, head)
    return model, export(model, tmp_path_factory.mktemp("segmenter") / f"m{EXPORTERS[to].suffix}", to=to)


def test_one_file_answers_as_pytorch_at_any_size(written: tuple[nn.Module, ExportReport]) -> None:
    model, report = written
    folded, runner = hybridvit.fold(model), load_runner(report.path)
    assert report.spec.returns == "segmentation"
    assert report.spec.range_px is not None
    for size in SIZES:
        for batch in (1, 2):
            images = torch.randn(batch, 3, *size)
            with torch.no_grad():
                assert relative_error(runner(images)["logits"], folded(images).numpy()) <= 1e-5, size


def test_pictures_of_any_size_are_answered_as_by_the_checkpoint(
    written: tuple[nn.Module, ExportReport], tmp_path: Path
) -> None:
    model, report = written
    checkpoint = tmp_path / "model.safetensors"
    hybridvit.save_checkpoint(model, checkpoint)
    sources = [picture(size) for size in ((120, 90), (64, 200))]
    answers = [Predictor(path)(sources) for path in (checkpoint, report.path)]
    assert all(one.agrees(other) for one, other in zip(*answers, strict=True))
    assert [result.to_dict()["height"] for result in answers[1]] == [90, 200]


def picture(size: tuple[int, int]) -> bytes:
    file = BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


@pytest.mark.nightly  # the comparison of the numbers of classes is tested in test_returns.py
def test_a_file_can_give_the_class_of_each_pixel_alone(tmp_path: Path) -> None:
    model = made("fastvit_debug", "semantic_fpn")
    images = [np.random.default_rng(0).normal(size=(3, *size)).astype(np.float32) for size in ((64, 96), (97, 65))]
    report = export(model, tmp_path / "m.onnx", options=ExportOptions(argmax=True), images=images)
    assert report.parity.real_images == report.parity.num_same == 2
    labels = load_runner(report.path)(images[1][None])["labels"]
    assert (labels.dtype, labels.shape) == (np.uint8, (1, 97, 65))
    with torch.no_grad():
        expected = model(torch.from_numpy(images[1][None])).argmax(1).numpy()
    assert (labels == expected).mean() > 0.999


@pytest.mark.nightly
@pytest.mark.parametrize("head", list(WIDTHS))
@pytest.mark.parametrize("to", ["executorch", "coreml"])
def test_targets_of_fixed_sizes_take_one(to: str, head: str, tmp_path: Path) -> None:
    model = made("fastvit_debug", head)
    report = export(model, tmp_path / f"m{EXPORTERS[to].suffix}", to=to)
    assert report.spec.range_px is None
    assert report.parity.max_error <= EXPORTERS[to].limits["fp32"]
    assert report.spec.sizes == ((96, 96),)


def test_what_a_file_can_return_is_the_task_s_to_say(tmp_path: Path) -> None:
    model = made("fastvit_debug", "semantic_fpn")
    for options, text in (
        ({"returns": "logits"}, "of a model of the task 'segment' can return segmentation, features, pyramid"),
        ({"returns": "features"}, "Choose segmentation or pyramid"),
        ({"top_k": 2}, "the file is to return segmentation, and top_k ranks classes of which one is true"),
        ({"returns": "pyramid", "argmax": True}, "argmax gives the class of each pixel of a segmentation"),
    ):
        with pytest.raises(UsageError, match=text):
            export(model, tmp_path / "m.onnx", options=ExportOptions(**options))
    classifier = hybridvit.create_model("fastvit_debug").eval()
    with pytest.raises(UsageError, match="argmax is set, but the file is to return logits"):
        export(classifier, tmp_path / "m.onnx", options=ExportOptions(argmax=True))
    assert not list(tmp_path.iterdir())


@pytest.mark.nightly
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_integers_are_judged_by_the_mean_iou(to: str, tmp_path: Path) -> None:
    write_segmentation(tmp_path / "scenes", train=8, val=24)
    model = made("fastvit_debug", "semantic_fpn")
    plan = plan_from_folder(tmp_path / "scenes", model.card, num_calibration=8, max_drop=5)
    report = export(
        model,
        tmp_path / f"m{EXPORTERS[to].suffix}",
        to=to,
        options=ExportOptions(precision="int8"),
        quantisation=plan,
    )
    assert report.quality is not None
    assert report.quality.quantity.name == "miou"
    assert report.quality.drop <= 5
    assert (report.spec.range_px is None) == (to == "openvino")  # which dies of integers on dynamic sizes
