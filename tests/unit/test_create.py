"""`create_model`: the image size a model is meant for, and what it imports."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import hybridvit
from hybridvit.checkpoints import load, save_checkpoint
from hybridvit.errors import UsageError
from hybridvit.models.registry import VARIANTS

NARROW = {"widths": (32, 64, 128, 256), "stem_width": 16, "depths": (1, 1, 3, 2), "num_heads": (2, 2, 4, 8)}


def test_windows_must_be_filled_by_the_images_they_are_meant_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"windows\[2\] is 24, but at 224x224 px .*give the image_size"):
        hybridvit.create_model("fastervit_4_21k_224", windows=[7, 7, 24, 12], **NARROW)
    with pytest.raises(UsageError, match=r"windows\[2\] is 7, but at 64x64 px"):
        hybridvit.create_model("fastervit_debug", windows=(3, 3, 7, 3), image_size=64)
    model = hybridvit.create_model("fastervit_debug", windows=(3, 3, 7, 3), image_size=128)
    save_checkpoint(model, tmp_path / "m.safetensors")
    loaded = load(tmp_path / "m.safetensors")  # the card is enough: no size is asked for again
    assert loaded.card == model.card
    assert loaded.card.options == {"windows": (3, 3, 7, 3)}


@pytest.mark.parametrize("architecture", ["fastvit_debug", "fastervit_debug"])
def test_the_image_size_goes_on_the_card(tmp_path: Path, architecture: str) -> None:
    own = VARIANTS[architecture].preprocessing
    for size, expected in ((96, (96, 96)), ((64, 96), (64, 96)), (None, own.image_size)):
        model = hybridvit.create_model(architecture, image_size=size)
        assert model.card.preprocessing == dataclasses.replace(own, image_size=expected)
        assert model.card.options == {}
    save_checkpoint(hybridvit.create_model(architecture, image_size=96), tmp_path / "m.safetensors")
    for size, expected in ((None, (96, 96)), (128, (128, 128))):
        model = hybridvit.create_model(
            architecture, pretrained=tmp_path / "m.safetensors", image_size=size, folded=True
        )
        assert model.card.preprocessing.image_size == expected
    pyramid = hybridvit.create_model(architecture, features_only=True, image_size=(64, 96))
    assert pyramid.card.preprocessing.image_size == (64, 96)


@pytest.mark.parametrize("size", [31, 0, 64.0, True, (64,), (64, 64, 64), (64, 16), "64"])
def test_an_image_size_that_is_none_is_refused(size: Any) -> None:
    message = rf"^image_size is {re.escape(repr(size))}, but must be a side or \(height, width\) in pixels, each a"
    with pytest.raises(UsageError, match=message):
        hybridvit.create_model("fastervit_debug", image_size=size)


def test_a_form_that_was_never_released_is_refused() -> None:
    model = hybridvit.create_model("fastervit_debug").eval()
    with pytest.raises(
        UsageError, match=r"^released is True, but no folded checkpoints of fastervit_debug were released.*full fold"
    ):
        hybridvit.fold(nn.Sequential(model), released=True)
