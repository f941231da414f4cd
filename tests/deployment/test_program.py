"""The program that converters are given: the model's answers, and nothing left to compute that no image changes."""

import pytest
import torch
from conftest import relative_error, trained_like

import hybridvit
from hybridvit.export.graph import DeployedModel
from hybridvit.export.program import exported_program
from hybridvit.export.spec import GraphSpec

ARITHMETIC_ON_INDICES = {"arange", "__and__", "ge", "lt", "remainder", "floor_divide"}


def deployed(name: str, **ends: object) -> DeployedModel:
    model = trained_like(hybridvit.create_model(name, num_classes=5))
    fixed = {"image_size": 64} if name.startswith("fastervit") and "range_px" not in ends else {}
    return DeployedModel(hybridvit.fold(model, **fixed), GraphSpec(image_size=(64, 64), **ends))


@pytest.mark.parametrize("batch", [1, pytest.param(None, marks=pytest.mark.nightly)])
def test_a_fixed_size_leaves_no_arithmetic_on_indices(batch: int | None) -> None:
    model = deployed("fastervit_debug", batch=batch)
    program = exported_program(model)
    operators = {node.target.__name__.split(".")[0] for node in program.graph.nodes if node.op == "call_function"}
    assert operators.isdisjoint(ARITHMETIC_ON_INDICES)
    for num in (1,) if batch else (1, 3):
        images = torch.randn(num, 3, 64, 64)
        assert relative_error(program.module()(images), model(images)) <= 1e-6


def test_weights_keep_their_names() -> None:
    model = deployed("fastvit_debug", batch=1)
    program = exported_program(model)
    assert set(program.state_dict) == set(model.state_dict())


@pytest.mark.nightly  # that one program takes all sizes is tested every day (test_compile.py)
def test_dynamic_sides_are_refused_by_no_check_inside() -> None:
    model = deployed("fastervit_debug", range_px=(49, 256))
    computed = exported_program(model).module()
    for size in ((64, 64), (49, 130)):
        images = torch.randn(2, 3, *size)
        assert relative_error(computed(images), model(images)) <= 1e-5, size


def test_several_sizes_are_dynamic_in_the_sides_that_differ() -> None:
    model = deployed("fastvit_debug", batch=1, image_sizes=((64, 64), (96, 64)))
    images = next(node for node in exported_program(model).graph.nodes if node.name == "images").meta["val"]
    assert [isinstance(side, torch.SymInt) for side in images.shape] == [False, False, True, False]
