"""The keys of recipes whose models answer with named classes, one or several. Imports no torch."""

from dataclasses import dataclass, field
from typing import Any

from hybridvit.data.augment_config import AugmentConfig
from hybridvit.errors import UsageError
from hybridvit.recipe.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class LabelsRecipe(Recipe):
    """The run"""

    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation"""
    reset_head: bool = False
    """Start with a new classifier: pretrained weights of other classes are refused without it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reset_head and self.pretrained is False:
            raise UsageError(
                "Recipe key 'reset_head' is true, but without pretrained weights the classifier is new in any case. "
                "Leave it out, or set 'pretrained'."
            )

    @property
    def images_divide_by(self) -> int:
        """Mixup and CutMix pair the images of a micro-batch."""
        return 2 if self.augment.mixup or self.augment.cutmix else 1

    def trial_settings(self) -> tuple[dict[str, Any], list[str]]:
        settings, changed = super().trial_settings()
        if "pretrained" in settings:
            settings["reset_head"] = False
        return settings, changed
