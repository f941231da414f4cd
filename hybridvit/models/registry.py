"""The table of all models: name -> architecture and what is published of it. Importing it needs no torch."""

from dataclasses import dataclass

from hybridvit.card import ModelCard, Preprocessing
from hybridvit.errors import UsageError, nearest
from hybridvit.models.family import Family, FamilyConfig
from hybridvit.models.fastervit import cards as fastervit_cards
from hybridvit.models.fastervit import config as fastervit
from hybridvit.models.fastvit import cards as fastvit_cards
from hybridvit.models.fastvit import config as fastvit
from hybridvit.models.published import Published, Weights
from hybridvit.models.swin_hat import cards as swin_hat_cards
from hybridvit.models.swin_hat import config as swin_hat

IMAGENET_CLASSES = 1000


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
            mean=self.published.mean,
            std=self.published.std,
        )

    def prepared_for(self, weights: Weights | None) -> Preprocessing:
        """How images are prepared for these weights, where they say so themselves; else as for the variant."""
        return weights.preprocessing if weights and weights.preprocessing else self.preprocessing

    @property
    def num_outputs(self) -> int:
        """Of a model that is built without `num_classes`: ImageNet's classes, or the projection of an image tower."""
        return self.published.embedding_width or IMAGENET_CLASSES

    @property
    def debug(self) -> str:
        """The debug size that stands for it: of its family's the first with as many stages."""
        names = FAMILIES[self.family].debugs
        return next((name for name in names if len(VARIANTS[name].config.depths) == len(self.config.depths)), names[0])


FAMILIES: dict[str, Family] = {
    "fastvit": Family(
        model="hybridvit.models.fastvit.model:FastViT",
        names="hybridvit.models.fastvit.names",
        variants=fastvit.VARIANTS,
        published=fastvit_cards.PUBLISHED,
        debugs=("fastvit_debug", "fastvit_mci_debug"),
        in_timm=True,
    ),
    "fastervit": Family(
        model="hybridvit.models.fastervit.model:FasterViT",
        names="hybridvit.models.fastervit.names",
        variants=fastervit.VARIANTS,
        published=fastervit_cards.PUBLISHED,
        debugs=("fastervit_debug",),
    ),
    "swin_hat": Family(
        model="hybridvit.models.swin_hat.model:SwinHAT",  # imports timm
        names="hybridvit.models.swin_hat.names",
        variants=swin_hat.VARIANTS,
        published=swin_hat_cards.PUBLISHED,
        debugs=("swin_debug_hat",),
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


def num_outputs(card: ModelCard) -> int:
    """How many numbers the classifier of the card's model gives: its classes, or the width of its projection."""
    variant = VARIANTS.get(card.architecture)
    default = variant.num_outputs if variant and not card.head else IMAGENET_CLASSES
    return int(card.options.get("num_classes", default))


def is_tower(card: ModelCard) -> bool:
    """Whether the card's model answers with an embedding in the space of a text tower, and not with classes."""
    variant = VARIANTS.get(card.architecture)
    width = variant.published.embedding_width if variant and not card.head else None
    return width is not None and not card.class_names and num_outputs(card) == width


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
