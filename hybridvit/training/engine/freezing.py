"""Parts of a model that a run leaves as they are: neither their weights nor the statistics of their norms change."""

from torch import nn

from hybridvit.errors import UsageError
from hybridvit.models.backbone import Backbone


def frozen_parts(model: nn.Module, freeze: str) -> list[nn.Module]:
    """The modules that recipe key `freeze` names, in a backbone alone or inside another model.

    Raises UsageError for more stages than there are, and for a model without a backbone.
    """
    if not freeze:
        return []
    backbone = next((module for module in model.modules() if isinstance(module, Backbone)), None)
    if backbone is None:
        raise UsageError(
            f"Recipe key 'freeze' is '{freeze}', but a {type(model).__name__} has no stages. Leave it out."
        )
    if freeze == "backbone":
        return [backbone.stem, *backbone.stages, backbone.expand]
    count = int(freeze.removeprefix("stages"))
    if count > len(backbone.stages):
        raise UsageError(
            f"Recipe key 'freeze' is '{freeze}', but the model has {len(backbone.stages)} stages. Freeze so many at "
            "most, or all but the head: backbone."
        )
    return [backbone.stem, *backbone.stages[:count]]


def freeze_parts(model: nn.Module, freeze: str) -> nn.Module:
    """`model`, whose frozen parts ask for no gradient from now on."""
    for part in frozen_parts(model, freeze):
        part.requires_grad_(False)
    return model
