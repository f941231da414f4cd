"""A recipe made small enough to try in seconds: what can be wrong is kept, what costs time is not."""

import dataclasses
from pathlib import Path
from typing import Any

from hybridvit.models.registry import FAMILIES, VARIANTS, find_variant
from hybridvit.recipe.groups import ScheduleConfig
from hybridvit.recipe.recipe import Recipe

TOTAL_BATCH = 16
LEFT_OUT = {
    "compile": (False, "torch.compile, which takes minutes"),
    "strategy": ("ddp", "strategy {}, which needs several devices"),
    "sync_batchnorm": (False, "sync_batchnorm, which needs several GPUs"),
    "wandb": ("", "Weights & Biases"),
}
"""Keys that a trial does without: the value that they get in it, and what is said."""
SIZE_OPTIONS = ("depths", "widths")  # a recipe that sets these has made a model of its own size


def miniature(recipe: Recipe, output: Path) -> tuple[Recipe, list[str]]:
    """Two steps of the recipe on the debug size of its family, and a line for each thing that is left out or changed.

    The recipe's model options stay; windows shrink with the image, and the debug size takes the mixers of the variant.
    """
    model = debug_size(recipe.model)
    image_size = find_variant(model).published.image_size_px
    own, changed = recipe.trial_settings()
    settings: dict[str, Any] = own | {
        "model": model,
        "model_options": debug_options(recipe, model, image_size),
        "data": _data(recipe, image_size),
        "schedule": _schedule(recipe.schedule),
        "output": str(output),
        "save_every": 0.5,
        "validate_every": 1.0,
        "keep": 2,
        "devices": 1,
        "num_nodes": 1,
        "dry_run": False,
    }
    if recipe.precision == "16-mixed" and not _has_cuda(recipe):
        changed.append("changed: precision 16-mixed needs a GPU; 32-true takes its place")
        settings["precision"] = "32-true"
    count = recipe.devices if isinstance(recipe.devices, int) else max(1, len(recipe.gpu_numbers))
    if (count := count * recipe.num_nodes) > 1:
        changed.append(f"left out: all but one of {count} devices")
    for key, (harmless, what) in LEFT_OUT.items():
        if getattr(recipe, key) != harmless:
            changed.append(f"left out: {what.format(getattr(recipe, key))}")
            settings[key] = harmless
    return dataclasses.replace(recipe, **settings), changed


def _schedule(schedule: ScheduleConfig) -> ScheduleConfig:
    """One epoch, whose learning rate goes as the recipe's does."""
    short: dict[str, Any] = {"steps": 0, "epochs": 1, "warmup_epochs": 0, "warmup_steps": 0, "cooldown_epochs": 0}
    return dataclasses.replace(schedule, **short, drop_epochs=(0.5,) if schedule.kind == "drops" else ())


def debug_size(model: str) -> str:
    """The debug size of a model's family; a model of timm has none, and another family's stands for it."""
    return find_variant(model).debug if model in VARIANTS else next(iter(FAMILIES.values())).debugs[0]


def debug_options(recipe: Recipe, model: str, image_size: int) -> dict[str, Any]:
    """The recipe's model options as far as they fit the debug size `model` at `image_size` pixels.

    A recipe that sets sizes has made a model of its own, and gets the options it gives.
    """
    given: dict[str, Any] = dict(recipe.model_options)
    if recipe.model not in VARIANTS:
        return {}
    debug, share = find_variant(model).config, image_size / recipe.data.image_size
    config = debug if any(option in given for option in SIZE_OPTIONS) else find_variant(recipe.model).config
    return config.on_debug_size(given, debug, share)


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
