"""How FastViT trains: by its layers, in the memory layout it was given, in half precision."""

import pytest
import torch
from conftest import trained_like
from torch import nn

import hybridvit
from hybridvit.models.fastvit.reparameterised import OverparamConv


def test_training_calls_every_layer():
    model = hybridvit.create_model("fastvit_debug", num_classes=5).train()
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear)
    }
    called = set()
    for name, layer in layers.items():
        layer.register_forward_hook(lambda *_, name=name: called.add(name))
    model(torch.randn(2, 3, 64, 64))
    assert called == set(layers)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_branch_with_a_stride_has_the_gradient_of_a_slice_in_the_layout_of_its_input(layout):
    block = OverparamConv(6, 6, 3, stride=2, groups=6, scale=True).double().train()
    images = torch.randn(3, 6, 7, 9, dtype=torch.float64).to(memory_format=layout)
    weights = torch.randn(3, 6, 4, 5, dtype=torch.float64)

    def by_slices(x):
        return block.kxk(x) + block.scale(x[..., ::2, ::2])

    gradients = []
    for form in (block, by_slices):
        x = images.clone(memory_format=torch.preserve_format).requires_grad_()
        (form(x) * weights).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-13)
    assert gradients[0].is_contiguous(memory_format=layout)


def test_autocast_keeps_statistics_in_float32():
    model = trained_like(hybridvit.create_model("fastvit_debug", num_classes=5)).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randn(4, 3, 64, 64)).square().mean().backward()
    for name, buffer in model.named_buffers():
        assert buffer.dtype in (torch.float32, torch.int64), name
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_models_train_in_half_precision(dtype):
    model = trained_like(hybridvit.create_model("fastvit_debug", num_classes=5)).train()
    model.to(dtype).to(memory_format=torch.channels_last)
    images = torch.randn(4, 3, 64, 64).to(dtype).to(memory_format=torch.channels_last)
    model(images).float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
