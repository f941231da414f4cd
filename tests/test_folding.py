"""Folding changes no output: every variant and option, in every precision; and what must be refused."""

import copy
import dataclasses

import pytest
import torch
from conftest import relative_error, trained_like
from timm.layers import freeze_batch_norm_2d
from timm.utils import reparameterize_model
from torch import nn
from torch.nn.utils import prune

import hybridvit
from hybridvit.card import Preprocessing
from hybridvit.errors import FoldError, UsageError
from hybridvit.folding.collapsed import PointBranch, collapsed_forward
from hybridvit.folding.foldable import branch_by_branch
from hybridvit.folding.kernel import Kernel
from hybridvit.models.fastvit.reparameterised import ConvNorm, OverparamConv, PositionalEncoding, RepMixer

VARIANTS = hybridvit.list_models()


def branches_of(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), branch_by_branch(model):
        return model(images)


@pytest.mark.parametrize("name", VARIANTS)
def test_folding_changes_no_output_of_any_variant(name):
    model = trained_like(hybridvit.create_model(name))
    folded = hybridvit.fold(model)
    for size in ((65, 98), (32, 64)):
        images = torch.randn(1, 3, *size)
        expected = branches_of(model, images)
        assert relative_error(folded(images), expected) < 1e-5
        assert torch.equal(folded(images), model(images)) or relative_error(folded(images), model(images)) < 2e-6
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in folded.modules())


@pytest.mark.parametrize("name", VARIANTS)
def test_folding_is_exact_in_float64(name):
    model = trained_like(hybridvit.create_model(name)).double()
    images = torch.randn(1, 3, 65, 98, dtype=torch.float64)
    assert relative_error(hybridvit.fold(model)(images), branches_of(model, images)) < 1e-12


def test_folding_a_pyramid_changes_none_of_its_maps():
    pyramid = trained_like(hybridvit.create_model("fastvit_debug", features_only=True))
    images = torch.randn(1, 3, 65, 98)
    for folded, expected in zip(hybridvit.fold(pyramid)(images), branches_of(pyramid, images), strict=True):
        assert relative_error(folded, expected) < 1e-5


def _without(attribute: str):
    """A mutation of OverparamConv's kernel: one branch is forgotten."""
    original = OverparamConv.kernel

    def kernel(self, dtype=None):
        kept = getattr(self, attribute)
        self._modules[attribute] = None
        try:
            return original(self, dtype)
        finally:
            self._modules[attribute] = kept

    return kernel


MUTATIONS = {
    "no skip branch": (OverparamConv, "kernel", _without("skip")),
    "no scale branch": (OverparamConv, "kernel", _without("scale")),
    "no small kernel": (OverparamConv, "kernel", _without("small")),
    "no BatchNorm": (ConvNorm, "kernel", lambda self, dtype=None: Kernel.of(self.conv, dtype)),
    "no RepMixer norm": (RepMixer, "kernel", lambda self, dtype=None: self.mixer.kernel(dtype)),
    "no layer scale": (Kernel, "scaled", lambda self, gain: self),
    "no shift": (Kernel, "then", lambda self, affine: self.scaled(affine.gain)),
    "no attention norm": (Kernel, "after", lambda self, affine: self),
    "no positional residual": (PositionalEncoding, "kernel", lambda self, dtype=None: Kernel.of(self.conv, dtype)),
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
    expected = branches_of(debug_model, images)
    monkeypatch.setattr(*MUTATIONS[mutation])
    assert relative_error(hybridvit.fold(debug_model)(images), expected) > 1e-3


def test_folding_leaves_its_argument_alone_and_gives_a_frozen_new_model(debug_model):
    before = copy.deepcopy(debug_model.state_dict())
    folded = hybridvit.fold(debug_model)
    for name, value in debug_model.state_dict().items():
        assert torch.equal(value, before[name])
    shared = {p.data_ptr() for p in debug_model.parameters()} & {p.data_ptr() for p in folded.parameters()}
    assert not shared
    assert debug_model.card.form == "training"
    assert folded.card.form == "folded"
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert all(parameter.requires_grad for parameter in debug_model.parameters())


def test_folding_twice_equals_folding_once(debug_model):
    once = hybridvit.fold(debug_model)
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
def test_folding_reaches_into_any_module_tree(wrap, debug_model):
    images = torch.randn(1, 3, 33, 64)
    expected = branches_of(debug_model, images)
    folded = hybridvit.fold(wrap(debug_model))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    actual = folded(images)
    assert relative_error(actual, expected.relu() if isinstance(folded, nn.Sequential) else expected) < 1e-5


def test_folding_a_bare_block():
    block = trained_like(RepMixer(8))
    folded = hybridvit.fold(block)
    assert isinstance(folded, nn.Conv2d)
    images = torch.randn(2, 8, 9, 11)
    assert relative_error(folded(images), branches_of(block, images)) < 1e-5


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
    assert relative_error(hybridvit.fold(debug_model)(torch.ones(1, 3, 32, 32)), torch.ones(1)) > 0
    with pytest.raises(FoldError, match=r"Cannot fold 'stem.1.conv': .* more than torch.float16 can hold \(65504\)"):
        hybridvit.fold(debug_model.half())


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 5e-3), (torch.bfloat16, 5e-2)])
def test_folding_stays_within_half_precision(dtype, limit, debug_model):
    images = torch.randn(2, 3, 64, 64)
    expected = branches_of(debug_model, images)
    half = hybridvit.fold(copy.deepcopy(debug_model).to(dtype))
    assert relative_error(half(images.to(dtype)), expected) < limit


def test_folded_weights_hold_no_memory_but_their_own(debug_model):
    for parameter in hybridvit.fold(debug_model).parameters():
        assert parameter.untyped_storage().nbytes() == parameter.numel() * parameter.element_size()


def test_a_fold_made_in_inference_mode_serves_a_later_backward(debug_model):
    with torch.inference_mode():
        folded = hybridvit.fold(debug_model)
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    folded(images).sum().backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize("convert", [nn.SyncBatchNorm.convert_sync_batchnorm, freeze_batch_norm_2d])
@pytest.mark.parametrize("options", [{}, {"ffn_kernel": None}, {"mixers": ("pooling",) * 4}], ids=str)
def test_every_kind_of_batch_norm_folds(convert, options):
    model = trained_like(hybridvit.create_model("fastvit_debug", **options))
    images = torch.randn(1, 3, 33, 64)
    expected = branches_of(model, images)
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
    with pytest.raises(FoldError, match=r"'stages.0.blocks.0.mixer': 'mixer.kxk' in it has forward hooks"):
        hybridvit.fold(debug_model)


def test_timms_fold_refuses_training_mode_too():
    with pytest.raises(FoldError, match=r"Cannot fold this .* it is in training mode"):
        reparameterize_model(hybridvit.create_model("fastvit_debug"))


def test_the_report_refuses_what_it_cannot_compare(debug_model):
    folded = hybridvit.fold(debug_model)
    with pytest.raises(UsageError, match="does not say what images it takes"):
        hybridvit.fold_report(nn.Sequential(debug_model), folded)
    with pytest.raises(UsageError, match="The model is in training mode"):
        hybridvit.fold_report(debug_model.train(), folded)


class TestEvalKernels:
    """Unfolded models compute on their folded kernels in eval mode, and these are never stale."""

    images = torch.randn(2, 3, 33, 64, generator=torch.Generator().manual_seed(1))

    def check(self, model):
        with torch.no_grad():
            assert relative_error(model(self.images), branches_of(model, self.images)) < 1e-5

    def test_after_load_state_dict(self, debug_model):
        self.check(debug_model)
        other = trained_like(hybridvit.create_model("fastvit_debug", num_classes=10), seed=1)
        for assign in (False, True):
            debug_model.load_state_dict(other.state_dict(), assign=assign)
            self.check(debug_model)
            other = trained_like(other, seed=2)

    @pytest.mark.parametrize("fused", [False, True])
    def test_after_an_optimizer_step_in_training_and_in_eval_mode(self, fused, debug_model):
        optimizer = torch.optim.AdamW(debug_model.parameters(), lr=0.1, fused=fused)
        for mode in (True, False):
            self.check(debug_model)
            debug_model.train(mode)(self.images).square().mean().backward()
            debug_model.eval()
            self.check(debug_model)  # makes the kernels anew just before the step
            optimizer.step()
            self.check(debug_model)

    def test_after_a_change_of_dtype_and_of_device(self, debug_model):
        self.check(debug_model)
        images = self.images.double()
        model = debug_model.double()
        with torch.no_grad():
            assert relative_error(model(images), branches_of(model, images)) < 1e-12
        with torch.no_grad():
            assert model.to("meta")(images.to("meta")).device.type == "meta"

    def test_after_a_copy_and_an_update_of_the_copy(self, debug_model):
        self.check(debug_model)
        average = copy.deepcopy(debug_model)
        with torch.no_grad():
            for value in average.parameters():  # as an exponential moving average does, in eval mode
                value.lerp_(torch.randn_like(value), 0.1)
        self.check(average)
        self.check(debug_model)

    def test_after_batch_statistics_changed(self, debug_model):
        self.check(debug_model)
        debug_model.train()
        with torch.no_grad():
            debug_model(self.images + 3)
        self.check(debug_model.eval())

    def test_after_a_module_was_replaced_or_changed(self, debug_model):
        block = debug_model.stages[0].blocks[0].mixer
        changes = (
            lambda: setattr(block, "norm", trained_like(nn.BatchNorm2d(4), seed=5)),
            lambda: setattr(block.norm, "eps", 0.5),
            lambda: setattr(block.mixer.kxk, "conv", nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)),
            lambda: setattr(block.mixer, "scale", None),
            lambda: prune.random_unstructured(block.mixer.kxk.conv, "weight", amount=0.5),
        )
        for change in changes:
            self.check(debug_model)
            change()
            self.check(debug_model)

    def test_a_kernel_made_in_inference_mode_serves_a_later_backward(self, debug_model):
        with torch.inference_mode():
            debug_model(self.images)
        images = self.images.clone().requires_grad_()
        debug_model.requires_grad_(False)(images).sum().backward()
        assert images.grad.abs().sum() > 0

    def test_gradients_in_eval_mode_reach_every_branch(self, debug_model):
        gradients = []
        for by_branches in (False, True):
            debug_model.zero_grad()
            if by_branches:
                with branch_by_branch(debug_model):
                    debug_model(self.images).square().mean().backward()
            else:
                debug_model(self.images).square().mean().backward()
            gradients.append([parameter.grad.clone() for parameter in debug_model.parameters()])
        for kernel, branch in zip(*gradients, strict=True):
            assert relative_error(kernel, branch) < 1e-4

    def test_frozen_norms_in_training_mode_compute_as_in_eval_mode(self, debug_model):
        expected = branches_of(debug_model, self.images)
        debug_model.train()
        for module in debug_model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        assert relative_error(debug_model(self.images), expected) < 1e-5


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
    with pytest.raises(UsageError, match="has 3 channel means, but fastvit_debug has 1 channels"):
        hybridvit.fold_preprocessing(hybridvit.fold(grey))


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
    assert "stages.3.blocks.0.mixer.norm (ChannelLayerNorm)" in left
    assert len(left) == 5
