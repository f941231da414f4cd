"""Segmentation: heads equal to others' and to their definition, mIoU equal to torchmetrics', and ways to ask."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import relative_error, trained_like
from PIL import Image
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

import hybridvit
from hybridvit.batch import Batch, Frame
from hybridvit.card import ModelCard, Preprocessing
from hybridvit.errors import DatasetError, UsageError
from hybridvit.folding.batch_norm import is_batch_norm
from hybridvit.task import Moment, find_task
from hybridvit.tasks.segment import metric, result
from hybridvit.tasks.segment.config import SegmentData, SegmentRecipe, SemanticFPNConfig, UPerNetConfig
from hybridvit.tasks.segment.metric import SegmentMetric
from hybridvit.tasks.segment.model import SemanticFPN, UPerNet
from hybridvit.tasks.segment.objective import SegmentObjective, cross_entropy
from hybridvit.tasks.segment.ways import FACTORS, places

TASK = find_task("segment")
CHANNELS = (8, 16, 24, 32)
MOMENT = Moment(step=0, total_steps=1, averaged=None)
NAMES = ("ground", "disc", "square", "star")
CARD = ModelCard(
    architecture="fastvit_debug",
    task="segment",
    options={"num_classes": 4},
    class_names=NAMES,
    preprocessing=Preprocessing(image_size=(32, 32), crop_mode="fit", fit_px=(32, 128)),
)


def maps_of(height: int, width: int) -> list[Tensor]:
    return [
        torch.randn(2, channels, -(-height // stride), -(-width // stride))
        for channels, stride in zip(CHANNELS, (4, 8, 16, 32), strict=True)
    ]


def test_upernet_is_that_of_transformers_with_its_weights() -> None:
    from transformers import ConvNextConfig, UperNetConfig, UperNetForSemanticSegmentation

    stages = [f"stage{number}" for number in range(1, 5)]
    backbone = ConvNextConfig(depths=[1] * 4, hidden_sizes=list(CHANNELS), out_features=stages)
    config = UperNetConfig(
        backbone_config=backbone, hidden_size=16, auxiliary_channels=12, auxiliary_in_channels=24, num_labels=5
    )
    theirs = trained_like(UperNetForSemanticSegmentation(config)).eval()
    ours = UPerNet(UPerNetConfig(channels=16, auxiliary_channels=12), CHANNELS, 5).eval()
    renamed = (
        *(("decode_head.classifier.", "classes."), ("decode_head.bottleneck.", "context.")),
        *(("decode_head.lateral_convs.", "laterals."), ("decode_head.fpn_convs.", "outputs.")),
        *(("decode_head.fpn_bottleneck.", "joined."), ("auxiliary_head.convs.0.", "auxiliary.conv.")),
        *(("auxiliary_head.classifier.", "auxiliary.classes."), ("batch_norm.", "norm.")),
        *((f"decode_head.psp_modules.{place}.1.", f"pooled.{place}.") for place in range(4)),
    )
    weights = {}
    for name, value in theirs.state_dict().items():
        if not name.startswith("backbone."):
            for old, new in renamed:
                name = name.replace(old, new)
            weights[name] = value
    ours.load_state_dict(weights)
    images = torch.randn(2, 3, 96, 160)
    ours.training = True  # of the head alone: its auxiliary answer, with the statistics as they are
    with torch.no_grad():
        expected = theirs(images, labels=torch.zeros(2, 96, 160, dtype=torch.long))
        maps = theirs.backbone(images).feature_maps
        logits, auxiliary = ours(maps, images)
        beside = F.interpolate(theirs.auxiliary_head(maps), size=(96, 160), mode="bilinear", align_corners=False)
    assert relative_error(logits, expected.logits) < 1e-6
    assert relative_error(auxiliary, beside) < 1e-6
    assert auxiliary.abs().max() > 0.01


def test_semantic_fpn_is_what_its_definition_says() -> None:
    head = trained_like(SemanticFPN(SemanticFPNConfig(pyramid_channels=16, channels=12), CHANNELS, 5)).eval()
    maps, images = maps_of(100, 132), torch.zeros(2, 3, 100, 132)
    w = head.state_dict()
    laterals = [
        F.conv2d(fmap, w[f"fpn.inner_blocks.{level}.0.weight"], w[f"fpn.inner_blocks.{level}.0.bias"])
        for level, fmap in enumerate(maps)
    ]
    for level in (2, 1, 0):
        laterals[level] = laterals[level] + F.interpolate(laterals[level + 1], size=laterals[level].shape[2:])
    pyramid = [
        F.conv2d(x, w[f"fpn.layer_blocks.{level}.0.weight"], w[f"fpn.layer_blocks.{level}.0.bias"], padding=1)
        for level, x in enumerate(laterals)
    ]

    def step(x: Tensor, level: int, number: int) -> Tensor:
        name = f"levels.{level}.{number}"
        x = F.conv2d(x, w[f"{name}.conv.weight"], padding=1)
        statistics = (w[f"{name}.norm.{each}"] for each in ("running_mean", "running_var", "weight", "bias"))
        return F.relu(F.batch_norm(x, *statistics))

    total = step(pyramid[0], 0, 0)
    for level in (1, 2, 3):
        x = pyramid[level]
        for number in range(level):
            x = F.interpolate(step(x, level, number), size=pyramid[level - 1 - number].shape[2:], mode="bilinear")
        total = total + x
    logits = F.conv2d(total, w["classes.weight"], w["classes.bias"])
    expected = F.interpolate(logits, size=(100, 132), mode="bilinear")
    assert relative_error(head(maps, images), expected) < 1e-6
    assert len([name for name in w if name.endswith("running_mean")]) == 7


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("semantic_fpn", {"pyramid_channels": 16, "channels": 12}),
        ("upernet", {"channels": 16, "auxiliary_channels": 8}),
    ],
)
@pytest.mark.parametrize("name", ["fastvit_debug", "fastervit_debug"])
def test_no_norm_is_left_of_a_folded_segmenter(name: str, head: str, options: dict[str, int]) -> None:
    model = trained_like(
        hybridvit.create_model(name, task="segment", head=head, head_options=options, num_classes=5)
    ).eval()
    folded = hybridvit.fold(model)
    assert any(map(is_batch_norm, model.modules()))
    assert not any(map(is_batch_norm, folded.modules()))
    images = torch.randn(2, 3, 97, 131)
    answers = [TASK.forward(form, images)["logits"] for form in (model, folded)]
    assert answers[0].shape == (2, 5, 97, 131)
    assert relative_error(answers[1], answers[0]) < 1e-5


def test_an_auxiliary_head_adds_its_part_of_the_loss_by_name() -> None:
    model = hybridvit.create_model(
        "fastvit_debug",
        task="segment",
        head="upernet",
        head_options={"channels": 8, "auxiliary_channels": 8, "drop_rate": 0.0},
        num_classes=5,
    )
    batch = Batch(torch.randn(2, 3, 64, 64), torch.randint(5, (2, 64, 64)), torch.arange(2))
    data = SegmentData(source="generated")
    recipe = SegmentRecipe(task="segment", model="fastvit_debug", head="upernet", data=data, auxiliary_weight=0.3)
    objective = SegmentObjective(recipe)
    loss = objective.loss(model, batch, MOMENT)
    logits, auxiliary = model(batch.inputs)
    main, beside = (F.cross_entropy(each, batch.targets) for each in (logits, auxiliary))
    assert list(objective.terms) == ["loss_main", "loss_auxiliary"]
    torch.testing.assert_close(objective.terms["loss_main"], main)
    torch.testing.assert_close(objective.terms["loss_auxiliary"], 0.3 * beside)
    torch.testing.assert_close(loss, main + 0.3 * beside)


def test_pixels_of_no_class_are_not_learnt_from() -> None:
    logits, labels = torch.randn(2, 3, 4, 5, requires_grad=True), torch.randint(3, (2, 4, 5))
    labels[0, :3] = 255
    expected = F.cross_entropy(logits, labels, ignore_index=255)
    torch.testing.assert_close(cross_entropy(logits, labels), expected)
    nothing = cross_entropy(logits, torch.full_like(labels, 255))
    assert nothing == 0
    nothing.backward()
    assert logits.grad is not None


def judged(size: tuple[int, int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits of an input of 20x28 pixels, and the mask of its picture, without class 3."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 4, 5, 7, generator=generator)
    truth = logits.argmax(1).float()[None]
    logits = F.interpolate(logits, size=(20, 28), mode="bilinear") + 0.1 * torch.randn(
        1, 4, 20, 28, generator=generator
    )
    mask = F.interpolate(truth, size=size)[0].long()
    logits[:, 3] = -9
    mask[mask == 3] = 0
    mask[:, :4] = 255
    return logits, mask


def frame_of(size: tuple[int, int]) -> Frame:
    return Frame(picture_size=size, crop=(0.0, 0.0, float(size[1]), float(size[0])), input_size=(20, 28))


def test_miou_is_that_of_torchmetrics_over_the_whole_set_in_the_masks_own_size() -> None:
    ours = SegmentMetric(CARD, num_examples=2)
    oracle = MulticlassJaccardIndex(4, average=None, ignore_index=255)
    found_of = MulticlassAccuracy(4, average=None, ignore_index=255)
    right = MulticlassAccuracy(4, average="micro", ignore_index=255)
    for number, size in enumerate([(40, 56), (31, 47), (20, 28)]):
        logits, mask = judged(size, number)
        padded = F.pad(logits, (0, 4, 0, 12))  # as a file of fixed size answers
        ours.update(
            {"logits": padded}, Batch(torch.zeros(1, 3, 32, 32), mask, torch.tensor([number]), (frame_of(size),))
        )
        said = F.interpolate(logits, size=size, mode="bilinear", align_corners=False).argmax(1)
        for each in (oracle, found_of, right):
            each.update(said, mask)
    scores = ours.compute()
    expected = oracle.compute()
    assert [each["iou"] for each in scores.details["classes"][:3]] == pytest.approx(
        [100 * float(iou) for iou in expected[:3]], abs=1e-3
    )
    assert scores.details["classes"][3] == {"name": "star", "iou": None, "accuracy": None, "pixels": 0}
    assert scores.values["miou"] == pytest.approx(100 * float(expected[:3].mean()), abs=1e-3)
    accuracies = found_of.compute()[:3]
    assert [each["accuracy"] for each in scores.details["classes"][:3]] == pytest.approx(
        [100 * float(share) for share in accuracies], abs=1e-3
    )
    assert scores.values["macc"] == pytest.approx(100 * float(accuracies.mean()), abs=1e-3)
    assert scores.values["aacc"] == pytest.approx(100 * float(right.compute()), abs=1e-3)
    table: Any = scores.parts[0]
    assert table.rows[-1] == ["star", "–", "–", "0.00 %"]
    assert [row[0] for row in table.rows[:-1]] == sorted(
        NAMES[:3], key=lambda name: scores.details["classes"][NAMES.index(name)]["iou"]
    )
    worst, best = scores.examples[:2], scores.examples[2:]
    assert [example.group for example in scores.examples] == [metric.WORST] * 2 + [metric.BEST] * 2
    assert worst[0].order >= worst[1].order
    assert best[0].order >= best[1].order
    assert worst[0].result.to_dict()["classes"][0]["class"] in NAMES


def test_without_a_pixel_of_a_class_nothing_is_judged() -> None:
    empty = SegmentMetric(CARD, num_examples=1)
    mask = torch.full((1, 8, 8), 255)
    empty.update({"logits": torch.zeros(1, 4, 8, 8)}, Batch(torch.zeros(1, 3, 8, 8), mask, torch.tensor([0])))
    with pytest.raises(DatasetError, match=r"No pixel of the masks has a class, so nothing can be judged"):
        empty.compute()
    with pytest.raises(UsageError, match=r"The file gives features, but what classes of pixels are worth"):
        empty.update({"features": torch.zeros(1, 4)}, Batch(torch.zeros(1, 3, 8, 8), mask, torch.tensor([0])))


def test_classes_are_told_apart_a_few_at_a_time_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(7, 9, 13)
    for size in ((9, 13), (30, 29), (5, 6)):
        whole = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0].argmax(0)
        monkeypatch.setattr(metric, "_MOST_VALUES", 3 * size[0] * size[1])
        monkeypatch.setattr(result, "_MOST_BYTES", 12 * size[0] * size[1])
        assert torch.equal(metric.largest(logits, size), whole)
        assert (result.largest(logits.numpy(), size) == whole.numpy()).all()


def test_an_answer_has_the_pictures_size_a_palette_and_the_shares_of_its_classes() -> None:
    logits = torch.full((1, 4, 24, 32), -1.0)
    logits[:, 0] = 0
    logits[:, 2, :, :8] = 1  # a quarter of the picture, but for the part that is padding
    frame = Frame(picture_size=(40, 56), crop=(0.0, 0.0, 56.0, 40.0), input_size=(20, 28))
    (answer,) = TASK.results({"logits": logits.numpy()}, [frame], CARD)
    expected = F.interpolate(logits[:, :, :20, :28], size=(40, 56), mode="bilinear")[0].argmax(0)
    found: Any = answer
    assert (found.labels == expected.numpy()).all()
    assert [each["class"] for each in answer.to_dict()["classes"]] == ["ground", "square"]
    assert sum(each["share"] for each in answer.to_dict()["classes"]) == pytest.approx(1, abs=1e-5)
    assert answer.lines()[0].endswith("%  ground")
    image = Image.open(io.BytesIO(answer.files()["labels.png"]))
    assert image.mode == "P"
    assert (np.array(image) == found.labels).all()
    drawn = np.array(answer.draw(Image.new("RGB", (56, 40), (200, 100, 0))))
    assert drawn[0, 55].tolist() == [100, 50, 0]  # half of the picture, half of the ground's black
    assert drawn[0, 0].tolist() != drawn[0, 55].tolist()
    (first,) = TASK.results({"logits": logits.numpy()}, [frame], CARD, most=1)
    assert len(first.lines()) == len(first.to_dict()["classes"]) == 1
    with pytest.raises(UsageError, match=r"gives features, so it names no classes of pixels"):
        TASK.results({"features": logits.numpy()}, [frame], CARD)


class Asked:
    """Answers each pixel by its own colour, and remembers the sizes that it was shown."""

    def __init__(self, of_pixels: Callable[[Tensor], Tensor] = lambda images: images) -> None:
        self.sizes: list[tuple[int, int]] = []
        self._of_pixels = of_pixels

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        self.sizes.append(tuple(batch.inputs.shape[2:]))
        return {"logits": self._of_pixels(batch.inputs)}


def test_parts_cover_the_picture_and_their_mean_is_the_answer() -> None:
    batch = Batch(torch.randn(1, 3, 70, 101), None, torch.tensor([0]))
    asked = Asked()
    given = TASK.in_way(asked, "slide", CARD)(batch)["logits"]
    torch.testing.assert_close(given, batch.inputs)
    assert set(asked.sizes) == {(32, 32)}
    assert list(places(70, 32)) == [0, 21, 38]
    assert list(places(32, 32)) == list(places(20, 32)) == [0]
    assert list(places(2048, 512)) == [0, 341, 682, 1023, 1364, 1536]
    asked = Asked(lambda images: images + len(asked.sizes))  # each part says something else
    parts = TASK.in_way(asked, "slide", CARD)(batch._replace(inputs=batch.inputs[:, :, :32, :50]))["logits"]
    difference = parts - batch.inputs[:, :, :32, :50]
    torch.testing.assert_close(difference[0, 0, 0, [0, 17, 18, 31, 32, 49]], torch.tensor([1, 1, 1.5, 1.5, 2, 2]))
    small = Asked()
    TASK.in_way(small, "slide", CARD)(batch._replace(inputs=batch.inputs[:, :, :20, :101]))
    assert set(small.sizes) == {(20, 32)}


def test_the_mean_over_scales_and_mirrors_is_one_of_probabilities() -> None:
    batch = Batch(torch.randn(1, 3, 64, 96), None, torch.tensor([0]))
    asked = Asked()
    logits = TASK.in_way(asked, "multi_scale", CARD)(batch)["logits"]
    assert asked.sizes == [(max(32, round(64 * factor)), round(96 * factor)) for factor in FACTORS for _ in range(2)]
    total = torch.zeros(1, 3, 64, 96)
    for factor in FACTORS:
        sides = (max(32, round(64 * factor)), round(96 * factor))
        shown = F.interpolate(batch.inputs, size=sides, mode="bilinear")
        total += F.interpolate(shown, size=(64, 96), mode="bilinear").softmax(1)  # mirrored twice it is the same
    torch.testing.assert_close(logits.exp(), total / len(FACTORS), rtol=1e-4, atol=1e-5)
    mirrored = TASK.in_way(Asked(), "multi_scale", CARD)(batch._replace(inputs=batch.inputs.flip(3)))["logits"]
    torch.testing.assert_close(mirrored.flip(3), logits, rtol=1e-4, atol=1e-4)


def test_an_unknown_way_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"There is no way 'slid' to evaluate a model. Nearest: 'slide'"):
        TASK.in_way(Asked(), "slid", CARD)
    with pytest.raises(UsageError, match=r"The task 'classify' has one way to answer. Leave --way out"):
        find_task("classify").in_way(Asked(), "slide", CARD)
