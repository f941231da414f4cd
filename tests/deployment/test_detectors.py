"""Detectors as files of one size: what is found on scenes, and where nothing is found."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import trained_like
from torch import nn

import hybridvit
from hybridvit.data.scenes import scene
from hybridvit.errors import UsageError
from hybridvit.export import EXPORTERS, load_runner
from hybridvit.export.exporter import LIMITS
from hybridvit.export.options import ExportOptions
from hybridvit.export.pipeline import ExportReport, export
from hybridvit.export.resolve import resolve
from hybridvit.task import find_task

TASK = find_task("detect")
SIZE = (64, 96)
NUM_SCENES = 10
RCNN = {
    "pyramid_channels": 16,
    "conv_channels": 16,
    "fc_width": 32,
    "anchor_sizes": (8, 16, 24, 32, 48),
    "canonical_px": 48,
    "proposals": 40,
    "detections": 20,
}
DINO = {"dim": 32, "num_queries": 30, "encoder_depth": 1, "decoder_depth": 2, "ffn_width": 32, "detections": 20}
SURE = ("classes.weight", "cls_logits.weight", "mask_fcn_logits.weight", "class_head.weight", "class_heads.0.weight")


def made(name: str, head: str, **options: object) -> nn.Module:
    """A detector that finds something in any picture: its last layers are not those of a fresh one."""
    torch.manual_seed(0)
    options = (DINO if head == "dino" else RCNN) | options
    model = hybridvit.create_model(name, task="detect", head=head, num_classes=4, head_options=options, image_size=SIZE)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith(SURE):
            nn.init.normal_(parameter, std=0.6)
    return trained_like(model)


def scenes(model: nn.Module) -> np.ndarray:
    """Ten scenes and one flat picture, as the model takes them."""
    height, width = SIZE
    pictures = [scene(number, side=width).pixels[:height] for number in range(NUM_SCENES)]
    pixels = np.stack([*pictures, np.full((height, width, 3), 127, np.uint8)])
    mean, std = (np.array(each, np.float32) for each in (model.card.preprocessing.mean, model.card.preprocessing.std))
    return ((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)  # b h w c -> b c h w


def answered(model: nn.Module, images: np.ndarray) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return {name: each.numpy() for name, each in TASK.forward(model, torch.from_numpy(images)).items()}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((name, head, to), id=f"{name}-{head}-{to}", marks=marks)
        for name, head, to, marks in (
            ("fastvit_debug", "mask_rcnn", "onnx", ()),
            ("fastvit_debug", "mask_rcnn", "openvino", (pytest.mark.nightly,)),
            ("fastvit_debug", "faster_rcnn", "openvino", (pytest.mark.nightly,)),
            ("fastvit_debug", "cascade_rcnn", "onnx", (pytest.mark.nightly,)),
            ("fastervit_debug", "cascade_mask_rcnn", "onnx", (pytest.mark.nightly,)),
            ("fastervit_debug", "cascade_mask_rcnn", "openvino", (pytest.mark.nightly,)),
            ("fastvit_debug", "dino", "onnx", (pytest.mark.nightly,)),
            ("fastervit_debug", "dino", "openvino", (pytest.mark.nightly,)),
        )
    ],
)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, ExportReport]:
    name, head, to = request.param
    model = made(name, head)
    return model, export(model, tmp_path_factory.mktemp("detector") / f"m{EXPORTERS[to].suffix}", to=to)


def test_a_file_finds_what_the_checkpoint_finds(written: tuple[nn.Module, ExportReport]) -> None:
    model, report = written
    assert report.spec.returns == "detections"
    assert report.spec.batch == 1
    assert report.parity.limit == 10 * LIMITS["fp32"]
    assert report.parity.found.endswith(" of a score or a mask's probability")
    images = scenes(model)
    expected, runner = answered(hybridvit.fold(model), images), load_runner(report.path)
    given = runner(images)
    assert tuple(given) == TASK.answers_of(model.card)
    assert (expected["scores"] > 0).any(1).all()  # something is found, on each
    assert TASK.difference(given, expected) <= 1e-4
    shown = [TASK.results(each, [None] * len(images), model.card) for each in (expected, given)]
    assert all(one.agrees(other) for one, other in zip(*shown, strict=True))


def test_it_says_that_it_takes_one_size(written: tuple[nn.Module, ExportReport]) -> None:
    _, report = written
    assert report.spec.range_px is None
    assert load_runner(report.path).card.preprocessing.crop_mode == "letterbox"
    with pytest.raises(UsageError, match=r"takes \(batch, 3, 64, 96\)"):
        load_runner(report.path)(np.zeros((1, 3, 96, 64), np.float32))


@pytest.mark.nightly
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_a_file_that_finds_nothing_says_so(to: str, tmp_path: Path) -> None:
    model = made("fastvit_debug", "mask_rcnn", score_threshold=1.0)
    report = export(model, tmp_path / f"m{EXPORTERS[to].suffix}", to=to)
    given = load_runner(report.path)(scenes(model))
    assert not any(values.any() for values in given.values())


def test_what_a_graph_of_detections_cannot_be_is_refused_with_what_can() -> None:
    model = made("fastvit_debug", "faster_rcnn")
    able = "Targets that have: onnx, openvino, tensorrt. With returns 'pyramid' it gives the feature maps"
    for to in ("executorch", "coreml", "coreai", "litert"):
        with pytest.raises(UsageError, match=rf"'{to}' cannot hold detections: which boxes remain .* {able}"):
            resolve(model, model.card, EXPORTERS[to], ExportOptions())
        assert resolve(model, model.card, EXPORTERS[to], ExportOptions(returns="pyramid")).returns == "pyramid"
    for options, text in (
        ({"dynamic_size": True}, r"takes one size: the anchors, .* Export one file per image_size"),
        ({"batch": "dynamic"}, "takes one number of images, each of which has a part of the graph of its own"),
    ):
        with pytest.raises(UsageError, match=text):
            resolve(model, model.card, EXPORTERS["onnx"], ExportOptions(**options))
