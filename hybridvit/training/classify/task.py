"""Classification: one label per image."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from PIL.Image import Image
from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

import hybridvit
from hybridvit.data.loader import make_eval_loader
from hybridvit.data.seeding import seed_everything
from hybridvit.errors import UsageError
from hybridvit.recipe.recipe import Recipe
from hybridvit.report.pictures import find_picture
from hybridvit.training.classify.data import load_splits
from hybridvit.training.classify.distillation import distilled, mesa_is_on, mesa_term
from hybridvit.training.classify.evaluate import Evaluation, evaluate_loader
from hybridvit.training.classify.final_check import FinalCheck, check_folded
from hybridvit.training.classify.fine_tuning import starting_model
from hybridvit.training.classify.teacher import Teacher, TeacherFinder, find_teacher
from hybridvit.training.engine.devices import batch_shape
from hybridvit.training.task import Moment, Task


class ClassifyTask(Task):
    """A classifier of the recipe's architecture on the recipe's images, with its mixing and label smoothing."""

    headline = "top1"

    def __init__(self, recipe: Recipe, fabric: Fabric, *, find_teacher: TeacherFinder = find_teacher) -> None:
        self._fabric, self._recipe = fabric, recipe
        seed_everything("model", recipe.seed)
        splits = load_splits(recipe, fabric)
        self.images, self._validation_images = splits.train, splits.validation
        self.class_names = splits.train.class_names
        model = starting_model(recipe, self.class_names)
        self._card = dataclasses.replace(
            model.card,
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
        self._teacher = None
        if recipe.distill.teacher:
            self._teacher = Teacher(
                find_teacher(recipe.distill, len(self.class_names)),
                recipe=recipe,
                fabric=fabric,
                class_names=self.class_names,
                preprocessing=splits.preprocessing,
            )
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
        identity = {
            "classes": list(self.class_names),
            "training_images": self.images.fingerprint,
            "validation_images": self._validation_images.fingerprint,
        }
        return identity if self._teacher is None else identity | {"teacher": self._teacher.fingerprint}

    def loss(self, model: nn.Module, images: Tensor, labels: Tensor, moment: Moment) -> Tensor:
        """With the labels, mixed if the recipe mixes; with the teacher's answers; with those of the average (MESA).

        The student goes first: what the others may draw from the generators changes nothing in it.
        """
        recipe = self._recipe
        if self._mix is None:
            logits = model(images).float()
            loss = self._hard_loss(logits, labels)
        else:
            images, targets = self._mix(images, labels)
            logits = model(images).float()
            loss = self._soft_loss(logits, targets)
        if self._teacher is not None:
            loss = distilled(loss, logits, self._teacher.logits(images), recipe.distill)
        if moment.averaged is not None and mesa_is_on(recipe.mesa, moment):
            with torch.no_grad(), self._fabric.autocast():
                averaged_logits = moment.averaged(images)
            loss = loss + mesa_term(logits, averaged_logits, recipe.mesa)
        return loss

    def validate(self, model: nn.Module) -> dict[str, float]:
        evaluation = self.evaluate(model)
        return {"top1": evaluation.top1, "top5": evaluation.top5, "loss": evaluation.loss}

    def evaluate(self, model: nn.Module) -> Evaluation:
        """The model on the validation images, in this task's precision."""
        with self._fabric.autocast():
            return evaluate_loader(model, self._validation, watch=self.watch)

    def check_folded(self, model: nn.Module) -> FinalCheck:
        return check_folded(model, self._validation, watch=self.watch)

    @property
    def facts(self) -> Sequence[tuple[str, str]]:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return [
            ("Model", f"{self._recipe.model}, {parameters:,} parameters"),
            ("Training images", f"{len(self.images):,} of {len(self.class_names):,} classes"),
            ("Validation images", f"{len(self._validation_images):,}"),
        ]

    def picture(self, path: str) -> Path | Image | None:
        return find_picture(self._validation_images, path, self._card.preprocessing)

    def keep(self, model: nn.Module, path: Path) -> None:
        model.card = self._card  # type: ignore[assignment]  # torch types every attribute as tensor or module
        hybridvit.save_checkpoint(model, path)

    def close(self) -> None:
        self._validation.close()
