"""Parameters, multiply-adds and graph nodes: what a model costs before any clock is started."""

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from hybridvit.errors import HybridViTError
from hybridvit.folding.foldable import Carded
from hybridvit.measure.subject import Subject, build
from hybridvit.models.hat.position import PositionTerm

COUNTED = ("conv", "mm.", "bmm.", "addmm.", "scaled_dot_product")  # in the names of operators whose results are counted


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The size of one model for one image."""

    parameters: int
    multiply_adds: int  # attention's two products included, elementwise operations not
    activations: int  # numbers that convolutions and matrix products give
    by_kind: dict[str, int]  # multiply-adds by operator: convolution, linear, attention ...


def count(model: nn.Module, size: tuple[int, int]) -> Counts:
    """Count `model` for one image of `size` (height, width in pixels).

    The position terms of attention, which a fold for one image size makes constants, are not counted. Runs on the meta
    device, without any arithmetic; a model that was created there needs no memory. The counter is torch's own, which
    counts two operations per multiply-add.
    """
    meta, image = _on_meta(model, size)
    return count_each({"": meta}, image)[""]


def counted(subject: Subject, image_size: tuple[int, int]) -> Counts | None:
    """The counts of a folded model that is only named, for images of `image_size` (height, width in pixels).

    Built on the meta device where its code allows that, so that no weights are made. None for an exported file, and
    for a model of timm whose code cannot run without storage at all.
    """
    if subject.kind == "exported":
        return None
    for device in ("cpu",) if subject.kind == "weights" else ("meta", "cpu"):
        try:
            with torch.device(device):
                model = build(subject, "folded", image_size)
            return count(model, image_size)
        except HybridViTError:
            raise
        except Exception:  # timm's models do in their constructors and folds what they like
            continue
    return None


def count_each(parts: Mapping[str, nn.Module], x: Tensor) -> dict[str, Counts]:
    """The counts of modules of which each is given what the one before gives; the first is given `x`.

    All are counted on the meta device, for the batch of `x`.
    """
    counts, x = {}, x.to("meta")
    for name, part in parts.items():
        counts[name], x = count_call(meta_copy(part), x)
    return counts


def meta_copy(part: nn.Module) -> nn.Module:
    """A copy without storage, whose position terms are computed once: their second call is what a fold leaves."""
    meta = copy.deepcopy(part).to("meta")
    for term in meta.modules():
        if isinstance(term, PositionTerm):
            term.forward = cache(term.forward)
    return meta


def count_call(meta: nn.Module, *inputs: Any, **options: Any) -> tuple[Counts, Any]:
    """The counts of a `meta_copy` for one call with tensors of the meta device, and what it gives."""
    counter, activations = FlopCounterMode(display=False), _Activations()
    with torch.no_grad():
        meta(*inputs, **options)  # computes the position terms
        with counter:
            meta(*inputs, **options)
        with activations:
            result = meta(*inputs, **options)
    by_kind: Counter[str] = Counter()
    for operator, operations in counter.get_flop_counts()["Global"].items():
        by_kind[_kind(str(operator))] += operations // 2
    counts = Counts(
        parameters=sum(parameter.numel() for parameter in meta.parameters()),
        multiply_adds=by_kind.total(),
        activations=activations.total,
        by_kind=dict(by_kind.most_common()),
    )
    return counts, result


def graph_nodes(model: nn.Module, size: tuple[int, int]) -> int:
    """The number of operations in the graph that torch.export sees, in the form that `count` counts."""
    meta, image = _on_meta(model, size)
    with torch.no_grad():
        program = torch.export.export(meta, (image,))
    return sum(node.op == "call_function" for node in program.graph.nodes)


def _on_meta(model: nn.Module, size: tuple[int, int]) -> tuple[nn.Module, Tensor]:
    """A copy of the model without storage, in float32, and an image for it."""
    in_chans = model.in_chans if isinstance(model, Carded) else 3
    meta = copy.deepcopy(model).to("meta").float().eval().requires_grad_(False)
    return meta, torch.empty(1, in_chans, *size, device="meta")


class _Activations(TorchDispatchMode):
    """Adds up what convolutions and matrix products give."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(part in str(func) for part in COUNTED):
            self.total += (result[0] if isinstance(result, tuple) else result).numel()
        return result


def _kind(operator: str) -> str:
    for part, kind in (("conv", "convolution"), ("attention", "attention"), ("bmm", "attention")):
        if part in operator:
            return kind
    return "linear" if "mm" in operator else operator
