"""The folder of a finished run, as training leaves it, without the training."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from no_augment import NO_AUGMENT
from saved_models import randomised
from tiny_runs import SHORT

import hybridvit
from hybridvit.card import ModelCard
from hybridvit.machine.facts import machine_card
from hybridvit.models.whole import WholeModel
from hybridvit.recipe.file import recipe_text
from hybridvit.tasks.classify.config import ClassifyData, ClassifyRecipe

NAMES = ("cat & co", "dog")
ROW = {
    "step": 3, "epoch": 1.0, "lr": 1e-3, "train_loss": 0.7, "images_per_second": 80.0, "top1": 87.5, "top5": 100.0,
    "loss": 0.31, "ema_top1": 75.0, "ema_top5": 100.0, "ema_loss": 0.4,
}  # fmt: skip


def finished_run(folder: Path, *, model: WholeModel | None = None, **card: Any) -> Path:
    """A run on photographs of two classes, cropped and resized as such are; `card` are fields of its model's card."""
    folder.mkdir(parents=True)
    data = ClassifyData(root=str(folder.parent / "secret-place" / "pets"), image_size=48, total_batch=4, workers=0)
    recipe: ClassifyRecipe = dataclasses.replace(SHORT, output=str(folder), data=data, augment=NO_AUGMENT)
    if model is None:
        torch.manual_seed(0)
        model = hybridvit.create_model("fastvit_debug", num_classes=2, image_size=48)
    randomised(model).eval()
    preprocessing = dataclasses.replace(model.card.preprocessing, image_size=(48, 48), crop_fraction=0.9)
    own: ModelCard = dataclasses.replace(model.card, preprocessing=preprocessing, class_names=NAMES, source="trained")
    model.card = dataclasses.replace(own, **card)
    hybridvit.save_checkpoint(model, folder / "model.safetensors")
    (folder / "recipe.yaml").write_text(recipe_text(recipe), encoding="utf-8")
    result = {
        "folder": str(folder), "model": str(folder / "model.safetensors"), "history": [ROW], "weights": "raw",
        "step": 3, "epoch": 1.0, "headline": "top1", "best": 87.5, "raw": 87.5, "averaged": 75.0, "folded": 87.5,
        "same_answers": 8, "num_images": 8, "max_difference": 1e-6, "machine": dict(machine_card().lines()),
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return folder
