"""The transforms of torch.func give the derivatives of a model, folded or not, in single precision too."""

import pytest
import torch
from called_layers import IMAGES, NAMES
from conftest import relative_error, trained_like
from torch import nn
from torch.autograd import forward_ad

import hybridvit

TRANSFORMED = [("fastvit_t8", {}), *((name, {}) for name in NAMES)]
TRANSFORMED += [("fastervit_debug", {"mixers": ("conv", "conv", "twins", "edgevit")})]


def transformed_model(name: str, options: dict[str, object], folded: bool) -> nn.Module:
    model = trained_like(hybridvit.create_model(name, num_classes=10, **options))
    return hybridvit.fold(model) if folded else model


@pytest.mark.parametrize(("name", "options"), TRANSFORMED)
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # of operators without a batched form
@torch.no_grad()
def test_vmap_over_images(name, options, folded):
    model = transformed_model(name, options, folded)
    mapped = torch.func.vmap(lambda image: model(image[None])[0])(IMAGES)
    assert relative_error(mapped, model(IMAGES)) < 1e-5


@pytest.mark.parametrize(("name", "options"), TRANSFORMED)
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # by torch itself
@torch.no_grad()
def test_jvp_is_the_derivative_in_single_precision_too(name, options, folded):
    model, tangent = transformed_model(name, options, folded), torch.randn(IMAGES.shape)
    _, derivative = torch.func.jvp(model, (IMAGES,), (tangent,))
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(model(forward_ad.make_dual(IMAGES, tangent))).tangent
    model.double()
    images, step = IMAGES.double(), 1e-6 * tangent.double()
    difference = (model(images + step) - model(images - step)) / 2e-6
    assert relative_error(derivative, difference) < 1e-5
    assert relative_error(dual, difference) < 1e-5
    _, derivative = torch.func.jvp(model, (images,), (tangent.double(),))
    assert relative_error(derivative, difference) < 1e-6


@pytest.mark.parametrize(("name", "options"), TRANSFORMED)
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # of operators without a batched form
def test_the_gradient_by_each_image_is_that_of_autograd(name, options, folded):
    model = transformed_model(name, options, folded)
    images = IMAGES.clone().requires_grad_()
    model(images).square().sum().backward()
    gradient = torch.func.grad(lambda batch: model(batch).square().sum())(IMAGES)
    assert relative_error(gradient, images.grad) < 1e-5
    each = torch.func.vmap(torch.func.grad(lambda image: model(image[None]).square().sum()))(IMAGES)
    assert relative_error(each, images.grad) < 1e-5
