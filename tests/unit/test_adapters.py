"""An adapter on a layer is used, trained, and refused by a fold that would leave it out."""

import copy

import pytest
import torch
from called_layers import IMAGES, LAYERS, answer, model_of
from conftest import relative_error
from torch import nn

import hybridvit
from hybridvit.errors import FoldError
from hybridvit.models.hat.position import Grid, PositionEmbedding


class LowRank(nn.Module):
    """An adapter as PEFT's: the layer, frozen, plus a product of two small ones of the same kind."""

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.base_layer = layer.requires_grad_(False)
        if isinstance(layer, nn.Conv2d):
            sizes = (layer.kernel_size, layer.stride, layer.padding)
            self.down: nn.Module = nn.Conv2d(layer.in_channels, 2, *sizes, bias=False)
            self.up: nn.Module = nn.Conv2d(2, layer.out_channels, 1, bias=False)
        else:
            self.down = nn.Linear(layer.in_features, 2, bias=False)
            self.up = nn.Linear(2, layer.out_features, bias=False)

    @property
    def weight(self) -> torch.Tensor:
        return self.base_layer.weight

    @property
    def bias(self) -> torch.Tensor | None:
        return self.base_layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.up(self.down(x))


@pytest.mark.parametrize(("name", "block", "layer"), LAYERS)
@pytest.mark.parametrize("training", [False, True])
def test_an_adapter_is_used_trained_and_refused_by_fold(name, block, layer, training):
    model = model_of(name)
    before = answer(model)
    adapter = LowRank(model.get_submodule(f"{block}.{layer}"))
    model.set_submodule(f"{block}.{layer}", adapter)
    assert relative_error(answer(model), before) > 1e-4
    model.train(training)(IMAGES).square().sum().backward()
    assert adapter.up.weight.grad.any()
    assert adapter.down.weight.grad.any()
    message = rf"Cannot fold '{block}': '{layer}' in it is a LowRank of test_.* call merge_and_unload\(\) first"
    with pytest.raises(FoldError, match=message):
        hybridvit.fold(model.eval())


def test_an_adapter_outside_of_what_is_folded_stays_an_adapter(debug_model):
    debug_model.head.fc = LowRank(debug_model.head.fc)
    folded = hybridvit.fold(debug_model)
    assert isinstance(folded.head.fc, LowRank)
    assert relative_error(answer(folded), answer(debug_model)) < 1e-5


def test_an_adapter_on_the_classifier_leaves_the_norm_of_the_head_where_it_is():
    model = model_of("fastervit_debug")
    model.head.fc = LowRank(model.head.fc)
    folded = hybridvit.fold(model)
    assert relative_error(answer(folded), answer(model)) < 1e-5
    assert hybridvit.fold_report(model, folded).left == ("head.norm (BatchNorm2d)",)


POSITIONS = [
    "stages.2.body.blocks.0.position.embedding.mlp.out",
    "stages.2.body.blocks.0.attention.bias.mlp.hidden",
    "stages.2.body.blocks.0.carrier_position.mlp.hidden",
    "stages.2.body.blocks.0.carrier_attention.bias.mlp.out",
]


@pytest.mark.parametrize("layer", POSITIONS)
@pytest.mark.parametrize("training", [False, True])
def test_an_adapter_on_a_position_mlp_is_used_trained_and_in_the_constants_of_a_fold(layer, training):
    model = model_of("fastervit_debug")
    before = answer(model)
    adapter = LowRank(model.get_submodule(layer))
    with torch.no_grad():
        adapter.up.weight.mul_(3)
    model.set_submodule(layer, adapter)
    assert relative_error(answer(model), before) > 1e-4
    model.train(training)(IMAGES).square().sum().backward()
    assert adapter.up.weight.grad.any()
    model.eval()
    for folded in (hybridvit.fold(model), hybridvit.fold(model, image_size=(64, 96))):
        assert relative_error(answer(folded), answer(model)) < 1e-5


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_positions_with_an_adapter_are_computed_in_single_precision(dtype, limit):
    embedding = PositionEmbedding(8, 16)
    embedding.mlp.out = LowRank(embedding.mlp.out)
    window = Grid(1, 1, 3)
    low = copy.deepcopy(embedding).to(dtype)
    assert low.compute(window).dtype is torch.float32
    assert relative_error(low.compute(window), embedding.compute(window)) < limit
