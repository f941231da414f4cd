"""DINO as a detector: targets, padding and detections in pixels; the objective of all detectors."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import relative_error, trained_like
from detectors import NUM_CLASSES, SIZE, detector, target
from torch import nn

import hybridvit
from hybridvit.batch import Batch
from hybridvit.errors import NonFiniteError, UsageError
from hybridvit.models.with_head import WithHead
from hybridvit.task import Moment
from hybridvit.tasks.detect.dino.boxes import corners
from hybridvit.tasks.detect.dino.outputs import DINOOutputs
from hybridvit.tasks.detect.heads.config import DINOHeadConfig
from hybridvit.tasks.detect.heads.dino import objects_of, padding_of
from hybridvit.tasks.detect.objective import DetectObjective

MOMENT = Moment(step=0, total_steps=10, averaged=None)


def sure(model: WithHead) -> WithHead:
    """In eval mode, with boxes that differ from place to place."""
    trained_like(model)
    for head in (model.head.detector.two_stage.box_head, *model.head.detector.decoder.box_heads):
        nn.init.normal_(head.layers[-1].weight, std=0.3)
    return model.eval()


def batch_of(images: torch.Tensor, targets: list[dict[str, torch.Tensor]]) -> Batch:
    return Batch(images, targets, torch.arange(len(images)))


def test_objects_and_padding_are_those_of_the_valid_part() -> None:
    targets = [target(2, (64, 128)), target(0, SIZE), target(1, (96, 40))]
    objects = objects_of(targets)
    sides = torch.tensor([128.0, 64.0, 128.0, 64.0])
    torch.testing.assert_close(corners(objects[0].boxes) * sides, targets[0]["boxes"])
    assert torch.equal(objects[0].labels, targets[0]["labels"])
    assert objects[1].boxes.shape == (0, 4)
    padding = padding_of(targets, *SIZE)
    assert [(~each).sum().item() for each in padding] == [64 * 128, 96 * 128, 96 * 40]
    assert not padding[0, :64].any()
    assert not padding[2, :, :40].any()


@pytest.mark.parametrize("counts", [(2, 0), (0, 0)])
def test_every_parameter_learns_and_every_term_has_a_name(counts: tuple[int, int]) -> None:
    model, objective = detector("dino", map_norm=True), DetectObjective()
    targets = [target(counts[0], (96, 100)), target(counts[1])]
    loss = objective.loss(model, batch_of(torch.randn(2, 3, *SIZE), targets), MOMENT)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    places = ("", "_proposed", "_denoising")
    assert set(objective.terms) == {f"loss_{kind}{place}" for kind in ("class", "l1", "giou") for place in places}
    assert sum(objective.terms.values()).item() == pytest.approx(loss.item(), rel=1e-5)


def test_the_losses_of_an_r_cnn_are_summed_and_named() -> None:
    model, objective = detector("faster_rcnn"), DetectObjective()
    loss = objective.loss(model, batch_of(torch.randn(1, 3, *SIZE), [target(2)]), MOMENT)
    loss.backward()
    assert list(objective.terms) == ["loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"]
    assert sum(objective.terms.values()).item() == pytest.approx(loss.item(), rel=1e-6)
    assert not any(term.requires_grad for term in objective.terms.values())


def test_an_answer_that_is_not_finite_is_refused_by_its_file() -> None:
    model = detector("dino")
    nn.init.constant_(model.head.detector.decoder.norm.bias, torch.nan)
    samples: Any = SimpleNamespace(paths=("a.jpg", "b.jpg"))
    with pytest.raises(NonFiniteError, match=r"to the objects of a\.jpg is not finite: a prediction or a box is NaN"):
        DetectObjective(samples).loss(model, batch_of(torch.randn(1, 3, *SIZE), [target(1)]), MOMENT)


def test_detections_are_in_pixels_best_first() -> None:
    model, images = sure(detector("dino")), torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        found, alone = model(images), model(images[1:])
    assert found["boxes"].shape == (2, 40, 4)
    assert 20 < found["boxes"].amax() < 2 * max(SIZE)
    assert (found["scores"].diff(dim=1) <= 0).all()
    assert set(found["labels"].unique().tolist()) <= set(range(NUM_CLASSES))
    for name, each in alone.items():
        torch.testing.assert_close(each[0], found[name][1], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("backbone", ["fastvit_debug", "fastervit_debug"])
def test_a_folded_detector_finds_the_same_boxes(backbone: str) -> None:
    model = sure(detector("dino", backbone))
    folded = hybridvit.fold(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    images = torch.randn(2, 3, 97, 131)
    with torch.no_grad():
        found, after = model(images), folded(images)
    assert relative_error(after["scores"], found["scores"]) < 1e-5
    assert relative_error(after["boxes"], found["boxes"]) < 1e-5


def test_it_is_saved_and_loaded_with_its_options(tmp_path: Path) -> None:
    model = detector("dino", strides=(4, 8, 16, 32), map_norm=True, shared_heads=False).eval()
    hybridvit.save_checkpoint(model, tmp_path / "detector.safetensors")
    again: Any = hybridvit.load(tmp_path / "detector.safetensors")
    assert len(again.head.norms) == 4
    assert again.head.detector.config.num_levels == 5
    images = torch.randn(1, 3, *SIZE)
    for name, found in model(images).items():
        assert torch.equal(again(images)[name], found)
    assert {name.rsplit(".", 1)[0] for name in model.classifier} == {
        "head.detector.two_stage.class_head",
        "head.detector.decoder.class_heads.0",
        "head.detector.decoder.class_heads.1",
        "head.detector.denoising.labels",
    }


def test_training_without_targets_and_wrong_strides_are_refused() -> None:
    with pytest.raises(UsageError, match=r"where it denoises copies of the objects, but was given no targets. Give"):
        detector("dino")(torch.randn(1, 3, *SIZE))
    with pytest.raises(UsageError, match=r"strides is \(16, 32\), but must be \(8, 16, 32\), or \(4, 8, 16, 32\)"):
        DINOHeadConfig(strides=(16, 32))


def test_an_image_too_small_for_the_narrowest_head_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Take images of more than 64 px, or head_options.dim of 64 or more"):
        detector("dino").eval()(torch.zeros(1, 3, 64, 64))
    assert detector("dino", dim=64).eval()(torch.zeros(1, 3, 64, 64))["boxes"].isfinite().all()


def test_in_training_its_answers_are_of_every_layer() -> None:
    answers = detector("dino")(torch.randn(1, 3, *SIZE), [target(2)])
    assert isinstance(answers, DINOOutputs)
    assert answers.matching.boxes.shape == (2, 1, 30, 4)
