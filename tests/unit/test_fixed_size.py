"""fold(image_size=...): the positions that depend on the image as constants, and no other size taken."""

import dataclasses
import json

import pytest
import torch
from conftest import relative_error, trained_like
from torch import nn

import hybridvit
from hybridvit.card import ModelCard
from hybridvit.errors import UsageError

SIZES = [(64, 64), (101, 57), (32, 40)]  # the last has a single window: no carriers


def fastervit(**options: object) -> nn.Module:
    return trained_like(hybridvit.create_model("fastervit_debug", num_classes=5, **options))


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("size", SIZES)
def test_constants_equal_what_is_computed_for_that_size(size, dtype, limit):
    model = fastervit().to(dtype)
    folded = hybridvit.fold(model)
    images = torch.randn(2, 3, *size, dtype=dtype)
    with torch.no_grad():
        for start in (model, folded):
            fixed = hybridvit.fold(start, image_size=size)
            assert relative_error(fixed(images), folded(images)) <= limit
            assert relative_error(fixed(images), model(images)) <= limit


@pytest.mark.parametrize("source", ["map", "constant", "tokens"])
def test_carriers_of_every_source_can_be_fixed(source):
    model = fastervit(carrier_source=source)
    fixed = hybridvit.fold(model, image_size=96)
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert relative_error(fixed(images), model(images)) <= 1e-6


def test_no_position_is_computed_any_more_and_the_model_is_left_alone():
    model = fastervit()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fixed = hybridvit.fold(model, image_size=(64, 96))
    assert any("carrier_position.mlp" in name for name in hybridvit.fold(model).state_dict())
    assert not any(".mlp.hidden" in name for name in fixed.state_dict())
    assert not any(parameter.requires_grad for parameter in fixed.parameters())
    assert not any(module.training for module in fixed.modules())
    assert model.card.fixed_size is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_fixing_twice_equals_fixing_once():
    once = hybridvit.fold(fastervit(), image_size=(64, 96))
    for twice in (hybridvit.fold(once, image_size=(64, 96)), hybridvit.fold(once)):
        assert twice.card == once.card
        expected = once.state_dict()
        assert twice.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in twice.state_dict().items())


def test_the_card_says_so_and_brings_it_back(tmp_path):
    fixed = hybridvit.fold(fastervit(), image_size=(96, 64))
    assert fixed.card.fixed_size == fixed.card.preprocessing.image_size == (96, 64)
    hybridvit.save_checkpoint(fixed, tmp_path / "fixed.safetensors")
    loaded = hybridvit.load(tmp_path / "fixed.safetensors")
    assert loaded.card == fixed.card
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        assert relative_error(loaded(images), fixed(images)) <= 1e-6
    with pytest.raises(UsageError, match="constants for 96x64"):
        loaded(torch.randn(1, 3, 64, 96))


def test_a_fixed_model_refuses_other_sizes_with_the_way_out():
    fixed = hybridvit.fold(fastervit(), image_size=64)
    with pytest.raises(
        UsageError, match=r"Image is 64x96 pixels.*fastervit_debug are constants for 64x64\. Resize it, or fold"
    ):
        fixed(torch.randn(1, 3, 64, 96))
    with pytest.raises(UsageError, match=r"are constants for 64x64 pixels already\. Fold the model that it was made"):
        hybridvit.fold(fixed, image_size=96)


@pytest.mark.parametrize(
    ("name", "options"),
    [("fastvit_debug", {}), ("fastervit_debug", {"mixers": ("conv", "conv", "window", "window")})],
)
def test_a_size_without_effect_is_refused(name, options):
    model = hybridvit.create_model(name, **options).eval()
    with pytest.raises(UsageError, match=rf"image_size is 64x64, but it has no effect on {name}.*Leave image_size out"):
        hybridvit.fold(model, image_size=64)


@pytest.mark.parametrize("size", [16, 64.0, (64,), (64, 31), "64", True])
def test_what_is_no_size_is_refused(size, unchecked):
    with pytest.raises(UsageError, match=r"image_size is .* but must be a side or \(height, width\) in pixels"):
        hybridvit.fold(fastervit(), image_size=size)


def test_cards_from_before_there_was_such_a_size_load():
    values = json.loads(json.dumps(dataclasses.asdict(ModelCard(architecture="fastervit_debug"))))
    del values["fixed_size"]
    assert ModelCard.from_dict(values).fixed_size is None
    for wrong in ([64], [64, 0], "64", 64, [64.0, 64]):
        with pytest.raises(ValueError, match="fixed_size cannot be"):
            ModelCard.from_dict(values | {"form": "folded", "fixed_size": wrong})
    with pytest.raises(ValueError, match="fixed_size cannot be"):
        ModelCard.from_dict(values | {"form": "training", "fixed_size": [64, 64]})
