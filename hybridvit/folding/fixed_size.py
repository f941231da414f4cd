"""What a model computes from the size of the image alone, as constants for one size."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from hybridvit.errors import UsageError
from hybridvit.models.backbone import MIN_SIDE_PX, Backbone
from hybridvit.models.hat.attention import HierarchicalAttention


@dataclass(frozen=True)
class CarrierStage:
    """Attention whose carriers lie on a map that depends on the image: the positions of each depend on all."""

    backbone: Backbone
    name: str  # of the attention in the backbone
    attention: HierarchicalAttention
    stride: int  # image pixels per pixel of its map

    @property
    def has_positions(self) -> bool:
        """Whether constants for one size would replace anything."""
        config = self.attention.config
        return config.position_embedding or (config.carrier_attention and config.relative_bias != "none")

    @property
    def smallest_side(self) -> int:
        """From this side of the image on, the map always has more than one window, and so carriers."""
        return self.attention.config.window_size * self.stride + 1


def carrier_stages(model: nn.Module) -> Iterator[CarrierStage]:
    """The attention with carriers of every backbone in `model`."""
    for backbone in [module for module in model.modules() if isinstance(module, Backbone)]:
        for index, (stage, info) in enumerate(zip(backbone.stages, backbone.feature_info, strict=True)):
            for name, module in stage.named_modules(prefix=f"stages.{index}"):
                if isinstance(module, HierarchicalAttention) and module.config.carrier_size:
                    yield CarrierStage(backbone, name, module, info["reduction"])


def depends_on_size(model: nn.Module) -> bool:
    """Whether `model` computes positions from the size of the image that could be constants."""
    return any(stage.has_positions and stage.attention.only_size is None for stage in carrier_stages(model))


def as_size(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image size in pixels; a number is a square.

    Raises:
        UsageError: for anything else than one or two whole numbers, or a side that no model takes.
    """
    sides = image_size if isinstance(image_size, tuple | list) else (image_size, image_size)
    if len(sides) != 2 or any(type(side) is not int or side < MIN_SIDE_PX for side in sides):
        raise UsageError(
            f"image_size is {image_size!r}, but must be a side or (height, width) in pixels, each a whole number from "
            f"{MIN_SIDE_PX}."
        )
    return sides[0], sides[1]


def check_can_fix(model: nn.Module, size: tuple[int, int]) -> None:
    """Refuse a size that would change nothing, or that comes too late.

    Raises:
        UsageError: naming the model and its reason.
    """
    stages = [stage for stage in carrier_stages(model) if stage.has_positions]
    if not stages:
        backbones = [module.card.architecture for module in model.modules() if isinstance(module, Backbone)]
        raise UsageError(
            f"image_size is {size[0]}x{size[1]}, but it has no effect on {backbones[0] if backbones else 'this module'}"
            ", which computes nothing from the size of the image alone. Leave image_size out."
        )
    for card in (stage.backbone.card for stage in stages):
        if card.fixed_size not in (None, size):
            assert card.fixed_size is not None
            raise UsageError(
                f"image_size is {size[0]}x{size[1]}, but the positions of this {card.architecture} are constants for "
                f"{card.fixed_size[0]}x{card.fixed_size[1]} pixels already. Fold the model that it was made from."
            )


def fix_size(folded: nn.Module, size: tuple[int, int]) -> None:
    """Make the positions of the carriers in `folded`, a model of our own making, constants for images of `size`."""
    for stage in list(carrier_stages(folded)):
        backbone, attention = stage.backbone, stage.attention
        if attention.only_size is None:
            map_size = (-(-side // stage.stride) for side in size)
            backbone.set_submodule(stage.name, attention.for_map(*map_size))
        preprocessing = replace(backbone.card.preprocessing, image_size=size)
        backbone.card = replace(backbone.card, fixed_size=size, preprocessing=preprocessing)
