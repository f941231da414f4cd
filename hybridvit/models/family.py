"""What a family of architectures is, for everything outside its folder. Importing it needs no torch."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from hybridvit.errors import UsageError
from hybridvit.models.published import Published


@dataclass(frozen=True, kw_only=True)
class FamilyConfig(ABC):
    """The options of an architecture, as a value. Subclasses add them as fields, and check them."""

    depths: tuple[int, ...]  # blocks per stage

    @property
    @abstractmethod
    def first_convs(self) -> tuple[str, ...]:
        """Names of the convolutions that read the image, in training form."""

    @abstractmethod
    def without_effect(self) -> dict[str, tuple[bool, str]]:
        """For options that others can leave without effect: whether they do, and what does."""

    def check_applicable(self, given: Collection[str]) -> None:
        """Refuse options that were given but change nothing beside the others.

        Raises:
            UsageError: naming the option and what leaves it without effect.
        """
        reasons = self.without_effect()
        for name in given:
            useless, reason = reasons.get(name, (False, ""))
            if useless:
                raise UsageError(f"{name} has no effect here: {reason}. Leave it out.")

    def check_image_size(self, given: Collection[str], height: int, width: int) -> None:
        """Refuse options that were given and that images of this size have no use for, with UsageError."""
        return  # unless a family has such an option

    def on_debug_size(self, given: Mapping[str, Any], debug: Any, share: float) -> dict[str, Any]:
        """The options with which the debug size stands for this variant, where a recipe gives the options `given`.

        `debug` is the debug size's config; its images have that share of the recipe's side.
        """
        return dict(given)


def same_mixers(config: Any, debug: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, with the mixers of `config`, unless these are given or are the debug size's own."""
    return {"mixers": config.mixers} | dict(given) if config.mixers != debug.mixers else dict(given)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A row of the table of families."""

    model: str  # "module:Class", imported when first built
    names: str  # module that knows what its tensors are called, imported when first asked
    variants: Mapping[str, Any]  # name -> FamilyConfig
    published: Mapping[str, Published]
    debugs: tuple[str, ...]  # its tiny sizes; the first stands for every variant that no other has the stages of
    in_timm: bool = False  # timm has the published models, under the same names
