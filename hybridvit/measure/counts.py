"""Parameters, multiply-adds and graph nodes: what a model costs before any clock is started."""

import copy
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hybridvit.create import build
from hybridvit.models.backbone import Backbone

BOOKKEEPING = ("aten.add_.",)  # BatchNorm's count of batches, which only training has


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The size of one model for one image."""

    parameters: int
    multiply_adds: int  # attention's two products included, elementwise operations not
    by_kind: dict[str, int]  # multiply-adds by operator: convolution, linear, attention ...


def count(model: nn.Module, size: tuple[int, int]) -> Counts:
    """Count `model` for one image of `size` (height, width in pixels).

    A model of this library in its training form is counted as it trains, branch by branch; anything else in eval
    mode. Runs on the meta device: no arithmetic and no memory for weights, so the largest model takes a moment. The
    counter is torch's own, which counts two operations per multiply-add.
    """
    meta, images = _on_meta(model, size)
    counter = FlopCounterMode(display=False)
    with counter:
        meta(images)
    by_kind: Counter[str] = Counter()
    for operator, operations in counter.get_flop_counts()["Global"].items():
        by_kind[_kind(str(operator))] += operations // (2 * len(images))
    return Counts(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        multiply_adds=by_kind.total(),
        by_kind=dict(by_kind.most_common()),
    )


def graph_nodes(model: nn.Module, size: tuple[int, int]) -> int:
    """The number of operations in the graph that torch.export sees, in the form that `count` counts."""
    meta, images = _on_meta(model, size)
    program = torch.export.export(meta, (images,))
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    return sum(not str(node.target).startswith(BOOKKEEPING) for node in calls)


def _on_meta(model: nn.Module, size: tuple[int, int]) -> tuple[nn.Module, Tensor]:
    """The model to count, without storage, and as many images as it needs at least."""
    in_chans = model.in_chans if isinstance(model, Backbone) else 3
    with torch.device("meta"):
        if isinstance(model, Backbone) and model.card.form == "training":
            options = {**model.card.options, "training_form": "branches", "drop_path_rate": 0.0, "drop_rate": 0.0}
            # two images: a batch statistic over one value is refused
            return build(model.card.architecture, **options).train(), torch.empty(2, in_chans, *size)
        # with gradients wanted no block answers from a kernel that it folded for itself
        return copy.deepcopy(model).to("meta").eval().requires_grad_(), torch.empty(1, in_chans, *size)


def _kind(operator: str) -> str:
    for part, kind in (("conv", "convolution"), ("attention", "attention"), ("bmm", "attention")):
        if part in operator:
            return kind
    return "linear" if "mm" in operator else operator
