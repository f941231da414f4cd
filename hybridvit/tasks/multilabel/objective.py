"""What a training on several labels minimises: a binary cross-entropy for each class."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridvit.batch import Batch
from hybridvit.card import ModelCard
from hybridvit.data.mixing import mixing
from hybridvit.data.samples import Samples
from hybridvit.errors import UsageError, some
from hybridvit.task import Moment, Objective, Place
from hybridvit.tasks.multilabel.config import MultilabelRecipe
from hybridvit.tasks.multilabel.data import LabelSets, as_zeros_and_ones


class MultilabelObjective(Objective):
    """The mean over images and classes; with label smoothing, Mixup and CutMix, as the recipe says.

    Smoothing spreads its share of each target over yes and no alike. Raises UsageError for a micro-batch that cannot be
    mixed, and for another number of weights than classes.
    """

    def __init__(self, recipe: MultilabelRecipe, card: ModelCard, place: Place) -> None:
        self._smoothing = recipe.augment.label_smoothing
        self._num_classes = len(card.class_names)
        self._mix = mixing(recipe.augment, place.micro_batch, place.micro_batch, 0.0)
        weights = positive_weights(recipe, card, place.samples)
        self._weights = None if weights is None else weights.to(place.device)

    def loss(self, model: nn.Module, batch: Batch, moment: Moment) -> Tensor:
        images, truths = batch.inputs, as_zeros_and_ones(batch.targets, self._num_classes)
        if self._mix is not None:  # as if each image were a class of its own: the shares of all in each
            images, shares = self._mix(images, torch.arange(len(images), device=images.device))
            truths = shares[:, : len(images)] @ truths
        truths = truths * (1 - self._smoothing) + self._smoothing / 2
        return F.binary_cross_entropy_with_logits(model(images).float(), truths, pos_weight=self._weights)


def positive_weights(recipe: MultilabelRecipe, card: ModelCard, samples: Samples | None) -> Tensor | None:
    """The weight of the images with each label, None where all weigh the same.

    "balanced" is the images without over those with it, as if both were equally many. Raises UsageError for another
    number of weights than classes.
    """
    chosen, names = recipe.pos_weight, card.class_names
    if chosen == "none":
        return None
    if isinstance(chosen, tuple):
        if len(chosen) != len(names):
            raise UsageError(
                f"Recipe key 'pos_weight' has {len(chosen)} numbers, but there are {len(names)} classes "
                f"({some(names, quoted=True)}). Give one for each, in this order, or 'balanced'."
            )
        return torch.tensor(chosen)
    if not isinstance(samples, LabelSets):
        raise UsageError("Recipe key 'pos_weight' is 'balanced', but the images are not known. Give numbers.")
    having = torch.zeros(len(names))
    for labels in samples.labels:
        having[list(labels)] += 1
    return (len(samples) - having) / having.clamp(min=1)
