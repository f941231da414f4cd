"""Exact rewrites of a folded model of any family for runtimes that are slow at one of its layers.

Each takes a folded model and returns a new one that computes the same sums, some in another order; an exporter lists
those that its runtime gains from (`Exporter.rewrites`), with those of a family (`models/fastvit/rewrites.py`). Reasons
and measured gains: docs/lab-log.md, "Rewrites".
"""

import copy

from jaxtyping import Float
from torch import Tensor, nn

from hybridvit.folding.kernel import conv_like

MAX_TAPS = 25  # of the largest kernel that XNNPACK has a depthwise convolution for


def depthwise_in_parts(model: nn.Module) -> nn.Module:
    """Depthwise convolutions of more than 25 taps as sums of convolutions that have some of their rows each.

    XNNPACK has depthwise kernels up to 25 taps; a larger one runs as a matrix product per channel, at 4 % of the speed.
    """
    rewritten = copy.deepcopy(model)
    for name, module in list(rewritten.named_modules()):
        if isinstance(module, nn.Conv2d) and _fits_in_parts(module):
            rewritten.set_submodule(name, RowsDepthwise(module).eval())
    return rewritten


class RowsDepthwise(nn.Module):
    """A depthwise convolution as a sum over its rows: the middle ones, then pairs at equal distance from the middle.

    Each part is symmetric about the middle of the kernel, so that dilation and padding express its place.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        middle, (height, width) = conv.kernel_size[0] // 2, conv.kernel_size
        reach = 1 if 3 * width <= MAX_TAPS else 0
        rows = [list(range(middle - reach, middle + reach + 1))]
        rows += [[middle - distance, middle + distance] for distance in range(reach + 1, height - middle)]
        self.parts = nn.ModuleList(_rows_of(conv, own, with_bias=own is rows[0]) for own in rows)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c oh ow"]:
        first, *others = self.parts
        total = first(x)
        for other in others:
            total = total + other(x)
        return total


def _fits_in_parts(conv: nn.Conv2d) -> bool:
    height, width = conv.kernel_size
    is_centred = (height % 2, width % 2) == (1, 1) and conv.padding == (height // 2, width // 2)
    is_depthwise = conv.groups == conv.in_channels == conv.out_channels
    return is_depthwise and is_centred and conv.dilation == (1, 1) and height * width > MAX_TAPS >= 2 * width


def _rows_of(conv: nn.Conv2d, rows: list[int], *, with_bias: bool) -> nn.Conv2d:
    part = conv_like(conv, conv.weight[:, :, rows], conv.bias if with_bias else None)
    step = rows[1] - rows[0] if len(rows) > 1 else 1
    part.dilation, part.padding = (step, 1), (conv.kernel_size[0] // 2 - rows[0], conv.kernel_size[1] // 2)
    return part
