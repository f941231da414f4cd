"""Every recipe builds, and one of each kind passes a dry run: what would fail after an epoch fails here."""

from pathlib import Path

import pytest
import torch

import hybridvit
from hybridvit.errors import UsageError
from hybridvit.models.registry import VARIANTS
from hybridvit.recipe.file import load_recipe, recipe_names
from hybridvit.tasks.detect.config import DetectRecipe
from hybridvit.training.trial.dry_run import dry_run
from hybridvit.training.trial.miniature import debug_options, debug_size, miniature


def kind(name: str) -> tuple[object, ...]:
    """What two recipes share whose dry runs take the same steps. A dry run of each task is among the contracts."""
    recipe = load_recipe(name, {"dry_run": True})
    return bool(recipe.pretrained), recipe.methods


def one_of_each_kind() -> list[object]:
    """Every recipe; those of a kind that another one stands for are left to the nightly tests."""
    first: dict[tuple[object, ...], str] = {}
    for name in recipe_names():
        first.setdefault(kind(name), name)
    return [
        pytest.param(name, marks=() if name in first.values() else pytest.mark.nightly, id=name)
        for name in recipe_names()
    ]


def detectors() -> list[str]:
    """The recipes of detectors."""
    return [name for name in recipe_names() if isinstance(load_recipe(name, {"dry_run": True}), DetectRecipe)]


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_builds_at_full_size_and_at_debug_size(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, {"dry_run": True})
    small, _ = miniature(recipe, tmp_path)
    assert small.model == debug_size(recipe.model)
    for each in (recipe, small):
        with torch.device("meta"):
            hybridvit.create_model(each.model, image_size=each.data.image_size, **each.model_options)


@pytest.mark.parametrize("name", one_of_each_kind())
def test_a_recipe_of_each_kind_passes_a_dry_run(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, {"dry_run": True, "accelerator": "cpu", "output": str(tmp_path / "run")})
    lines: list[str] = []
    dry_run(recipe, say=lines.append)
    text = "\n".join(lines)
    assert text.count("passed:") == 5
    assert f"passed: {recipe.model} at full size" in text
    assert f"with {recipe.optim.name}" in text
    assert all((method in text) == (method in recipe.methods) for method in ("distillation", "MESA"))
    assert ("the weights to start from" in text) == (recipe.pretrained is not False)
    assert "with the same weights to the last bit" in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", detectors())
def test_a_detector_in_miniature_answers_a_single_picture(name: str, tmp_path: Path) -> None:
    small, _ = miniature(load_recipe(name, {"dry_run": True}), tmp_path)
    assert isinstance(small, DetectRecipe)
    head = {"task": small.task, "head": small.head or "mask_rcnn", "head_options": small.head_options, "num_classes": 3}
    side = small.data.image_size
    model = hybridvit.create_model(small.model, image_size=side, **head, **small.model_options).eval()
    with torch.no_grad():
        assert set(model(torch.zeros(1, 3, side, side))) >= {"boxes", "scores", "labels"}


def test_a_miniature_keeps_what_can_be_wrong_and_says_what_it_changes() -> None:
    recipe = load_recipe(
        "fastervit_4_384",
        {"dry_run": True, "strategy": "fsdp", "compile": True, "optim.layer_decay": 0.8, "wandb": "x", "seed": 3}
        | {"devices": 8, "num_nodes": 2},
    )
    small, changed = miniature(recipe, Path("nowhere"))
    assert (small.model, small.data.image_size, small.seed) == ("fastervit_debug", 64, 3)
    assert small.model_options == {"drop_path_rate": 0.3, "windows": (2, 2, 2, 2)}
    assert (small.optim, small.augment, small.ema) == (recipe.optim, recipe.augment, recipe.ema)
    assert (small.strategy, small.compile, small.wandb, small.pretrained) == ("ddp", False, "", False)
    said = "\n".join(changed)
    for word in ("left out: the weights to start from (", "torch.compile", "fsdp", "Weights & Biases", "one of 16 dev"):
        assert word in said
    assert not miniature(load_recipe("digits", {"dry_run": True}), Path("nowhere"))[1]


def test_a_miniature_has_the_mixers_of_its_variant() -> None:
    plain = debug_options(load_recipe("fastvit_t8", {"dry_run": True}), "fastvit_debug", 32)
    assert plain == {"mixers": ("repmixer",) * 4}
    windows = debug_options(load_recipe("fastervit_4_21k_224", {"dry_run": True}), "fastervit_debug", 64)
    assert windows["mixers"] == ("conv", "conv", "window", "window")
    assert windows["windows"] == (2, 2, 4, 2)


def test_every_model_has_a_debug_size() -> None:
    for name, variant in VARIANTS.items():
        assert VARIANTS[debug_size(name)].family == variant.family


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_options": {"windows": [7, 7, 99, 7]}}, "the map of that stage is only 14x14"),
        ({"model_options": {"drop_pth_rate": 0.1}}, "'drop_pth_rate' is no option"),
        ({"optim.name": "lamp"}, "no optimizer of timm"),
    ],
)
def test_a_dry_run_finds_what_only_the_full_size_shows(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        dry_run(load_recipe("fastervit_0", {"dry_run": True, "accelerator": "cpu", **changes}), say=lambda line: None)
