"""Models of each family, and the layers in them that a fold would read."""

import torch
from torch import nn
from trained_like import trained_like

import hybridvit

IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
NAMES = ["fastvit_debug", "fastervit_debug", "swin_debug_hat"]
LAYERS = [  # name of the model, foldable block in it, layer in that
    ("fastvit_debug", "stages.3.blocks.0.mixer", "to_qkv"),
    ("fastvit_debug", "stages.0.blocks.0.mixer", "mixer.kxk.conv"),
    ("fastvit_debug", "stages.0.blocks.0.mixer", "mixer.scale.conv"),
    ("fastvit_debug", "stages.1.downsample.large", "small.conv"),
    ("fastvit_debug", "stages.1.blocks.0.ffn", "project"),
    ("fastvit_debug", "stages.3.position", "conv"),
    ("fastvit_debug", "stem.1.conv", "scale.conv"),
    ("fastervit_debug", "stem.0", "conv"),
    ("fastervit_debug", "stages.0.body.0", "conv2"),
    ("fastervit_debug", "stages.1.downsample", "conv"),
    ("fastervit_debug", "stages.2.body.blocks.0.attention", "to_out"),
    ("fastervit_debug", "stages.2.body.blocks.0.carrier_mlp", "expand"),
    ("swin_debug_hat", "stages.1.downsample", "merging.reduction"),
]


def model_of(name: str) -> nn.Module:
    """Of that name, with ten classes."""
    return trained_like(hybridvit.create_model(name, num_classes=10))


def answer(model: nn.Module) -> torch.Tensor:
    """To IMAGES."""
    with torch.no_grad():
        return model(IMAGES)
