"""The numbers of the papers on COCO, written down a second time: a typo in a recipe is found here."""

from typing import Any

import pytest
import torch

from hybridvit.errors import UsageError
from hybridvit.recipe.file import load_recipe, recipe_names
from hybridvit.recipe.groups import OptimConfig
from hybridvit.tasks.detect.config import DetectRecipe
from hybridvit.training.engine.optimizer import build_optimizer, learning_rate
from hybridvit.training.trial.miniature import miniature

SIDES = tuple(range(480, 801, 32))
PUBLISHED = {  # box AP, AP50, AP75, mask AP, AP50, AP75
    "mask_rcnn_fastvit_sa12_coco": "38.9 60.5 42.2 35.9 57.6 38.1",
    "mask_rcnn_fastvit_sa24_coco": "42.0 63.5 45.8 38.0 60.5 40.5",
    "mask_rcnn_fastvit_sa36_coco": "43.8 65.1 47.9 39.4 62.0 42.3",
    "mask_rcnn_fastvit_ma36_coco": "45.1 66.8 49.5 40.5 63.8 43.4",
    "cascade_mask_rcnn_fastervit_2_coco_3x": "52.1 71.0 56.6 45.2 68.4 49.0",
    "cascade_mask_rcnn_fastervit_3_coco_3x": "52.4 71.1 56.7 45.4 68.7 49.3",
    "cascade_mask_rcnn_fastervit_4_coco_3x": "52.9 71.6 57.7 45.8 69.1 49.8",
    "dino_fastervit_4_21k_384_coco_36": "58.7",
    "dino_fastervit_4_21k_224_coco_12": "55.16",
}
OWN = {"detect", "detect_scenes"}


def recipe_of(name: str, **keys: Any) -> DetectRecipe:
    recipe = load_recipe(name, {"data.root": "coco", **keys})
    assert isinstance(recipe, DetectRecipe)
    return recipe


def test_there_is_a_recipe_for_each_published_row_and_no_other() -> None:
    found = {name for name in recipe_names() if load_recipe(name, {"data.root": "coco"}).task == "detect"}
    assert found == OWN | set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_is_trained_as_published(name: str) -> None:
    recipe = recipe_of(name)
    schedule, optim = recipe.schedule, recipe.optim
    head = "".join(line for line in recipe_names()[name].read_text(encoding="utf-8").splitlines() if line[0] == "#")
    assert all(f" {number}" in head for number in PUBLISHED[name].split())
    assert (recipe.data.total_batch, recipe.data.image_size, recipe.data.max_size) == (16, 800, 1333)
    assert recipe.augment.hflip == 0.5
    assert (schedule.kind, optim.name, recipe.ema.decay, recipe.pretrained) == ("drops", "adamw", 0, True)
    kind = name.partition("_")[0]
    if kind == "mask":
        assert (optim.lr, optim.weight_decay, optim.clip_norm) == (2e-4, 1e-4, 0)
        assert (schedule.epochs, schedule.drop_epochs, schedule.warmup_steps) == (12, (8, 11), 500)
        assert (recipe.head, recipe.augment.resize, recipe.data.train_sizes) == ("mask_rcnn", "whole", ())
    elif kind == "cascade":
        assert (optim.lr, optim.weight_decay, optim.clip_norm) == (1e-4, 0.05, 0)
        assert (schedule.epochs, schedule.drop_epochs, schedule.warmup_steps) == (36, (27, 33), 1000)
        assert (recipe.head, recipe.augment.resize, recipe.data.train_sizes) == ("cascade_mask_rcnn", "detr", SIDES)
    else:
        assert (optim.lr, optim.weight_decay, optim.clip_norm, optim.backbone_lr) == (1e-4, 1e-4, 0.1, 0.1)
        assert (schedule.epochs, schedule.drop_epochs) in ((36, (30,)), (12, (11,)))
        assert (recipe.head, recipe.augment.resize, recipe.data.train_sizes) == ("dino", "detr", SIDES)
        assert dict(recipe.head_options) == {"map_norm": True}
    assert (recipe.augment.crop_sides, recipe.augment.crop_range) == ((400, 500, 600), (384, 600))
    assert schedule.warmup_lr == pytest.approx(optim.lr / 1000) or kind == "dino"


@pytest.mark.parametrize("name", [*sorted(OWN), *PUBLISHED])
def test_a_dry_run_tries_each_with_a_small_head(name: str, tmp_path: Any) -> None:
    small, _ = miniature(recipe_of(name), tmp_path)
    assert isinstance(small, DetectRecipe)
    assert small.head == recipe_of(name).head
    assert {"fc_width", "dim"} & set(small.head_options)


def test_a_backbone_learns_at_a_share_of_the_rate_of_the_head() -> None:
    import hybridvit

    recipe = recipe_of("dino_fastervit_4_21k_384_coco_36")
    options = {"dim": 32, "encoder_depth": 1, "decoder_depth": 1, "ffn_width": 32, "num_queries": 5}
    model: Any = hybridvit.create_model("fastvit_debug", task="detect", head="dino", head_options=options)
    optimizer = build_optimizer(recipe, model)
    backbone = {id(parameter) for parameter in model.pyramid.parameters()}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    for group in optimizer.param_groups:
        inside = {id(parameter) in backbone for parameter in group["params"]}
        assert inside == {group["lr_scale"] == 0.1}
        assert all((parameter.ndim <= 1) == (group["weight_decay"] == 0) for parameter in group["params"])
    assert learning_rate(optimizer) == recipe.optim.lr
    assert torch.is_tensor(optimizer.param_groups[0]["params"][0])


def test_rates_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match=r"both say how fast the backbone learns. Leave one of them out"):
        OptimConfig(layer_decay=0.8, backbone_lr=0.1)
    with pytest.raises(UsageError, match=r"'optim.backbone_lr' is 0.1, but models of the task 'classify' have no head"):
        load_recipe("digits", {"optim.backbone_lr": 0.1})
