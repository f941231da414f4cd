"""What a training on hands starts from, and the model that a card describes."""

from dataclasses import replace

import torch

from hybridvit.build import head_config, with_head
from hybridvit.card import ModelCard
from hybridvit.models.with_head import WithHead
from hybridvit.starting import preparation_of, started_with_head
from hybridvit.task import Splits
from hybridvit.tasks.hand.baseline import mean_hand
from hybridvit.tasks.hand.config import HandMeshConfig, HandRecipe
from hybridvit.tasks.hand.data import HandSamples, open_splits
from hybridvit.tasks.hand.mano.assets import find_assets
from hybridvit.tasks.hand.mano.generated_hand import generated_hand
from hybridvit.tasks.hand.mano.hand_found import hand_of, seen
from hybridvit.tasks.hand.model import HandMesh


def open_recipe(recipe: HandRecipe) -> Splits:
    """The recipe's pictures. Raises DatasetError where they are not fit to use."""
    preprocessing = replace(preparation_of(recipe), crop_fraction=recipe.data.crop_fraction)
    return open_splits(
        recipe.data,
        recipe.augment,
        preprocessing,
        seed=recipe.seed,
        assets=recipe.assets,
        rotations=recipe.loss.rotations > 0,
    )


def started(recipe: HandRecipe, splits: Splits) -> WithHead:
    """The recipe's model, with its pretrained weights if any, and with its card, which names the hand by its digest.

    Raises UsageError where there is no hand, UsageError or CheckpointError for weights that do not fit.
    """
    assert isinstance(splits.train, HandSamples)
    assets = seen(find_assets(recipe.assets))
    chosen = replace(recipe, head_options={"sha256": assets.sha256, **recipe.head_options})
    return started_with_head(chosen, splits, num_classes=1, facts=mean_hand(splits.train.parameters, assets))


def built(card: ModelCard) -> WithHead:
    """The training form of the model that a card describes, whose card says which hand it moves.

    On the meta device, where there are no values, any hand will do. Raises as `hand_of`.
    """
    config = head_config(card)
    assert isinstance(config, HandMeshConfig)
    is_empty = torch.get_default_device().type == "meta"
    assets = generated_hand() if is_empty else hand_of(card)
    model = with_head(card, lambda channels: HandMesh(channels, assets, config.joints), last_map=True)
    if not is_empty:
        options = {**card.head_options, "assets": assets.kind, "sha256": assets.sha256}
        model.card = replace(model.card, head_options=options)
    return model
