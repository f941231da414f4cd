"""Symbolic traces of torch.fx and the scripts of torch.jit: what others make of a model to follow it.

Apart from the unit tests, whose shape checks take no stand-ins for tensors.
"""

import copy
import pickle

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from conftest import contract_model, every_model, relative_error, trained_like
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import hybridvit
from hybridvit.errors import UsageError

SIZES = ((64, 96), (33, 50))  # a graph is for any size, also where a map has a single window
MODELS = [
    ("fastvit_debug", {}),
    ("fastvit_debug", {"training_form": "branches", "norm": "layer"}),
    ("fastvit_debug", {"mixers": ("pooling", "pooling", "pooling", "attention"), "stem": "dense"}),
    ("fastervit_debug", {}),
    ("fastervit_debug", {"mixers": ("conv", "conv", "twins", "edgevit")}),
    ("swin_debug_hat", {}),
]
NAMES = ("fastvit_debug", "fastervit_debug", "swin_debug_hat")
SCRIPTED_BY_DAY = {("fastvit_debug", False), ("fastervit_debug", True)}
DEPRECATED = pytest.mark.filterwarnings("ignore:`torch.jit.* is deprecated:FutureWarning")  # by torch itself


def same_answers(traced: nn.Module, model: nn.Module) -> None:
    for size in SIZES:
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(traced(images), model(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", every_model())
@pytest.mark.parametrize("folded", [False, True])
def test_a_symbolic_trace_of_every_model_answers_as_the_model(name, folded):
    model = trained_like(contract_model(name, num_classes=5))
    model = hybridvit.fold(model) if folded else model
    same_answers(torch.fx.symbolic_trace(model), model)


@pytest.mark.parametrize(("name", "options"), MODELS)
@pytest.mark.parametrize("folded", [False, True])
def test_a_symbolic_trace_of_every_mixer_and_pyramid_answers_as_the_model(name, options, folded):
    model = trained_like(hybridvit.create_model(name, features_only=True, **options))
    model = hybridvit.fold(model) if folded else model
    traced = torch.fx.symbolic_trace(model)
    same_answers(traced, model)
    same_answers(copy.deepcopy(traced), model)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("features_only", [False, True])
def test_a_symbolic_trace_can_be_pickled(name, features_only):
    model = trained_like(hybridvit.create_model(name, features_only=features_only, drop_path_rate=0.1))
    traced = torch.fx.symbolic_trace(model)
    assert ": torch.Tensor)" in traced.code  # a shape has no name to import it by
    same_answers(pickle.loads(pickle.dumps(traced)), model)


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_a_symbolic_trace_trains_as_the_model_does(name, options):
    model = trained_like(hybridvit.create_model(name, num_classes=5, drop_path_rate=0.2, **options)).train()
    traced = torch.fx.symbolic_trace(copy.deepcopy(model)).train()
    images = torch.randn(4, 3, 64, 96)
    gradients = []
    for each in (model, traced):
        torch.manual_seed(1)  # of the images whose branches are dropped
        each(images).square().mean().backward()
        gradients.append({key: parameter.grad for key, parameter in each.named_parameters()})
    largest = max(gradient.abs().max() for gradient in gradients[0].values())
    assert set(gradients[1]) == set(gradients[0])
    assert max((gradients[1][key] - gradients[0][key]).abs().max() / largest for key in gradients[0]) < 1e-4
    for key, buffer in model.named_buffers():
        torch.testing.assert_close(traced.get_buffer(key), buffer, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "options"), MODELS)
@pytest.mark.parametrize("folded", [False, True])
def test_torchvisions_feature_extractor_gives_the_pyramid(name, options, folded):
    model = trained_like(hybridvit.create_model(name, num_classes=5, **options))
    model = hybridvit.fold(model) if folded else model
    nodes = {f"stages.{stage}": f"stride_{4 * 2**stage}" for stage in range(4)} | {"head": "logits"}
    images = torch.randn(2, 3, 64, 96)
    expected = model.features(images) | {"logits": model(images)}
    found = create_feature_extractor(model, nodes)(images)
    assert list(found) == list(expected)
    assert max(relative_error(found[key], expected[key]) for key in found) < 1e-5


def test_inner_layers_are_nodes_of_a_trace():
    train_nodes, eval_nodes = get_graph_node_names(hybridvit.create_model("fastvit_debug"))
    assert "stages.0.blocks.0.mixer.mixer.scale.norm" in train_nodes
    assert "stages.3.blocks.0.mixer.to_qkv" in eval_nodes
    _, eval_nodes = get_graph_node_names(hybridvit.create_model("fastervit_debug"))
    assert {"stages.0.body.0.conv1", "stages.2.body", "head.fc"} <= set(eval_nodes)


@pytest.mark.parametrize("name", NAMES)
def test_timms_pyramid_through_a_trace_gives_the_same_maps(name):
    options = {"features_only": True, "out_indices": (1, 3)}
    traced = timm.create_model(f"hybridvit_{name}", feature_cls="fx", **options).eval()
    assert traced.feature_info.reduction() == [8, 32]
    images = torch.randn(2, 3, 64, 96)
    model = hybridvit.create_model(name, **options).eval()
    state = {key.removeprefix("backbone."): value for key, value in model.state_dict().items()}
    traced.graph_module.load_state_dict(state)
    for found, expected in zip(traced(images), model(images), strict=True):
        assert relative_error(found, expected) < 1e-5


def test_bad_input_is_refused_by_the_model_and_not_by_its_trace():
    model = hybridvit.create_model("fastvit_debug").eval()
    traced = torch.fx.symbolic_trace(model)
    with pytest.raises(UsageError, match="Image is 16x16 pixels, but fastvit_debug needs both sides >= 32"):
        model(torch.zeros(1, 3, 16, 16))
    assert traced(torch.zeros(1, 3, 16, 16)).shape == (1, 1000)


@DEPRECATED
@pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning")  # of whatever torch.fx has made
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # sizes are constants in it
@pytest.mark.parametrize(
    ("name", "folded"),
    [
        pytest.param(name, folded, marks=() if (name, folded) in SCRIPTED_BY_DAY else pytest.mark.nightly)
        for name in NAMES
        for folded in (False, True)
    ],
)
def test_torch_jit_script_is_refused_with_what_to_use_instead(name, folded):
    model = trained_like(hybridvit.create_model(name))
    model = hybridvit.fold(model) if folded else model
    message = (
        "torch.jit.script cannot read (a|the) .* of hybridvit, whose annotations are shapes: use torch.export.export"
    )
    inside = smp.Unet(f"tu-hybridvit_{name}", encoder_weights=None)
    inside = hybridvit.fold(inside.eval()) if folded else inside
    for part in (model, nn.Sequential(model), inside, torch.fx.symbolic_trace(model)):
        with pytest.raises(UsageError, match=message):
            torch.jit.script(part)
    images = torch.randn(1, 3, 64, 96)
    assert relative_error(torch.jit.trace(model, images)(images), model(images)) < 1e-5
    assert relative_error(torch.export.export(model, (images,)).module()(images), model(images)) < 1e-5
