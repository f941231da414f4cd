"""torch.compile and torch.export take the models whole. Run apart: the shape checks of the other tests are no graph."""

import copy

import pytest
import torch
from conftest import relative_error, trained_like
from torch._dynamo.utils import counters

import hybridvit


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("fastvit_debug", False),
        ("fastervit_debug", True),
        pytest.param("fastvit_debug", True, marks=pytest.mark.nightly),  # as every export to ONNX
        pytest.param("fastervit_debug", False, marks=pytest.mark.nightly),
    ],
)
def test_export_and_a_whole_graph_compile(name, folded):
    model = trained_like(hybridvit.create_model(name, num_classes=5))
    model = hybridvit.fold(model) if folded else model
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(model, (images,), dynamic_shapes=({0: batch},))
        more = torch.randn(5, 3, 64, 64)
        assert relative_error(program.module()(more), model(more)) < 1e-5
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert relative_error(compiled(images), expected) < 1e-5


@pytest.mark.parametrize("folded", [pytest.param(False, marks=pytest.mark.nightly), True])
def test_fastervit_is_one_program_for_any_batch_height_and_width(folded):
    model = trained_like(hybridvit.create_model("fastervit_debug", num_classes=5))
    model = hybridvit.fold(model) if folded else model
    side = torch.export.Dim.DYNAMIC(min=97, max=2048)  # from 97 px on each stage has more than one window of 3
    with torch.no_grad():
        program = torch.export.export(
            model,
            (torch.randn(2, 3, 128, 160),),
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC(min=1, max=64), 2: side, 3: side},),
            prefer_deferred_runtime_asserts_over_guards=True,
        ).module()
        for batch, height, width in ((1, 97, 97), (3, 101, 157), (2, 224, 320), (5, 128, 128)):
            images = torch.randn(batch, 3, height, width)
            assert relative_error(program(images), model(images)) < 1e-5


@pytest.mark.nightly
def test_fastervit_compiles_three_graphs_for_all_sizes_with_more_than_one_window():
    """One for the first size, one for any width, one for any height and width."""
    torch._dynamo.reset()
    counters.clear()
    model = hybridvit.fold(trained_like(hybridvit.create_model("fastervit_debug", num_classes=5)))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for size in ((112, 112), (112, 160), (130, 112), (160, 160), (224, 97), (101, 300), (192, 256), (320, 128)):
            images = torch.randn(2, 3, *size)
            assert relative_error(compiled(images), model(images)) < 1e-5, size
    assert counters["stats"]["unique_graphs"] <= 3


@pytest.mark.nightly  # a run's losses are compared every day (test_compiled_training.py)
@pytest.mark.parametrize("name", ["fastvit_debug", "fastervit_debug"])
def test_a_compiled_training_step_gives_the_same_gradients(name):
    model = trained_like(hybridvit.create_model(name, num_classes=5)).train()
    other = copy.deepcopy(model)
    images = torch.randn(2, 3, 64, 64)
    model(images).square().mean().backward()
    torch.compile(other, fullgraph=True, backend="aot_eager")(images).square().mean().backward()
    largest = max(parameter.grad.abs().max() for parameter in model.parameters())
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert (ours.grad - theirs.grad).abs().max() / largest < 1e-4, name
    for (name, ours), theirs in zip(model.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, msg=name)
