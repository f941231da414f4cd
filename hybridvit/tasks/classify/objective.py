"""What a classification minimises: the labels, mixed if the recipe mixes, a teacher's answers, those of the average."""

from collections.abc import Mapping
from typing import Any

import torch
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

from hybridvit.batch import Batch
from hybridvit.card import ModelCard
from hybridvit.data.mixing import mixing
from hybridvit.data.samples import LabelledImages, Samples
from hybridvit.errors import UsageError, some
from hybridvit.task import Moment, Objective, Place
from hybridvit.tasks.classify.config import ClassifyRecipe
from hybridvit.tasks.classify.distillation import distilled, mesa_is_on, mesa_term
from hybridvit.tasks.classify.teacher import Teacher, TeacherFinder


class ClassifyObjective(Objective):
    """Label smoothing, Mixup and CutMix, distillation and MESA, as the recipe says.

    Raises UsageError for a micro-batch that cannot be mixed, and for a teacher of other classes or sizes.
    """

    def __init__(self, recipe: ClassifyRecipe, card: ModelCard, place: Place, *, find_teacher: TeacherFinder) -> None:
        self._recipe, self._place = recipe, place
        num_classes = len(card.class_names)
        self._mix = mixing(recipe.augment, place.micro_batch, num_classes, recipe.augment.label_smoothing)
        self._soft_loss = SoftTargetCrossEntropy()
        self._hard_loss = LabelSmoothingCrossEntropy(recipe.augment.label_smoothing)
        self._class_weights = class_weights(recipe, card, place.samples)
        if self._class_weights is not None:
            self._class_weights = self._class_weights.to(place.device)
        self._teacher = None
        if recipe.distill.teacher:
            self._teacher = Teacher(find_teacher(recipe.distill, num_classes), card=card, place=place)

    @property
    def identity(self) -> Mapping[str, Any]:
        return {} if self._teacher is None else {"teacher": self._teacher.fingerprint}

    def loss(self, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
        """The student goes first: what the others may draw from the generators changes nothing in it."""
        recipe, images = self._recipe, batch.inputs
        if self._mix is None:
            logits = model(images).float()
            loss = self._label_loss(logits, batch.targets, self._hard_loss)
        else:
            images, targets = self._mix(images, batch.targets)
            logits = model(images).float()
            loss = self._label_loss(logits, targets, self._soft_loss)
        if self._teacher is not None:
            loss = distilled(loss, logits, self._teacher.logits(images), recipe.distill)
        if moment.averaged is not None and mesa_is_on(recipe.mesa, moment):
            with torch.no_grad(), self._place.autocast():
                averaged_logits = moment.averaged(images)
            loss = loss + mesa_term(logits, averaged_logits, recipe.mesa)
        return loss

    def _label_loss(self, logits: Tensor, targets: Tensor, plain: nn.Module) -> Tensor:
        """The mean over the images, not over their weights: micro-batches of a step count alike."""
        weights = self._class_weights
        if weights is None:
            return plain(logits, targets)
        smoothing = 0.0 if targets.is_floating_point() else self._recipe.augment.label_smoothing
        losses = nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
        return (losses * (targets @ weights if targets.is_floating_point() else weights[targets])).mean()


def class_weights(recipe: ClassifyRecipe, card: ModelCard, samples: Samples | None) -> Tensor | None:
    """The weight of each class, None where all weigh the same.

    "balanced" is images / (classes x images of the class): as often as it is rarer than the mean. Raises UsageError for
    another number of weights than classes.
    """
    chosen, names = recipe.class_weights, card.class_names
    if chosen == "none":
        return None
    if isinstance(chosen, tuple):
        if len(chosen) != len(names):
            raise UsageError(
                f"Recipe key 'class_weights' has {len(chosen)} numbers, but there are {len(names)} classes "
                f"({some(names, quoted=True)}). Give one for each, in this order, or 'balanced'."
            )
        return torch.tensor(chosen)
    if not isinstance(samples, LabelledImages):
        raise UsageError("Recipe key 'class_weights' is 'balanced', but the images are not known. Give numbers.")
    counts = torch.bincount(torch.as_tensor(samples.labels), minlength=len(names))
    return len(samples) / (len(names) * counts.clamp(min=1))
