"""Swin with hierarchical attention: its size, its start from timm's Swin, its folds and its options."""

import re

import pytest
import timm
import torch
from conftest import relative_error
from safetensors.torch import save_file
from torch import nn

import hybridvit
from hybridvit.checkpoints import load_weights
from hybridvit.data.imagenet import class_names
from hybridvit.errors import CheckpointError, UsageError
from hybridvit.measure.counts import count

NARROW = {"depths": (1, 1, 2, 1), "widths": (8, 16, 32, 64), "num_heads": (1, 2, 4, 8), "position_hidden": 16}
TIMM_NARROW = {"depths": (1, 1, 2, 1), "embed_dim": 8, "num_heads": (1, 2, 4, 8)}
CARRIERS = ({"carrier_size": 0}, {}, {"layer_scale_init": None})


def shaken(model: nn.Module) -> nn.Module:
    """`model` in eval mode, with every weight moved: embeddings and layer scales start at or near zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 0.7 if name.endswith("layer_scale") else parameter
            parameter.copy_(centre + 0.2 * torch.randn_like(parameter))
    return model.eval()


def swin(**options) -> nn.Module:
    """timm's Swin with windows that do not shift."""
    model = timm.create_model("swin_tiny_patch4_window7_224", **options).eval()
    for stage in model.layers:
        for block in stage.blocks:
            block.shift_size, block.attn_mask = (0, 0), None
    return model


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [
        ("swin_debug_hat", 61_599, 27_289_316),
        ("swin_tiny_hat", 43_900_642, 5_121_719_808),
        ("swin_small_hat", 91_378_162, 10_068_905_472),
    ],
)
def test_size_as_measured(name, parameters, multiply_adds):
    with torch.device("meta"):
        counts = count(hybridvit.create_model(name), (224, 224))
    assert (counts.parameters, counts.multiply_adds) == (parameters, multiply_adds)


def test_without_its_new_parts_it_is_as_large_as_swin():
    with torch.device("meta"):
        ours = hybridvit.create_model("swin_tiny_hat", carrier_size=0, position_embedding=False, layer_scale_init=None)
        theirs = timm.create_model("swin_tiny_patch4_window7_224").eval()
    assert count(ours, (224, 224)) == count(theirs, (224, 224))


@pytest.mark.parametrize(("name", "depths"), [("swin_tiny_hat", (1, 1, 2, 1)), ("swin_small_hat", (2, 2, 18, 2))])
def test_without_carriers_it_computes_what_timms_swin_does_without_shifting(name, depths):
    theirs = shaken(swin(**TIMM_NARROW | {"depths": depths}))
    ours = hybridvit.create_model(name, carrier_size=0, **NARROW | {"depths": depths}).eval()
    report = load_weights(ours, theirs.state_dict())
    assert report.num_tensors == len(theirs.state_dict())
    ones = [name for name in report.started if name.endswith("layer_scale")]
    assert len(ones) == 2 * sum(depths)
    assert all(torch.equal(ours.state_dict()[name], torch.ones_like(ours.state_dict()[name])) for name in ones)
    assert all(".position." in name for name in set(report.started) - set(ones))
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = theirs(images)
        assert relative_error(ours(images), expected) < 1e-5
        assert relative_error(hybridvit.fold(ours)(images), expected) < 1e-5


def test_carriers_disturb_little_at_the_start():
    weights = shaken(swin(**TIMM_NARROW)).state_dict()
    models = [hybridvit.create_model("swin_tiny_hat", **options, **NARROW).eval() for options in CARRIERS]
    reports = [load_weights(model, weights) for model in models]
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        without, gentle, rough = (model(images) for model in models)
    assert 1e-3 < relative_error(gentle, without) < 0.1
    assert relative_error(rough, without) > 0.3  # why there is a layer scale
    started = [name for name in reports[1].started if not re.search(r"\.(attention|mlp)\.layer_scale$", name)]
    assert "stages.2.attention.carriers.conv.weight" in started
    new = {name.split(".")[5] for name in started if ".blocks." in name}
    assert new == {"position", "carrier_position", "carrier_attention", "carrier_mlp"}


def test_create_model_starts_from_a_file_of_timms_swin(tmp_path):
    theirs = shaken(swin(**TIMM_NARROW))
    path = tmp_path / "swin.safetensors"
    save_file(theirs.state_dict(), path)
    model = hybridvit.create_model("swin_tiny_hat", pretrained=path, **NARROW)
    assert torch.equal(model.head.fc.weight, theirs.head.fc.weight)
    assert model.card.source == f"{path} (Swin; its carriers are new)"
    assert model.card.class_names == class_names()
    grey = hybridvit.create_model("swin_tiny_hat", pretrained=path, num_classes=5, in_chans=1, **NARROW)
    torch.testing.assert_close(grey.stem.proj.weight, theirs.patch_embed.proj.weight.sum(1, keepdim=True))
    assert (grey.card.class_names, grey.num_classes) == ((), 5)
    with pytest.raises(CheckpointError, match=r"holds timm's Swin, which is no whole model .* but a start of one"):
        hybridvit.load(path)
    with pytest.raises(CheckpointError, match=r"(?s)does not fit.*- stages\.2\.attention\.blocks\.2"):
        hybridvit.create_model("swin_tiny_hat", pretrained=path, **NARROW | {"depths": (1, 1, 3, 1)})
    with pytest.raises(CheckpointError, match=r"(?s)does not fit.*attention\.bias\.weight"):
        hybridvit.create_model("swin_tiny_hat", pretrained=path, window_size=8, carrier_stages=(), **NARROW)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"relative_bias": "mlp"},
        {"relative_bias": "none", "propagate": False},
        {"carrier_stages": (0, 1, 2, 3), "carrier_size": 1},
        {"position_embedding": False, "layer_scale_init": None},
        {"num_classes": 0},
        {"num_classes": 0, "global_pool": "max"},
    ],
    ids=str,
)
def test_every_option_trains_and_folds_exactly_at_any_size(options):
    model = hybridvit.create_model("swin_debug_hat", **{"num_classes": 7} | options)
    model(torch.randn(2, 3, 50, 70)).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    folded = hybridvit.fold(shaken(model))
    for height, width in ((32, 32), (33, 64), (97, 142)):
        images = torch.randn(2, 3, height, width)
        with torch.no_grad():
            assert relative_error(folded(images), model(images)) < 1e-5
            assert relative_error(folded.forward_features(images), model.forward_features(images)) < 1e-5
            for name, fmap in model.features(images).items():
                stride = int(name.removeprefix("stride_"))
                assert fmap.shape[-2:] == (-(-height // stride), -(-width // stride))


def test_nothing_but_the_norm_of_the_stem_is_left_after_folding():
    model = shaken(hybridvit.create_model("swin_debug_hat"))
    report = hybridvit.fold_report(model, hybridvit.fold(model))
    assert report.left == ("stem.norm (ChannelLayerNorm)",)  # what reads it is a residual sum
    assert report.max_error < 1e-5


def test_raw_pixels_are_filled_behind_the_subtraction_of_the_mean():
    folded = hybridvit.fold(shaken(hybridvit.create_model("swin_debug_hat")))
    raw = hybridvit.fold_preprocessing(folded)
    pixels = torch.randint(0, 256, (2, 3, 65, 98), dtype=torch.uint8)
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (folded.card.preprocessing.mean, folded.card.preprocessing.std)
    )
    assert relative_error(raw(pixels), folded((pixels / 255 - mean) / std)) < 4e-6


@pytest.mark.parametrize("option", [{"carrier_size": 0}, {"carrier_stages": (0,)}, {"propagate": False}], ids=str)
def test_options_change_the_output(option):
    model = shaken(hybridvit.create_model("swin_debug_hat"))
    other = hybridvit.create_model("swin_debug_hat", **option).eval()
    other.load_state_dict({name: model.state_dict()[name] for name in other.state_dict()})
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert relative_error(other(images), model(images)) > 1e-3


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"depths": (1, 0, 2, 1)},
            r"depths is \(1, 0, 2, 1\), but must be a tuple of whole numbers from 1, one per stage",
        ),
        ({"widths": 96}, r"widths is 96, but must be a tuple of whole numbers from 1"),
        ({"depths": (1, 1)}, r"must name the same number of stages, but have \{'depths': 2"),
        ({"carrier_stages": (4,)}, r"carrier_stages is \(4,\), but there are 4 stages: use 0 to 3"),
        ({"num_heads": (1, 3, 4, 8)}, r"A stage of 8 channels cannot have 3 heads"),
        ({"carrier_size": 2, "window_size": 8, "carrier_stages": ()}, "carrier_size has no effect here"),
        ({"carrier_size": 0, "propagate": True}, "propagate has no effect here: no stage has carriers"),
        ({"carrier_size": 5}, "carrier_size is 5 and the window 3x3"),
        (
            {"position_embedding": False, "carrier_size": 0, "position_hidden": 8},
            "position_hidden has no effect here: no bias or embedding is computed",
        ),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        hybridvit.create_model("swin_debug_hat", **options)
