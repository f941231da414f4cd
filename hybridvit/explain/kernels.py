"""The depthwise kernels of FastViT, branch by branch, and what folding makes of them."""

from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.errors import UsageError
from hybridvit.folding.kernel import Affine, Kernel, exact, identity_kernel
from hybridvit.models.fastvit.reparameterised import OverparamConv, PositionalEncoding, RepMixer


@dataclass(frozen=True, kw_only=True)
class LayerKernels:
    """One depthwise layer. Kernels are (channels, k, k), in float64, zeros around the smaller ones."""

    name: str
    branches: dict[str, Float[Tensor, "c k k"]]  # empty for a layer that is folded already
    folded: Float[Tensor, "c k k"]

    @property
    def max_difference(self) -> float | None:
        """Between the sum of the branches and the folded kernel; None without branches."""
        if not self.branches:
            return None
        return (reduce(add, self.branches.values()) - self.folded).abs().max().item()

    def share_inside(self, size: int) -> float:
        """The share of the squared weight of the folded kernel in its central `size` x `size`."""
        squared, border = self.folded.square(), max((self.folded.shape[-1] - size) // 2, 0)
        end = self.folded.shape[-1] - border
        return (squared[:, border:end, border:end].sum() / squared.sum()).item()


@torch.no_grad()
def depthwise_kernels(model: nn.Module) -> list[LayerKernels]:
    """All depthwise layers with kernels larger than 1 x 1, in the order of the modules.

    Raises:
        UsageError: if there is none.
        NotAsBuilt: for a layer that was changed since it was built.
    """
    found: list[LayerKernels] = []
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if inside and name.startswith(inside):
            continue
        branches = _branches(module)
        if branches is None:
            continue
        inside = (*inside, f"{name}.")
        made = module if isinstance(module, nn.Conv2d) else module.folded()
        assert isinstance(made, nn.Conv2d)
        weight, size = exact(made.weight)[:, 0], made.kernel_size[0]
        padded = {branch: kernel.padded(size).weight[:, 0] for branch, kernel in branches.items()}
        found.append(LayerKernels(name=name, branches=padded, folded=weight))
    if not found:
        raise UsageError("The model has no depthwise layer of 3x3 or more. Leave kernels out of --draw.")
    return found


def _branches(module: nn.Module) -> dict[str, Kernel] | None:
    """The kernels whose sum the layer is; none for a folded layer, None for what is no depthwise layer."""
    if isinstance(module, RepMixer):
        gain, keep = exact(module.layer_scale.flatten()), identity_kernel(module.mixer.kxk.conv)
        mixed = {name: kernel.scaled(gain) for name, kernel in _of_conv(module.mixer).items()}
        norm = keep.then(Affine.of(module.norm)).scaled(-gain)
        return {**mixed, "norm": norm, "input": keep}
    if isinstance(module, OverparamConv) and _is_depthwise(module.kxk.conv):
        return _of_conv(module)
    if isinstance(module, PositionalEncoding):
        return {"conv": Kernel.of(module.conv), "input": identity_kernel(module.conv)}
    return {} if isinstance(module, nn.Conv2d) and _is_depthwise(module) else None


def _of_conv(conv: OverparamConv) -> dict[str, Kernel]:
    kernels = {"k x k": conv.kxk.kernel()}
    if conv.small is not None:
        kernels["small"] = conv.small.kernel()
    if conv.scale is not None:
        kernels["1 x 1"] = conv.scale.kernel()
    if conv.skip is not None:
        kernels["skip"] = identity_kernel(conv.kxk.conv).then(Affine.of(conv.skip))
    return kernels


def _is_depthwise(conv: nn.Conv2d) -> bool:
    return conv.groups > 1 and conv.weight.shape[1] == 1 and conv.kernel_size[0] > 1
