"""Rewrites for runtimes change how a folded model computes, and nothing that it answers."""

from collections.abc import Callable

import pytest
import torch
from conftest import trained_like
from torch import nn

import hybridvit
from hybridvit.export.rewrites import MAX_TAPS, depthwise_in_parts
from hybridvit.models.backbone import Backbone
from hybridvit.models.fastvit.rewrites import doubling_as_depthwise

Rewrite = Callable[[nn.Module], nn.Module]
REWRITES: dict[str, Rewrite] = {
    "doubling_as_depthwise": doubling_as_depthwise,
    "depthwise_in_parts": depthwise_in_parts,
    "both": lambda model: depthwise_in_parts(doubling_as_depthwise(model)),
}


def folded(name: str, **options: object) -> Backbone:
    torch.manual_seed(0)
    return hybridvit.fold(trained_like(hybridvit.create_model(name, **options)))


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def doubling(model: nn.Module) -> list[nn.Conv2d]:
    return [conv for conv in convolutions(model) if 1 < conv.groups == conv.in_channels < conv.out_channels]


def large_depthwise(model: nn.Module) -> list[nn.Conv2d]:
    return [conv for conv in convolutions(model) if conv.groups > 1 and conv.weight[0, 0].numel() > MAX_TAPS]


@pytest.mark.parametrize("rewrite", REWRITES.values(), ids=REWRITES)
@pytest.mark.parametrize("num_classes", [5, 0], ids=["logits", "no classifier"])
def test_a_rewritten_model_answers_the_same_in_the_same_order(rewrite: Rewrite, num_classes: int) -> None:
    model = folded("fastvit_debug", num_classes=num_classes)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.randn(2, 3, 65, 97)  # odd and not square on purpose
    rewritten = rewrite(model)
    with torch.no_grad():
        pooled = [each.forward_head(each.forward_features(images), pre_logits=True) for each in (rewritten, model)]
        torch.testing.assert_close(rewritten(images), model(images), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(*pooled, rtol=1e-5, atol=1e-5)
        for fmap, expected in zip(rewritten.features(images).values(), model.features(images).values(), strict=True):
            torch.testing.assert_close(fmap, expected, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in rewritten.parameters())


def test_no_convolution_is_left_that_a_rewrite_is_for() -> None:
    model = folded("fastvit_sa12", num_classes=2)
    assert len(doubling(model)) == 4  # three downsamplings, and the one before the head
    assert doubling(doubling_as_depthwise(model)) == []
    assert len(large_depthwise(model)) == 16
    assert large_depthwise(REWRITES["both"](model)) == []


@pytest.mark.parametrize("kernel_size", [(7, 7), (9, 9), (11, 11), (9, 3), (5, 7)])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_large_depthwise_convolution_is_the_sum_of_its_rows(kernel_size: tuple[int, int], stride: int) -> None:
    height, width = kernel_size
    conv = nn.Conv2d(6, 6, kernel_size, stride, (height // 2, width // 2), groups=6).double()
    x = torch.randn(2, 6, 13, 18, dtype=torch.float64)
    parts = depthwise_in_parts(nn.Sequential(conv))
    assert sum(part.weight[0, 0].numel() for part in convolutions(parts)) == height * width
    assert max(part.weight[0, 0].numel() for part in convolutions(parts)) <= MAX_TAPS
    torch.testing.assert_close(parts(x), conv(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 6, 5, padding=2, groups=6),  # has a kernel of its own
        nn.Conv2d(6, 6, 7, padding=3),  # not depthwise
        nn.Conv2d(6, 6, 7, padding=6, dilation=2, groups=6),
        nn.Conv2d(6, 6, 7, groups=6),  # not centred
        nn.Conv2d(6, 6, 15, padding=7, groups=6),  # two rows are too many
    ],
)
def test_what_a_rewrite_is_not_for_stays(conv: nn.Conv2d) -> None:
    assert type(depthwise_in_parts(nn.Sequential(conv))[0]) is nn.Conv2d


def test_a_model_without_such_layers_is_only_copied() -> None:
    model = folded("fastervit_debug")
    rewritten = REWRITES["both"](model)
    assert rewritten is not model
    assert [type(module) for module in rewritten.modules()] == [type(module) for module in model.modules()]
