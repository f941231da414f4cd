"""What R-CNN heads promise: torchvision's losses and detections, empty images, ignored regions, padding, folding."""

import dataclasses
import math
from collections import OrderedDict
from typing import Any

import pytest
import torch
from conftest import relative_error, trained_like
from detectors import NUM_CLASSES, RCNN, SIZE, detector, target
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

import hybridvit
from hybridvit.errors import UnknownOptionError, UsageError
from hybridvit.models.with_head import WithHead
from hybridvit.tasks.detect.heads import HEADS
from hybridvit.tasks.detect.heads import boxes as box_arithmetic
from hybridvit.tasks.detect.heads.boxes import clipped, decoded, encoded, share_inside
from hybridvit.tasks.detect.heads.config import FasterRCNNConfig
from hybridvit.tasks.detect.heads.parts import BoxHead
from hybridvit.tasks.detect.heads.rpn import RegionProposals, labels_of
from hybridvit.tasks.detect.heads.sampling import Samples, assigned

SQUARE = (128, 128)  # torchvision guesses strides from sizes: right where 64 divides them
R_CNNS = [head for head in HEADS if head != "dino"]


def sure(model: WithHead) -> WithHead:
    """In eval mode, with scores and boxes that differ from place to place, as after a training."""
    torch.manual_seed(5)
    trained_like(model)
    for head in model.head.box_heads:
        nn.init.normal_(head.classes.weight, std=0.5)
        nn.init.normal_(head.boxes.weight, std=0.05)
    nn.init.normal_(model.head.rpn.head.bbox_pred.weight, std=0.05)
    nn.init.normal_(model.head.rpn.head.cls_logits.weight, std=0.3)
    return model.eval()


def torchvisions(model: WithHead) -> MaskRCNN:
    """torchvision's Mask R-CNN with the weights of ours, and "none" as its first class instead of the last."""
    config, head = model.head.config, model.head
    width, channels, names = config.conv_channels, config.pyramid_channels, ["0", "1", "2", "3"]
    pools = [
        MultiScaleRoIAlign(names, size, 2, canonical_scale=config.canonical_px, canonical_level=4) for size in (7, 14)
    ]
    backbone = nn.Identity()
    backbone.out_channels = channels  # type: ignore[assignment]
    theirs = MaskRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(
            tuple((size,) for size in config.anchor_sizes), (config.anchor_ratios,) * len(config.anchor_sizes)
        ),
        rpn_pre_nms_top_n_train=config.train_proposals,
        rpn_post_nms_top_n_train=config.train_proposals,
        rpn_pre_nms_top_n_test=config.proposals,
        rpn_post_nms_top_n_test=config.proposals,
        box_roi_pool=pools[0],
        box_head=TwoMLPHead(channels * 49, config.fc_width),
        box_predictor=Predictor(config.fc_width),
        box_batch_size_per_image=config.samples,
        box_detections_per_img=config.detections,
        mask_roi_pool=pools[1],
        mask_head=MaskRCNNHeads(channels, [width] * 4, 1),
        mask_predictor=MaskRCNNPredictor(width, width, NUM_CLASSES + 1),
    )
    ours, masks = head.box_heads[0], head.mask_heads[0]
    theirs.rpn.head.load_state_dict(head.rpn.head.state_dict())
    theirs.roi_heads.box_head.load_state_dict(ours.features.state_dict())
    theirs.roi_heads.mask_head.load_state_dict(masks.features.state_dict())
    with torch.no_grad():
        for name in ("weight", "bias"):
            classes, boxes = getattr(ours.classes, name), getattr(ours.boxes, name)
            getattr(theirs.roi_heads.box_predictor.cls_score, name).copy_(classes.roll(1, 0))
            getattr(theirs.roi_heads.box_predictor.bbox_pred, name)[4:] = boxes
            predictor, own = theirs.roi_heads.mask_predictor, masks.predictor
            getattr(predictor.conv5_mask, name).copy_(getattr(own.conv5_mask, name))
            getattr(predictor.mask_fcn_logits, name)[1:] = getattr(own.mask_fcn_logits, name)
    return theirs


class Predictor(nn.Module):
    """torchvision's, whose class is made for a number of classes that is given with it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(width, NUM_CLASSES + 1)
        self.bbox_pred = nn.Linear(width, 4 * (NUM_CLASSES + 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x), self.bbox_pred(x)


def levels_of(model: WithHead, images: Tensor) -> OrderedDict[str, Tensor]:
    with torch.no_grad():
        levels = model.head.fpn(model.pyramid(images))
    return OrderedDict(zip(["0", "1", "2", "3", "pool"], levels, strict=True))


def test_losses_are_those_of_torchvision_on_the_same_samples() -> None:
    model = sure(detector("mask_rcnn", aligned=False, pyramid_norm=False))
    theirs, images = torchvisions(model).train(), torch.randn(2, 3, *SQUARE)
    targets = [target(3, SQUARE), target(0, SQUARE)]
    levels, listed = levels_of(model, images), ImageList(images, [SQUARE] * 2)
    their_targets = [{**each, "labels": each["labels"] + 1} for each in targets]
    torch.manual_seed(1)
    proposals, expected = theirs.rpn(listed, levels, their_targets)
    _, of_regions = theirs.roi_heads(levels, proposals, listed.image_sizes, their_targets)
    expected |= of_regions
    model.head.train()
    torch.manual_seed(1)
    losses = model(images, targets)
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=1e-5), name
        assert loss > 0
    sum(losses.values()).backward()
    sum(expected.values()).backward()
    for ours, other in (
        (model.head.rpn.head.bbox_pred, theirs.rpn.head.bbox_pred),
        (model.head.box_heads[0].features.fc6, theirs.roi_heads.box_head.fc6),
        (model.head.mask_heads[0].features, theirs.roi_heads.mask_head),
    ):
        for one, same in zip(ours.parameters(), other.parameters(), strict=True):
            assert relative_error(one.grad, same.grad) < 1e-4


def test_detections_are_those_of_torchvision() -> None:
    model = sure(detector("mask_rcnn", aligned=False, pyramid_norm=False))
    theirs, images = torchvisions(model).eval(), torch.randn(2, 3, *SQUARE)
    levels, listed = levels_of(model, images), ImageList(images, [SQUARE] * 2)
    with torch.no_grad():
        found = model(images)
        proposals, _ = theirs.rpn(listed, levels)
        expected, _ = theirs.roi_heads(levels, proposals, listed.image_sizes)
    for image, each in enumerate(expected):
        count = len(each["scores"])
        assert 2 <= count == (found["scores"][image] > 0).sum()
        assert torch.equal(found["labels"][image, :count], each["labels"] - 1)
        for name in ("boxes", "scores"):
            torch.testing.assert_close(found[name][image, :count], each[name], rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(found["masks"][image, :count], each["masks"][:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("head", "counts"), [("mask_rcnn", (0, 0)), ("cascade_mask_rcnn", (2, 0))])
def test_images_without_objects_are_plain_samples(head: str, counts: tuple[int, int]) -> None:
    model = detector(head)
    targets = [target(counts[0], (64, 96)), target(counts[1], (64, 80))]
    losses = model(torch.randn(2, 3, 64, 96), targets)
    assert all(loss.isfinite() for loss in losses.values())
    names = {"loss_classifier", "loss_box_reg", "loss_mask"}
    if head == "cascade_mask_rcnn":
        names = {f"{name}_{stage}" for name in names for stage in range(3)}
    assert losses.keys() == names | {"loss_objectness", "loss_rpn_box_reg"}
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_where_everything_is_ignored_nothing_is_learnt_and_nothing_breaks() -> None:
    model, everything = detector("cascade_mask_rcnn"), target(0, (64, 64))
    everything["ignored"] = torch.tensor([[-64.0, -64.0, 128.0, 128.0]])  # anchors go beyond the image
    losses = model(torch.randn(1, 3, 64, 64), [everything])
    assert not any(losses.values())
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_proposal_in_an_ignored_region_is_neither_positive_nor_negative() -> None:
    proposals = torch.tensor([[0.0, 0, 10, 10], [0, 0, 20, 10], [0, 0, 19, 10], [50, 50, 60, 60], [80, 80, 95, 95]])
    truth = {"boxes": proposals[[0, 3]], "labels": torch.tensor([2, 1]), "size": torch.tensor([96, 96])}
    truth["ignored"] = torch.tensor([[0.0, 0.0, 10.0, 30.0], [90.0, 80.0, 96.0, 96.0]])
    options: Any = {"overlap": 0.5, "count": 64, "positive_share": 0.5}
    (samples,) = assigned([proposals], [truth], NUM_CLASSES, **options)
    kept = [(box.tolist(), label.item()) for box, label in zip(samples.boxes, samples.labels, strict=True)]
    assert kept == [  # half of the second is not more than half; the boxes of the objects themselves stay
        ([0, 0, 20, 10], 2),
        ([50, 50, 60, 60], 1),
        ([80, 80, 95, 95], NUM_CLASSES),
        ([0, 0, 10, 10], 2),
        ([50, 50, 60, 60], 1),
    ]
    assert samples.is_proposal.tolist() == [True, True, True, False, False]
    labels, _ = labels_of(proposals, truth)
    assert labels.tolist() == [-1, -1, -1, 1, 0]
    share = share_inside(proposals, truth["ignored"])
    torch.testing.assert_close(share, torch.tensor([1, 0.5, 10 / 19, 0, 1 / 3]))


def test_anchors_in_the_padding_are_ignored_and_proposals_end_with_the_image() -> None:
    rpn = RegionProposals(FasterRCNNConfig(**RCNN))
    nn.init.normal_(rpn.head.bbox_pred.weight, std=1.0)
    levels = [torch.randn(2, 16, 96 // stride, 128 // stride) for stride in (4, 8, 16, 32, 64)]
    anchors, logits, deltas = rpn(levels)
    truth = target(1, (40, 70))
    labels, _ = labels_of(anchors[0], truth)
    centres = (anchors[0][:, :2] + anchors[0][:, 2:]) / 2
    is_inside = (centres < torch.tensor([70, 40])).all(1)
    assert (labels[~is_inside] == -1).all()
    assert (labels[is_inside] >= 0).any()
    proposals = rpn.propose(anchors, logits, deltas, torch.tensor([[40.0, 70.0], [96.0, 128.0]]))
    right_bottom = proposals.boxes[..., 2:].amax(1)
    assert right_bottom[0].tolist() == [70, 40]
    assert (right_bottom[1] > torch.tensor([70, 40])).all()


@pytest.mark.parametrize("head", ["faster_rcnn", "cascade_mask_rcnn"])
def test_the_form_of_exported_graphs_finds_the_same_boxes(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = sure(detector(head, detections=200)), torch.randn(3, 3, 97, 131)
    images[1] = 0
    with torch.no_grad():
        eager = model(images)
        for module in ("boxes", "pooling", "rcnn"):
            monkeypatch.setattr(f"hybridvit.tasks.detect.heads.{module}.keeps_shapes", lambda _: True)
        fixed = model(images)
    assert 5 < (eager["scores"] > 0).sum() < eager["scores"].numel()
    assert torch.equal(fixed["labels"], eager["labels"])
    for name, found in fixed.items():
        torch.testing.assert_close(found.double(), eager[name].double(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("head", ["mask_rcnn", "cascade_rcnn"])
def test_one_image_at_a_time_gives_what_a_batch_gives(head: str) -> None:
    model, images = sure(detector(head)), torch.randn(3, 3, 97, 131)
    with torch.no_grad():
        together, apart = model(images), [model(image[None]) for image in images]
    assert (together["scores"] > 0).any()
    for name, found in together.items():
        torch.testing.assert_close(torch.cat([each[name] for each in apart]), found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backbone", ["fastvit_debug", "fastervit_debug"])
def test_a_folded_detector_has_no_batch_norm_and_finds_the_same_boxes(backbone: str) -> None:
    model = sure(detector("cascade_mask_rcnn", backbone))
    folded = hybridvit.fold(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    images = torch.randn(2, 3, 97, 131)
    with torch.no_grad():
        maps = model.pyramid(images)
        levels, folded_levels = model.head.fpn(maps), folded.head.fpn(maps)
        pooled = torch.randn(5, 16, 7, 7)
        heads = zip(model.head.box_heads, folded.head.box_heads, strict=True)
        answers = [(one(pooled), other(pooled)) for one, other in heads]
        found, after = model(images), folded(images)
    for one, other in (*zip(levels, folded_levels, strict=True), *answers):
        assert relative_error(other, one) < 1e-5
    assert torch.equal(after["labels"], found["labels"])
    torch.testing.assert_close(after["boxes"], found["boxes"], rtol=0, atol=0.05)
    torch.testing.assert_close(after["scores"], found["scores"], rtol=0, atol=1e-4)


def test_a_stage_learns_on_boxes_of_the_stage_before_without_teaching_it() -> None:
    model = detector("cascade_rcnn", class_agnostic=True)
    losses = model(torch.randn(1, 3, *SIZE), [target(3)])
    (losses["loss_classifier_1"] + losses["loss_box_reg_1"]).backward()
    first, second, third = ([p.grad for p in head.parameters()] for head in model.head.box_heads)
    assert all(gradient is None for gradient in (*first, *third))
    assert all(gradient is not None for gradient in second)
    assert model.head.box_heads[0].boxes.out_features == 4


@pytest.mark.parametrize(("box_loss", "expected"), [("l1", 0.25), ("smooth_l1", 0.25 - 2 / 18 / 8), ("giou", 10 / 16)])
def test_the_loss_of_a_box_is_the_one_chosen(box_loss: Any, expected: float) -> None:
    head = BoxHead(dataclasses.replace(FasterRCNNConfig(**RCNN), box_loss=box_loss), NUM_CLASSES, (1.0, 1.0, 1.0, 1.0))
    box, wanted = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 10, 20]])
    wanted = torch.tensor([[10.0, 10, 20, 20]]) if box_loss != "giou" else wanted
    none = torch.tensor([[0.0, 0, 10, 10]])
    samples = Samples(
        torch.cat((box, *[none] * 7)),
        torch.tensor([2, *[NUM_CLASSES] * 7]),
        torch.zeros(8, dtype=torch.long),
        torch.cat((wanted, *[none] * 7)),
        torch.ones(8, dtype=torch.bool),
    )
    losses = head.losses(torch.zeros(8, NUM_CLASSES + 1 + 4 * NUM_CLASSES), [samples])
    assert losses["loss_box_reg"].item() == pytest.approx(expected, rel=1e-5)
    assert losses["loss_classifier"].item() == pytest.approx(math.log(NUM_CLASSES + 1), rel=1e-5)


def test_boxes_survive_the_way_to_deltas_and_back() -> None:
    boxes = torch.rand(50, 4) * 50
    boxes[:, 2:] += boxes[:, :2] + 1
    truth = boxes.roll(1, 0)
    weights = (10.0, 10.0, 5.0, 5.0)
    torch.testing.assert_close(decoded(encoded(boxes, truth, weights), boxes, weights), truth, rtol=1e-4, atol=1e-3)
    huge = decoded(torch.full((1, 4), 1e9), torch.tensor([[0.0, 0.0, 1.0, 1.0]]), weights)
    assert clipped(huge, torch.tensor([[40.0, 70.0]])).isfinite().all()


def test_values_that_are_not_finite_reach_the_loss_and_break_nothing() -> None:
    model = detector("cascade_mask_rcnn")
    with torch.no_grad():
        model.head.rpn.head.bbox_pred.bias.fill_(torch.nan)
        losses = model(torch.randn(1, 3, 64, 64), [target(2, (64, 64))])
        assert losses["loss_rpn_box_reg"].isnan()
        model.head.fpn.outputs[0].conv.weight.fill_(torch.inf)
        assert not all(loss.isfinite() for loss in model(torch.randn(1, 3, 64, 64), [target(2, (64, 64))]).values())
        model.eval()(torch.randn(1, 3, 64, 64))


def test_it_is_saved_and_loaded_with_its_options(tmp_path: Any) -> None:
    model = detector("cascade_mask_rcnn", stages=2, box_head="2fc").eval()
    hybridvit.save_checkpoint(model, tmp_path / "detector.safetensors")
    again: Any = hybridvit.load(tmp_path / "detector.safetensors")
    assert again.head.config == model.head.config
    images = torch.randn(1, 3, 64, 96)
    for name, found in model(images).items():
        assert torch.equal(again(images)[name], found)
    other = hybridvit.create_model(
        "fastvit_debug",
        task="detect",
        head="cascade_mask_rcnn",
        num_classes=9,
        head_options=dict(model.card.head_options),
    )
    assert {
        name: tensor.shape
        for name, tensor in other.state_dict().items()
        if tensor.shape != model.state_dict()[name].shape
    }.keys() == set(model.classifier)


def test_a_head_without_targets_or_masks_says_so() -> None:
    model, images = detector("mask_rcnn"), torch.randn(1, 3, 64, 64)
    with pytest.raises(UsageError, match=r"in training mode, where it gives losses, but was given no targets. Give"):
        model(images)
    bare = {name: value for name, value in target(1, (64, 64)).items() if name != "masks"}
    with pytest.raises(UsageError, match=r"The head learns masks, but an image comes without. Use data with masks, or"):
        model(images, [bare])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pyramid_channels": 0}, "pyramid_channels is 0, but must be a whole number from 1."),
        ({"anchor_sizes": (8, 16)}, r"anchor_sizes is \(8, 16\), but there are 5 levels. Give one size for each."),
        ({"anchor_ratios": (1.0, 0.0)}, r"anchor_ratios is \(1.0, 0.0\), but must be numbers above 0, such as"),
        ({"stages": 4}, "stages is 4, but must be 1, 2 or 3: each has an overlap of its own."),
        ({"overlap": 1.5}, "overlap is 1.5, but must be from 0 to 1."),
        ({"box_head": "3fc"}, "box_head is '3fc', but must be one of '2fc', '4conv1fc'."),
        ({"class_agnostic": 1}, "class_agnostic is 1, but must be True or False."),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(FasterRCNNConfig(), **options)


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(
        UnknownOptionError, match=r"'proposal' is no option of the head faster_rcnn. Nearest: 'proposals'"
    ):
        detector("faster_rcnn", proposal=3)


def test_nothing_overlapping_remains_and_rows_are_filled_up() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 10, 10], [0, 0, 5, 5]])
    scores, groups = torch.tensor([0.9, 0.8, 0.95, 0.7, -1.0]), torch.tensor([0, 0, 0, 1, 0])
    numbers = box_arithmetic.kept(boxes, scores, groups, overlap=0.5, most=6)
    assert numbers.tolist() == [2, 0, 3, 5, 5, 5]
