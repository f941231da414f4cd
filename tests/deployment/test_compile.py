"""torch.compile and torch.export take the models whole. Run apart: the shape checks of the other tests are no graph."""

import copy

import pytest
import torch
from conftest import relative_error, trained_like

import hybridvit


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("name", ["fastvit_debug"])
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


def test_a_compiled_training_step_gives_the_same_gradients():
    model = trained_like(hybridvit.create_model("fastvit_debug", num_classes=5)).train()
    other = copy.deepcopy(model)
    images = torch.randn(2, 3, 64, 64)
    model(images).square().mean().backward()
    torch.compile(other, fullgraph=True, backend="aot_eager")(images).square().mean().backward()
    largest = max(parameter.grad.abs().max() for parameter in model.parameters())
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert (ours.grad - theirs.grad).abs().max() / largest < 1e-4, name
    for (name, ours), theirs in zip(model.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, msg=name)
