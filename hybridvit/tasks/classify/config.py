"""The keys that a recipe of classification has besides those of all tasks. Imports no torch."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from hybridvit.data.augment_config import AugmentConfig
from hybridvit.errors import UsageError
from hybridvit.recipe.checks import at_least, positive, within
from hybridvit.recipe.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Learning from a teacher beside the labels (FastViT, supplement, Table 6)"""

    teacher: str = ""
    """A timm model such as regnety_160.deit_in1k, a model of this package, or a file it wrote; empty: no teacher."""
    teacher_weights: str = ""
    """File with the weights of a teacher given by name; empty: its published ones, fetched once."""
    kind: Literal["hard", "soft"] = "hard"
    """hard: cross-entropy with the teacher's answer; soft: divergence from its probabilities."""
    weight: float = 0.5
    """Share of the distillation loss; the rest is the loss with the labels."""
    temperature: float = 1.0
    """Of the soft kind: what both models' logits are divided by."""

    def __post_init__(self) -> None:
        within("distill.weight", self.weight, 0.0, 1.0)
        positive("distill.temperature", self.temperature)
        if self.teacher_weights and not self.teacher:
            raise UsageError("Recipe key 'distill.teacher_weights' is set, but no teacher. Name it: --distill.teacher.")
        if self.teacher and not self.weight:
            raise UsageError(
                f"Recipe key 'distill.weight' is 0, so the teacher {self.teacher} would teach nothing. Set it above 0, "
                "or leave the teacher out."
            )
        if self.teacher and self.kind == "hard" and self.temperature != 1:
            raise UsageError(
                f"Recipe key 'distill.temperature' is {self.temperature}, but hard distillation takes the teacher's "
                "most likely class at any temperature. Set distill.kind to soft, or leave the temperature out."
            )


@dataclass(frozen=True, kw_only=True)
class MesaConfig:
    """Learning from the moving average of the own weights (MESA; FasterViT, appendix B)"""

    weight: float = 0.0
    """What the divergence from the average's probabilities is multiplied with; 0 switches it off."""
    start: float = 0.25
    """Share of the training after which it begins."""
    temperature: float = 3.0
    """What both models' logits are divided by."""

    def __post_init__(self) -> None:
        at_least("mesa.weight", self.weight, 0.0, "0 switches it off")
        within("mesa.start", self.start, 0.0, 1.0)
        positive("mesa.temperature", self.temperature)


@dataclass(frozen=True, kw_only=True)
class ClassifyRecipe(Recipe):
    """The run"""

    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation"""
    distill: DistillConfig = field(default_factory=DistillConfig)
    """Distillation"""
    mesa: MesaConfig = field(default_factory=MesaConfig)
    """MESA"""
    reset_head: bool = False
    """Start with a new classifier: pretrained weights of other classes are refused without it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reset_head and self.pretrained is False:
            raise UsageError(
                "Recipe key 'reset_head' is true, but without pretrained weights the classifier is new in any case. "
                "Leave it out, or set 'pretrained'."
            )
        if self.mesa.weight and not self.ema.decay:
            raise UsageError(
                f"Recipe key 'mesa.weight' is {self.mesa.weight}, but there is no moving average to learn from. Set "
                "ema.decay, for example to 0.9995, or mesa.weight to 0."
            )

    @property
    def images_divide_by(self) -> int:
        """Mixup and CutMix pair the images of a micro-batch."""
        return 2 if self.augment.mixup or self.augment.cutmix else 1

    @property
    def learns_from_average(self) -> bool:
        return bool(self.mesa.weight)

    @property
    def methods(self) -> tuple[str, ...]:
        teacher = ["distillation"] if self.distill.teacher else []
        return (*teacher, *(["MESA"] if self.mesa.weight else []))

    def trial_settings(self) -> tuple[dict[str, Any], list[str]]:
        settings, changed = super().trial_settings()
        if "pretrained" in settings:
            settings["reset_head"] = False
        if self.distill.teacher:
            changed.append(f"changed: the teacher {self.distill.teacher} is an untrained one of debug size")
            settings["distill"] = dataclasses.replace(self.distill, teacher_weights="")
        if self.mesa.weight and self.mesa.start:
            changed.append(f"changed: MESA begins at the first step, not after {self.mesa.start:.0%} of the training")
            settings["mesa"] = dataclasses.replace(self.mesa, start=0.0)
        return settings, changed
