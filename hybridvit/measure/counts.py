"""Parameters, multiply-adds and graph nodes: what a model costs before any clock is started."""

import copy
from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The size of one model for one image."""

    parameters: int
    multiply_adds: int  # attention's two products included, elementwise operations not
    by_kind: dict[str, int]  # multiply-adds by operator: convolution, linear, attention ...


def count(model: nn.Module, size: tuple[int, int], *, in_chans: int = 3) -> Counts:
    """Count `model` for one image of `size` (height, width in pixels).

    Runs an eval copy on the meta device: no arithmetic and no memory for weights, so the largest model takes
    a moment. The counter is torch's own, which counts two operations per multiply-add.
    """
    meta = _meta_copy(model)
    image = torch.empty(1, in_chans, *size, device="meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        meta(image)
    by_kind: Counter[str] = Counter()
    for operator, operations in counter.get_flop_counts()["Global"].items():
        by_kind[_kind(str(operator))] += operations // 2
    return Counts(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        multiply_adds=by_kind.total(),
        by_kind=dict(by_kind.most_common()),
    )


def graph_nodes(model: nn.Module, size: tuple[int, int], *, in_chans: int = 3) -> int:
    """The number of operations in the eval graph as torch.export sees it: what a runtime has to schedule."""
    image = torch.empty(1, in_chans, *size, device="meta")
    with torch.no_grad():
        program = torch.export.export(_meta_copy(model), (image,))
    return sum(node.op == "call_function" for node in program.graph.nodes)


def _meta_copy(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).to("meta").eval()


def _kind(operator: str) -> str:
    for part, kind in (("conv", "convolution"), ("attention", "attention"), ("bmm", "attention")):
        if part in operator:
            return kind
    return "linear" if "mm" in operator else operator
