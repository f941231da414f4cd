"""Folding changes no output: every variant and option, in every precision; and what must be refused."""

import copy
import dataclasses

import pytest
import torch
from conftest import contract_model, every_model, relative_error, sizes_px, trained_like
from timm.layers import freeze_batch_norm_2d
from torch import nn

import hybridvit
from hybridvit.card import Preprocessing
from hybridvit.errors import FoldError, UsageError
from hybridvit.folding.kernel import Kernel
from hybridvit.models.fastvit.reparameterised import ConvNorm, OverparamConv, PositionalEncoding, RepMixer


@pytest.mark.parametrize("name", every_model())
def test_folding_changes_no_output_of_any_variant(name):
    model = trained_like(contract_model(name))
    folded = hybridvit.fold(model)
    for size in sizes_px(name):
        images = torch.randn(1, 3, *size)
        expected = model(images)
        assert relative_error(folded(images), expected) < 1e-5
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in folded.modules())


@pytest.mark.parametrize("name", every_model())
def test_folding_is_exact_in_float64(name):
    model = trained_like(contract_model(name)).double()
    images = torch.randn(1, 3, *sizes_px(name)[0], dtype=torch.float64)
    assert relative_error(hybridvit.fold(model)(images), model(images)) < 1e-12


@pytest.mark.parametrize("name", ["fastvit_debug", "fastervit_debug"])
def test_folding_a_pyramid_changes_none_of_its_maps(name):
    pyramid = trained_like(hybridvit.create_model(name, features_only=True))
    images = torch.randn(1, 3, 65, 98)
    for folded, expected in zip(hybridvit.fold(pyramid)(images), pyramid(images), strict=True):
        assert relative_error(folded, expected) < 1e-5


def _without(attribute: str):
    """A mutation of OverparamConv's kernel: one branch is forgotten."""
    original = OverparamConv.kernel

    def kernel(self):
        kept = getattr(self, attribute)
        self._modules[attribute] = None
        try:
            return original(self)
        finally:
            self._modules[attribute] = kept

    return kernel


MUTATIONS = {
    "no skip branch": (OverparamConv, "kernel", _without("skip")),
    "no scale branch": (OverparamConv, "kernel", _without("scale")),
    "no small kernel": (OverparamConv, "kernel", _without("small")),
    "no BatchNorm": (ConvNorm, "kernel", lambda self: Kernel.of(self.conv)),
    "no RepMixer norm": (RepMixer, "kernel", lambda self: self.mixer.kernel()),
    "no layer scale": (Kernel, "scaled", lambda self, gain: self),
    "no shift": (Kernel, "then", lambda self, affine: self.scaled(affine.gain)),
    "no attention norm": (Kernel, "after", lambda self, affine: self),
    "no positional residual": (PositionalEncoding, "kernel", lambda self: Kernel.of(self.conv)),
    "off-centre kernel": (
        Kernel,
        "padded",
        lambda self, size: Kernel(
            nn.functional.pad(self.weight, [0, size - self.weight.shape[-1], 0, size - self.weight.shape[-1]]),
            self.bias,
        ),
    ),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_wrong_fold_is_seen(mutation, monkeypatch, debug_model):
    images = torch.randn(1, 3, 65, 98)
    expected = debug_model(images)
    monkeypatch.setattr(*MUTATIONS[mutation])
    assert relative_error(hybridvit.fold(debug_model)(images), expected) > 1e-3


def test_folding_leaves_its_argument_alone_and_gives_a_frozen_new_model(any_debug_model):
    before = copy.deepcopy(any_debug_model.state_dict())
    folded = hybridvit.fold(any_debug_model)
    for name, value in any_debug_model.state_dict().items():
        assert torch.equal(value, before[name])
    shared = {p.data_ptr() for p in any_debug_model.parameters()} & {p.data_ptr() for p in folded.parameters()}
    assert not shared
    assert any_debug_model.card.form == "training"
    assert folded.card.form == "folded"
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert all(parameter.requires_grad for parameter in any_debug_model.parameters())


def test_folding_twice_equals_folding_once(any_debug_model):
    once = hybridvit.fold(any_debug_model)
    twice = hybridvit.fold(once)
    assert twice is not once
    for (name, value), (name_twice, value_twice) in zip(
        once.state_dict().items(), twice.state_dict().items(), strict=True
    ):
        assert name == name_twice
        assert torch.equal(value, value_twice)


def test_folding_the_released_form_to_the_end_equals_folding_at_once(debug_model):
    released = hybridvit.fold(debug_model, released=True)
    assert released.card.form == "released"
    images = torch.randn(1, 3, 65, 98)
    assert relative_error(hybridvit.fold(released)(images), hybridvit.fold(debug_model)(images)) < 1e-6


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, lambda m: nn.Sequential(nn.Sequential(m), nn.ReLU())])
def test_folding_reaches_into_any_module_tree(wrap, any_debug_model):
    images = torch.randn(1, 3, 33, 64)
    expected = any_debug_model(images)
    folded = hybridvit.fold(wrap(any_debug_model))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    actual = folded(images)
    assert relative_error(actual, expected.relu() if isinstance(folded, nn.Sequential) else expected) < 1e-5


def test_folding_a_bare_block():
    block = trained_like(RepMixer(8))
    folded = hybridvit.fold(block)
    assert isinstance(folded, nn.Conv2d)
    images = torch.randn(2, 8, 9, 11)
    assert relative_error(folded(images), block(images)) < 1e-5


def test_folding_in_training_mode_is_refused_by_name(debug_model):
    debug_model.stages[1].train()
    with pytest.raises(FoldError, match=r"Cannot fold 'stages.1.downsample.large': it is in training mode.*eval\(\)"):
        hybridvit.fold(debug_model)
    with pytest.raises(FoldError, match=r"Cannot fold this RepMixer"):
        hybridvit.fold(RepMixer(8))


@pytest.mark.parametrize("value", [float("nan"), -1.0])
def test_broken_statistics_are_refused_by_name(value, debug_model):
    debug_model.stages[2].blocks[0].mixer.norm.running_var[3] = value
    with pytest.raises(FoldError, match=r"Cannot fold 'stages.2.blocks.0.mixer': .* not finite.* running_var"):
        hybridvit.fold(debug_model)


def test_a_fold_that_overflows_half_precision_is_refused_by_name(debug_model):
    with torch.no_grad():
        debug_model.stem[1].conv.kxk.norm.running_var.fill_(1e-6)
        debug_model.stem[1].conv.kxk.norm.weight.fill_(6e4)
    assert hybridvit.fold(debug_model)(torch.ones(1, 3, 32, 32)).isfinite().all()
    with pytest.raises(FoldError, match=r"Cannot fold 'stem.1.conv': .* more than torch.float16 can hold \(65504\)"):
        hybridvit.fold(debug_model.half())


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 5e-3), (torch.bfloat16, 5e-2)])
def test_folding_stays_within_half_precision(dtype, limit, any_debug_model):
    images = torch.randn(2, 3, 64, 64)
    expected = any_debug_model(images)
    half = hybridvit.fold(copy.deepcopy(any_debug_model).to(dtype))
    assert relative_error(half(images.to(dtype)), expected) < limit


def test_folded_weights_hold_no_memory_but_their_own(any_debug_model):
    for parameter in hybridvit.fold(any_debug_model).parameters():
        assert parameter.untyped_storage().nbytes() == parameter.numel() * parameter.element_size()


def test_a_fold_made_in_inference_mode_serves_a_later_backward(any_debug_model):
    with torch.inference_mode():
        folded = hybridvit.fold(any_debug_model)
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    folded(images).sum().backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize("convert", [nn.SyncBatchNorm.convert_sync_batchnorm, freeze_batch_norm_2d])
@pytest.mark.parametrize("options", [{}, {"ffn_kernel": None}, {"mixers": ("pooling",) * 4}], ids=str)
def test_every_kind_of_batch_norm_folds(convert, options):
    model = trained_like(hybridvit.create_model("fastvit_debug", **options))
    images = torch.randn(1, 3, 33, 64)
    expected = model(images)
    converted = convert(model).eval()
    folded = hybridvit.fold(converted)
    assert hybridvit.fold_report(converted, folded).left == ()
    assert relative_error(folded(images), expected) < 1e-5


def test_hooks_inside_a_block_are_called_and_not_lost_in_folding(debug_model):
    images = torch.randn(1, 3, 33, 64)
    with torch.no_grad():
        plain = debug_model(images)
        debug_model.stages[0].blocks[0].mixer.mixer.kxk.register_forward_hook(lambda module, inputs, output: output * 2)
        assert relative_error(debug_model(images), plain) > 1e-3
    with pytest.raises(FoldError, match=r"'stages.0.blocks.0.mixer': 'mixer.kxk' in it has hooks"):
        hybridvit.fold(debug_model)


def test_the_report_refuses_what_it_cannot_compare(debug_model):
    folded = hybridvit.fold(debug_model)
    with pytest.raises(UsageError, match="does not say what images it takes"):
        hybridvit.fold_report(nn.Sequential(debug_model), folded)
    with pytest.raises(UsageError, match="The model is in training mode"):
        hybridvit.fold_report(debug_model.train(), folded)


@pytest.mark.parametrize("pixel_max", [1.0, 255.0])
def test_preprocessing_folds_into_the_first_convolution(pixel_max, debug_model):
    folded = hybridvit.fold(debug_model)
    raw = hybridvit.fold_preprocessing(folded, pixel_max=pixel_max)
    pixels = torch.randint(0, 256, (2, 3, 65, 98)).float() * (pixel_max / 255)
    mean, std = (
        torch.tensor(value)[:, None, None] for value in (folded.card.preprocessing.mean, folded.card.preprocessing.std)
    )
    assert relative_error(raw(pixels), folded((pixels / pixel_max - mean) / std)) < 4e-6
    assert raw.card.preprocessing.mean == (0, 0, 0)
    if pixel_max == 255:
        assert torch.equal(raw(pixels.byte()), raw(pixels))


def test_preprocessing_folds_into_folded_models_with_a_mean_per_channel_only(debug_model):
    with pytest.raises(UsageError, match="fold it first"):
        hybridvit.fold_preprocessing(debug_model)
    grey = trained_like(hybridvit.create_model("fastvit_debug", in_chans=1))
    images = torch.rand(1, 1, 40, 40)
    raw = hybridvit.fold_preprocessing(hybridvit.fold(grey), pixel_max=1.0)
    (mean,), (std,) = grey.card.preprocessing.mean, grey.card.preprocessing.std
    assert relative_error(raw(images), grey((images - mean) / std)) < 4e-6
    with pytest.raises(UsageError, match="takes raw pixels already"):
        hybridvit.fold_preprocessing(raw)
    grey.card = dataclasses.replace(grey.card, preprocessing=Preprocessing())
    with pytest.raises(UsageError, match="has 3 channel means, but fastvit_debug has 1 channel"):
        hybridvit.fold_preprocessing(hybridvit.fold(grey))


def test_the_report_of_a_model_that_answers_with_zeros(debug_model):
    nn.init.zeros_(debug_model.head.fc.weight)
    nn.init.zeros_(debug_model.head.fc.bias)
    assert hybridvit.fold_report(debug_model, hybridvit.fold(debug_model)).max_error == 0


def test_the_report_names_what_was_folded_and_what_was_left(debug_model):
    report = hybridvit.fold_report(debug_model, hybridvit.fold(debug_model))
    assert report.max_error < 1e-5
    assert report.left == ()
    assert "stages.0.blocks.0.mixer" in report.folded
    assert report.parameters_before > report.parameters_after
    assert "BatchNorm2d" in report.layers_before
    assert "BatchNorm2d" not in report.layers_after

    layer_norm = trained_like(hybridvit.create_model("fastvit_debug", norm="layer"))
    left = hybridvit.fold_report(layer_norm, hybridvit.fold(layer_norm)).left
    assert left == tuple(f"stages.{stage}.blocks.0.ffn.depthwise.1 (ChannelLayerNorm)" for stage in range(4))
