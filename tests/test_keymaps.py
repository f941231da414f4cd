"""Our names, Apple's and timm's: against the released files' keys and timm's own modules."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from timm import create_model as create_timm
from timm.utils import reparameterize_model

from hybridvit.card import ModelCard
from hybridvit.checkpoints.keymaps import Naming, form_of, from_ours, naming_of, to_ours
from hybridvit.checkpoints.matching import shapes_of, skeleton
from hybridvit.errors import CheckpointError
from hybridvit.models.registry import list_models

APPLE = json.loads((Path(__file__).parent / "golden" / "apple_keys.json").read_text())
PUBLISHED = [name for name in list_models() if name.startswith("fastvit_") and name != "fastvit_debug"]
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
@pytest.mark.parametrize("architecture", PUBLISHED)
def test_names_and_shapes_are_those_of_timm(architecture: str, form: str) -> None:
    upstream, expected = timms(architecture, form), ours(architecture, form)
    assert naming_of(upstream) == "timm"
    assert to_ours(upstream, "timm") == expected
    assert from_ours(expected, "timm") == upstream


@pytest.mark.parametrize("naming", ["apple", "timm"])
@pytest.mark.parametrize("form", ["training", "released"])
@pytest.mark.parametrize("architecture", list_models())
def test_names_survive_the_round_trip(architecture: str, form: str, naming: Naming) -> None:
    names = {name: name for name in ours(architecture, form)}  # each value remembers where it came from
    upstream = from_ours(names, naming)
    assert len(upstream) == len(names)
    assert naming_of(upstream) == naming
    assert to_ours(upstream, naming) == names


def test_the_fully_folded_form_has_no_upstream_names() -> None:
    shapes = ours("fastvit_debug", "folded")
    assert form_of(shapes) == "folded"
    with pytest.raises(CheckpointError, match=r"has no name in apple's FastViT.*fold\(model, released=True\)"):
        from_ours(shapes, "apple")


def test_names_of_another_library_are_named() -> None:
    with pytest.raises(
        CheckpointError, match=r"no FastViT weights: the names \('layer1.0.conv1.weight', 2 in all\)|neither"
    ):
        naming_of(["layer1.0.conv1.weight", "fc.weight"])
