"""The table of all models: name -> architecture and what is published of it. Importing it needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hybridvit.card import Preprocessing
from hybridvit.errors import UsageError, nearest
from hybridvit.models.fastervit import cards as fastervit_cards
from hybridvit.models.fastervit import config as fastervit
from hybridvit.models.fastvit import cards as fastvit_cards
from hybridvit.models.fastvit import config as fastvit
from hybridvit.models.published import Published
from hybridvit.models.swin_hat import cards as swin_hat_cards
from hybridvit.models.swin_hat import config as swin_hat

Family = Literal["fastvit", "fastervit", "swin_hat"]
Config = fastvit.FastViTConfig | fastervit.FasterViTConfig | swin_hat.SwinHATConfig


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table."""

    name: str
    family: Family
    config: Config
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


_FAMILIES: dict[Family, tuple[Mapping[str, Config], dict[str, Published]]] = {
    "fastvit": (fastvit.VARIANTS, fastvit_cards.PUBLISHED),
    "fastervit": (fastervit.VARIANTS, fastervit_cards.PUBLISHED),
    "swin_hat": (swin_hat.VARIANTS, swin_hat_cards.PUBLISHED),
}
VARIANTS: dict[str, Variant] = {
    name: Variant(name=name, family=family, config=config, published=published[name])
    for family, (configs, published) in _FAMILIES.items()
    for name, config in configs.items()
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
            f"Unknown model '{name}'. Nearest: {nearest(str(name), VARIANTS)}. All of them: hybridvit.list_models()."
        )
    return VARIANTS[name]
