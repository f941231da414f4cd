"""What files return, and how it is compared: classes of pixels, pictures of several sizes."""

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from hybridvit.card import ModelCard, Preprocessing
from hybridvit.errors import CheckpointError
from hybridvit.export.bundle import card_metadata
from hybridvit.export.graph import largest
from hybridvit.export.parity import batches, compare, counted_in
from hybridvit.export.runners import ExportedRunner
from hybridvit.export.spec import GraphSpec
from hybridvit.task import find_task

SPEC = GraphSpec(image_size=(32, 40), returns="segmentation", argmax="labels")


def fake(answer: Any) -> ExportedRunner:
    """A file whose answers are made up."""
    card = ModelCard(architecture="fastvit_debug", task="segment", preprocessing=Preprocessing(image_size=(32, 40)))

    def called(images: np.ndarray) -> dict[str, np.ndarray]:
        return {"labels": answer(images)}

    called.spec, called.card = SPEC, card  # type: ignore[attr-defined]
    return cast(ExportedRunner, called)


def logits(images: np.ndarray) -> list[np.ndarray]:
    return [np.concatenate([images, 2 * images[:, :1]], 1)]


def labels(images: np.ndarray) -> np.ndarray:
    return logits(images)[0].argmax(1).astype(np.uint8)


def test_classes_of_pixels_are_compared_by_how_far_their_logits_are_below_the_largest() -> None:
    def compared(answer: Any) -> float:
        return compare(fake(answer), logits, image_sizes=[(32, 40)], limit=1e-5).max_error

    assert compared(labels) == 0
    assert compared(lambda images: np.zeros_like(labels(images))) > 0.1
    assert compared(lambda images: labels(images) + np.uint8(4)) == math.inf  # no class of that number
    assert compared(lambda images: labels(images)[:, 1:]) == math.inf


def test_the_words_of_a_difference_are_those_of_what_is_compared() -> None:
    detections, maps = (GraphSpec(image_size=(32, 40), returns=returns) for returns in ("detections", "pyramid"))
    assert counted_in(find_task("detect"), detections) == "of a score or a mask's probability"
    assert counted_in(find_task("detect"), maps) == "of the largest output"
    found = compare(fake(labels), logits, image_sizes=[(32, 40)], limit=1e-5)
    assert found.found == "0.0e+00 of the largest output"
    assert found.to_dict()["counted_in"] == "of the largest output"


def test_numbers_of_classes_take_a_byte_as_long_as_it_holds_them() -> None:
    assert largest(torch.rand(1, 256, 2, 3)).dtype == torch.uint8
    assert largest(torch.rand(1, 257, 2, 3)).dtype == torch.int32


def test_images_of_one_size_are_compared_at_once() -> None:
    images = [np.zeros((3, *size)) for size in ((4, 5), (4, 5), (4, 5), (6, 5), (4, 5))]
    assert [batch.shape for batch in batches(images, 2)] == [(2, 3, 4, 5), (1, 3, 4, 5), (1, 3, 6, 5), (1, 3, 4, 5)]


def test_a_file_says_what_it_returns() -> None:
    assert SPEC.outputs == ("labels",)
    assert GraphSpec.read(SPEC.metadata(), "m.onnx") == SPEC
    with pytest.raises(CheckpointError, match=r"m\.onnx does not say which images it takes \(argmax cannot be 3\)"):
        GraphSpec.read({"hybridvit.graph": SPEC.metadata()["hybridvit.graph"].replace('"labels"', "3")}, "m.onnx")


def test_a_file_that_returns_what_its_task_does_not_is_refused() -> None:
    runner = cast(ExportedRunner, SimpleNamespace())
    card = ModelCard(architecture="fastvit_debug", preprocessing=Preprocessing())

    metadata = card_metadata(card) | SPEC.metadata()
    with pytest.raises(CheckpointError, match="of the task 'classify' returns logits or features or pyramid"):
        ExportedRunner.describe(runner, cast(Any, "m.onnx"), metadata)
