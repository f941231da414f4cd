"""The table of all models: name -> architecture and what is published of it. Importing it needs no torch."""

from dataclasses import dataclass

from hybridvit.card import Preprocessing
from hybridvit.errors import UsageError, nearest
from hybridvit.models.family import Family, FamilyConfig
from hybridvit.models.fastervit import cards as fastervit_cards
from hybridvit.models.fastervit import config as fastervit
from hybridvit.models.fastvit import cards as fastvit_cards
from hybridvit.models.fastvit import config as fastvit
from hybridvit.models.published import Published
from hybridvit.models.swin_hat import cards as swin_hat_cards
from hybridvit.models.swin_hat import config as swin_hat


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table."""

    name: str
    family: str  # a key of FAMILIES
    config: FamilyConfig
    published: Published

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are prepared for the published weights."""
        side = self.published.image_size_px
        return Preprocessing(
            image_size=(side, side),
            crop_fraction=self.published.crop_fraction,
            crop_mode=self.published.crop_mode,
            interpolation=self.published.interpolation,
        )


FAMILIES: dict[str, Family] = {
    "fastvit": Family(
        model="hybridvit.models.fastvit.model:FastViT",
        names="hybridvit.models.fastvit.names",
        variants=fastvit.VARIANTS,
        published=fastvit_cards.PUBLISHED,
        debug="fastvit_debug",
        first_convs=("stem.0.conv.kxk.conv", "stem.0.conv.scale.conv"),
        in_timm=True,
    ),
    "fastervit": Family(
        model="hybridvit.models.fastervit.model:FasterViT",
        names="hybridvit.models.fastervit.names",
        variants=fastervit.VARIANTS,
        published=fastervit_cards.PUBLISHED,
        debug="fastervit_debug",
        first_convs=("stem.0.conv",),
    ),
    "swin_hat": Family(
        model="hybridvit.models.swin_hat.model:SwinHAT",  # imports timm
        names="hybridvit.models.swin_hat.names",
        variants=swin_hat.VARIANTS,
        published=swin_hat_cards.PUBLISHED,
        debug="swin_debug_hat",
        first_convs=("stem.proj",),
    ),
}
VARIANTS: dict[str, Variant] = {
    name: Variant(name=name, family=key, config=config, published=family.published[name])
    for key, family in FAMILIES.items()
    for name, config in family.variants.items()
}


def list_models() -> list[str]:
    """The names that `create_model` takes."""
    return list(VARIANTS)


def find_variant(name: str) -> Variant:
    """The row of the table.

    Raises:
        UsageError: for an unknown name; the message has the nearest ones.
    """
    if name not in VARIANTS:
        raise UsageError(
            f"Unknown model '{name}'. {nearest(str(name), VARIANTS)}. All of them: hybridvit.list_models()."
        )
    return VARIANTS[name]
