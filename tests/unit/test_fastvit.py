"""The models: counts, ablations, options, and outputs equal to the golden file and to timm."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import by_day, relative_error, trained_like
from torch import nn

import hybridvit
from hybridvit.ablate.tables import TABLES
from hybridvit.checkpoints.keymaps import from_ours, to_ours
from hybridvit.errors import UsageError
from hybridvit.measure.counts import count

GOLDEN = Path(__file__).parents[1] / "golden"
_spec = importlib.util.spec_from_file_location("fill", GOLDEN / "fill.py")
golden_inputs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden_inputs)
KEYS = json.loads((GOLDEN / "apple_keys.json").read_text())
OUTPUTS = np.load(GOLDEN / "apple.npz")

COUNTS = {  # training form, folded as the released files are, fully folded
    "fastvit_t8": (4_026_232, 3_996_040, 3_992_392),
    "fastvit_t12": (7_553_704, 7_508_840, 7_502_952),
    "fastvit_s12": (9_473_576, 9_428_712, 9_422_824),
    "fastvit_sa12": (11_580_968, 11_545_320, 11_539_432),
    "fastvit_sa24": (21_554_216, 21_501_288, 21_489_512),
    "fastvit_sa36": (31_527_464, 31_457_256, 31_439_592),
    "fastvit_ma36": (44_068_004, 43_984_632, 43_963_656),
}
PUBLISHED_GIGA = {"t8": 0.7, "t12": 1.4, "s12": 1.8, "sa12": 1.9, "sa24": 3.8, "sa36": 5.6}
ABLATIONS = {  # on fastvit_s12
    name: row
    for table in ("fastvit-1", "fastvit-4", "fastvit-s1", "fastvit-s2")
    for name, row in TABLES[table].rows.items()
    if row.parameters_millions is not None or row.multiply_adds_billions is not None
}
ABLATED_BY_DAY = ("poolformer at 224", "repmixer", "V3", "V5", "kernel 11", "attention in 4 stages")  # each option once


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def golden_weights(name: str) -> dict[str, torch.Tensor]:
    filled = {key: golden_inputs.fill(key, tuple(shape)) for key, shape in KEYS[name].items()}
    return {key: torch.tensor(0 if value is None else value) for key, value in filled.items()}


@pytest.mark.parametrize("name", by_day(COUNTS))
def test_parameter_counts_are_exact_in_each_form(name):
    with torch.device("meta"):
        model = hybridvit.create_model(name).eval()
        counts = tuple(map(parameters, (model, hybridvit.fold(model, released=True), hybridvit.fold(model))))
    assert counts == COUNTS[name]


@pytest.mark.parametrize("name", by_day(PUBLISHED_GIGA))
def test_multiply_adds_equal_the_papers_to_rounding(name):
    with torch.device("meta"):
        model = hybridvit.create_model(f"fastvit_{name}", folded=True)
    assert round(count(model, (256, 256)).multiply_adds / 1e9, 1) == PUBLISHED_GIGA[name]


def test_multiply_adds_of_ma36_equal_the_papers_only_with_its_branches_and_norms():
    # published: 7.9; the folded model has 7.81, and the branches (about 0.1) with the norms (0.13) make 7.93
    with torch.device("meta"):
        model = hybridvit.create_model("fastvit_ma36", folded=True)
    assert count(model, (256, 256)).multiply_adds / 1e9 == pytest.approx(7.815, abs=1e-3)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ABLATED_BY_DAY else pytest.mark.nightly) for name in ABLATIONS],
)
def test_ablations_are_options_and_have_the_published_size(name):
    row = ABLATIONS[name]
    millions, giga, size = row.parameters_millions, row.multiply_adds_billions, row.keys.get("data.image_size", 256)
    with torch.device("meta"):
        model = hybridvit.create_model("fastvit_s12", folded=True, **row.options)
    if millions is not None:
        assert parameters(model) / 1e6 == pytest.approx(millions, rel=0.03)
    if giga is not None:
        assert count(model, (size, size)).multiply_adds / 1e9 == pytest.approx(giga, rel=0.03)


@pytest.mark.parametrize("form", ["", "_folded"])
@pytest.mark.parametrize("name", ["t8", "sa12"])
def test_outputs_equal_the_golden_file(name, form):
    model = hybridvit.create_model(f"fastvit_{name}").eval()
    model = hybridvit.fold(model, released=True) if form else model
    model.load_state_dict(to_ours(golden_weights(name + form), "apple"), strict=True)
    square = torch.from_numpy(golden_inputs.image(256, 256))
    for candidate in (model, hybridvit.fold(model)):
        with torch.no_grad():
            expected = torch.from_numpy(OUTPUTS[f"{name}{form}/logits_256"])
            assert relative_error(candidate(square), expected) < 2e-6
            if not form:
                wide = torch.from_numpy(golden_inputs.image(192, 320))
                assert relative_error(candidate(wide), torch.from_numpy(OUTPUTS[f"{name}/logits_192x320"])) < 2e-6
                for stage, fmap in enumerate(candidate.features(square).values(), start=1):
                    mean = torch.from_numpy(OUTPUTS[f"{name}/stage{stage}_mean"])
                    assert relative_error(fmap.mean((2, 3)), mean) < 2e-6


@pytest.mark.parametrize("name", by_day(COUNTS))
def test_outputs_equal_timm_with_the_same_weights(name):
    model = trained_like(hybridvit.create_model(name))
    theirs = timm.create_model(name).eval()
    theirs.load_state_dict(from_ours(model.state_dict(), "timm"), strict=True)
    images = torch.randn(1, 3, 96, 160)
    with torch.no_grad():
        assert relative_error(model(images), theirs(images)) < 1e-5


@pytest.mark.parametrize(
    ("name", "training_form"),
    [
        ("fastvit_t8", "collapsed"),
        ("fastvit_t8", "branches"),
        ("fastvit_sa12", "collapsed"),
        pytest.param("fastvit_sa12", "branches", marks=pytest.mark.nightly),
    ],
)
def test_gradients_and_running_statistics_equal_timms(name, training_form):
    model = trained_like(hybridvit.create_model(name, num_classes=10, training_form=training_form)).train().double()
    theirs = timm.create_model(name, num_classes=10).train().double()
    theirs.load_state_dict(from_ours(model.state_dict(), "timm"), strict=True)
    images, labels = torch.randn(3, 3, 32, 64, dtype=torch.float64), torch.tensor([1, 4, 7])
    for candidate in (model, theirs):
        nn.functional.cross_entropy(candidate(images), labels).backward()
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    largest = max(gradient.abs().max() for gradient in expected.values())
    for key, gradient in from_ours(ours, "timm").items():
        # what a later BatchNorm cancels is rounding noise in both: compare that with the largest gradient
        scale = max(expected[key].abs().max(), 1e-4 * largest)
        assert (gradient - expected[key]).abs().max() / scale < 1e-9, key
    for key, value in from_ours(dict(model.state_dict()), "timm").items():
        torch.testing.assert_close(value, theirs.state_dict()[key], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (96, 225)])
def test_any_size_from_32_pixels(size, debug_model):
    maps = debug_model.features(torch.randn(1, 3, *size))
    assert list(maps) == ["stride_4", "stride_8", "stride_16", "stride_32"]
    for stride, fmap in zip((4, 8, 16, 32), maps.values(), strict=True):
        assert fmap.shape[-2:] == tuple(-(-side // stride) for side in size)


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "layer"},
        {"activation": "relu"},
        {"activation": "silu"},
        {"overparameterised": ()},
        {"overparameterised": ("stem", "downsample", "mixer", "ffn", "head")},
        {"mixers": ("pooling",) * 4},
        {"mixers": ("pooling",) * 4, "norm": "group", "stem": "dense", "downsample": "dense", "ffn_kernel": None},
        {"mixers": ("attention",) * 4, "widths": (32, 32, 64, 64)},
        {"ffn_kernel": None},
        {"head": "plain"},
        {"mixer_kernel": 5, "position_kernel": 3},
        {"in_chans": 1},
    ],
    ids=str,
)
def test_each_option_trains_every_parameter_and_folds(options):
    model = hybridvit.create_model("fastvit_debug", num_classes=5, drop_path_rate=0.1, **options)
    images = torch.randn(4, model.in_chans, 64, 64)
    model(images).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    trained_like(model)
    with torch.no_grad():
        expected = model(images)
    assert relative_error(hybridvit.fold(model)(images), expected) < 1e-5


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for enable in (False, True):
        torch.manual_seed(0)
        model = hybridvit.create_model("fastvit_debug", num_classes=5, drop_path_rate=0.2)
        model.set_grad_checkpointing(enable)
        torch.manual_seed(1)
        model(torch.randn(4, 3, 32, 32)).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, rtol=0, atol=0)


def test_stochastic_depth_grows_linearly_and_keeps_the_mean():
    model = hybridvit.create_model("fastvit_t8", drop_path_rate=0.3)
    rates = [block.ffn.drop_path_rate for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.3 * index / 9 for index in range(10)])
    ffn = model.stages[3].blocks[1].ffn
    with torch.no_grad():
        ffn.layer_scale.fill_(1)
        x, branch = torch.zeros(20_000, 384, 1, 1), torch.ones(20_000, 384, 1, 1)
        added = ffn.add(x, branch)
    assert sorted(added.unique().tolist()) == pytest.approx([0, 1 / 0.7])
    assert added.mean().item() == pytest.approx(1, abs=0.02)


WRONG_OPTIONS = {
    r"Unknown model 'fastvit_sa21'. Nearest: .*'fastvit_sa12'": {"name": "fastvit_sa21"},
    r"'mlp_ratoi' is no option of fastvit_t8. Nearest: 'mlp_ratio'": {"mlp_ratoi": 3},
    r"'inference_mode' is no option of fastvit_t8. Other libraries' 'inference_mode' is folded=True of create_model": {
        "inference_mode": True
    },
    r"'embed_dims' is no option .* Other libraries' 'embed_dims' is widths here": {"embed_dims": (48, 96, 192, 384)},
    r"mixers is 'repmixr', but must be one of 'repmixer'": {"mixers": ("repmixr",) * 4},
    r"must name the same number of stages": {"depths": (1, 1)},
    r"ffn_kernel is 4, .* odd size": {"ffn_kernel": 4},
    r"must be multiples of 32": {"name": "fastvit_debug", "mixers": ("attention",) * 4},
    r"drop_path_rate is 1.5": {"drop_path_rate": 1.5},
    r"global_pool is 'mean', but must be": {"global_pool": "mean"},
    r"needs a pooled vector": {"global_pool": ""},
    r"features_only is False": {"out_indices": (0,)},
    r"there are 4 stages": {"features_only": True, "out_indices": (7,)},
    r"Published weights: apple_in1k, apple_dist_in1k": {"pretrained": "apple_in22k"},
    r"No weights '' for fastvit_t8": {"pretrained": ""},
    r"Unknown model 'None'": {"name": None},
    r"depths is 'abcd', but must be a tuple of whole numbers": {"depths": "abcd"},
    r"depths is \(1, 1, 1, -1\)": {"depths": (1, 1, 1, -1)},
    r"widths go from 8 to 20, .* Use 16": {"widths": (8, 20, 40, 80)},
    r"mlp_ratio is 2.5": {"mlp_ratio": 2.5},
    r"ffn_kernel is True": {"ffn_kernel": True},
    r"layer_scale_init is nan": {"layer_scale_init": float("nan")},
    r"num_classes is -1": {"num_classes": -1},
    r"num_classes is '10'": {"num_classes": "10"},
    r"in_chans is 0, but must be a whole number from 1": {"in_chans": 0},
    r"drop_rate is '0.1'": {"drop_rate": "0.1"},
    r"overparameterised is 'stem', but must be a tuple": {"overparameterised": "stem"},
    r"downsample_kernel has no effect here": {"downsample": "dense", "downsample_kernel": 11},
    r"position_kernel has no effect here": {"position_kernel": 11},
    r"mixer_kernel has no effect here": {"mixers": ("attention",) * 4, "widths": (32,) * 4, "mixer_kernel": 9},
    r"overparameterised names 'head'": {"head": "plain", "overparameterised": ("head",)},
    r"num_classes belongs to the head": {"features_only": True, "num_classes": 7},
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("message", WRONG_OPTIONS)
def test_wrong_options_are_errors_that_name_the_fix(message):
    with pytest.raises(UsageError, match=message):
        hybridvit.create_model(**({"name": "fastvit_t8"} | WRONG_OPTIONS[message]))


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("fastvit_debug", "layer_scale_init"),
        ("fastervit_debug", "layer_scale_init"),
        ("fastervit_debug", "conv_layer_scale_init"),
        ("swin_tiny_hat", "layer_scale_init"),
    ],
)
@pytest.mark.usefixtures("unchecked")  # which would not take a whole number for a float
def test_a_layer_scale_may_be_a_whole_number(name, option):
    with torch.device("meta"):
        model = hybridvit.create_model(name, **{option: 0})
    scales = [each for key, each in model.named_parameters() if key.endswith("layer_scale")]
    assert scales
    assert all(each.is_floating_point() for each in scales)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 31, 64), r"Image is 31x64 pixels, but fastvit_debug needs both sides >= 32"),
        ((1, 1, 64, 64), r"Input has 1 channel, but fastvit_debug was built for 3"),
        ((3, 64, 64), r"takes a batch .*Add the batch dimension"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_inputs_are_errors_that_name_the_fix(shape, message, debug_model):
    with pytest.raises(UsageError, match=message):
        debug_model(torch.zeros(shape))


def test_a_training_batch_of_one_value_per_channel_is_refused():
    model = hybridvit.create_model("fastvit_debug")
    with pytest.raises(UsageError, match="BatchNorm needs at least two"):
        model(torch.zeros(1, 3, 32, 32))


def test_channels_last_training_equals_channels_first():
    model = trained_like(hybridvit.create_model("fastvit_debug", num_classes=5)).train()
    images = torch.randn(4, 3, 64, 64)
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model.zero_grad()
        model.to(memory_format=layout)(images.to(memory_format=layout)).square().sum().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    largest = max(gradient.abs().max() for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).abs().max() / largest < 1e-5, name


def test_the_debug_size_is_small():
    assert parameters(hybridvit.create_model("fastvit_debug")) < 100_000
