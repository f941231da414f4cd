"""The collapsed training form gives the outputs, gradients and statistics of the branches."""

import pytest
import torch
from conftest import relative_error, trained_like
from torch import nn

import hybridvit
from hybridvit.folding.collapsed import PointBranch, collapsed_forward


def _depthwise(dtype, *, stride=1, multiplier=1, channels=6):
    convs = [
        nn.Conv2d(channels, channels * multiplier, size, stride, size // 2, groups=channels, bias=False)
        for size in (3, 1)
    ]
    norms = [nn.BatchNorm2d(channels * multiplier) for _ in range(4)]
    for norm in norms:
        nn.init.normal_(norm.weight, 1, 0.3)
        nn.init.normal_(norm.bias)
    return [module.to(dtype) for module in convs], [module.to(dtype) for module in norms]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("stride", "multiplier", "scaled"), [(1, 1, True), (1, 1, False), (2, 1, False), (1, 2, False)]
)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_the_collapsed_training_form_equals_the_branches(dtype, limit, stride, multiplier, scaled, layout):
    (conv, point), norms = _depthwise(dtype, stride=stride, multiplier=multiplier)
    scale = nn.Parameter(torch.randn(6, 1, 1, dtype=dtype)) if scaled else None
    keeps_shape = stride == 1 and multiplier == 1
    images = (torch.randn(3, 6, 7, 9, dtype=dtype) * 2 + 1).to(memory_format=layout)

    def by_branches(x):
        out = norms[0](conv(x)) + norms[1](point(x))
        out = out + norms[2](x) if keeps_shape else out
        return x + scale * (out - norms[3](x)) if scaled else out

    def collapsed(x):
        branches = (PointBranch(norm=norms[1], weight=point.weight),)
        branches += (PointBranch(norm=norms[2]),) if keeps_shape else ()
        branches += (PointBranch(norm=norms[3], sign=-1),) if scaled else ()
        return collapsed_forward(x, conv, norms[0], branches, layer_scale=scale)

    modules = nn.ModuleList([conv, point, *norms])
    parameters = dict(modules.named_parameters()) | ({"scale": scale} if scaled else {})
    results = []
    for form in (by_branches, collapsed):
        for norm in norms:
            norm.reset_running_stats()
        modules.zero_grad()
        if scaled:
            scale.grad = None
        x = images.clone().requires_grad_()
        out = form(x)
        (out * torch.arange(out.numel(), dtype=dtype).sin().view(out.shape)).sum().backward()
        used = {name: p.grad for name, p in parameters.items() if p.grad is not None}
        results.append({"out": out, "x": x.grad} | used | {k: v.clone() for k, v in modules.named_buffers()})
    expected, actual = results
    assert expected.keys() == actual.keys()
    largest = max(p.abs().max() for name, p in expected.items() if name in parameters)
    for name, value in expected.items():
        # sums that cancel, as BatchNorm makes the gradient of the 1x1 weight, are rounding noise in both forms
        reference = largest if name in parameters else value.abs().max()
        assert (actual[name] - value).abs().max() <= limit * reference, name


def test_the_collapsed_form_is_used_and_can_be_switched_off(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "hybridvit.models.fastvit.reparameterised.collapsed_forward",
        lambda *args, **kwargs: calls.append(1) or collapsed_forward(*args, **kwargs),
    )
    for training_form, expected in (("collapsed", 5), ("branches", 0)):
        calls.clear()
        hybridvit.create_model("fastvit_debug", training_form=training_form)(torch.randn(2, 3, 64, 64))
        assert len(calls) == expected


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_collapsed_form_trains_models_in_half_precision(dtype, layout):
    gradients = []
    for training_form in ("collapsed", "branches"):
        torch.manual_seed(0)
        model = trained_like(hybridvit.create_model("fastvit_debug", num_classes=5, training_form=training_form))
        model.train().to(dtype).to(memory_format=layout)
        images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
        model(images.to(memory_format=layout)).float().square().mean().backward()
        gradients.append(model.head.fc.weight.grad)
    assert relative_error(*gradients) < 0.1


@pytest.mark.parametrize("training_form", ["collapsed", "branches"])
def test_autocast_keeps_statistics_in_float32(training_form):
    model = hybridvit.create_model("fastvit_debug", num_classes=5, training_form=training_form)
    trained_like(model).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randn(4, 3, 64, 64)).square().mean().backward()
    for name, buffer in model.named_buffers():
        assert buffer.dtype in (torch.float32, torch.int64), name
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
