"""Weights that make each branch count."""

import torch
from torch import nn

from hybridvit.models.channel_norm import ChannelLayerNorm
from hybridvit.models.hat.attention import MapCarriers
from hybridvit.models.hat.position import CoordinateMLP
from hybridvit.models.hat.residual import TokenResidual


def trained_like(model: nn.Module, seed: int = 0) -> nn.Module:
    """`model` in eval mode with random norms and positions, and layer scales near 0.7.

    At its initial layer scale of 1e-5 a fold that forgot a whole branch would pass a loose test. The bias between the
    tokens of a window is made low: at its start of 8 the carriers, which have none, count for nothing.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=generator).to(tensor)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.copy_(0.3 * noise(module.running_mean))
                module.running_var.copy_(0.5 + noise(module.running_var).abs())
                module.weight.copy_(0.8 + 0.2 * noise(module.weight))
                module.bias.copy_(0.2 * noise(module.bias))
        for name, parameter in model.named_parameters():
            if name.rsplit(".", 1)[-1] == "layer_scale":
                parameter.copy_(0.7 + 0.2 * noise(parameter))
        for name, module in model.named_modules():
            if isinstance(module, TokenResidual):  # fresh ones are so small that attention scores are all alike
                for layer in module.children():
                    if isinstance(layer, nn.Linear):
                        layer.weight.copy_(noise(layer.weight) / layer.in_features**0.5)
            if isinstance(module, nn.LayerNorm | ChannelLayerNorm):
                module.weight.copy_(0.8 + 0.2 * noise(module.weight))
                module.bias.copy_(0.2 * noise(module.bias))
            if isinstance(module, CoordinateMLP):
                module.hidden.weight.copy_(noise(module.hidden.weight))
                module.hidden.bias.copy_(0.2 * noise(module.hidden.bias))
                out = noise(module.out.weight) / module.out.in_features**0.5
                module.out.weight.copy_(-out.abs() if name.endswith(".attention.bias.mlp") else out)
            if isinstance(module, MapCarriers):
                module.conv.bias.copy_(noise(module.conv.bias))
    return model.eval()
