"""MobileCLIP's and FastVLM's image towers: the architecture, against golden files and timm; folding; preprocessing."""

import dataclasses
import importlib.util
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import relative_error, trained_like
from detectors import detector
from PIL import Image
from timm.layers import LayerNorm2d
from timm.models.fastvit import FastVit, RepConditionalPosEnc
from torch import nn

import hybridvit
from hybridvit.card import Preprocessing
from hybridvit.checkpoints.keymaps import from_ours, to_ours
from hybridvit.checkpoints.names import named
from hybridvit.data.preprocess import cut, frame_of
from hybridvit.errors import UsageError
from hybridvit.measure.counts import count
from hybridvit.models.channel_norm import ChannelLayerNorm

GOLDEN = Path(__file__).parents[1] / "golden"
_spec = importlib.util.spec_from_file_location("fill", GOLDEN / "fill.py")
golden_inputs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden_inputs)
OUTPUTS = np.load(GOLDEN / "mci.npz")
APPLE = json.loads((GOLDEN / "mci_keys.json").read_text())

COUNTS = {  # training form, without projection, folded as released, fully folded
    "fastvit_mci0": (11_406_976, 10_882_176, 11_357_504, 11_348_544),
    "fastvit_mci1": (21_541_632, 21_016_832, 21_461_056, 21_443_136),
    "fastvit_mci2": (35_815_232, 35_159_360, 35_702_992, 35_678_032),
    "fastvit_mci3": (125_235_648, 122_875_584, 125_074_272, 125_038_560),
    "fastvit_mci4": (321_784_832, 318_638_336, 321_569_664, 321_513_856),
}
ENTRIES = {"mci0": (784, 310), "mci1": (1436, 584), "mci2": (1572, 636), "mci3": (1531, 630), "mci4": (1565, 664)}
GIGA = {  # multiply-adds at 256 px: folded, in training form
    "mci0": (2.385, 2.393),
    "mci1": (4.658, 4.668),
    "mci2": (7.834, 7.846),
    "mci3": (14.812, 14.821),
    "mci4": (27.758, 27.770),
}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_timms_to_the_digit(name: str) -> None:
    with torch.device("meta"):
        model = hybridvit.create_model(name).eval()
        bare = hybridvit.create_model(name, num_classes=0)
        released, folded = hybridvit.fold(model, released=True), hybridvit.fold(model)
    assert tuple(map(parameters, (model, bare, released, folded))) == COUNTS[name]
    short = name.removeprefix("fastvit_")
    assert (len(model.state_dict()), len(released.state_dict())) == ENTRIES[short]


@pytest.mark.parametrize(
    "short", ["mci0", *(pytest.param(f"mci{size}", marks=pytest.mark.nightly) for size in range(1, 5))]
)
def test_multiply_adds_are_timms_and_fewer_when_folded(short: str) -> None:
    with torch.device("meta"):
        model = hybridvit.create_model(f"fastvit_{short}").eval()
        folded = hybridvit.fold(model)
    giga = [round(count(form, (256, 256)).multiply_adds / 1e9, 3) for form in (folded, model)]
    assert giga == list(GIGA[short])


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "giga"), [("mci3", (59.56, 243.36)), ("mci4", (111.47, 453.11))])
def test_multiply_adds_of_large_images_have_both_products_of_attention(name: str, giga: tuple[float, float]) -> None:
    with torch.device("meta"):
        model = hybridvit.create_model(f"fastvit_{name}", folded=True)
    assert [round(count(model, (side, side)).multiply_adds / 1e9, 2) for side in (512, 1024)] == list(giga)


def golden_model(key: str) -> nn.Module:
    """A model with the weights that the golden file was made with."""
    tower, _, form = key.partition("_")
    is_folded = "fold" in form or tower == "fastvithd"
    names = APPLE[key] if form == "apple" else timms_names(tower, "released" if is_folded else "training")
    weights = {}
    for name, shape in names.items():
        value = golden_inputs.fill(name, tuple(shape))
        weights[name] = torch.zeros(shape, dtype=torch.int64) if value is None else torch.from_numpy(np.asarray(value))
    model = hybridvit.create_model("fastvit_mci3" if tower == "fastvithd" else f"fastvit_{tower}").eval()
    model = hybridvit.fold(model, released=True) if is_folded else model
    found = named(weights)
    model.load_state_dict(to_ours(found.tensors, "apple" if form == "apple" else "timm"), strict=True)
    return model


def timms_names(tower: str, form: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = hybridvit.create_model(f"fastvit_{tower}").eval()
        model = hybridvit.fold(model, released=True) if form == "released" else model
    return {name: tuple(value.shape) for name, value in from_ours(model.state_dict(), "timm").items()}


NIGHTLY = ("mci2", "mci3", "mci0_apple", "fastvithd_apple", "mci0_folded", "mci2_folded", "mci3_folded")


@pytest.mark.parametrize("key", ["mci0", *(pytest.param(key, marks=pytest.mark.nightly) for key in NIGHTLY)])
@torch.no_grad()
def test_outputs_equal_the_golden_file(key: str) -> None:
    model = golden_model(key)
    image = torch.from_numpy(golden_inputs.image(256, 256))
    start = key.replace("_folded", "/folded_") if "_folded" in key else f"{key}/"
    for form in (model, hybridvit.fold(model)):
        last = form.forward_features(image)
        expected = {"logits_256": form.forward_head(last), "pooled_256": form.forward_head(last, pre_logits=True)}
        expected["map_mean_256"] = last.mean((2, 3))
        for name, value in expected.items():
            if start + name in OUTPUTS:
                assert relative_error(value, torch.from_numpy(OUTPUTS[start + name])) < 1e-5, name
    assert hybridvit.fold_report(model, form, image[:1, :, :64, :64]).left == ()


@pytest.mark.nightly
@pytest.mark.parametrize("tower", ["mci0", "mci2", "mci3"])
@torch.no_grad()
def test_stages_other_sizes_and_peaked_attention_equal_the_golden_file(tower: str) -> None:
    model = golden_model(tower)
    square, wide = (torch.from_numpy(golden_inputs.image(*size)) for size in ((256, 256), (192, 320)))
    for form in (model, hybridvit.fold(model)):
        assert relative_error(form(wide), torch.from_numpy(OUTPUTS[f"{tower}/logits_192x320"])) < 1e-5
        for stage, fmap in enumerate(form.features(square).values(), start=1):
            assert relative_error(fmap.mean((2, 3)), torch.from_numpy(OUTPUTS[f"{tower}/stage{stage}_mean"])) < 1e-5
    for name, parameter in model.named_parameters():
        if name.endswith(".to_qkv.weight"):
            parameter[: 2 * len(parameter) // 3] *= 4
    for form in (model, hybridvit.fold(model)):
        assert relative_error(form(square), torch.from_numpy(OUTPUTS[f"{tower}/sharp_logits_256"])) < 1e-5


def timms_debug() -> nn.Module:
    position = partial(RepConditionalPosEnc, spatial_shape=(7, 7))
    return FastVit(
        layers=(1,) * 5,
        token_mixers=("repmixer",) * 3 + ("attention",) * 2,
        embed_dims=(4, 8, 16, 32, 64),
        mlp_ratios=(2,) * 5,
        downsamples=(False, True, True, True, True),
        se_downsamples=(False, False, False, True, False),
        pos_embs=(None, None, None, position, position),
        lkc_use_act=True,
        stem_use_scale_branch=False,
        norm_layer=partial(LayerNorm2d, eps=1e-5),
        num_classes=16,
    )


@pytest.mark.parametrize(
    "name",
    ["mci_debug", *(pytest.param(f"mci{size}", marks=pytest.mark.nightly) for size in range(4))],
)
def test_gradients_and_running_statistics_equal_timms(name: str) -> None:
    model = trained_like(hybridvit.create_model(f"fastvit_{name}")).train().double()
    theirs = timms_debug() if name == "mci_debug" else timm.create_model(f"fastvit_{name}")
    theirs = theirs.train().double()
    theirs.load_state_dict(from_ours(model.state_dict(), "timm"), strict=True)
    images = torch.randn(3, 3, 64, 96, dtype=torch.float64)
    answers = [candidate(images) for candidate in (model, theirs)]
    assert relative_error(*(answer.detach() for answer in answers)) < 1e-10
    for answer in answers:
        nn.functional.cross_entropy(answer, torch.tensor([1, 4, 7])).backward()
    expected = {key: parameter.grad for key, parameter in theirs.named_parameters()}
    largest = max(gradient.abs().max() for gradient in expected.values())
    for key, gradient in from_ours({key: each.grad for key, each in model.named_parameters()}, "timm").items():
        scale = max(expected[key].abs().max(), 1e-4 * largest)  # what a BatchNorm cancels is noise in both
        assert (gradient - expected[key]).abs().max() / scale < 1e-8, key
    for key, value in from_ours(dict(model.state_dict()), "timm").items():
        torch.testing.assert_close(value, theirs.state_dict()[key], rtol=1e-12, atol=1e-13)


def test_any_size_from_32_pixels_gives_a_map_for_each_stage() -> None:
    model = hybridvit.create_model("fastvit_mci_debug").eval()
    maps = model.features(torch.randn(1, 3, 33, 65))
    sizes = {"stride_4": (9, 17), "stride_8": (5, 9), "stride_16": (3, 5), "stride_32": (2, 3), "stride_64": (1, 2)}
    assert {name: tuple(fmap.shape[-2:]) for name, fmap in maps.items()} == sizes
    assert model.forward_features(torch.randn(1, 3, 33, 65)).shape == (1, 128, 1, 2)
    with pytest.raises(UsageError, match="after a stride of 64"):
        model.train()(torch.zeros(1, 3, 64, 64))


def test_layer_norm_is_inside_the_folded_attention_with_its_shift() -> None:
    model = trained_like(hybridvit.create_model("fastvit_mci_debug"))
    assert {module.eps for module in model.modules() if isinstance(module, ChannelLayerNorm)} == {1e-5}
    folded = hybridvit.fold(model)
    report = hybridvit.fold_report(model, folded, torch.randn(2, 3, 96, 64))
    assert (report.left, report.max_error < 1e-6) == ((), True)
    attention = folded.stages[3].blocks[0].mixer
    assert (attention.norm.weight, attention.norm.bias) == (None, None)
    with torch.no_grad():
        attention.to_qkv.bias.zero_()
    assert hybridvit.fold_report(model, folded, torch.randn(2, 3, 96, 64)).max_error > 5e-5


@pytest.mark.parametrize(
    "options",
    [
        {"downsample_activation": False, "stem_scale": True, "attention_norm": "batch"},
        {"downsample_squeeze_excite": (1, 2, 3, 4)},
        {"norm": "layer"},
        {"depths": (1,), "widths": (32,), "mixers": ("attention",), "downsample_squeeze_excite": ()},
    ],
    ids=str,
)
def test_each_option_trains_every_parameter_and_folds(options: dict[str, object]) -> None:
    model = hybridvit.create_model("fastvit_mci_debug", **options)
    images = torch.randn(2, 3, 64, 64)
    model(images).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    trained_like(model)
    assert relative_error(hybridvit.fold(model)(images), model(images).detach()) < 1e-5


WRONG_OPTIONS = {
    r"downsample_activation has no effect here: downsample='dense'": {
        "downsample": "dense",
        "downsample_activation": True,
    },
    r"downsample_squeeze_excite has no effect here: downsample='dense'": {
        "downsample": "dense",
        "downsample_squeeze_excite": (1,),
    },
    r"stem_scale has no effect here: the stem has no branches": {"stem": "dense", "stem_scale": False},
    r"attention_norm has no effect here: no stage has attention": {
        "mixers": ("repmixer",) * 5,
        "attention_norm": "layer",
    },
    r"attention_norm is 'group', but must be one of": {"attention_norm": "group"},
    r"stem_scale is 1, but must be True or False": {"stem_scale": 1},
    r"downsample_squeeze_excite is \(0,\), .* here 1 to 4": {"downsample_squeeze_excite": (0,)},
    r"downsample_squeeze_excite is \(2, 2\), which names a stage twice": {"downsample_squeeze_excite": (2, 2)},
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("message", WRONG_OPTIONS)
def test_wrong_options_are_errors_that_name_the_fix(message: str) -> None:
    with pytest.raises(UsageError, match=message):
        hybridvit.create_model("fastvit_mci_debug", **WRONG_OPTIONS[message])


def test_a_tower_answers_with_its_projection_and_a_classifier_with_the_classes_asked_for() -> None:
    assert hybridvit.create_model("fastvit_mci_debug").num_classes == 16
    assert hybridvit.create_model("fastvit_mci_debug", num_classes=5).present_card.options == {"num_classes": 5}
    model = hybridvit.create_model("fastvit_mci_debug")
    assert model.present_card.options == {}
    model.reset_classifier(1000)
    assert model.present_card.options == {"num_classes": 1000}
    assert timm.create_model("hybridvit_fastvit_mci_debug").num_classes == 16


def test_segmenters_read_the_first_four_maps() -> None:
    model = hybridvit.create_model("fastvit_mci_debug", task="segment", num_classes=3)
    assert model.pyramid.strides == [4, 8, 16, 32]
    assert model(torch.randn(2, 3, 64, 96)).shape[:2] == (2, 3)


@pytest.mark.parametrize("head", ["faster_rcnn", "dino"])
def test_stride_64_is_the_coarsest_level_of_detectors_and_none_is_made_up(head: str, tmp_path: Path) -> None:
    model = detector(head, "fastvit_mci_debug")
    assert model.pyramid.strides == [4, 8, 16, 32, 64]
    if head == "dino":
        kernels = [(each.conv.in_channels, each.conv.kernel_size) for each in model.head.detector.pyramid.projections]
        assert kernels == [(channels, (1, 1)) for channels in model.pyramid.channels[1:]]
    else:
        levels = model.head.fpn(model.pyramid(torch.randn(1, 3, 96, 128)))
        assert [tuple(level.shape[2:]) for level in levels] == [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)]
        assert len(model.head.fpn.laterals) == 5
    model.eval()
    hybridvit.save_checkpoint(model, tmp_path / "m.safetensors")
    image = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        found = [each(image) for each in (model, hybridvit.load(tmp_path / "m.safetensors"))]
    assert str(found[0]) == str(found[1])


def test_padding_puts_a_picture_into_the_middle_of_a_black_square() -> None:
    preprocessing = Preprocessing(image_size=(64, 64), crop_mode="pad", crop_fraction=1.0)
    picture = Image.effect_noise((100, 40), 90).convert("RGB")
    square = Image.new("RGB", (100, 100))
    square.paste(picture, (0, 30))
    assert cut(picture, preprocessing).tobytes() == square.resize((64, 64), Image.Resampling.BICUBIC).tobytes()
    assert frame_of((100, 40), preprocessing).crop == (0.0, -30.0, 100.0, 100.0)
    sliver = cut(Image.new("RGB", (1, 30_000), "white"), dataclasses.replace(preprocessing, image_size=(32, 48)))
    assert sliver.size == (48, 32)
