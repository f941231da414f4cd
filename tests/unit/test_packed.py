"""Packed linear layers of folded models answer as ordinary ones, and their copy is never stale."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from conftest import relative_error
from torch.utils.flop_counter import FlopCounterMode

from hybridvit.folding import packed
from hybridvit.folding.packed import PackedLinear


@pytest.fixture
def layer():
    return PackedLinear(torch.randn(40, 24), torch.randn(40)).eval()


@pytest.fixture
def calls(monkeypatch):
    """How often the packed operator ran."""
    made = []

    def counted(*arguments):
        made.append(1)
        return torch.ops.mkldnn._linear_pointwise(*arguments)

    if packed._linear is None or not packed._IS_X86:
        pytest.skip("this machine or torch has no packed kernels: the layer is nn.Linear here")
    monkeypatch.setattr(packed, "_linear", counted)
    return made


def plain(layer, x):
    return F.linear(x, layer.weight, layer.bias)


@pytest.mark.parametrize("shape", [(24,), (1, 24), (5, 24), (2, 3, 24), (2, 3, 4, 24), (0, 24)])
def test_any_shape_gives_what_an_ordinary_layer_gives(shape, layer):
    x = torch.randn(shape)
    torch.testing.assert_close(layer(x), plain(layer, x), rtol=1e-5, atol=1e-6)


def test_strided_input_is_read_where_it_lies(layer):
    x = torch.randn(24, 7).T
    torch.testing.assert_close(layer(x), plain(layer, x), rtol=1e-5, atol=1e-6)


def test_the_packed_kernel_runs_and_sees_every_change_of_the_weight(layer, calls):
    x = torch.randn(5, 24)
    with torch.no_grad():
        layer(x)
        layer.weight.mul_(2)
        assert relative_error(layer(x), plain(layer, x)) < 1e-5
        layer.load_state_dict({"weight": torch.randn(40, 24), "bias": torch.randn(40)})
        assert relative_error(layer(x), plain(layer, x)) < 1e-5
        layer.load_state_dict({"weight": torch.randn(40, 24), "bias": torch.randn(40)}, assign=True)
        assert relative_error(layer(x), plain(layer, x)) < 1e-5
        other = copy.deepcopy(layer)
        other.bias.add_(1)
        assert relative_error(other(x), plain(other, x)) < 1e-5
        again = pickle.loads(pickle.dumps(layer))
        assert torch.equal(again(x), layer(x))
    assert len(calls) == 7


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
def test_it_steps_aside_where_only_an_ordinary_layer_serves(layer, calls):
    x = torch.randn(5, 24)
    x.requires_grad_()
    layer(x).sum().backward()
    assert torch.allclose(x.grad, layer.weight.sum(0).expand(5, -1), atol=1e-5)
    x = x.detach()
    with FlopCounterMode(display=False) as counter:
        layer(x)
    assert counter.get_total_flops() == 2 * 5 * 24 * 40
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    with torch.backends.mkldnn.flags(enabled=False):
        layer(x)
    layer.double()(x.double())
    layer.to("meta")(x.to("meta"))
    assert not calls


def test_a_copy_made_in_inference_mode_serves_outside(layer):
    x = torch.randn(5, 24)
    with torch.inference_mode():
        first = layer(x)
    with torch.no_grad():
        assert torch.equal(layer(x), first)
