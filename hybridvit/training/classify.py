"""Classification: one label per image."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from lightning_fabric import Fabric
from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

import hybridvit
from hybridvit.card import ModelCard
from hybridvit.data.loader import make_eval_loader
from hybridvit.errors import UsageError
from hybridvit.training.classify_data import load_splits
from hybridvit.training.devices import batch_shape
from hybridvit.training.evaluate import Evaluation, evaluate_loader
from hybridvit.training.loop import seed_everything
from hybridvit.training.recipe import Recipe
from hybridvit.training.task import Moment, Task


class ClassifyTask(Task):
    """A classifier of the recipe's architecture on the recipe's images, with its mixing and label smoothing."""

    headline = "top1"

    def __init__(self, recipe: Recipe, fabric: Fabric) -> None:
        self._fabric = fabric
        seed_everything("model", recipe.seed)
        splits = load_splits(recipe, fabric)
        self.images, self._validation_images = splits.train, splits.validation
        self.class_names = splits.train.class_names
        options: dict[str, Any] = dict(recipe.model_options)
        model = hybridvit.create_model(
            recipe.model,
            pretrained=recipe.pretrained,
            num_classes=len(self.class_names),
            image_size=recipe.data.image_size,
            **options,
        )
        self._card = dataclasses.replace(
            cast(ModelCard, model.card),
            preprocessing=splits.preprocessing,
            class_names=self.class_names,
            source=f"trained by hybridvit {hybridvit.__version__} on {recipe.data.source} images",
        )
        self.model = model
        batch_size, _ = batch_shape(recipe, fabric.world_size)
        augment = recipe.augment
        self._mix = None
        if augment.mixup or augment.cutmix:
            if batch_size % 2:
                raise UsageError(
                    f"Mixup and CutMix pair the images of a micro-batch, and {batch_size} is odd. Choose an even "
                    "data.total_batch (or data.micro_batch), or set augment.mixup and augment.cutmix to 0."
                )
            self._mix = Mixup(
                mixup_alpha=augment.mixup,
                cutmix_alpha=augment.cutmix,
                prob=augment.mix_probability,
                switch_prob=augment.cutmix_share,
                label_smoothing=augment.label_smoothing,
                num_classes=len(self.class_names),
            )
        self._soft_loss = SoftTargetCrossEntropy()
        self._hard_loss = LabelSmoothingCrossEntropy(augment.label_smoothing)
        self._validation = make_eval_loader(
            splits.validation,
            batch_size=batch_size,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            workers=recipe.data.workers,
            pin_memory=fabric.device.type == "cuda",
            start_method="spawn" if fabric.world_size > 1 else None,  # see the training loader
        )

    @property
    def identity(self) -> Mapping[str, Any]:
        return {
            "classes": list(self.class_names),
            "training_images": self.images.fingerprint,
            "validation_images": self._validation_images.fingerprint,
        }

    def loss(self, model: nn.Module, images: Tensor, labels: Tensor, moment: Moment) -> Tensor:
        if self._mix is None:
            return self._hard_loss(model(images), labels)
        images, targets = self._mix(images, labels)
        return self._soft_loss(model(images), targets)

    def validate(self, model: nn.Module) -> dict[str, float]:
        evaluation = self.evaluate(model)
        return {"top1": evaluation.top1, "top5": evaluation.top5, "loss": evaluation.loss}

    def evaluate(self, model: nn.Module) -> Evaluation:
        """The model on the validation images, in this task's precision."""
        with self._fabric.autocast():
            return evaluate_loader(model, self._validation)

    def keep(self, model: nn.Module, path: Path) -> None:
        model.card = self._card  # type: ignore[assignment]  # torch types every attribute as tensor or module
        hybridvit.save_checkpoint(model, path)

    def close(self) -> None:
        self._validation.close()
