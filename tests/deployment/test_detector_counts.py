"""What detectors cost at 1280 x 800 pixels, against the figures that are commonly known of them (spec of the task)."""

import pytest
import torch

import hybridvit
from hybridvit.measure.counts import Counts, count
from hybridvit.models.with_head import WithHead

SIZE = (800, 1280)


def counts_of(backbone: str, head: str, num_classes: int = 80) -> Counts:
    """Of the whole model, with 1000 proposals for each stage and 100 masks for each mask head."""
    with torch.device("meta"):
        model = hybridvit.create_model(backbone, task="detect", head=head, num_classes=num_classes)
    assert isinstance(model, WithHead)
    return count(model, SIZE)


def test_mask_r_cnn_on_resnet50_costs_what_it_is_known_for() -> None:
    counts = counts_of("resnet50", "mask_rcnn")
    assert counts.multiply_adds / 1e9 == pytest.approx(260, rel=0.01)
    assert counts.parameters / 1e6 == pytest.approx(44.2, rel=0.01)


@pytest.mark.parametrize(
    ("backbone", "multiply_adds", "parameters"),
    [("swin_tiny_patch4_window7_224", 745, 86), pytest.param("convnext_tiny", 741, 86, marks=pytest.mark.nightly)],
)
def test_cascade_mask_r_cnn_costs_what_it_is_known_for(backbone: str, multiply_adds: int, parameters: int) -> None:
    counts = counts_of(backbone, "cascade_mask_rcnn")
    assert counts.multiply_adds / 1e9 == pytest.approx(multiply_adds, rel=0.005)
    assert counts.parameters / 1e6 == pytest.approx(parameters, rel=0.005)


@pytest.mark.nightly
def test_dino_on_resnet50_costs_what_it_is_known_for() -> None:
    counts = counts_of("resnet50", "dino", num_classes=91)
    assert counts.multiply_adds / 1e9 == pytest.approx(279, rel=0.02)
    assert counts.parameters / 1e6 == pytest.approx(46.89, rel=0.02)  # timm's norms have parameters, 0.05 M
