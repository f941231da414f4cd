"""FasterViT's folds: exact with every option, wrong ones are seen, and the edges (zero gains, heads, bare parts)."""

import pytest
import torch
from conftest import relative_error, trained_like
from torch import nn

import hybridvit
from hybridvit.errors import FoldError, UsageError
from hybridvit.folding.kernel import Affine, Kernel
from hybridvit.models.fastervit import blocks
from hybridvit.models.fastervit.blocks import ConvBlock, Downsample
from hybridvit.models.hat.attention import HierarchicalAttention
from hybridvit.models.hat.config import HATConfig
from hybridvit.models.hat.residual import FoldedAttention, ResidualAttention, TokenResidual, attend
from hybridvit.models.head import FoldedHead, NormHead

IMAGES = torch.randn(2, 3, 65, 131, generator=torch.Generator().manual_seed(1))


def debug(**options: object) -> nn.Module:
    return trained_like(hybridvit.create_model("fastervit_debug", **({"num_classes": 10} | options)))


OPTIONS = [
    {"layer_scale_init": None},
    {"conv_layer_scale_init": 0.5},
    {"propagate": False},
    {"relative_bias": False},
    {"position_embedding": False},
    {"carrier_attention": False},
    {"carrier_source": "constant"},
    {"carrier_source": "tokens"},
    {"carrier_size": 1},
    {"mixers": ("conv", "conv", "hat", "hat")},
    {"mixers": ("window", "window", "hat", "window")},
    {"mixers": ("conv", "conv", "window", "window")},
    {"num_classes": 0},
    {"global_pool": "max"},
    {"num_classes": 0, "global_pool": ""},
    {"in_chans": 1},
    {"drop_rate": 0.5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@torch.no_grad()
def test_folding_changes_no_output_with_any_option(options):
    model = debug(**options)
    images = IMAGES[:, : model.in_chans]
    expected = model(images)
    folded = hybridvit.fold(model)
    assert relative_error(folded(images), expected) < 1e-5
    assert relative_error(hybridvit.fold(model.double())(images.double()), model(images.double())) < 1e-12
    left = list(hybridvit.fold_report(model, hybridvit.fold(model), images.double()).left)
    without_classifier = {"num_classes", "global_pool"} & options.keys()
    assert left == (["head.norm (BatchNorm2d)"] if without_classifier else [])


def _shift_as_bias(self):
    """The whole norm folded, as if the zeros of the padding had passed through it."""
    folded = FOLDED_DOWNSAMPLE(self)
    with torch.no_grad():
        folded.conv.bias = nn.Parameter((folded.conv.weight * folded.shift[:, None, None]).sum((1, 2, 3)))
        folded.shift.zero_()
    return folded


FOLDED_DOWNSAMPLE = Downsample.folded
CONV_FOLDED, INIT = ConvBlock.folded, FoldedAttention.__init__


def _no_scale(self):
    scale, self.layer_scale = self.layer_scale, None
    folded = CONV_FOLDED(self)
    self.layer_scale = scale
    return folded


def _no_second_use(self, *args, layer_scale, **rest):
    INIT(self, *args, layer_scale=None, **rest)


def _scaled_again(self, x, grid, num_images, num_carriers=0):
    return x + attend(self.norm(x), self.to_qkv, self.to_out, self.num_heads, self.bias, grid, num_carriers)


def _without_shift(self, affine):
    return Kernel(self.weight.to(affine.gain) * affine.gain[:, None, None], self.bias.to(affine.gain))


MUTATIONS = {
    "downsample shift as a bias": (Downsample, "folded", _shift_as_bias),
    "no scale in the convolutional stages": (ConvBlock, "folded", _no_scale),
    "no layer scale": (TokenResidual, "last", lambda self, layer: Kernel.of(layer).as_linear(layer)),
    "no LayerNorm affine": (TokenResidual, "first", lambda self, layer: Kernel.of(layer)),
    "no attention scale": (FoldedAttention, "forward", _scaled_again),
    "no shift before a linear layer": (Kernel, "after", _without_shift),
    "no BatchNorm": (blocks, "_conv_norm", lambda conv, norm: Kernel.of(conv).as_conv(conv)),
    "no head norm": (blocks.Kernel, "after", lambda self, affine: self),
    "propagation without its scale": (FoldedAttention, "__init__", _no_second_use),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
@torch.no_grad()
def test_a_wrong_fold_is_seen(mutation, monkeypatch):
    model = debug(conv_layer_scale_init=0.5)
    expected = model(IMAGES)
    monkeypatch.setattr(*MUTATIONS[mutation])
    assert relative_error(hybridvit.fold(model)(IMAGES), expected) > 1e-3


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float64, 1e-13), (torch.float32, 2e-6), (torch.bfloat16, 3e-2), (torch.float16, 5e-3)]
)
@pytest.mark.parametrize("gain", [0.0, 1e-12, -1e-5])
@torch.no_grad()
def test_a_norm_without_gain_before_a_downsampling_folds(gain, dtype, limit):
    block = trained_like(Downsample(4, 8)).to(dtype)
    block.norm.weight[1:3] = gain
    block.norm.bias[2] = 0
    x = torch.randn(2, 4, 9, 11)
    expected = Downsample(4, 8).double()
    expected.load_state_dict(block.state_dict())
    assert relative_error(block.folded()(x.to(dtype)), expected(x.to(dtype).double())) < limit


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_norm_is_refused_by_name(value):
    model = debug()
    with torch.no_grad():
        model.stages[1].downsample.norm.weight[2] = value
    with pytest.raises(FoldError, match=r"Cannot fold 'stages.1.downsample': its folded weight is not finite"):
        hybridvit.fold(model)


def test_the_folded_head_keeps_its_pre_logits_and_cannot_be_replaced():
    model = debug()
    folded = hybridvit.fold(model)
    with torch.no_grad():
        fmap = model.forward_features(IMAGES)
        expected = model.forward_head(fmap, pre_logits=True)
        assert relative_error(folded.forward_head(fmap, pre_logits=True), expected) < 1e-5
        with pytest.raises(UsageError, match=r"holds the norm before the classifier.*before it is folded"):
            folded.reset_classifier(5)
        with pytest.raises(UsageError, match=r"holds the norm before the classifier"):
            folded.reset_classifier(0, "")
        folded.reset_classifier(0)
        assert relative_error(folded(IMAGES), expected) < 1e-5


def test_the_head_alone_folds():
    head = trained_like(NormHead(nn.BatchNorm2d(6), 6, 4, global_pool="avg", drop_rate=0.0))
    x = torch.randn(2, 6, 3, 5)
    folded = hybridvit.fold(head)
    assert isinstance(folded, FoldedHead)
    assert Affine.of(head.norm).gain.shape == folded.gain.shape
    assert relative_error(folded(x), head(x).detach()) < 1e-5


class Foreign(nn.Module):
    """A network of someone else's with hierarchical attention inside."""

    def __init__(self) -> None:
        super().__init__()
        config = HATConfig(num_heads=2, window_size=4, position_hidden=8, layer_scale_init=0.5, propagate=True)
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.mix = HierarchicalAttention(8, 2, config)
        self.out = nn.BatchNorm2d(8)

    def forward(self, x):
        return self.out(self.mix(self.stem(x)))


@torch.no_grad()
def test_hierarchical_attention_folds_alone_and_inside_a_foreign_network():
    model = trained_like(Foreign())
    folded = hybridvit.fold(model)
    assert relative_error(folded(IMAGES), model(IMAGES)) < 1e-5
    assert isinstance(folded.out, nn.BatchNorm2d)
    x = torch.randn(1, 8, 9, 14)
    alone = hybridvit.fold(model.mix)
    assert relative_error(alone(x), model.mix(x)) < 1e-5
    assert not any(isinstance(module, ResidualAttention) for module in alone.modules())
    assert not any(parameter.requires_grad for parameter in alone.parameters())


@pytest.mark.parametrize("folded", [False, True])
@torch.no_grad()
def test_both_forms_run_under_autocast(folded):
    model = debug().eval()
    expected = model(IMAGES)
    candidate = hybridvit.fold(model) if folded else model
    with torch.autocast("cpu", torch.bfloat16):
        assert relative_error(candidate(IMAGES), expected) < 2e-2
