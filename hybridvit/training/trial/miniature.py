"""A recipe made small enough to try in seconds: what can be wrong is kept, what costs time is not."""

import dataclasses
from pathlib import Path
from typing import Any

from hybridvit.errors import UsageError
from hybridvit.models.fastervit.config import FasterViTConfig
from hybridvit.models.registry import VARIANTS, find_variant
from hybridvit.models.swin_hat.config import SwinHATConfig
from hybridvit.recipe.recipe import Recipe

TOTAL_BATCH = 16
SIZE_OPTIONS = ("depths", "widths")  # a recipe that sets these has made a model of its own size


def miniature(recipe: Recipe, output: Path) -> tuple[Recipe, list[str]]:
    """Two steps of the recipe on the debug size of its family, and a line for each thing that is left out or changed.

    The recipe's model options stay; windows shrink with the image, and the debug size takes the mixers of the variant.
    """
    changed: list[str] = []
    model = debug_size(recipe.model)
    image_size = find_variant(model).published.image_size_px
    settings: dict[str, Any] = {
        "model": model,
        "model_options": debug_options(recipe, model, image_size),
        "data": _data(recipe, image_size),
        "schedule": dataclasses.replace(recipe.schedule, epochs=1, warmup_epochs=0, cooldown_epochs=0),
        "output": str(output),
        "save_every": 0.5,
        "validate_every": 1.0,
        "keep": 2,
        "devices": 1,
        "num_nodes": 1,
        "dry_run": False,
    }
    if recipe.pretrained is not False:
        changed.append(
            f"left out: the weights to start from ({_in_words(recipe.pretrained)}); random ones take the place"
        )
        settings |= {"pretrained": False, "reset_head": False}
    if recipe.distill.teacher:
        changed.append(f"changed: the teacher {recipe.distill.teacher} is an untrained one of debug size")
        settings["distill"] = dataclasses.replace(recipe.distill, teacher_weights="")
    if recipe.mesa.weight and recipe.mesa.start:
        changed.append(f"changed: MESA begins at the first step, not after {recipe.mesa.start:.0%} of the training")
        settings["mesa"] = dataclasses.replace(recipe.mesa, start=0.0)
    if recipe.precision == "16-mixed" and not _has_cuda(recipe):
        changed.append("changed: precision 16-mixed needs a GPU; 32-true takes its place")
        settings["precision"] = "32-true"
    if recipe.compile:
        changed.append("left out: torch.compile, which takes minutes")
        settings["compile"] = False
    if recipe.strategy != "ddp":
        changed.append(f"left out: strategy {recipe.strategy}, which needs several devices")
        settings["strategy"] = "ddp"
    if recipe.sync_batchnorm:
        changed.append("left out: sync_batchnorm, which needs several GPUs")
        settings["sync_batchnorm"] = False
    if recipe.wandb:
        changed.append("left out: Weights & Biases")
        settings["wandb"] = ""
    return dataclasses.replace(recipe, **settings), changed


def debug_size(model: str) -> str:
    """The debug size of a model's family."""
    family = find_variant(model).family
    names = [name for name, variant in VARIANTS.items() if variant.family == family and "debug" in name]
    if not names:
        raise UsageError(f"The family of '{model}' has no debug size to try. Dry runs work for {', '.join(VARIANTS)}.")
    return names[0]


def debug_options(recipe: Recipe, model: str, image_size: int) -> dict[str, Any]:
    """The recipe's model options as far as they fit the debug size `model` at `image_size` pixels."""
    options: dict[str, Any] = dict(recipe.model_options)
    if not any(option in options for option in SIZE_OPTIONS):
        config, debug = find_variant(recipe.model).config, find_variant(model).config
        if isinstance(config, FasterViTConfig):
            options.setdefault("windows", config.windows)
        if not isinstance(config, SwinHATConfig) and not isinstance(debug, SwinHATConfig):
            options |= {"mixers": config.mixers} if config.mixers != debug.mixers and "mixers" not in options else {}
    windows = options.get("windows")
    if isinstance(windows, list | tuple):
        share = image_size / recipe.data.image_size
        options["windows"] = tuple(max(2, round(int(window) * share)) for window in windows)
    return options


def _data(recipe: Recipe, image_size: int) -> Any:
    return dataclasses.replace(
        recipe.data,
        source="generated",
        image_size=image_size,
        total_batch=TOTAL_BATCH,
        micro_batch=TOTAL_BATCH // 2 if recipe.data.micro_batch else 0,
        workers=min(recipe.data.workers, 1),
    )


def _has_cuda(recipe: Recipe) -> bool:
    import torch

    return recipe.accelerator in ("auto", "cuda") and torch.cuda.is_available()


def _in_words(pretrained: bool | str) -> str:
    return "the published ones" if pretrained is True else str(pretrained)
