"""What the DINO head promises: its parts against transformers', gradients, empty images, messages."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from conftest import relative_error
from dino import SMALL
from torch import Tensor

from hybridvit.errors import NonFiniteError, UsageError
from hybridvit.tasks.detect.dino.attention import DeformableAttention
from hybridvit.tasks.detect.dino.boxes import Objects, centred, corners, generalised_iou, logit
from hybridvit.tasks.detect.dino.config import DINOConfig
from hybridvit.tasks.detect.dino.denoising import Denoising
from hybridvit.tasks.detect.dino.detections import best_detections
from hybridvit.tasks.detect.dino.head import DINOHead
from hybridvit.tasks.detect.dino.levels import Levels
from hybridvit.tasks.detect.dino.loss import DINOLoss, assigned_copies, mean_over_processes
from hybridvit.tasks.detect.dino.matching import Costs, match
from hybridvit.tasks.detect.dino.outputs import DenoisingLayout, DINOOutputs, Predictions

CPU = torch.device("cpu")
SIZE = (64, 80)  # height, width in pixels


def head_with(**options: Any) -> DINOHead:
    return DINOHead(dataclasses.replace(SMALL, **options))


def maps(batch: int = 2) -> list[Tensor]:
    height, width = SIZE
    strides = zip(SMALL.channels, (8, 16, 32), strict=True)
    return [torch.randn(batch, channels, height // stride, -(-width // stride)) for channels, stride in strides]


def objects(*counts: int) -> list[Objects]:
    return [Objects(torch.randint(SMALL.num_classes, (count,)), torch.rand(count, 4) * 0.2 + 0.25) for count in counts]


def predictions(num_queries: int, batch: int = 1) -> Predictions:
    return Predictions(torch.randn(2, batch, num_queries, SMALL.num_classes), torch.rand(2, batch, num_queries, 4))


@pytest.mark.parametrize("coordinates", [2, 4])
@pytest.mark.parametrize("padded", [False, True])
def test_deformable_attention_is_that_of_transformers(coordinates: int, padded: bool) -> None:
    from transformers import DeformableDetrConfig
    from transformers.models.deformable_detr.modeling_deformable_detr import (
        DeformableDetrMultiscaleDeformableAttention,
    )

    dim, heads, points, shapes = 64, 4, 3, [(7, 9), (4, 5), (2, 3)]
    config = DeformableDetrConfig(d_model=dim, num_feature_levels=len(shapes), disable_custom_kernels=True)
    theirs = DeformableDetrMultiscaleDeformableAttention(config, heads, points)
    ours = DeformableAttention(dim, num_heads=heads, num_levels=len(shapes), num_points=points)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    num_tokens = sum(height * width for height, width in shapes)
    tokens, queries = torch.randn(2, num_tokens, dim), torch.randn(2, 11, dim)
    references = torch.rand(2, 11, len(shapes), coordinates)
    padding = torch.rand(2, num_tokens) < 0.2 if padded else None
    with torch.no_grad():
        expected, _ = theirs(
            queries,
            attention_mask=None if padding is None else ~padding,
            encoder_hidden_states=tokens,
            reference_points=references,
            spatial_shapes=torch.tensor(shapes),
            spatial_shapes_list=shapes,
            level_start_index=torch.tensor([0, 63, 83]),
        )
        answer = ours(queries, references, tokens, Levels.of(shapes, padding, CPU))
    assert relative_error(answer, expected) < 1e-6


def test_heads_of_deformable_attention_begin_by_looking_in_eight_directions() -> None:
    attention = DeformableAttention(64, num_heads=8, num_levels=2, num_points=3)
    offsets = attention.offsets.bias.unflatten(0, (8, 2, 3, 2))
    directions = torch.tensor([[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1]])
    for point in range(3):
        torch.testing.assert_close(offsets[:, 0, point], (point + 1.0) * directions, atol=1e-5, rtol=0)
    assert torch.equal(offsets[:, 0], offsets[:, 1])
    assert not attention.offsets.weight.any()


@pytest.mark.parametrize("counts", [(3, 1), (0, 7), (120, 40)])
def test_denoising_groups_are_those_of_transformers(counts: Sequence[int]) -> None:
    from transformers.models.rt_detr.modeling_rt_detr import get_contrastive_denoising_training_group

    config = dataclasses.replace(SMALL, label_noise=0.0, box_noise=0.0)
    denoising, batch = Denoising(config), objects(*counts)
    layout = denoising.layout(batch)
    assert layout is not None
    labels, boxes, mask, meta = get_contrastive_denoising_training_group(
        [{"class_labels": each.labels, "boxes": each.boxes} for each in batch],
        num_classes=config.num_classes,
        num_queries=config.num_queries,
        class_embed=lambda numbers: numbers.long(),
        label_noise_ratio=0,
        box_noise_scale=0,
    )
    assert [layout.num_queries, config.num_queries] == meta["dn_num_split"]
    assert layout.groups == meta["dn_num_group"]
    assert torch.equal(layout.unseen(config.num_queries, CPU), mask.isneginf())
    assignment = assigned_copies(layout, batch, 1)
    for image, positives in enumerate(meta["dn_positive_idx"]):
        assert torch.equal(assignment.queries[0, assignment.images == image], positives)
    copies = denoising(batch, layout, denoising.draw(batch, layout))
    is_copy = labels < config.num_classes  # empty slots have a row of the table there, and nothing here
    assert torch.equal(copies.contents, denoising.labels(labels) * is_copy[..., None])
    torch.testing.assert_close(copies.logits.sigmoid()[is_copy], boxes[is_copy])
    assert not copies.logits[~is_copy].any()


def test_noise_is_that_of_the_seed_and_within_its_bounds() -> None:
    denoising = Denoising(dataclasses.replace(SMALL, num_classes=1000))
    batch = [Objects(torch.full((4,), 7), torch.tensor([[0.5, 0.5, 0.2, 0.1]] * 4))]
    layout = denoising.layout(batch)
    assert layout == DenoisingLayout(25, 4)
    draws = [denoising.draw(batch, layout) for _ in map(torch.manual_seed, (3, 3, 4))]
    assert all(torch.equal(one, same) for one, same in zip(draws[0], draws[1], strict=True))
    assert not torch.equal(draws[0].parts, draws[2].parts)
    copies = denoising(batch, layout, draws[0])
    kept = (copies.contents == denoising.labels.weight[7]).all(-1)
    assert 0.6 < kept.float().mean() < 0.9  # three of four, and 200 copies
    by_half = copies.logits[0].unflatten(0, (25, 2, 4))
    sides = torch.tensor([0.2, 0.1]).repeat(2)
    moved = (corners(by_half[:, 0].sigmoid()) - corners(batch[0].boxes)).abs() / sides
    assert 0.4 < moved.max() <= 0.5 + 1e-5
    centre_moved = (by_half[:, 1, :, :2].sigmoid() - 0.5).abs() / sides[:2]
    assert 0.9 < centre_moved.max() <= 1 + 1e-5


def test_the_box_loss_of_a_layer_reaches_the_layer_before_it_and_no_further() -> None:
    head, batch = head_with(shared_heads=False), objects(2, 1)
    losses = DINOLoss()(head(maps(), None, batch), batch)
    for place in ("layer", "denoising_layer"):
        for kind in ("l1", "giou"):
            for layer in range(SMALL.decoder_depth):
                head.zero_grad()
                losses.parts[f"{kind}_{place}_{layer}"].backward(retain_graph=True)
                biases = [box_head.layers[-1].bias.grad for box_head in head.decoder.box_heads]
                reached = {number for number, bias in enumerate(biases) if bias is not None and bias.any()}
                assert reached == {layer, layer - 1} - {-1}


@pytest.mark.parametrize("counts", [(2, 0), (0, 0)])
def test_every_parameter_has_a_finite_gradient(counts: Sequence[int]) -> None:
    head, batch = DINOHead(SMALL), objects(*counts)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = head(maps(), None, batch)
    assert {each.dtype for each in (*outputs.matching, *outputs.proposed)} == {torch.float32}
    losses = DINOLoss()(outputs, batch)
    assert len(losses.parts) == 3 * (2 * SMALL.decoder_depth + 1)
    losses.total.backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_the_loss_falls() -> None:
    head, batch, images = DINOHead(SMALL), objects(3, 2), maps()
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3)
    totals = []
    for _ in range(30):
        optimizer.zero_grad()
        losses = DINOLoss()(head(images, None, batch), batch)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        totals.append(losses.total.item())
    assert totals[-1] < 0.8 * totals[0]


def test_no_padding_is_the_same_as_a_mask_without_any() -> None:
    head, images = DINOHead(SMALL).eval(), maps()
    torch.nn.init.normal_(head.decoder.box_heads[0].layers[-1].weight)
    with torch.no_grad():
        plain, masked = head(images), head(images, torch.zeros(2, *SIZE, dtype=torch.bool))
        alone = head([each[1:] for each in images])
    for one, other, single in zip(plain.matching, masked.matching, alone.matching, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
        torch.testing.assert_close(one[:, 1:], single, rtol=0, atol=1e-5)


def test_a_head_without_denoising_has_no_copies() -> None:
    head, batch = head_with(denoising_queries=0), objects(2, 1)
    outputs = head(maps(), None, batch)
    losses = DINOLoss()(outputs, batch)
    assert outputs.denoising is None
    assert not losses.parts["class_denoising_layer_0"]


def test_copies_count_as_much_as_their_objects_however_many_groups_there_are() -> None:
    layout, batch = DenoisingLayout(2, 2), objects(2, 1)
    assignment = assigned_copies(layout, batch, 1)
    assert assignment.images.tolist() == [0, 0, 0, 0, 1, 1]
    assert assignment.queries[0].tolist() == [0, 1, 4, 5, 0, 4]
    assert assignment.objects[0].tolist() == [0, 1, 0, 1, 2, 2]
    one_group, losses = predictions(4, 2), DINOLoss()
    matching = predictions(5, 2)
    proposed = Predictions(*(each[:1] for each in matching))
    single = losses(DINOOutputs(matching, proposed, one_group, DenoisingLayout(1, 2)), batch)
    twice = Predictions(*(torch.cat((each, each), dim=2) for each in one_group))
    double = losses(DINOOutputs(matching, proposed, twice, layout), batch)
    torch.testing.assert_close(double.total, single.total, rtol=1e-5, atol=1e-5)


def test_an_image_with_more_objects_than_queries_gets_as_many_as_there_are() -> None:
    batch = objects(2, 6)
    assignment = match(predictions(4, 2), batch, Costs())
    assert assignment.images.tolist() == [0, 0, 1, 1, 1, 1]
    assert sorted(assignment.queries[0, 2:].tolist()) == [0, 1, 2, 3]
    assert len(set(assignment.objects[1].tolist())) == 6


def test_a_right_answer_is_the_cheapest() -> None:
    batch = objects(3)
    answers = predictions(7)
    answers.boxes[:, 0, [5, 1, 2]] = batch[0].boxes
    answers.logits[:, 0, [5, 1, 2], batch[0].labels] = 9.0
    assert match(answers, batch, Costs()).queries.tolist() == [[5, 1, 2]] * 2


def test_an_answer_that_is_not_finite_is_refused_by_the_name_of_its_image() -> None:
    answers, batch = predictions(5, 2), objects(1, 1)
    answers.boxes[1, 1, 3] = torch.nan
    with pytest.raises(NonFiniteError, match=r"^The cost of assigning queries to the objects of b\.jpg is not finite"):
        match(answers, batch, Costs(), ["a.jpg", "b.jpg"])
    with pytest.raises(NonFiniteError, match="image 1 of the batch is not finite: a prediction or a box is NaN"):
        match(answers, batch, Costs())


def test_without_scipy_training_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(UsageError, match=r'needs SciPy, which is not installed. Run: pip install "hybridvit\[detec'):
        match(predictions(5), objects(1), Costs())


def test_objects_are_counted_over_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mean_over_processes(3, CPU) == 3
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.add_(4))  # of the other one
    assert mean_over_processes(3, CPU) == 3.5


def test_boxes_survive_the_way_to_corners_and_to_logits() -> None:
    boxes = torch.rand(50, 4)
    torch.testing.assert_close(centred(corners(boxes)), boxes)
    torch.testing.assert_close(logit(boxes.clamp(1e-3, 1 - 1e-3)).sigmoid(), boxes.clamp(1e-3, 1 - 1e-3))
    assert logit(torch.tensor([-2.0, 0.0])).exp().tolist() == pytest.approx([1e-3, 1e-3], rel=1e-4)
    assert logit(torch.tensor([1.0, 3.0])).exp().tolist() == pytest.approx([1e3, 1e3], rel=1e-4)


def test_generalised_iou_is_that_of_torchvision() -> None:
    from torchvision.ops import generalized_box_iou

    boxes, others = torch.rand(9, 4) + 0.1, torch.rand(7, 4) + 0.1
    expected = generalized_box_iou(corners(boxes), corners(others))
    torch.testing.assert_close(generalised_iou(boxes[:, None], others), expected, rtol=0, atol=1e-4)
    flat = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    assert generalised_iou(flat, flat).isfinite().all()


def test_no_more_detections_than_there_are_answers() -> None:
    answers = predictions(4)
    found = best_detections(DINOOutputs(answers, answers), 300)
    assert found.scores.shape == (1, 4 * SMALL.num_classes)
    assert found.scores[0].tolist() == sorted(found.scores[0].tolist(), reverse=True)


def test_training_without_objects_and_maps_with_too_few_places_are_refused() -> None:
    with pytest.raises(UsageError, match="is in training mode, where it denoises copies of the objects, but was given"):
        DINOHead(SMALL)(maps())
    head = head_with(num_queries=900).eval()
    with pytest.raises(UsageError, match="The maps 8x10, 4x5, 2x3, 1x2 have 108 places in all, but num_queries is 900"):
        head(maps())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 48}, "dim is 48, but must be a multiple of 32: of 32 groups and 2 heads."),
        ({"num_queries": 0}, "num_queries is 0, but must be a whole number from 1."),
        ({"denoising_queries": -1}, "denoising_queries is -1, but must be a whole number from 0."),
        ({"channels": ()}, r"channels is \(\), but must be a tuple of whole numbers from 1"),
        ({"shared_heads": 1}, "shared_heads is 1, but must be True or False."),
        ({"label_noise": 3.0}, "label_noise is 3.0, but must be from 0 to 2: its half is a share."),
        ({"box_noise": -1.0}, "box_noise is -1.0, but must be a number from 0."),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(SMALL, **options)


def test_the_five_scale_head_takes_four_maps() -> None:
    head = DINOHead(DINOConfig(**{**vars(SMALL), "channels": (4, *SMALL.channels)})).eval()
    height, width = SIZE
    with torch.no_grad():
        outputs = head([torch.randn(1, 4, height // 4, width // 4), *maps(1)])
    assert outputs.matching.boxes.shape == (SMALL.decoder_depth, 1, SMALL.num_queries, 4)
