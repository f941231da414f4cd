"""What a model would be worth that always gave the mean hand of its training: the number to be compared with."""

from typing import Any

import numpy as np
import torch

from hybridvit.card import ModelCard
from hybridvit.tasks.hand.freihand.label_lists import Stored
from hybridvit.tasks.hand.freihand.mesh_errors import Points
from hybridvit.tasks.hand.mano.hand_assets import HandAssets
from hybridvit.tasks.hand.mano.layer import HandLayer
from hybridvit.tasks.hand.mano.pose import from_mano
from hybridvit.tasks.hand.mano.quaternion import nearest_rotation

MEAN_ROTATIONS, MEAN_SHAPE = "mean_rotations", "mean_shape"
_DIGITS = 6


def mean_hand(parameters: Stored | None, assets: HandAssets) -> dict[str, Any]:
    """Entries of a card's `class_facts`: mean rotations (15 3 3) and shape (10) of training hands; none if not known.

    The mean of rotations is the chordal one: their mean as matrices, projected. The wrist's is left out, since errors
    are measured after alignment.
    """
    if parameters is None:
        return {}
    known = torch.from_numpy(np.array(parameters[:], np.float64)).reshape(len(parameters), -1)  # n 61
    rotations = nearest_rotation(from_mano(known[:, :48], assets)[:, 1:].mean(0).numpy())
    shape = known[:, 48:58].mean(0)
    return {
        MEAN_ROTATIONS: rotations.round(_DIGITS).tolist(),
        MEAN_SHAPE: shape.numpy().round(_DIGITS).tolist(),
    }


def mean_points(card: ModelCard, assets: HandAssets) -> Points | None:
    """That hand as a batch of one; None where the card does not know it."""
    facts = card.class_facts
    if not {MEAN_ROTATIONS, MEAN_SHAPE} <= facts.keys():
        return None
    rotations = torch.eye(3).repeat(1, 16, 1, 1)
    rotations[0, 1:] = torch.tensor(facts[MEAN_ROTATIONS])
    with torch.no_grad():
        hand = HandLayer(assets)(rotations, torch.tensor(facts[MEAN_SHAPE])[None])
    return Points(hand.keypoints.numpy(), hand.vertices.numpy())
