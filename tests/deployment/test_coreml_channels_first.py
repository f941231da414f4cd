"""The rewrite for Core ML changes no answer and reorders no map."""

import pytest
import torch
from conftest import relative_error, trained_like
from torch import nn

import hybridvit
from hybridvit.export.targets.coreml_channels_first import MapAttention, MapNorm, channels_first
from hybridvit.models.channel_norm import ChannelLayerNorm
from hybridvit.models.fastervit.blocks import FoldedDownsample
from hybridvit.models.fastvit.blocks import FoldedAttention


def folded(name: str) -> nn.Module:
    model = trained_like(hybridvit.create_model(name, num_classes=5))
    for module in model.modules():
        if isinstance(module, nn.Linear):  # else all attention scores are alike
            nn.init.normal_(module.weight, std=2 * module.in_features**-0.5)
    return hybridvit.fold(model)


@pytest.mark.parametrize(("name", "expected"), [("fastvit_debug", MapAttention), ("fastervit_debug", MapNorm)])
def test_the_rewrite_is_exact_and_leaves_the_model_alone(name: str, expected: type[nn.Module]) -> None:
    model = folded(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rewritten = channels_first(model)
    images = torch.randn(2, 3, 64, 97)
    assert relative_error(rewritten(images), model(images)) <= 2e-6
    assert any(isinstance(module, expected) for module in rewritten.modules())
    reordering = FoldedAttention | FoldedDownsample | ChannelLayerNorm
    assert not any(isinstance(module, reordering) for module in rewritten.modules())
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("affine", [True, False])
def test_the_norm_of_a_map_is_the_norm_of_its_pixels(affine: bool) -> None:
    norm = ChannelLayerNorm(8, eps=1e-6, elementwise_affine=affine)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    images = 3 + torch.randn(2, 8, 5, 7)
    assert relative_error(MapNorm.of(norm)(images), norm(images)) <= 1e-6
