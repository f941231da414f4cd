"""From a deployed model to a program of ExecuTorch whose operators XNNPACK computes.

What XNNPACK's partitioner does not know runs in ExecuTorch's portable kernels, one thread and no vectors, and splits
the graph. So attention, LayerNorm, `unbind` and products with a constant matrix are spelled out in operators that it
knows (executorch 1.5); what is left outside then is listed in docs/lab-log.md.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.export import Dim
from torch.fx import GraphModule

from hybridvit.export.program import Decompositions, exported_program, fold_constants
from hybridvit.export.quiet import quiet

LARGEST_BATCH = 64
"""Of a file with a dynamic batch: the runtime sets memory aside when the file is opened, perhaps for fewer."""

if TYPE_CHECKING:
    from executorch.exir import EdgeProgramManager

    from hybridvit.export.graph import DeployedModel


def xnnpack_graph(model: "DeployedModel") -> GraphModule:
    """`model`, contiguous in memory, in operators that XNNPACK knows."""
    for parameter in model.parameters():  # the partitioner takes channels-last weights for activations
        parameter.data = parameter.data.contiguous()
    graph = exported_program(model, SPELLED_OUT).module(check_guards=False)
    fold_constants(graph)  # those of SPELLED_OUT
    return graph


def lowered(graph: GraphModule, model: "DeployedModel", metadata: str) -> "EdgeProgramManager":
    """`graph` of `model` with its parts for XNNPACK delegated; its method "hybridvit" returns `metadata`."""
    axes = {0: Dim("batch", max=LARGEST_BATCH)} if model.spec.batch is None else None
    with torch.no_grad(), quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        return to_edge_transform_and_lower(
            torch.export.export(graph, (model.example(),), dynamic_shapes=(axes,)),
            partitioner=[XnnpackPartitioner()],
            constant_methods={"hybridvit": metadata},
        )


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Without the case that all scores of a row are masked, which torch's own form looks for in each of them."""
    (batch, heads), dim = q.shape[:2], q.shape[-1]
    scale = dim**-0.5 if scale is None else scale
    q = q if scale == 1 else q * torch.full((), scale, dtype=q.dtype)
    scores = torch.bmm(q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2))  # (batch heads) queries keys
    if attn_mask is not None:
        scores = (scores.unflatten(0, (batch, heads)) + attn_mask).flatten(0, 1)
    return torch.bmm(scores.softmax(-1), v.flatten(0, 1)).unflatten(0, (batch, heads))  # batch heads queries dim


def _layer_norm(
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """The mean as a product with a row of 1 / n: XNNPACK has no mean over the last axis."""
    row = torch.full((1, shape[0]), 1 / shape[0], dtype=x.dtype)
    x = x - F.linear(x, row)
    x = x * torch.rsqrt(F.linear(x * x, row) + torch.full((), eps, dtype=x.dtype))
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _unbind(x: Tensor, axis: int = 0) -> list[Tensor]:
    return [_select(x, axis, index) for index in range(x.shape[axis])]


def _select(x: Tensor, axis: int, index: int) -> Tensor:
    axis %= x.ndim
    return (
        x.narrow(axis, index, 1).flatten(axis, axis + 1)
        if axis + 1 < x.ndim
        else x.narrow(axis, index, 1).flatten(axis - 1, axis)
    )


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """Without the `expand` by which torch makes both operands batches."""
    if a.ndim == 2 and b.ndim > 2:
        return _matmul(b.mT, a.mT).mT
    if b.ndim == 2 and a.ndim > 2:
        return torch.mm(a.flatten(0, -2), b).unflatten(0, a.shape[:-1])
    if a.ndim == b.ndim > 3 and a.shape[:-2] == b.shape[:-2]:
        return torch.bmm(a.flatten(0, -3), b.flatten(0, -3)).unflatten(0, a.shape[:-2])
    return NotImplemented


def _average_pool(x: Tensor, size: Sequence[int]) -> Tensor:
    return x.mean((2, 3), keepdim=True) if tuple(size) == (1, 1) else NotImplemented


def _pad(x: Tensor, sides: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Nothing, where nothing is added, as at sizes of whole windows."""
    return x if not any(sides) else NotImplemented


_aten = torch.ops.aten
SPELLED_OUT: Decompositions = {
    _aten.scaled_dot_product_attention.default: _attention,
    _aten.layer_norm.default: _layer_norm,
    _aten.unbind.int: _unbind,
    _aten.select.int: _select,
    _aten.matmul.default: _matmul,
    _aten.adaptive_avg_pool2d.default: _average_pool,
    _aten.pad.default: _pad,
}
