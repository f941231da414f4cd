"""An unfolded model calls its layers, in eval mode as in training; what a fold would leave out, it refuses by name."""

import copy

import pytest
import torch
from called_layers import IMAGES, LAYERS, NAMES, answer, model_of
from conftest import relative_error, trained_like
from timm.utils import reparameterize_model
from torch import nn
from torch.nn.utils import parametrize, prune

import hybridvit
from hybridvit.errors import FoldError
from hybridvit.folding.foldable import Foldable
from hybridvit.models.fastvit.reparameterised import ConvNorm, OverparamConv, RepMixer


class Doubled(nn.Conv2d):
    """A convolution whose own forward does more than its weights say."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Halved(nn.Module):
    """A parametrisation."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight / 2


@pytest.mark.parametrize(("name", "block", "layer"), [row for row in LAYERS if row[2].endswith(("conv", "conv2"))])
@pytest.mark.parametrize("training", [False, True])
def test_the_forward_of_a_subclass_is_called(name, block, layer, training):
    model = model_of(name)
    images = IMAGES.clone()
    expected = copy.deepcopy(model).train(training)(images)
    conv = model.get_submodule(f"{block}.{layer}")
    conv.__class__ = Doubled
    with torch.no_grad():
        conv.weight.mul_(0.5)
        if conv.bias is not None:
            conv.bias.mul_(0.5)
    assert relative_error(model.train(training)(images), expected) < 1e-5
    with pytest.raises(
        FoldError, match=rf"Cannot fold '{block}': '{layer}' in it is a Doubled of .*, but exact is only"
    ):
        hybridvit.fold(model.eval())


class OtherMixer(RepMixer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class OtherConv(OverparamConv):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class OtherConvNorm(ConvNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("", OtherMixer, "it is a OtherMixer, which may compute something else .* Give it a folded"),
        ("mixer", OtherConv, "'mixer' in it is a OtherConv of .*, but exact is only the fold of a plain OverparamConv"),
        (
            "mixer.kxk",
            OtherConvNorm,
            "'mixer.kxk' in it is a OtherConvNorm of .*, but exact is only the fold of a plain ConvNorm",
        ),
        ("mixer.scale", OtherConvNorm, "'mixer.scale' in it is a OtherConvNorm"),
    ],
)
def test_the_forward_of_a_subclassed_block_is_called(path, kind, message, training, debug_model):
    block = debug_model.stages[0].blocks[0].mixer
    x = torch.randn(2, 4, 9, 11)
    block.train(training)
    before = copy.deepcopy(block)(x)
    block.get_submodule(path).__class__ = kind
    assert relative_error(block(x), before) > 0.01
    with pytest.raises(FoldError, match=f"Cannot fold 'stages.0.blocks.0.mixer': {message}"):
        hybridvit.fold(debug_model.eval())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre", "global"])
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")  # of layers that read coordinates
def test_hooks_of_every_kind_fire_on_every_layer(name, training, kind):
    model = model_of(name).train(training)
    layers = {module: key for key, module in model.named_modules() if not list(module.children())}
    layers = {module: key for module, key in layers.items() if list(module.parameters())}
    seen: set[str] = set()

    def note(module: nn.Module, *_: object) -> None:
        if module in layers:
            seen.add(layers[module])

    handles = []
    if kind == "global":
        handles = [nn.modules.module.register_module_forward_pre_hook(note)]
    else:
        for module in layers:
            handles.append(getattr(module, f"register_{kind}_hook")(note))
    try:
        model(IMAGES.clone().requires_grad_()).sum().backward()
    finally:
        for handle in handles:
            handle.remove()
    assert seen == set(layers.values())


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
@pytest.mark.parametrize("path", ["", "mixer.kxk.norm"])
def test_fold_refuses_hooks_of_every_kind(kind, path, debug_model):
    part = debug_model.get_submodule(f"stages.0.blocks.0.mixer.{path}".rstrip("."))
    getattr(part, f"register_{kind}_hook")(lambda *_: None)
    place = f"'{path}' in it" if path else "it"
    with pytest.raises(FoldError, match=rf"Cannot fold 'stages.0.blocks.0.mixer': {place} has hooks .* Remove them"):
        hybridvit.fold(debug_model)


def test_fold_for_one_size_refuses_hooks_on_the_positions_that_become_constants():
    model = model_of("fastervit_debug")
    model.stages[2].body.blocks[0].carrier_position.mlp.hidden.register_forward_hook(lambda *_: None)
    assert relative_error(answer(hybridvit.fold(model)), answer(model)) < 1e-5  # computed there, so the hook stays
    message = r"Cannot fold 'stages.2.body' for one size: 'blocks.0.carrier_position.mlp.hidden' in it has hooks"
    with pytest.raises(FoldError, match=message):
        hybridvit.fold(model, image_size=64)


def test_fold_refuses_a_forward_that_is_set_on_one_layer(debug_model):
    conv = debug_model.stages[0].blocks[0].mixer.mixer.kxk.conv
    before, plain = answer(debug_model), conv.forward
    conv.forward = lambda x: 2 * plain(x)
    assert relative_error(answer(debug_model), before) > 1e-4
    with pytest.raises(FoldError, match=r"'mixer.kxk.conv' in it has hooks or a forward of its own"):
        hybridvit.fold(debug_model)


@pytest.mark.parametrize("name", NAMES[:2] + [pytest.param(name, marks=pytest.mark.nightly) for name in NAMES[2:]])
def test_what_is_written_through_data_is_seen(name):
    model = model_of(name)
    before = answer(model)
    for key, parameter in model.named_parameters():
        kept = parameter.detach().clone()
        parameter.data.mul_(1.5).add_(0.1)
        if "carrier" not in key:  # of which the debug sizes have stages with a single window
            assert not torch.equal(answer(model), before), key
        parameter.data.copy_(kept)
    assert torch.equal(answer(model), before)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("path", ["mixer.kxk.norm", "mixer.scale.norm", "mixer.skip", "norm"])
def test_another_norm_runs_and_is_refused_by_fold(path, training, debug_model):
    before = answer(debug_model)
    norm = nn.GroupNorm(1, 4).train(training)
    debug_model.set_submodule(f"stages.0.blocks.0.mixer.{path}", norm)
    assert relative_error(answer(debug_model), before) > 1e-4
    debug_model.train(training)(IMAGES).square().mean().backward()
    assert norm.weight.grad.any()
    message = rf"'stages.0.blocks.0.mixer': '{path}' in it is a GroupNorm of .* the fold of a plain BatchNorm2d"
    with pytest.raises(FoldError, match=message):
        hybridvit.fold(debug_model.eval())


def test_all_norms_exchanged_run_as_a_model_of_its_own(debug_model):
    for name, module in list(debug_model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            debug_model.set_submodule(name, nn.GroupNorm(1, module.num_features))
    debug_model.train()(IMAGES).square().mean().backward()
    assert all(parameter.grad is not None for parameter in debug_model.parameters())
    with pytest.raises(FoldError, match="is a GroupNorm"):
        hybridvit.fold(debug_model.eval())


@pytest.mark.parametrize(("name", "block", "layer"), LAYERS)
def test_a_parametrised_layer_runs_and_is_refused_by_fold(name, block, layer):
    model = model_of(name)
    part, expected = model.get_submodule(f"{block}.{layer}"), answer(model)
    parametrize.register_parametrization(part, "weight", Halved())
    assert relative_error(answer(model), expected) > 1e-5
    model.train()(IMAGES).square().mean().backward()
    assert part.parametrizations.weight.original.grad.any()
    message = rf"Cannot fold '{block}': '{layer}' in it is a Parametrized.*remove_parametrizations\(\)"
    with pytest.raises(FoldError, match=message):
        hybridvit.fold(model.eval())
    parametrize.remove_parametrizations(part, "weight")
    assert relative_error(answer(hybridvit.fold(model)), answer(model)) < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda conv: setattr(conv, "dilation", (2, 2)) or setattr(conv, "padding", (2, 2)), "is dilated"),
        (lambda conv: setattr(conv, "padding_mode", "circular"), "padded with something else than zeros"),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_a_convolution_of_another_geometry_runs_and_is_refused_by_fold(change, message, training, debug_model):
    mixer = debug_model.stages[0].blocks[0].mixer.train(training)
    x = torch.randn(2, 4, 9, 11)
    before = copy.deepcopy(mixer)(x)
    change(mixer.mixer.kxk.conv)
    assert relative_error(mixer(x), before) > 1e-4
    with pytest.raises(FoldError, match=f"'stages.0.blocks.0.mixer': 'mixer.kxk.conv' in it .*{message}"):
        hybridvit.fold(debug_model.eval())


@pytest.mark.parametrize("name", NAMES)
def test_timms_fold_of_a_model_in_training_mode_answers_as_eval_mode_does(name):
    model = model_of(name)
    expected = answer(model)
    folded = reparameterize_model(model.train())
    assert relative_error(answer(folded), expected) < 1e-5
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in folded.modules())
    assert all(module.training for module in model.modules())


def test_timms_fold_refuses_what_ours_refuses(debug_model):
    mixer = debug_model.stages[0].blocks[0].mixer
    mixer.norm = nn.GroupNorm(1, 4)
    with pytest.raises(FoldError, match="Cannot fold this RepMixer: 'norm' in it is a GroupNorm"):
        reparameterize_model(debug_model)
    mixer.norm = nn.BatchNorm2d(4, track_running_stats=False)
    with pytest.raises(FoldError, match="Cannot fold this RepMixer: 'norm' in it keeps no running statistics"):
        reparameterize_model(debug_model)


def test_pruned_weights_are_used(debug_model):
    before = answer(debug_model)
    prune.random_unstructured(debug_model.stages[0].blocks[0].mixer.mixer.kxk.conv, "weight", amount=0.5)
    assert relative_error(answer(debug_model), before) > 1e-4
    with pytest.raises(FoldError, match=r"'mixer.kxk.conv' in it has hooks"):
        hybridvit.fold(debug_model)


def test_gradients_in_eval_mode_reach_every_parameter(any_debug_model):
    any_debug_model(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert [name for name, weight in any_debug_model.named_parameters() if weight.grad is None] == []


def test_frozen_norms_in_training_mode_compute_as_in_eval_mode(debug_model):
    expected = answer(debug_model)
    debug_model.train()
    for module in debug_model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert torch.equal(answer(debug_model), expected)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fastvit_debug", {"norm": "layer"}),
        ("fastvit_debug", {"norm": "group", "mixers": ("pooling",) * 4}),
        ("fastervit_debug", {"num_classes": 0}),
    ],
)
def test_a_fold_shares_nothing_with_its_argument(name, options):
    model = trained_like(hybridvit.create_model(name, **options))
    folded = hybridvit.fold(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not {id(module) for module in model.modules()} & {id(module) for module in folded.modules()}


def test_every_block_says_by_itself_how_it_folds():
    for name in NAMES:
        for module in model_of(name).modules():
            assert not isinstance(module, Foldable) or "folded" in vars(type(module))
