"""Multiply-adds against fvcore's counter, which both papers used; here, since it traces and the shape hook is off."""

import math
import warnings
from collections import Counter
from typing import Any

import pytest
import torch

from hybridvit.build import build
from hybridvit.folding.fold import fold
from hybridvit.measure.counts import count
from hybridvit.models.hat.fixed_size import depends_on_size
from hybridvit.models.registry import VARIANTS

MOST_PARAMETERS = 100e6  # the others are the same code with larger numbers, and take gigabytes and minutes
FIRST = ("fastvit_debug", "fastvit_sa12", "fastervit_debug", "fastervit_0", "swin_debug_hat")  # the others: nightly
PRODUCTS = ("conv", "linear", "matmul", "bmm", "addmm", "attention")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FIRST else pytest.mark.nightly) for name in VARIANTS]
)
def test_multiply_adds_are_those_of_fvcore(name: str) -> None:
    variant = VARIANTS[name]
    size = variant.preprocessing.image_size
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in build(name).parameters())
    if parameters > MOST_PARAMETERS:
        pytest.skip(f"{parameters / 1e6:.0f} million parameters")
    model = build(name).eval()
    model = fold(model, image_size=size if depends_on_size(model) else None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's tracer and scripts, which fvcore uses
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model, torch.randn(1, 3, *size))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        # fvcore knows no fused attention, and counts a product that is broadcast over a batch once
        analysis.set_op_handle("aten::scaled_dot_product_attention", _attention)
        analysis.set_op_handle("aten::matmul", _matmul)
        by_operator = analysis.by_operator()
    assert sum(by_operator[operator] for operator in PRODUCTS) == count(model, size).multiply_adds


def _attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    query, keys = inputs[0].type().sizes(), inputs[1].type().sizes()
    return Counter({"attention": 2 * math.prod(query) * keys[-2]})


def _matmul(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return Counter({"matmul": math.prod(outputs[0].type().sizes()) * inputs[0].type().sizes()[-1]})
