"""The model to train: for the categories of the pictures, and for masks where they have some."""

import dataclasses

from torch import nn

from hybridvit.build import with_head
from hybridvit.card import ModelCard
from hybridvit.errors import UsageError
from hybridvit.starting import started_with_head
from hybridvit.task import Splits
from hybridvit.tasks.detect.categories import CATEGORY_IDS
from hybridvit.tasks.detect.config import DetectRecipe
from hybridvit.tasks.detect.data import DetectionSamples
from hybridvit.tasks.detect.heads import WITH_MASKS, make
from hybridvit.tasks.detect.heads.pyramid import NUM_LEVELS

_WITHOUT = {"mask_rcnn": "faster_rcnn", "cascade_mask_rcnn": "cascade_rcnn"}


def built(card: ModelCard) -> nn.Module:
    """The training form of the model that a card describes."""
    return with_head(card, lambda channels: make(card, channels), most_maps=NUM_LEVELS)


def started(recipe: DetectRecipe, splits: Splits) -> nn.Module:
    """The recipe's model for the categories of its pictures, with its pretrained weights, if any, and with its card.

    Raises UsageError for a head that learns masks where there are none, UsageError or CheckpointError for weights that
    do not fit.
    """
    train = splits.train
    assert isinstance(train, DetectionSamples)
    head = recipe.head or ("mask_rcnn" if train.has_masks else "faster_rcnn")
    if head in WITH_MASKS and not train.has_masks:
        raise UsageError(
            f"Recipe key 'head' is '{head}', which learns masks, but not all objects of the training pictures have "
            f"one. Use --head {_WITHOUT[head]}, which learns boxes alone."
        )
    facts = {CATEGORY_IDS: tuple(category.id for category in train.categories)}
    chosen = dataclasses.replace(recipe, head=head)
    return started_with_head(chosen, splits, num_classes=len(train.class_names), facts=facts)
