"""The DINO head as a graph: exported for one image size and any batch, and counted."""

import dataclasses

import pytest
import torch
from conftest import relative_error
from dino import SMALL
from torch import Tensor, nn
from torchvision.models import resnet50

from hybridvit.measure.counts import count_each
from hybridvit.tasks.detect.dino.config import DINOConfig
from hybridvit.tasks.detect.dino.detections import best_detections
from hybridvit.tasks.detect.dino.head import DINOHead

SIZE = (64, 96)


class Detector(nn.Module):
    """Three maps to detections."""

    def __init__(self) -> None:
        super().__init__()
        self.head = DINOHead(dataclasses.replace(SMALL, decoder_depth=2))
        for box_head in (self.head.two_stage.box_head, self.head.decoder.box_heads[0]):
            nn.init.normal_(box_head.layers[-1].weight, std=0.3)

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> tuple[Tensor, ...]:
        return tuple(best_detections(self.head([fine, middle, coarse]), 20))


class ResNetMaps(nn.Module):
    """The backbone of the published detector."""

    def __init__(self) -> None:
        super().__init__()
        self.body = resnet50()
        del self.body.fc

    def forward(self, x: Tensor) -> list[Tensor]:
        body, maps = self.body, []
        x = body.layer1(body.maxpool(body.relu(body.bn1(body.conv1(x)))))
        for stage in (body.layer2, body.layer3, body.layer4):
            x = stage(x)
            maps.append(x)
        return maps


def maps(batch: int) -> tuple[Tensor, ...]:
    strides = zip(SMALL.channels, (8, 16, 32), strict=True)
    return tuple(torch.randn(batch, channels, SIZE[0] // stride, SIZE[1] // stride) for channels, stride in strides)


def any_batch() -> tuple[dict[int, object], ...]:
    return ({0: torch.export.Dim("batch")},) * 3


def test_torch_exports_the_head_for_any_batch() -> None:
    detector = Detector().eval()
    program = torch.export.export(detector, maps(2), dynamic_shapes=any_batch()).module()
    images = maps(3)
    for actual, expected in zip(program(*images), detector(*images), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:# The axis name. batch will not be used")
def test_onnx_runtime_answers_as_torch(tmp_path) -> None:
    from onnxruntime import InferenceSession

    detector = Detector().eval()
    program = torch.onnx.export(detector, maps(2), dynamo=True, verbose=False, dynamic_shapes=any_batch())
    program.save(tmp_path / "dino.onnx")
    session, images = InferenceSession(tmp_path / "dino.onnx"), maps(3)
    feeds = {given.name: value.numpy() for given, value in zip(session.get_inputs(), images, strict=True)}
    with torch.no_grad():
        scores, labels, boxes = detector(*images)
    found = [torch.from_numpy(each) for each in session.run(None, feeds)]
    assert relative_error(found[0], scores) < 1e-5
    assert torch.equal(found[1], labels)
    assert relative_error(found[2], boxes) < 1e-5


def test_multiply_adds_are_those_published() -> None:
    with torch.device("meta"):
        config = DINOConfig(channels=(512, 1024, 2048), num_classes=91)
        parts = {"backbone": ResNetMaps().eval(), "head": DINOHead(config).eval().requires_grad_(False)}
    counts = count_each(parts, torch.empty(1, 3, 800, 1280, device="meta"))
    # 193.3 with each layer's box head once; all but the last run it twice: to predict, and to move the next reference
    assert counts["head"].multiply_adds / 1e9 == pytest.approx(193.3 + 5 * 0.119, abs=0.1)
    assert sum(each.multiply_adds for each in counts.values()) / 1e9 == pytest.approx(279, rel=0.02)
