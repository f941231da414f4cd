"""Our names and those of Apple, timm and NVIDIA: against the released files' keys and timm's own modules."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import by_day
from timm import create_model as create_timm
from timm.utils import reparameterize_model

from hybridvit.card import ModelCard
from hybridvit.checkpoints.keymaps import Naming, family_of, form_of, from_ours, naming_of, to_ours
from hybridvit.checkpoints.matching import shapes_of, skeleton
from hybridvit.errors import CheckpointError
from hybridvit.models.registry import VARIANTS

GOLDEN = Path(__file__).parents[1] / "golden"
APPLE = json.loads((GOLDEN / "apple_keys.json").read_text())
NVIDIA = json.loads((GOLDEN / "nvidia_keys.json").read_text())
FASTVIT = [name for name, variant in VARIANTS.items() if variant.family == "fastvit"]
FASTERVIT = [name for name, variant in VARIANTS.items() if variant.family == "fastervit"]
PUBLISHED = [name for name in FASTVIT if not name.endswith("_debug")]
Shapes = dict[str, tuple[int, ...]]


@cache
def ours(architecture: str, form: str) -> Shapes:
    card = ModelCard(architecture=architecture, form=form)  # type: ignore[arg-type]  # parametrised below
    return shapes_of(skeleton(card).state_dict())


def timms(architecture: str, form: str) -> Shapes:
    with torch.device("meta"):
        model = create_timm(architecture).eval()
        return shapes_of((model if form == "training" else reparameterize_model(model)).state_dict())


@pytest.mark.parametrize("key", APPLE)
def test_names_and_shapes_are_those_of_the_released_files(key: str) -> None:
    variant, _, folded = key.partition("_")
    apple = {name: tuple(shape) for name, shape in APPLE[key].items()}
    form = "released" if folded else "training"
    expected = ours(f"fastvit_{variant}", form)
    assert naming_of(apple) == "apple"
    assert to_ours(apple, "apple") == expected
    assert from_ours(expected, "apple") == apple
    assert form_of(expected) == form


@pytest.mark.parametrize("form", ["training", "released"])
@pytest.mark.parametrize("architecture", by_day(PUBLISHED))
def test_names_and_shapes_are_those_of_timm(architecture: str, form: str) -> None:
    upstream, expected = timms(architecture, form), ours(architecture, form)
    assert naming_of(upstream) == "timm"
    assert to_ours(upstream, "timm") == expected
    assert from_ours(expected, "timm") == upstream


@pytest.mark.parametrize("key", NVIDIA)
def test_names_and_shapes_are_those_of_nvidias_files(key: str) -> None:
    nvidia = {name: tuple(shape) for name, shape in NVIDIA[key].items()}
    narrow = {"widths": (32, 64, 128, 256), "stem_width": 16, "depths": (1, 1, 3, 2), "num_heads": (2, 2, 4, 8)}
    architecture = {"narrow3": "fastervit_3", "narrow21k": "fastervit_4_21k_224"}.get(key, f"fastervit_{key}")
    options = {**narrow, "num_classes": 10} if key.startswith("narrow") else {}
    expected = shapes_of(skeleton(ModelCard(architecture=architecture, options=options)).state_dict())
    assert naming_of(nvidia) == "nvidia"
    assert to_ours(nvidia, "nvidia") == expected
    assert from_ours(expected, "nvidia") == nvidia


@pytest.mark.parametrize("naming", ["apple", "timm"])
@pytest.mark.parametrize("form", ["training", "released"])
@pytest.mark.parametrize("architecture", by_day(FASTVIT))
def test_fastvits_names_survive_the_round_trip(architecture: str, form: str, naming: Naming) -> None:
    names = {name: name for name in ours(architecture, form)}  # each value remembers where it came from
    upstream = from_ours(names, naming)
    implied = {"head.fc.bias"} if naming == "apple" and "mci" in architecture else set()  # no bias there
    assert len(upstream) == len(names) - len(implied)
    assert naming_of(upstream) == naming
    assert to_ours(upstream, naming) == {name: name for name in names if name not in implied}
    assert family_of(names) == "fastvit"


@pytest.mark.parametrize("architecture", FASTERVIT)
def test_fastervits_names_survive_the_round_trip(architecture: str) -> None:
    names = {name: name for name in ours(architecture, "training")}
    upstream = from_ours(names, "nvidia")
    twice = {name: value for name, value in upstream.items() if ".to_global_feature.pos." in name}
    assert len(upstream) == len(names) + len(twice)
    assert len(twice) == (0 if "21k" in architecture else 2)
    assert naming_of(upstream) == "nvidia"
    assert to_ours(upstream, "nvidia") == names
    assert family_of(names) == "fastervit"
    assert form_of(names) == "training"


def test_what_nvidia_stores_beside_the_weights_is_left_out() -> None:
    names = ours("fastervit_debug", "training")
    upstream = from_ours(names, "nvidia")
    derived = ("pos_embed.relative_bias", "attn.pos_emb_funct.relative_coords_table", "x.relative_position_index")
    upstream |= {f"levels.2.blocks.0.{name}": (1, 49) for name in derived}
    assert to_ours(upstream, "nvidia") == names


def test_a_stage_attends_where_its_blocks_say_so() -> None:
    options = {"mixers": ("hat", "conv", "window", "conv"), "windows": (3, 3, 3, 3), "conv_layer_scale_init": 0.1}
    card = ModelCard(architecture="fastervit_debug", options=options)
    names = {name: name for name in skeleton(card).state_dict()}
    upstream = from_ours(names, "nvidia")
    assert upstream["levels.0.blocks.0.norm1.weight"] == "stages.0.body.blocks.0.attention.norm.weight"
    assert upstream["levels.1.blocks.0.norm1.weight"] == "stages.1.body.0.norm1.weight"
    assert upstream["levels.1.blocks.0.gamma"] == "stages.1.body.0.layer_scale"
    assert upstream["levels.0.downsample.reduction.0.weight"] == "stages.1.downsample.conv.weight"
    assert to_ours(upstream, "nvidia") == names


def test_two_names_of_one_tensor_must_agree() -> None:
    weights = {name: torch.zeros(shape) for name, shape in ours("fastervit_debug", "training").items()}
    upstream = from_ours(weights, "nvidia")
    second = "levels.2.global_tokenizer.to_global_feature.pos.bias"
    first = "levels.2.global_tokenizer.pos_embed.bias"
    assert upstream[first] is upstream[second]
    alone = {name: tensor for name, tensor in upstream.items() if name != first}
    assert to_ours(alone, "nvidia").keys() == weights.keys()
    for other in (torch.ones(16), torch.zeros(15), torch.zeros(16, dtype=torch.float64)):
        upstream[second] = other
        with pytest.raises(CheckpointError, match=rf"^x\.pth: '{first}' and '{second}' are two names of one tensor"):
            to_ours(upstream, "nvidia", "x.pth")


def test_the_fully_folded_form_has_no_upstream_names() -> None:
    shapes = ours("fastvit_debug", "folded")
    assert form_of(shapes) == "folded"
    with pytest.raises(CheckpointError, match=r"has no name in Apple's FastViT.*fold\(model, released=True\)"):
        from_ours(shapes, "apple")
    shapes = ours("fastervit_debug", "folded")
    assert form_of(shapes) == "folded"
    assert family_of(shapes) == "fastervit"
    with pytest.raises(CheckpointError, match=r"has no name in NVIDIA's FasterViT\. .*, in training form; save other"):
        from_ours(shapes, "nvidia")


@pytest.mark.parametrize(("architecture", "naming"), [("fastvit_debug", "nvidia"), ("fastervit_debug", "timm")])
def test_a_family_has_no_names_in_the_other(architecture: str, naming: Naming) -> None:
    with pytest.raises(CheckpointError, match="has no name in"):
        from_ours(ours(architecture, "training"), naming)


def test_options_that_were_never_released_have_no_names() -> None:
    card = ModelCard(architecture="fastervit_debug", options={"carrier_source": "constant"})
    with pytest.raises(CheckpointError, match=r"'stages\.2\.body\.carriers.*' has no name in NVIDIA's FasterViT"):
        from_ours(skeleton(card).state_dict(), "nvidia")


def test_names_of_another_library_are_named() -> None:
    with pytest.raises(
        CheckpointError,
        match=r"^The source holds no weights of these models: its names \('layer1\.0\.conv1\.weight', 'fc\.weight', "
        r"2 in all\) are neither hybridvit's own, nor those of Apple's FastViT, timm's FastViT, NVIDIA's FasterViT",
    ):
        naming_of(["layer1.0.conv1.weight", "fc.weight"])
